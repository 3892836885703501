//! Applying and reconciling: look, do what is pending, say so in the ledger, look again.
//!
//! No process waits for another. Each phase has the same result when several processes do it. If several enter a
//! migration in the ledger, it takes one entry, and the others read again and go on from there.
//!
//! Requests are written by hand because the files use StreamConfig's own field names: whatever the
//! server knows can be declared, and what a stream has beyond that survives an update unharmed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::{Client, HeaderMap, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::report::{Difference, Status};
use super::{Applied, MigrateError, Migration, MigrationSet, OperationKind, Role, bucket, fold};
use crate::config::NatsConfig;
use crate::event::StoredMessage;
use crate::nats::api::{self, ApiFailure, MessageAnswer};
use crate::nats::permissions::{self, Probe};

/// How long a request that fails is repeated. The election of a stream's leader takes a few seconds, and nobody
/// answers what was sent meanwhile.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How many answers are waited for in that time: 5 s each.
const ATTEMPTS: u32 = 4;

/// The pause before a step is repeated that the server put off.
const PAUSE: Duration = Duration::from_millis(250);

/// After this long without an answer it is found out whether the server denies the request.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// How long a run puts right what a race undid. Later an operator may have meant it.
const RACES_FOR: Duration = Duration::from_secs(30);

/// A key that is no entry: gateways of before took a lock there, and may do so beside this one.
const LOCK: &str = "lock";

/// What [`Migrator::apply`] did and found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ApplyReport {
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

/// What the ledger's bucket holds.
#[derive(Debug, Clone, Default)]
struct Ledger {
    /// By the migration's name.
    applied: BTreeMap<String, Applied>,
    /// Revisions of the entries that somebody deleted, which is how a migration is applied again.
    deleted: BTreeMap<String, u64>,
}

impl Ledger {
    /// Takes in what the bucket has under `key`. One that keeps a history has what was there before as well.
    fn take(&mut self, key: &str, message: &StoredMessage) -> Result<(), serde_json::Error> {
        let headers = message.headers.as_ref();
        let header = |name: &str| headers?.get(name).map(|value| value.as_str());
        // KV clients mark so what was deleted or purged.
        if let Some("DEL" | "PURGE") = header("KV-Operation") {
            self.applied.remove(key);
            self.deleted.insert(key.to_owned(), message.sequence);
            return Ok(());
        }
        let mut entry: Applied = serde_json::from_slice(&message.payload)?;
        entry.id = header(header::NATS_MESSAGE_ID.as_ref())
            .unwrap_or_default()
            .to_owned();
        self.applied.insert(key.to_owned(), entry);
        self.deleted.remove(key);
        Ok(())
    }
}

