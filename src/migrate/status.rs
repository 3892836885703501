//! What one look at the ledger and the objects finds. Pure but for [`judge`], which reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::api::Api;
use super::compare::{Compared, Difference, compare, same};
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
pub struct MissingStream {
    pub stream: String,
    /// The migration that made it.
    pub migration: String,
}

/// How the migrations stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub(super) migrations: Vec<Entry>,
    pub(super) missing: Vec<MissingStream>,
    pub(super) drift: Vec<Difference>,
    pub(super) other_settings: Vec<Difference>,
    pub(super) edits: Vec<Difference>,
    pub(super) differences: Vec<Difference>,
    /// The ledger's bucket is among `drift`: what it says cannot be relied on.
    #[serde(skip)]
    pub(super) ledger_drifts: bool,
}

impl Status {
    /// Every migration, in order.
    pub fn migrations(&self) -> &[Entry] {
        &self.migrations
    }

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

    /// Values that are not what the settings say. `herald migrate` reconciles them.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Values that somebody changed by hand and that Herald can work with: see [`Difference::advice`].
    pub fn edits(&self) -> &[Difference] {
        &self.edits
    }

    /// Values that somebody changed by hand, with which Herald cannot keep its promises.
    pub fn drift(&self) -> &[Difference] {
        &self.drift
    }

    /// Streams that the ledger says were made but that are not there.
    pub fn missing(&self) -> &[MissingStream] {
        &self.missing
    }

    fn named(&self, state: State) -> impl Iterator<Item = &str> {
        self.migrations
            .iter()
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
pub(super) async fn judge(
    api: &Api<'_>,
    migrations: &[Migration],
    ledger: &Ledger,
) -> Result<Status, MigrateError> {
    let mut status = Status {
        migrations: entries(migrations, ledger),
        ..Status::default()
    };
    let is_applied = |migration: &&Migration| ledger.applied.contains_key(&migration.name);
    let mut wishes = fold(migrations.iter().filter(is_applied));
    for (stream, wish) in &mut wishes {
        wish.fields
            .retain(|field, _| !set_by_unknown(&status, stream, field));
    }
    // A process that was cut short, or works now, has done a part of the next migration.
    let next = migrations.iter().find(|migration| !is_applied(migration));
    for (stream, wish) in &wishes {
        let Some(found) = api.stream_config(stream).await? else {
            status.missing.push(MissingStream {
                stream: (*stream).to_owned(),
                migration: wish.migration.to_owned(),
            });
            continue;
        };
        let role = Role::of(stream, api.config);
        let Compared {
            mut drift,
            mut edits,
            differences,
        } = compare(stream, role, &wish.fields, &found);
        for list in [&mut drift, &mut edits] {
            list.retain(|difference| !next.is_some_and(|next| explains(next, difference)));
        }
        status.drift.extend(drift);
        status.edits.extend(edits);
        status.differences.extend(differences);
    }
    judge_bucket(api, &mut status).await?;
    let made: BTreeSet<&str> = wishes.keys().copied().collect();
    judge_pending(api, migrations, &made, &mut status).await?;
    Ok(status)
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

/// Also where the ledger is empty: it may be so because its bucket keeps nothing.
async fn judge_bucket(api: &Api<'_>, status: &mut Status) -> Result<(), MigrateError> {
    let names = api.config.names();
    let stream = names.ledger();
    if let Some(found) = api.stream_config(stream).await? {
        let mut wanted = ledger::bucket(api.config);
        // Buckets of before have no limit; it matters only where an account asks for one.
        wanted.remove("max_bytes");
        let compared = compare(stream, Role::Ledger, &wanted, &found);
        status.ledger_drifts = !compared.drift.is_empty();
        status.drift.splice(0..0, compared.drift);
        status.edits.extend(compared.edits);
        status.differences.extend(compared.differences);
    }
    Ok(())
}

/// Streams that a pending migration would make but that are there and are others.
async fn judge_pending(
    api: &Api<'_>,
    migrations: &[Migration],
    made: &BTreeSet<&str>,
    status: &mut Status,
) -> Result<(), MigrateError> {
    let pending: BTreeSet<String> = status.pending().map(str::to_owned).collect();
    let creates = migrations
        .iter()
        .filter(|migration| pending.contains(&migration.name))
        .flat_map(|migration| &migration.operations)
        .filter(|operation| operation.creates && !made.contains(operation.stream.as_str()));
    for operation in creates {
        if let Some(found) = api.stream_config(&operation.stream).await? {
            let role = Role::of(&operation.stream, api.config);
            let compared = compare(&operation.stream, role, &operation.fields, &found);
            status.other_settings.extend(compared.drift);
        }
    }
    Ok(())
}
