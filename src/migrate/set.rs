//! The migrations that a binary knows, and what they want together.

use std::collections::BTreeMap;

use super::error::MigrateError;
use super::file::{Fields, Migration, Operation, Wanted};
use crate::config::NatsConfig;

/// Names with the text of the file, each.
macro_rules! files {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../migrations/", $name, ".toml")))),*]
    };
}

/// The files of `migrations/`, in their order.
const FILES: &[(&str, &str)] = files!["0001_events", "0002_sessions", "0003_dead", "0004_limits"];

/// Migration files by name, ordered by it.
#[derive(Debug, Clone, Default)]
pub struct MigrationSet(BTreeMap<String, String>);

impl MigrationSet {
    /// The files that this binary was built with.
    pub fn embedded() -> Self {
        FILES
            .iter()
            .fold(Self::default(), |set, (name, text)| set.with(name, text))
    }

    /// This set with the file `name` (without `.toml`) added or replaced.
    #[must_use]
    pub fn with(mut self, name: &str, text: &str) -> Self {
        self.0.insert(name.to_owned(), text.to_owned());
        self
    }

    /// The text of the file `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The migrations with the settings' values in them.
    ///
    /// # Errors
    /// [`MigrateError::File`].
    pub(super) fn resolve(&self, config: &NatsConfig) -> Result<Vec<Migration>, MigrateError> {
        let read = self
            .0
            .iter()
            .map(|(name, text)| Migration::read(name, text, config));
        let mut migrations = read.collect::<Result<Vec<_>, _>>()?;
        make_with_limits(&mut migrations);
        Ok(migrations)
    }
}

/// Has a stream made with the limit in bytes that a setting gives it in a later file: an account may ask for
/// one, and then a stream cannot even be made without.
fn make_with_limits(migrations: &mut [Migration]) {
    const FIELD: &str = "max_bytes";
    let limits: BTreeMap<String, Wanted> = migrations
        .iter()
        .flat_map(|migration| &migration.operations)
        .filter_map(|operation| {
            let limit = operation.fields.get(FIELD)?;
            limit
                .from_setting
                .then(|| (operation.stream.clone(), limit.clone()))
        })
        .collect();
    let operations = migrations
        .iter_mut()
        .flat_map(|migration| &mut migration.operations);
    for operation in operations.filter(|operation| operation.creates) {
        if let Some(limit) = limits.get(&operation.stream) {
            operation.fields.insert(FIELD.to_owned(), limit.clone());
        }
    }
}

/// What `operations` together want of each stream: later ones win field by field.
pub(super) fn fold<'a>(
    operations: impl Iterator<Item = &'a Operation>,
) -> BTreeMap<&'a str, Fields> {
    let mut wishes: BTreeMap<&str, Fields> = BTreeMap::new();
    for operation in operations {
        let wish = wishes.entry(&operation.stream).or_default();
        wish.extend(operation.fields.clone());
    }
    wishes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_file_in_the_folder_is_forgotten() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let known: Vec<String> = FILES
            .iter()
            .map(|(name, _)| format!("{name}.toml"))
            .collect();
        assert_eq!(found, known);
    }

    #[test]
    fn every_embedded_file_reads_whatever_the_settings() {
        for max_age in [Duration::from_millis(100), Duration::MAX] {
            let config = NatsConfig {
                max_age,
                ..NatsConfig::default()
            };
            let migrations = MigrationSet::embedded().resolve(&config).unwrap();
            let wishes = fold(migrations.iter().flat_map(|one| &one.operations));
            let streams: Vec<&str> = wishes.keys().copied().collect();
            assert_eq!(streams, ["DEAD", "EVENTS", "SESSIONS"]);
            // The server takes no window that is longer than the age.
            let events = &wishes["EVENTS"];
            let nanoseconds = |field: &str| events[field].value.as_i64().unwrap();
            assert!(nanoseconds("duplicate_window") <= nanoseconds("max_age"));
        }
    }

    #[test]
    fn a_stream_is_made_with_the_limit_that_a_setting_gives_it_later() {
        let config = NatsConfig {
            max_bytes: Some(1000),
            sessions_max_bytes: Some(0),
            ..NatsConfig::default()
        };
        let migrations = MigrationSet::embedded().resolve(&config).unwrap();
        let made: Vec<(&str, i64)> = migrations
            .iter()
            .flat_map(|migration| &migration.operations)
            .filter(|operation| operation.creates)
            .map(|operation| {
                let bytes = operation.fields["max_bytes"].value.as_i64().unwrap();
                (operation.stream.as_str(), bytes)
            })
            .collect();
        assert_eq!(
            made,
            [("EVENTS", 1000), ("SESSIONS", -1), ("DEAD", 268_435_456)]
        );
    }

    #[test]
    fn a_later_migration_wins_field_by_field() {
        let set = MigrationSet::default()
            .with("0001_a", "description = \"\"\nbreaks_older_gateways = false\n[[create]]\nname = \"A\"\nmax_msgs = 1\nmax_bytes = 1\n")
            .with("0002_b", "description = \"\"\nbreaks_older_gateways = false\n[[update]]\nstream = \"A\"\nset = { max_msgs = 2 }\n");
        let migrations = set.resolve(&NatsConfig::default()).unwrap();
        let wishes = fold(migrations.iter().flat_map(|one| &one.operations));
        let wish = &wishes["A"];
        assert_eq!(wish["max_msgs"].value, 2);
        assert_eq!(wish["max_bytes"].value, 1);
    }
}