/// A set of migrations, the settings' values in it, and the connection to apply it on.
#[derive(Debug)]
pub struct Migrator<'a> {
    client: &'a Client,
    config: &'a NatsConfig,
    migrations: Vec<Migration>,
    timeout: Duration,
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
            client,
            config,
            migrations: set.resolve(config)?,
            timeout: TIMEOUT,
        })
    }

    /// Sets how long a step is repeated that gets no answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
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
    pub async fn apply(&self) -> Result<ApplyReport, MigrateError> {
        let began = Instant::now();
        let (mut ledger, mut status) = self.look().await?;
        let before = ledger.applied.clone();
        let mut applied = Vec::new();
        loop {
            let undone = self.undone(&before, &ledger, &status);
            if !undone.is_empty() && began.elapsed() < RACES_FOR {
                tracing::info!("changes of migrations were undone in a race, and are made again");
                self.repeat(async || self.bring(&undone).await).await?;
                (ledger, status) = self.look().await?;
                continue;
            }
            status.check()?;
            let mut migrations = self.migrations.iter();
            let Some(next) = migrations.find(|one| !ledger.applied.contains_key(&one.name)) else {
                return Ok(ApplyReport {
                    applied,
                    unknown: status.unknown().map(str::to_owned).collect(),
                    differences: status.differences,
                    edits: status.edits,
                });
            };
            let entry = Applied::now(next);
            let migrate = async || self.migrate(next, &entry, &ledger, &status).await;
            self.repeat(migrate).await?;
            (ledger, status) = self.look().await?;
            // Otherwise another process was faster.
            if ledger.applied.get(&entry.name) == Some(&entry) {
                tracing::info!(migration = entry.name, "migration applied");
                applied.push(entry.name);
            }
        }
    }

    /// Brings the values that come from settings (replicas, ages) to what the settings say, and leaves
    /// everything else of the objects as it is. Returns what it changed.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn reconcile(&self) -> Result<Vec<Difference>, MigrateError> {
        let (_, status) = self.look().await?;
        status.check()?;
        self.repeat(async || {
            self.lower(&status).await?;
            self.bring(&status.differences).await
        })
        .await?;
        Ok(status.differences)
    }

    /// The ledger, and the objects as they were while it did not change.
    async fn look(&self) -> Result<(Ledger, Status), MigrateError> {
        self.repeat(async || {
            loop {
                let ledger = self.ledger().await?;
                let mut found = BTreeMap::new();
                for stream in self.streams() {
                    if let Some(config) = self.found(&stream).await? {
                        found.insert(stream, config);
                    }
                }
                let status = Status::new(&self.migrations, &ledger.applied, &found, self.config);
                let is_as_made = status.edits.is_empty() && status.check().is_ok();
                // Another process may have applied more between the two readings.
                if is_as_made || self.ledger().await?.applied == ledger.applied {
                    return Ok((ledger, status));
                }
            }
        })
        .await
    }

    /// The streams that there are or will be.
    fn streams(&self) -> BTreeSet<String> {
        let operations = self.migrations.iter().flat_map(|one| &one.operations);
        let streams = operations.map(|operation| operation.stream.clone());
        let ledger = self.config.names().ledger().to_owned();
        streams.chain([ledger]).collect()
    }

    /// Does what `migration` says, and then says so in the ledger. Where this ends half-way, the next run does
    /// it again.
    async fn migrate(
        &self,
        migration: &Migration,
        entry: &Applied,
        ledger: &Ledger,
        status: &Status,
    ) -> Result<(), MigrateError> {
        if ledger.applied.is_empty() {
            let mut bucket = bucket(self.config);
            let limit = Role::Ledger.limit(self.config).unwrap_or(-1);
            bucket.insert("max_bytes".to_owned(), limit.into());
            self.create(self.config.names().ledger(), &bucket).await?;
        }
        // What is made next may need the room that streams give back which are there.
        self.lower(status).await?;
        for operation in &migration.operations {
            let (stream, config) = (&operation.stream, &operation.config);
            match operation.kind {
                OperationKind::Create => self.create(stream, config).await?,
                OperationKind::Update => self.update(stream, config).await?,
            }
        }
        self.enter(entry, ledger).await
    }

    /// What a race undid of the migrations that are new to `ledger` since `before`, a moment ago. An update sends
    /// the whole configuration as it was read; by then a faster process may have changed it. So what such a
    /// migration changed is nobody's edit.
    fn undone(
        &self,
        before: &BTreeMap<String, Applied>,
        ledger: &Ledger,
        status: &Status,
    ) -> Vec<Difference> {
        let is_new = |name| ledger.applied.contains_key(name) && !before.contains_key(name);
        let new = self.migrations.iter().filter(|one| is_new(&one.name));
        let operations = new.flat_map(|migration| &migration.operations);
        let changes = fold(operations.filter(|one| one.kind == OperationKind::Update));
        let found = status.drift.iter().chain(&status.edits).filter(|found| {
            let change = changes.get(found.stream.as_str());
            change.is_some_and(|fields| fields.contains_key(&found.field))
        });
        found.cloned().collect()
    }

    /// Takes from each stream the room that the settings no longer give it: in an account that is small, one
    /// stream's room is another's.
    async fn lower(&self, status: &Status) -> Result<(), MigrateError> {
        let differences = status.differences.iter();
        let lowered = differences.filter(|difference| difference.is_lowered());
        self.bring(&lowered.cloned().collect::<Vec<_>>()).await
    }

    /// Gives the streams what is wanted in place of `differences`.
    async fn bring(&self, differences: &[Difference]) -> Result<(), MigrateError> {
        for of_stream in differences.chunk_by(|a, b| a.stream == b.stream) {
            let fields = of_stream
                .iter()
                .map(|difference| (difference.field.clone(), difference.wanted.clone()));
            let stream = of_stream.first().map_or("", |one| &one.stream);
            self.update(stream, &fields.collect()).await?;
        }
        Ok(())
    }
}

