//! What one look at the ledger and the objects finds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::api::Api;
use super::compare::{Compared, compare, same};
use super::difference::Difference;
use super::error::MigrateError;
use super::file::Migration;
use super::judge::Role;
use super::ledger::{self, Applied, Ledger};
use super::set::fold;

/// How a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In the ledger, with this file's checksum.
    Applied,
    /// Not in the ledger.
    Pending,
    /// In the ledger, with another checksum.
    Changed,
    /// In the ledger, but not a file of this binary.
    Unknown,
}

impl State {
    /// The state as one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
        }
    }
}

/// One migration, known or in the ledger or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub name: String,
    pub state: State,
    pub breaks_older_gateways: bool,
    /// The file's checksum; the ledger's where there is no file.
    pub checksum: String,
    /// The ledger's entry.
    pub applied: Option<Applied>,
}

/// A stream that should be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct MissingStream {
    stream: String,
    /// The migration that made it.
    migration: String,
}

/// How the migrations stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Every migration, in order.
    pub migrations: Vec<Entry>,
    /// Streams that the ledger says were made but that are not there.
    missing: Vec<MissingStream>,
    /// Values that somebody changed by hand, with which Herald cannot keep its promises.
    pub(super) drift: Vec<Difference>,
    /// Values of streams that no migration made, but that a pending one would make otherwise.
    other_settings: Vec<Difference>,
    /// Values that somebody changed by hand and that Herald can work with: see [`Difference::advice`].
    pub edits: Vec<Difference>,
    /// Values that are not what the settings say. `herald migrate` reconciles them.
    pub differences: Vec<Difference>,
    /// The ledger's bucket is among `drift`: what it says cannot be relied on.
    #[serde(skip)]
    ledger_drifts: bool,
}

impl Status {
    /// Whether everything is applied and as it should be. Differences from the settings do not count.
    pub fn is_applied(&self) -> bool {
        self.pending().next().is_none() && self.check().is_ok()
    }

    /// The migrations to be applied, in order.
    pub fn pending(&self) -> impl Iterator<Item = &str> {
        self.named(State::Pending)
    }

