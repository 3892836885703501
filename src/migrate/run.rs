//! Applying and reconciling: look, do what is pending, say so in the ledger, look again.
//!
//! Nobody waits for anybody. Each step comes to the same when several processes do it, and of those that
//! say that a migration is applied the ledger takes one; the others look again and go on from there.

use std::time::{Duration, Instant};

use async_nats::Client;
use chrono::Utc;
use serde::Serialize;
use serde_json::Map;

use super::api::{Api, PATIENCE};
use super::compare::compare;
use super::difference::Difference;
use super::error::MigrateError;
use super::file::{Fields, Migration, Operation, to_config};
use super::judge::Role;
use super::ledger::{self, Applied, Ledger};
use super::set::{MigrationSet, fold};
use super::status::{Status, look_at};
use crate::config::NatsConfig;

/// The pause before who was overtaken looks again, so that the other can go ahead.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a run puts right what a race undid. Later an operator may have meant it.
const RACES_FOR: Duration = Duration::from_secs(30);

/// What [`Migrator::apply`] did and found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The migrations that this call applied, in order. Those that others applied meanwhile are not
    /// among them.
    pub applied: Vec<String>,
    /// Migrations in the ledger that this binary does not know; none breaks it.
    pub unknown: Vec<String>,
    /// Values that are not what the settings say, left as they are.
    pub differences: Vec<Difference>,
    /// Values that somebody changed by hand, left as they are.
    pub edits: Vec<Difference>,
}

/// A set of migrations, the settings' values in it, and the connection to apply it on.
#[derive(Debug)]
pub struct Migrator<'a> {
    api: Api<'a>,
    migrations: Vec<Migration>,
}

impl<'a> Migrator<'a> {
    /// Reads the files of `set`. `config` must be the one that `client` was connected with.
    ///
    /// # Errors
    /// [`MigrateError::File`].
    pub fn new(
        client: &'a Client,
        config: &'a NatsConfig,
        set: &MigrationSet,
    ) -> Result<Self, MigrateError> {
        Ok(Self {
            api: Api {
                client,
                config,
                patience: PATIENCE,
            },
            migrations: set.resolve(config)?,
        })
    }

