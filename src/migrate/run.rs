//! Applying and reconciling: look, take the lock, look again, do one thing at a time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::Client;
use chrono::Utc;
use serde::Serialize;
use serde_json::Map;

use super::api::{Api, Created, PATIENCE, Written};
use super::compare::{Difference, compare};
use super::error::MigrateError;
use super::file::{Migration, Operation, to_config};
use super::judge::Role;
use super::ledger::{self, Applied, Ledger};
use super::lock::{Contender, Lock, TAKEOVER_AFTER};
use super::set::{MigrationSet, fold};
use super::status::{Status, judge};
use crate::config::NatsConfig;

/// How often the ledger is looked at while another process applies.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often a look is repeated because the ledger changed under it.
const LOOKS_MAX: usize = 20;

/// How often the work is begun anew because the lock was lost. Each time another process had done
/// more, so that a second time is already rare.
const LOSSES_MAX: usize = 10;

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
    takeover_after: Duration,
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
            takeover_after: TAKEOVER_AFTER,
        })
    }

    /// Sets after how long without change the lock of another process counts as left behind.
    #[must_use]
    pub fn takeover_after(mut self, patience: Duration) -> Self {
        self.takeover_after = patience;
        self
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
        let mut applied = Vec::new();
        let mut contender = Contender::new(self.takeover_after);
        let mut losses = 0;
        loop {
            let (ledger, status) = self.look().await?;
            status.check()?;
            if status.pending().next().is_none() {
                return Ok(Report {
                    applied,
                    unknown: status.unknown().map(str::to_owned).collect(),
                    differences: status.differences,
                    edits: status.edits,
                });
            }
            self.ensure_bucket().await?;
            let Some(mut lock) = contender.take(&self.api, ledger.lock).await? else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let result = self.apply_locked(&mut lock, &mut applied).await;
            let result = self.unless_lost(&mut lock, result).await;
            lock.release(&self.api).await;
            match result {
                Ok(()) => {}
                // Whoever has the lock now goes on; what is left then is looked at anew.
                Err(MigrateError::LockLost) if losses < LOSSES_MAX => losses += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// See [`super::reconcile`].
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn reconcile(&self) -> Result<Vec<Difference>, MigrateError> {
        let mut contender = Contender::new(self.takeover_after);
        let mut losses = 0;
        loop {
            let (ledger, status) = self.look().await?;
            status.check()?;
            if status.differences().is_empty() {
                return Ok(Vec::new());
            }
            let Some(mut lock) = contender.take(&self.api, ledger.lock).await? else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let result = self.reconcile_locked(&mut lock).await;
            let result = self.unless_lost(&mut lock, result).await;
            lock.release(&self.api).await;
            match result {
                Err(MigrateError::LockLost) if losses < LOSSES_MAX => losses += 1,
                result => return result,
            }
        }
    }

    /// The ledger, and the objects as they were while it did not change.
    async fn look(&self) -> Result<(Ledger, Status), MigrateError> {
        let mut ledger = ledger::read(&self.api).await?;
        for _ in 0..LOOKS_MAX {
            let status = judge(&self.api, &self.migrations, &ledger).await?;
            if status.check().is_ok() {
                return Ok((ledger, status));
            }
            // Another process may have applied more between the two readings.
            let again = ledger::read(&self.api).await?;
            if again.applied == ledger.applied {
                return Ok((again, status));
            }
            ledger = again;
        }
        Err(MigrateError::Unsettled)
    }

    /// `result`, or that the lock was lost: what an operation met after that is no fault, because
    /// another process has done more meanwhile.
    async fn unless_lost<T>(
        &self,
        lock: &mut Lock,
        result: Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        match result {
            Err(error) if !error.is_transient() => match lock.prove(&self.api).await {
                Err(MigrateError::LockLost) => Err(MigrateError::LockLost),
                _ => Err(error),
            },
            result => result,
        }
    }

    async fn look_locked(&self, lock: &Lock) -> Result<(Ledger, Status), MigrateError> {
        let (ledger, status) = self.look().await?;
        if !lock.is(ledger.lock) {
            return Err(MigrateError::LockLost);
        }
        status.check()?;
        Ok((ledger, status))
    }

    async fn apply_locked(
        &self,
        lock: &mut Lock,
        applied: &mut Vec<String>,
    ) -> Result<(), MigrateError> {
        let (ledger, status) = self.look_locked(lock).await?;
        let pending: BTreeSet<&str> = status.pending().collect();
        // What is made next may need the room that streams give back which are there.
        self.lower(lock, &status).await?;
        for migration in &self.migrations {
            if !pending.contains(migration.name.as_str()) {
                continue;
            }
            for operation in &migration.operations {
                self.insist(lock, async |lock| {
                    self.perform(migration, operation, lock).await
                })
                .await?;
            }
            lock.prove(&self.api).await?;
            let entry = Applied::now(migration, Utc::now());
            match ledger::add(&self.api, &ledger, &entry).await? {
                Written::Conflict => return Err(MigrateError::LockLost),
                Written::At(_) => {
                    tracing::info!(migration = migration.name, "migration applied");
                    applied.push(migration.name.clone());
                }
            }
        }
        Ok(())
    }

    async fn ensure_bucket(&self) -> Result<(), MigrateError> {
        let start = Instant::now();
        loop {
            match ledger::ensure(&self.api).await {
                Err(error) if error.is_transient() && start.elapsed() < self.api.patience => {
                    tracing::warn!(%error, "making the migration ledger repeated");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                result => return result,
            }
        }
    }

    /// Does `step` with the lock proven, once more where its fault is a passing one. Steps come to the
    /// same when done twice, but not after another process went on: hence the proof each time.
    async fn insist<T>(
        &self,
        lock: &mut Lock,
        step: impl AsyncFn(&Lock) -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        let start = Instant::now();
        loop {
            lock.prove(&self.api).await?;
            match step(lock).await {
                Err(MigrateError::LockLost) => return Err(MigrateError::LockLost),
                Err(error) if error.is_transient() && start.elapsed() < self.api.patience => {
                    tracing::warn!(%error, "migration step repeated");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                result => return result,
            }
        }
    }

    async fn perform(
        &self,
        migration: &Migration,
        operation: &Operation,
        lock: &Lock,
    ) -> Result<(), MigrateError> {
        let stream = &operation.stream;
        if !operation.creates {
            let missing = || MigrateError::Missing {
                stream: stream.clone(),
                migration: migration.name.clone(),
            };
            return self
                .update(stream, &operation.config(), lock)
                .await?
                .ok_or_else(missing);
        }
        let config = to_config(&operation.fields);
        if self.api.create_stream(stream, &config).await? == Created::Done {
            return Ok(());
        }
        // It is there: made with other values of the settings by a process that was cut short, or
        // somebody else's.
        let found = self.api.stream_config(stream).await?.unwrap_or_default();
        let role = Role::of(stream, self.api.config);
        match compare(stream, role, &operation.fields, &found).drift {
            none if none.is_empty() => Ok(()),
            mismatches => Err(MigrateError::OtherSettings(mismatches)),
        }
    }

    /// Sets `fields` of `stream` and leaves its others as they are. Nothing: there is no such stream.
    async fn update(
        &self,
        stream: &str,
        fields: &Map<String, serde_json::Value>,
        lock: &Lock,
    ) -> Result<Option<()>, MigrateError> {
        let Some(mut config) = self.api.stream_config(stream).await? else {
            return Ok(None);
        };
        if fields.is_empty() {
            return Ok(Some(()));
        }
        config.extend(fields.clone());
        lock.still_good()?;
        self.api.update_stream(stream, &config).await.map(Some)
    }

    /// Takes from each stream the room that the settings no longer give it.
    async fn lower(&self, lock: &mut Lock, status: &Status) -> Result<(), MigrateError> {
        let pending: BTreeSet<&str> = status.pending().collect();
        let is_pending = |migration: &&Migration| pending.contains(migration.name.as_str());
        let to_come = fold(self.migrations.iter().filter(is_pending));
        let lowered = status.differences().iter().filter(|one| one.is_lowered());
        for difference in lowered {
            let stream = difference.stream.as_str();
            let mut fields =
                Map::from_iter([(difference.field.clone(), difference.wanted.clone())]);
            // A stream of before limits drops what is beyond its limit; with the migration that brings them it
            // refuses instead.
            if let Some(discard) = to_come
                .get(stream)
                .and_then(|wish| wish.fields.get("discard"))
            {
                fields.insert("discard".to_owned(), discard.value.clone());
            }
            self.insist(lock, async |lock| self.update(stream, &fields, lock).await)
                .await?;
            tracing::info!(
                stream,
                field = difference.field,
                "stream lowered to the settings"
            );
        }
        Ok(())
    }

    async fn reconcile_locked(&self, lock: &mut Lock) -> Result<Vec<Difference>, MigrateError> {
        let (_, status) = self.look_locked(lock).await?;
        // In an account that is small, one stream's room is another's.
        self.lower(lock, &status).await?;
        let streams: BTreeSet<&str> = status
            .differences()
            .iter()
            .map(|difference| difference.stream.as_str())
            .collect();
        for stream in streams {
            let fields = status
                .differences()
                .iter()
                .filter(|difference| difference.stream == stream)
                .map(|difference| (difference.field.clone(), difference.wanted.clone()))
                .collect();
            // A stream that goes away meanwhile has nothing left to reconcile.
            self.insist(lock, async |lock| self.update(stream, &fields, lock).await)
                .await?;
            tracing::info!(stream, "stream reconciled with the settings");
        }
        Ok(status.differences)
    }
}