    /// The migrations in the ledger that this binary does not know.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.named(State::Unknown)
    }

    fn named(&self, state: State) -> impl Iterator<Item = &str> {
        let entries = self.migrations.iter();
        entries
            .filter(move |entry| entry.state == state)
            .map(|entry| entry.name.as_str())
    }

    /// The first fault that forbids to apply or to serve, whatever is pending.
    ///
    /// # Errors
    /// [`MigrateError::Changed`], [`MigrateError::Ahead`], [`MigrateError::OutOfOrder`],
    /// [`MigrateError::Missing`], [`MigrateError::Drift`], [`MigrateError::OtherSettings`].
    pub fn check(&self) -> Result<(), MigrateError> {
        // First, since a bucket that forgets makes the entries look wrong.
        if self.ledger_drifts {
            return Err(MigrateError::Drift(self.drift.clone()));
        }
        self.check_ledger()?;
        if let Some(MissingStream { stream, migration }) = self.missing.first().cloned() {
            return Err(MigrateError::Missing { stream, migration });
        }
        if !self.drift.is_empty() {
            return Err(MigrateError::Drift(self.drift.clone()));
        }
        if !self.other_settings.is_empty() {
            return Err(MigrateError::OtherSettings(self.other_settings.clone()));
        }
        Ok(())
    }

    fn check_ledger(&self) -> Result<(), MigrateError> {
        for entry in &self.migrations {
            if let (State::Changed, Some(applied)) = (entry.state, &entry.applied) {
                return Err(MigrateError::Changed {
                    name: entry.name.clone(),
                    applied: shortened(&applied.checksum),
                    ours: shortened(&entry.checksum),
                });
            }
        }
        let breaking: Vec<String> = self
            .migrations
            .iter()
            .filter(|entry| entry.state == State::Unknown && entry.breaks_older_gateways)
            .map(|entry| entry.name.clone())
            .collect();
        if !breaking.is_empty() {
            return Err(MigrateError::Ahead { breaking });
        }
        let last = self
            .migrations
            .iter()
            .rfind(|entry| entry.applied.is_some());
        match (self.pending().next(), last) {
            (Some(pending), Some(last)) if pending < last.name.as_str() => {
                Err(MigrateError::OutOfOrder {
                    pending: pending.to_owned(),
                    applied: last.name.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Enough of a checksum to tell two apart.
fn shortened(checksum: &str) -> String {
    checksum.chars().take(12).collect()
}

/// Every migration of the binary and of the ledger, by name.
fn entries(migrations: &[Migration], ledger: &Ledger) -> Vec<Entry> {
    let known = migrations.iter().map(|migration| {
        let applied = ledger.applied.get(&migration.name).cloned();
        Entry {
            name: migration.name.clone(),
            state: match &applied {
                None => State::Pending,
                Some(applied) if applied.checksum == migration.checksum => State::Applied,
                Some(_) => State::Changed,
            },
            breaks_older_gateways: migration.breaks_older_gateways,
            checksum: migration.checksum.clone(),
            applied,
        }
    });
    let mut entries: BTreeMap<String, Entry> =
        known.map(|entry| (entry.name.clone(), entry)).collect();
    for (name, applied) in &ledger.applied {
        entries.entry(name.clone()).or_insert_with(|| Entry {
            name: name.clone(),
            state: State::Unknown,
            breaks_older_gateways: applied.breaks_older_gateways,
            checksum: applied.checksum.clone(),
            applied: Some(applied.clone()),
        });
    }
    entries.into_values().collect()
}

/// Sets the objects against what the applied ones of `migrations` want.
pub(super) async fn look_at(
    api: &Api<'_>,
    migrations: &[Migration],
    ledger: &Ledger,
) -> Result<Status, MigrateError> {
    let mut status = Status {
        migrations: entries(migrations, ledger),
        ..Status::default()
    };
    let (applied, pending): (Vec<_>, Vec<_>) = migrations
        .iter()
        .partition(|migration| ledger.applied.contains_key(&migration.name));
    let operations = || applied.iter().flat_map(|migration| &migration.operations);
    let mut wishes = fold(operations());
    for (stream, wish) in &mut wishes {
        wish.retain(|field, _| !set_by_unknown(&status, stream, field));
    }
    for (stream, wish) in &wishes {
        let Some(found) = api.stream_config(stream).await? else {
            let by = |one: &&&Migration| one.operations.iter().any(|one| one.stream == *stream);
            status.missing.push(MissingStream {
                stream: (*stream).to_owned(),
                migration: applied
                    .iter()
                    .find(by)
                    .map(|one| one.name.clone())
                    .unwrap_or_default(),
            });
            continue;
        };
        let mut compared = compare(stream, Role::of(stream, api.config), wish, &found);
        // A process that was cut short, or works now, has done a part of the next migration.
        let is_unexplained = |difference: &Difference| {
            !pending
                .first()
                .is_some_and(|next| explains(next, difference))
        };
        compared.drift.retain(is_unexplained);
        compared.edits.retain(is_unexplained);
        status.add(compared);
    }
    // Streams that a pending migration would make but that are there and are others.
    let creates = pending
        .iter()
        .flat_map(|migration| &migration.operations)
        .filter(|operation| operation.creates && !wishes.contains_key(operation.stream.as_str()));
    for operation in creates {
        let stream = &operation.stream;
        if let Some(found) = api.stream_config(stream).await? {
            let role = Role::of(stream, api.config);
            let compared = compare(stream, role, &operation.fields, &found);
            status.other_settings.extend(compared.drift);
        }
    }
    look_at_bucket(api, &mut status).await?;
    Ok(status)
}

impl Status {
    fn add(&mut self, compared: Compared) {
        self.drift.extend(compared.drift);
        self.edits.extend(compared.edits);
        self.differences.extend(compared.differences);
    }
}

/// Also where the ledger is empty: it may be so because its bucket keeps nothing.
async fn look_at_bucket(api: &Api<'_>, status: &mut Status) -> Result<(), MigrateError> {
    let names = api.config.names();
    let stream = names.ledger();
    if let Some(found) = api.stream_config(stream).await? {
        let mut wanted = ledger::bucket(api.config);
        // Buckets of before have no limit; it matters only where an account asks for one.
        wanted.remove("max_bytes");
        let compared = compare(stream, Role::Ledger, &wanted, &found);
        let drifts = compared.drift.len();
        status.ledger_drifts = drifts > 0;
        status.add(compared);
        // First, as it is the one to be put right first.
        status.drift.rotate_right(drifts);
    }
    Ok(())
}

/// Whether a migration that this binary does not know has set the field.
fn set_by_unknown(status: &Status, stream: &str, field: &str) -> bool {
    status
        .migrations
        .iter()
        .filter(|entry| entry.state == State::Unknown)
        .filter_map(|entry| entry.applied.as_ref()?.changes.get(stream))
        .any(|fields| fields.iter().any(|name| name == field))
}

/// Whether `migration` sets the field to what was found.
fn explains(migration: &Migration, difference: &Difference) -> bool {
    migration
        .operations
        .iter()
        .filter(|operation| operation.stream == difference.stream)
        .filter_map(|operation| operation.fields.get(&difference.field))
        .any(|wanted| same(&wanted.value, &difference.found))
}