    /// Sets how long a request is repeated that gets no answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.api.patience = patience;
        self
    }

    /// The migrations of the set, in order.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// See [`super::status`].
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn status(&self) -> Result<Status, MigrateError> {
        self.look().await.map(|(_, status)| status)
    }

    /// See [`super::apply`].
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn apply(&self) -> Result<Report, MigrateError> {
        let began = Instant::now();
        let mut applied = Vec::new();
        let mut known: Option<Ledger> = None;
        loop {
            let (ledger, status) = self.look().await?;
            if let Some(known) = &known
                && began.elapsed() < RACES_FOR
                && self.settle(known, &ledger, &status).await?
            {
                continue;
            }
            status.check()?;
            let mut migrations = self.migrations.iter();
            let Some(next) = migrations.find(|one| !ledger.applied.contains_key(&one.name)) else {
                return Ok(Report {
                    applied,
                    unknown: status.unknown().map(str::to_owned).collect(),
                    differences: status.differences,
                    edits: status.edits,
                });
            };
            match self.migrate(next, &ledger, &status).await {
                Ok(true) => {
                    tracing::info!(migration = next.name, "migration applied");
                    applied.push(next.name.clone());
                }
                Ok(false) => tokio::time::sleep(PAUSE).await,
                // What is met where another process has gone on is no fault.
                Err(error) if !error.is_transient() && self.is_behind(&ledger).await => {
                    tracing::debug!(%error, "another process has gone on with the migrations");
                }
                Err(error) => return Err(error),
            }
            known.get_or_insert(ledger);
        }
    }

    /// See [`super::reconcile`].
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn reconcile(&self) -> Result<Vec<Difference>, MigrateError> {
        let (_, status) = self.look().await?;
        status.check()?;
        // In an account that is small, one stream's room is another's.
        self.lower(&status).await?;
        for of_stream in status.differences.chunk_by(|a, b| a.stream == b.stream) {
            let fields = of_stream
                .iter()
                .map(|difference| (difference.field.clone(), difference.wanted.clone()));
            let stream = of_stream.first().map_or("", |one| &one.stream);
            // A stream that goes away meanwhile has nothing left to reconcile.
            self.api.update_stream(stream, &fields.collect()).await?;
            tracing::info!(stream, "stream reconciled with the settings");
        }
        Ok(status.differences)
    }

    /// The ledger, and the objects as they were while it did not change.
    async fn look(&self) -> Result<(Ledger, Status), MigrateError> {
        let start = Instant::now();
        let mut ledger = Ledger::read(&self.api).await?;
        loop {
            let status = look_at(&self.api, &self.migrations, &ledger).await?;
            if status.check().is_ok() {
                return Ok((ledger, status));
            }
            // Another process may have applied more between the two readings.
            let again = Ledger::read(&self.api).await?;
            if again.applied == ledger.applied || start.elapsed() > self.api.patience {
                return Ok((again, status));
            }
            ledger = again;
        }
    }

    /// Whether the ledger has changed since it was `known`.
    async fn is_behind(&self, known: &Ledger) -> bool {
        let ledger = Ledger::read(&self.api).await;
        ledger.is_ok_and(|ledger| ledger.applied != known.applied)
    }

    /// Does what `migration` says, and then says so in the ledger. Where this ends half-way, the next run does
    /// it again. Returns whether the entry is this call's; otherwise another process was faster.
    async fn migrate(
        &self,
        migration: &Migration,
        ledger: &Ledger,
        status: &Status,
    ) -> Result<bool, MigrateError> {
        if ledger.applied.is_empty() {
            let names = self.api.config.names();
            self.make(names.ledger(), &ledger::bucket(self.api.config))
                .await?;
        }
        // What is made next may need the room that streams give back which are there.
        self.lower(status).await?;
        for operation in &migration.operations {
            self.perform(migration, operation).await?;
        }
        let entry = Applied::now(migration, Utc::now());
        ledger.create(&self.api, &entry).await
    }

    async fn perform(
        &self,
        migration: &Migration,
        operation: &Operation,
    ) -> Result<(), MigrateError> {
        let stream = &operation.stream;
        if operation.creates {
            return self.make(stream, &operation.fields).await;
        }
        match self.api.update_stream(stream, &operation.config()).await? {
            true => Ok(()),
            false => Err(MigrateError::Missing {
                stream: stream.clone(),
                migration: migration.name.clone(),
            }),
        }
    }

    /// Makes `stream`, or sees that the one that is there will do. It was made with other values of the settings,
    /// has a later migration's, or is somebody else's.
    async fn make(&self, stream: &str, fields: &Fields) -> Result<(), MigrateError> {
        let Some(found) = self.api.create_stream(stream, &to_config(fields)).await? else {
            return Ok(());
        };
        let role = Role::of(stream, self.api.config);
        match compare(stream, role, fields, &found).drift {
            none if none.is_empty() => Ok(()),
            mismatches => Err(MigrateError::OtherSettings(mismatches)),
        }
    }

    /// Puts right what a race undid, and returns whether there was something. An update sends the whole configuration
    /// as it was read; by then a faster process may have changed it. So no field that a migration changed since the
    /// ledger was `known`, a moment ago, is anybody's edit.
    async fn settle(
        &self,
        known: &Ledger,
        ledger: &Ledger,
        status: &Status,
    ) -> Result<bool, MigrateError> {
        let is_new = |migration: &&Migration| {
            let name = &migration.name;
            ledger.applied.contains_key(name) && !known.applied.contains_key(name)
        };
        let operations = self.migrations.iter().filter(is_new);
        let operations = operations.flat_map(|migration| &migration.operations);
        let changes = fold(operations.filter(|operation| !operation.creates));
        let is_change = |found: &&Difference| {
            let change = changes.get(found.stream.as_str());
            change.is_some_and(|fields| fields.contains_key(&found.field))
        };
        let found = status.drift.iter().chain(&status.edits);
        let undone: Vec<&Difference> = found.filter(is_change).collect();
        // Another process may be further, and this what it did.
        if undone.is_empty() || self.is_behind(ledger).await {
            return Ok(!undone.is_empty());
        }
        for found in undone {
            tracing::info!(%found, "a change of a migration was undone in a race, and is made again");
            let fields = Map::from_iter([(found.field.clone(), found.wanted.clone())]);
            self.api.update_stream(&found.stream, &fields).await?;
        }
        Ok(true)
    }

    /// Takes from each stream the room that the settings no longer give it.
    async fn lower(&self, status: &Status) -> Result<(), MigrateError> {
        let pending: Vec<&str> = status.pending().collect();
        let is_pending = |migration: &&Migration| pending.contains(&migration.name.as_str());
        let migrations = self.migrations.iter().filter(is_pending);
        let to_come = fold(migrations.flat_map(|migration| &migration.operations));
        let differences = status.differences.iter();
        for difference in differences.filter(|difference| difference.is_lowered()) {
            let (stream, field) = (difference.stream.as_str(), &difference.field);
            let mut fields = Map::from_iter([(field.clone(), difference.wanted.clone())]);
            // A stream of before limits drops what is beyond its limit; with the migration that brings them it
            // refuses instead.
            if let Some(discard) = to_come.get(stream).and_then(|wish| wish.get("discard")) {
                fields.insert("discard".to_owned(), discard.value.clone());
            }
            self.api.update_stream(stream, &fields).await?;
            tracing::info!(stream, field, "stream lowered to the settings");
        }
        Ok(())
    }
}