/// The requests.
impl Migrator<'_> {
    /// The configuration of `stream`, or nothing where there is no such stream.
    async fn found(&self, stream: &str) -> Result<Option<Map<String, Value>>, MigrateError> {
        #[derive(Deserialize)]
        struct Info {
            config: Map<String, Value>,
        }
        let subject = self.config.names().api("STREAM.INFO", stream);
        match self.request::<Info>(&subject, None, Vec::new()).await {
            Ok(info) => Ok(Some(info.config)),
            Err(error) if error.code() == Some(ErrorCode::STREAM_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `stream`. One that is there is looked at before and after, and not here.
    async fn create(&self, stream: &str, config: &Map<String, Value>) -> Result<(), MigrateError> {
        match self.change("STREAM.CREATE", stream, config).await {
            Err(error) if error.code() == Some(ErrorCode::STREAM_NAME_EXIST) => Ok(()),
            Err(error) if error.code() == Some(ErrorCode::STREAM_SUBJECT_OVERLAP) => {
                Err(MigrateError::SubjectsTaken {
                    stream: stream.to_owned(),
                    subjects: config.get("subjects").unwrap_or(&Value::Null).to_string(),
                })
            }
            result => result,
        }
    }

    /// Sets `fields` of `stream` and leaves its others as they are.
    ///
    /// There is no conditional update: what others change between the two requests is undone. So nothing is sent
    /// that changes nothing, and who repeats this looks anew.
    async fn update(&self, stream: &str, fields: &Map<String, Value>) -> Result<(), MigrateError> {
        let found = self.found(stream).await?;
        let found = found.ok_or_else(|| MigrateError::NoStream {
            subject: stream.to_owned(),
        })?;
        let mut config = found.clone();
        config.extend(fields.clone());
        if config == found {
            return Ok(());
        }
        self.change("STREAM.UPDATE", stream, &config).await?;
        tracing::info!(stream, "stream updated");
        Ok(())
    }

    async fn change(
        &self,
        request: &str,
        stream: &str,
        config: &Map<String, Value>,
    ) -> Result<(), MigrateError> {
        let subject = self.config.names().api(request, stream);
        let payload = json!(config).to_string().into_bytes();
        let changed = self.request::<Value>(&subject, None, payload).await;
        self.explained(stream, changed).await
    }

    /// Reads the whole ledger. Empty too where there is no bucket.
    ///
    /// It is read at the leader (STREAM.MSG.GET), because a direct get may be answered by a replica that
    /// lags, and a migration that is applied must never look pending.
    async fn ledger(&self) -> Result<Ledger, MigrateError> {
        let names = self.config.names();
        let subject = names.api("STREAM.MSG.GET", names.ledger());
        let mut ledger = Ledger::default();
        let mut next = 1;
        loop {
            // A key that is written meanwhile moves behind and is met there.
            let question = json!({"seq": next, "next_by_subj": format!("{}>", names.keys())});
            let question = question.to_string().into_bytes();
            let message = match self
                .request::<MessageAnswer>(&subject, None, question)
                .await
            {
                Ok(answer) => answer.message,
                Err(error) => match error.code() {
                    Some(ErrorCode::NO_MESSAGE_FOUND | ErrorCode::STREAM_NOT_FOUND) => {
                        return Ok(ledger);
                    }
                    _ => return Err(error),
                },
            };
            next = message.sequence + 1;
            let key = message.subject.strip_prefix(names.keys());
            let key = key.unwrap_or(LOCK).to_owned();
            if key != LOCK {
                let message = message.into_stored();
                let message = message.map_err(|failure| self.failed(&subject, failure))?;
                ledger
                    .take(&key, &message)
                    .map_err(|error| MigrateError::Ledger {
                        key,
                        problem: error.to_string(),
                    })?;
            }
        }
    }

    /// Creates `entry` in the `ledger`, over its deletion. Where another process was faster that changes nothing.
    async fn enter(&self, entry: &Applied, ledger: &Ledger) -> Result<(), MigrateError> {
        let names = self.config.names();
        let deleted = ledger.deleted.get(&entry.name).copied().unwrap_or(0);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, entry.id.as_str());
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            deleted.to_string(),
        );
        let payload = json!(entry).to_string().into_bytes();
        let subject = names.key(&entry.name);
        let taken = [
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE,
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
        ];
        let written = self.request::<Value>(&subject, Some(headers), payload);
        match written.await {
            Err(error) if error.code().is_some_and(|code| taken.contains(&code)) => Ok(()),
            written => self.explained(names.ledger(), written).await,
        }
    }

    /// What it means where there is no room for `stream` as it is to be.
    async fn explained(
        &self,
        stream: &str,
        answer: Result<Value, MigrateError>,
    ) -> Result<(), MigrateError> {
        let (subject, error) = match answer {
            Ok(_) => return Ok(()),
            Err(MigrateError::Refused { subject, error }) => (subject, error),
            Err(error) => return Err(error),
        };
        let all = "nats.max_bytes, nats.sessions_max_bytes and nats.dead_max_bytes";
        let setting = Role::of(stream, self.config)
            .setting("max_bytes")
            .unwrap_or(all);
        let way = match error.err_code {
            ErrorCode::MAXIMUM_STREAMS_LIMIT => "Herald has five streams".to_owned(),
            ErrorCode::STREAM_MAX_BYTES_REQUIRED => format!(
                "Set {setting} to a number of bytes: 0 is no limit, and the account requires one"
            ),
            ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => {
                let most = self.stream_bytes_max().await;
                let most = most.map_or("less".to_owned(), |most| format!("at most {most} bytes"));
                format!(
                    "The account takes {most} for one stream: lower {setting}, or raise that to 1 MiB or more"
                )
            }
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES => format!(
                "Set {setting}, so that all streams together, and 2 MiB for revocations and the ledger, have room in the account"
            ),
            // Only entries of the ledger are stored here.
            ErrorCode::STREAM_STORE_FAILED => format!(
                "If it is full, give it room: nats stream edit {stream} --max-bytes=1048576 --max-msgs=-1"
            ),
            _ => return Err(MigrateError::Refused { subject, error }),
        };
        Err(MigrateError::Limits {
            stream: stream.to_owned(),
            error,
            way,
        })
    }

    /// The most bytes that the account takes for one stream. Nothing: it has no such limit, or this user may not
    /// ask.
    async fn stream_bytes_max(&self) -> Option<i64> {
        let subject = self.config.names().api_info();
        let account: Value = self.request(&subject, None, Vec::new()).await.ok()?;
        let tier = format!("/tiers/R{}/limits", self.config.replicas);
        ["/limits", &tier].into_iter().find_map(|path| {
            let most = account.pointer(path)?.get("storage_max_stream_bytes")?;
            most.as_i64().filter(|most| *most > 0)
        })
    }

    /// Repeats `step` while its fault is a passing one and timeout lasts.
    async fn repeat<T>(
        &self,
        mut work: impl AsyncFnMut() -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        let start = Instant::now();
        loop {
            match work().await {
                Err(error) if error.is_transient() && start.elapsed() + PAUSE < self.timeout => {
                    tracing::debug!(%error, "migration step repeated");
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Asks once. A request that is denied gets no answer: where one does not come soon, the reason is looked for
    /// while the wait goes on.
    async fn request<T: DeserializeOwned>(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
    ) -> Result<T, MigrateError> {
        let (to, limit) = (subject.to_owned(), self.timeout / ATTEMPTS);
        let answer = tokio::select! {
            biased;
            // An answer that does come is the truth, whatever the other connection learns.
            answer = api::send(self.client, to, headers, payload.into(), limit) => answer,
            // Boxed: a connection in the making is large, and this one is rare.
            denial = Box::pin(self.denial(subject)) => return Err(denial),
        };
        answer
            .and_then(|answer| api::decode(&answer))
            .map_err(|failure| self.failed(subject, failure))
    }

    /// What the failure of a request to `subject` means.
    fn failed(&self, subject: &str, failure: ApiFailure) -> MigrateError {
        let subject = subject.to_owned();
        match failure {
            ApiFailure::NoResponders => self.no_jetstream(&subject),
            ApiFailure::NoAnswer => MigrateError::NoAnswer {
                servers: self.config.hosts(),
                subject,
                timeout: self.timeout / ATTEMPTS,
            },
            ApiFailure::Refused(error)
                if error.err_code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT =>
            {
                MigrateError::NoJetStream(
                    "JetStream is not enabled for this NATS account: add `jetstream: enabled` to it in the \
                     server's configuration"
                        .to_owned(),
                )
            }
            ApiFailure::Refused(error) => MigrateError::Refused { subject, error },
            failure => MigrateError::Request { subject, failure },
        }
    }

    /// Which permission is missing for `subject`. Ends only where one is and that can be found out.
    async fn denial(&self, subject: &str) -> MigrateError {
        tokio::time::sleep(DOUBT_AFTER).await;
        let probes = vec![Probe::Publish(subject.to_owned())];
        let denied = permissions::denied(self.config, "herald-permission-check", probes).await;
        match denied.ok().and_then(|denied| denied.into_iter().next()) {
            Some(denied) => MigrateError::Denied(denied),
            None => std::future::pending().await,
        }
    }

    /// What it means that nobody answers.
    fn no_jetstream(&self, subject: &str) -> MigrateError {
        if subject.contains(self.config.names().keys()) {
            let subject = subject.to_owned();
            return MigrateError::NoStream { subject };
        }
        let (server, hosts) = (self.client.server_info(), self.config.hosts());
        MigrateError::NoJetStream(match &self.config.domain {
            Some(domain) => format!(
                "there is no JetStream domain {domain} for this account at {hosts} (this server's own is {}): nobody \
                 answers {subject}. Set nats.domain to the domain that has the streams, and see that its server is \
                 reachable",
                server.domain.as_deref().unwrap_or("none")
            ),
            None if server.jetstream => format!(
                "JetStream is on at {hosts}, but not for this user's account: nobody answers {subject}. Use a user of \
                 an account that has JetStream"
            ),
            None => format!(
                "JetStream is not enabled on the NATS server {hosts}: nobody answers {subject}. Add \
                 `jetstream {{ … }}` to its configuration; at a leaf node, set nats.domain to its hub's domain"
            ),
        })
    }
}
