//! The JetStream objects that Herald needs, made and changed by the ordered files of `migrations/`.
//!
//! Each file is applied once. A KV bucket, the ledger, says which ones were, with their checksums. Any number of
//! processes may apply at a time, and none waits for another: doing what a file says twice has the same result, and the
//! ledger takes one entry of each file. Three faults are distinguished and never repaired silently: a file that changed
//! after it was applied, a ledger that is ahead of this binary, and an object that was changed by hand. What an operator
//! changed is refused where it breaks a promise. Elsewhere it is reported and left as it is. Only values that come from
//! settings are changed back, by [`Migrator::reconcile`].
//!
//! Here are the files, what the streams are for, and the errors. `apply` does what the files say. `report` compares them
//! with what is there.
//!
//! ```toml
//! description = "What it does"
//! breaks_older_gateways = false
//!
//! [[create]]            # a whole StreamConfig; `name` is required
//! name = "${stream}"
//!
//! [[update]]            # fields of an existing stream
//! stream = "SESSIONS"
//! set = { max_age = "48h" }
//! ```
//!
//! Files know nothing of `nats.prefix`: it is put on streams and subjects here, so that a file and its
//! checksum are the same in every deployment.

mod apply;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::ErrorCode;
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::config::{NatsConfig, parse_duration};
use crate::nats::api::{ApiError, ApiFailure};

pub use self::apply::{ApplyReport, Migrator};
pub use self::report::{Difference, MigrationEntry, MigrationState, Status};
use self::report::{list, ways_back};

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub name: String,
    /// SHA-256 of the file that was applied, in hexadecimal.
    pub checksum: String,
    pub breaks_older_gateways: bool,
    /// The version of Herald that applied it.
    #[serde(default)]
    pub applied_by: String,
    /// When, in RFC 3339. For people: nothing is decided by it.
    #[serde(default)]
    pub applied_at: String,
    /// The fields it set, by stream: what a Herald that does not know the migration must not judge.
    #[serde(default)]
    pub changes: BTreeMap<String, Vec<String>>,
    /// The message's id, which tells this entry from the same one of another process.
    #[serde(skip)]
    id: String,
}

impl Applied {
    /// The entry of `migration`, applied by this version.
    fn now(migration: &Migration) -> Self {
        let mut changes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for operation in &migration.operations {
            let fields = changes.entry(operation.stream.clone()).or_default();
            fields.extend(operation.named.clone());
        }
        Self {
            name: migration.name.clone(),
            checksum: migration.checksum.clone(),
            breaks_older_gateways: migration.breaks_older_gateways,
            applied_by: env!("CARGO_PKG_VERSION").to_owned(),
            applied_at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            changes,
            id: uuid::Uuid::new_v4().to_string(),
        }
    }
}

/// Applies the migrations that the ledger does not have, in their order. It does not change values
/// that merely differ from the settings: [`ApplyReport::differences`] has them.
///
/// Where nothing is pending it only reads.
///
/// # Errors
/// [`MigrateError`]; see [`MigrateError::is_transient`] for those that a retry may cure.
pub async fn apply(client: &Client, config: &NatsConfig) -> Result<ApplyReport, MigrateError> {
    let migrator = Migrator::new(client, config, &MigrationSet::embedded())?;
    migrator.apply().await
}

/// What is applied, pending, or not as it should be. Reads only: STREAM.INFO of the objects and
/// STREAM.MSG.GET of the ledger.
///
/// # Errors
/// [`MigrateError`] where it cannot be read; what it finds wrong is in the [`Status`].
pub async fn status(client: &Client, config: &NatsConfig) -> Result<Status, MigrateError> {
    let migrator = Migrator::new(client, config, &MigrationSet::embedded())?;
    migrator.status().await
}

/// Names with the text of the file, each.
macro_rules! files {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../migrations/", $name, ".toml")))),*]
    };
}

/// The files of `migrations/`, in their order.
const FILES: &[(&str, &str)] = files![
    "0001_events",
    "0002_sessions",
    "0003_dead",
    "0004_limits",
    "0005_revoked"
];

/// Migration files by name, ordered by it.
#[derive(Debug, Clone, Default)]
pub struct MigrationSet(BTreeMap<String, String>);

impl MigrationSet {
    /// The files that this binary was built with.
    pub fn embedded() -> Self {
        let files = FILES.iter();
        files.fold(Self::default(), |set, (name, text)| set.with(name, text))
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
    fn resolve(&self, config: &NatsConfig) -> Result<Vec<Migration>, MigrateError> {
        let files = self.0.iter();
        files
            .map(|(name, text)| {
                Migration::read(name, text, config).map_err(|problem| MigrateError::File {
                    name: name.clone(),
                    problem,
                })
            })
            .collect()
    }
}

/// A migration with the settings' values in it.
#[derive(Debug, Clone, Serialize)]
pub struct Migration {
    /// The file's name without its ending: `0001_events`.
    pub name: String,
    /// SHA-256 of the file as it is, in hexadecimal.
    #[serde(skip)]
    pub checksum: String,
    pub description: String,
    /// Whether a gateway that does not know this migration must not serve once it is applied.
    pub breaks_older_gateways: bool,
    pub operations: Vec<Operation>,
}

/// One change of one stream.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    #[serde(rename = "operation")]
    pub kind: OperationKind,
    /// The stream's name.
    pub stream: String,
    /// The fields it sets, in the JetStream API's form.
    pub config: Map<String, Value>,
    /// All fields that the file names, also those whose setting is not set.
    #[serde(skip)]
    named: Vec<String>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Makes the stream.
    Create,
    /// Changes some of its fields.
    Update,
}

/// A file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    description: String,
    breaks_older_gateways: bool,
    #[serde(default)]
    create: Vec<Create>,
    #[serde(default)]
    update: Vec<Update>,
}

#[derive(Debug, Deserialize)]
struct Create {
    name: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    stream: String,
    set: Map<String, Value>,
}

impl Migration {
    /// Reads the file `name` with the text `text`.
    fn read(name: &str, text: &str, config: &NatsConfig) -> Result<Self, String> {
        let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
        let creates = document.create.into_iter();
        let creates = creates.map(|one| (OperationKind::Create, one.name, one.fields));
        let updates = document.update.into_iter();
        let updates = updates.map(|one| (OperationKind::Update, one.stream, one.set));
        let operations = creates
            .chain(updates)
            .map(|(kind, stream, fields)| Operation::read(kind, &stream, fields, config));
        Ok(Self {
            name: name.to_owned(),
            checksum: format!("{:x}", Sha256::digest(text.as_bytes())),
            description: document.description,
            breaks_older_gateways: document.breaks_older_gateways,
            operations: operations.collect::<Result<_, _>>()?,
        })
    }
}

impl Operation {
    fn read(
        kind: OperationKind,
        stream: &str,
        fields: Map<String, Value>,
        config: &NatsConfig,
    ) -> Result<Self, String> {
        let names = config.names();
        let stream = names.object(&stream.replace("${stream}", &config.stream));
        let limit = Role::of(&stream, config).limit(config);
        let named: Vec<String> = fields.keys().cloned().collect();
        let mut set = Map::new();
        for (field, value) in fields {
            let with_prefix = |value: Value| match value {
                Value::String(subject) => names.subject(&subject).into(),
                flag => flag,
            };
            let value = match (field.as_str(), value) {
                ("subjects", Value::Array(list)) => list.into_iter().map(with_prefix).collect(),
                ("republish", Value::Object(mapping)) => mapping
                    .into_iter()
                    .map(|(name, value)| (name, with_prefix(value)))
                    .collect(),
                // The setting of this stream, `${max_bytes}` or its like.
                ("max_bytes", Value::String(_)) => match limit {
                    Some(limit) => limit.into(),
                    None => continue,
                },
                (_, Value::String(text)) => {
                    resolved(&field, &text, config).map_err(|error| format!("{field}: {error}"))?
                }
                (_, value) => value,
            };
            set.insert(field, value);
        }
        if kind == OperationKind::Create {
            set.insert("name".to_owned(), stream.clone().into());
            // Whatever the file says: an account may ask for a limit, and then takes no stream without one.
            if let Some(limit) = limit {
                set.insert("max_bytes".to_owned(), limit.into());
            }
        }
        Ok(Self {
            kind,
            stream,
            config: set,
            named,
        })
    }
}

/// What `text` means in `field`: itself, a setting's value, or a duration: `2m`, `${max_age}`, or the least of
/// several, `min(2m, ${max_age})`. A setting that is not set is no limit.
fn resolved(field: &str, text: &str, config: &NatsConfig) -> Result<Value, String> {
    if is_duration(field) {
        let terms = text.trim_start_matches("min(").trim_end_matches(')');
        let terms = terms.split(',').filter_map(|term| match term.trim() {
            "${max_age}" => Some(Ok(config.max_age)),
            "${max_token_age}" => config.revoked_max_age.map(Ok),
            literal => Some(parse_duration(literal)),
        });
        let least = terms
            .collect::<Result<Vec<Duration>, _>>()?
            .into_iter()
            .min();
        // The API's durations are signed 64 bit: 292 years.
        let nanoseconds = least.map_or(0, |least| least.as_nanos());
        return Ok(i64::try_from(nanoseconds).unwrap_or(i64::MAX).into());
    }
    match text {
        "${replicas}" => Ok(config.replicas.into()),
        _ if text.contains("${") => Err(format!(
            "`{text}` has a placeholder that cannot stand there"
        )),
        _ => Ok(text.into()),
    }
}

/// Most bytes of the ledger's bucket where the streams have limits: some thousand entries.
const LEDGER_BYTES_MAX: u64 = 1024 * 1024;

/// Most bytes of the stream of revocations where the other streams have limits: some 3,000 entries.
const REVOKED_BYTES_MAX: u64 = 1024 * 1024;

/// StreamConfig's durations: nanoseconds in the API, text in a file.
const DURATIONS: &[&str] = &["max_age", "duplicate_window", "subject_delete_marker_ttl"];

/// Whether `field` of a StreamConfig is a duration.
fn is_duration(field: &str) -> bool {
    DURATIONS.contains(&field)
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Events,
    Sessions,
    Dead,
    Revoked,
    Ledger,
}

impl Role {
    /// The role of `stream`; one that only a later Herald knows is judged as that of events is.
    fn of(stream: &str, config: &NatsConfig) -> Self {
        let names = config.names();
        match stream {
            _ if stream == names.sessions() => Self::Sessions,
            _ if stream == names.dead() => Self::Dead,
            _ if stream == names.revoked() => Self::Revoked,
            _ if stream == names.ledger() => Self::Ledger,
            _ => Self::Events,
        }
    }

    /// The limit in bytes, where one is set; -1 is none. An account may take no stream without. Where no stream has
    /// one, the ledger's stays as it always was: a Herald of before takes any other for a change by hand. And then
    /// revocations have none: nothing that others store there could crowd one out.
    fn limit(self, config: &NatsConfig) -> Option<i64> {
        let streams = [
            config.max_bytes,
            config.sessions_max_bytes,
            config.dead_max_bytes,
        ];
        let [events, sessions, dead] = streams;
        let has_limits = streams
            .iter()
            .any(|bytes| bytes.is_some_and(|bytes| bytes > 0));
        let bytes = match self {
            Self::Events => events,
            Self::Sessions => sessions,
            Self::Dead => dead,
            Self::Revoked => has_limits.then_some(REVOKED_BYTES_MAX),
            Self::Ledger => has_limits.then_some(LEDGER_BYTES_MAX),
        };
        bytes.map(|bytes| match bytes {
            0 => -1,
            bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
        })
    }

    /// The setting that decides `field`.
    fn setting(self, field: &str) -> Option<&'static str> {
        match (self, field) {
            (_, "num_replicas") => Some("nats.replicas"),
            (Self::Events, "max_age") => Some("nats.max_age"),
            (Self::Events, "max_bytes") => Some("nats.max_bytes"),
            (Self::Revoked, "max_age") => Some("auth.max_token_age"),
            (Self::Sessions, "max_bytes") => Some("nats.sessions_max_bytes"),
            (Self::Dead, "max_bytes") => Some("nats.dead_max_bytes"),
            _ => None,
        }
    }
}

/// The configuration of the ledger's bucket, as any KV client would make it, with its limit.
fn bucket(config: &NatsConfig) -> Map<String, Value> {
    let names = config.names();
    let wanted = json!({
        "name": names.ledger(),
        "description": "Migrations that Herald applied",
        "subjects": [format!("{}>", names.keys())],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": LEDGER_BYTES_MAX,
        "deny_delete": true,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
        "num_replicas": config.replicas,
    });
    wanted.as_object().cloned().unwrap_or_default()
}

/// What `operations` together want of each stream: later ones win field by field.
fn fold<'a>(
    operations: impl Iterator<Item = &'a Operation>,
) -> BTreeMap<&'a str, Map<String, Value>> {
    let mut wishes: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let wish = wishes.entry(&operation.stream).or_default();
        wish.extend(operation.config.clone());
    }
    wishes
}

/// Why migrations were not applied. `Display` says what to do about it and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration file is not right. Those of the binary are tested, so this is a developer's.
    #[error("migration {name} cannot be read: {problem}")]
    File { name: String, problem: String },

    /// A file changed after it was applied.
    #[error(
        "migration {name} was changed after it was applied: the ledger has checksum {applied:.12}, this \
         herald has {ours:.12}. Applied files stay as they are: restore it, and put the change into a new one"
    )]
    Changed {
        name: String,
        applied: String,
        ours: String,
    },

    /// A newer Herald applied migrations that this one cannot work with.
    #[error(
        "the ledger is ahead of this herald: it has {}, which this version does not know and which \
         breaks older gateways. Run a newer herald",
        .breaking.join(", ")
    )]
    Ahead {
        /// The unknown migrations that break older gateways.
        breaking: Vec<String>,
    },

    /// A file is new to the ledger but stands before one that is already applied.
    #[error(
        "migration {pending} is not applied but {applied}, which comes after it, is. A new migration \
         takes the next number"
    )]
    OutOfOrder { pending: String, applied: String },

    /// A stream that the ledger says was made is not there.
    #[error(
        "stream {stream} is missing, though the ledger says that {migration} made it. It was deleted, or \
         nats.stream was changed: restore the stream from a backup or the setting, or, to start anew, \
         delete the bucket HERALD_MIGRATIONS (after nats.prefix, if that is set) and migrate"
    )]
    Missing { stream: String, migration: String },

    /// Somebody changed an object by hand, and no promise is kept with it.
    #[error(
        "a JetStream object was changed by hand, and Herald cannot work with it: {}. To go on, {}",
        list(.0),
        ways_back(.0)
    )]
    Drift(Vec<Difference>),

    /// A stream of that name was there before, and is another.
    #[error(
        "a stream of that name exists with other settings, and no migration made it: {}. Rename, change or \
         remove it, or set nats.prefix, or nats.stream to another name",
        list(.0)
    )]
    OtherSettings(Vec<Difference>),

    /// Another stream holds the subjects.
    #[error(
        "stream {stream} cannot be made: another stream already takes some of its subjects ({subjects})"
    )]
    SubjectsTaken { stream: String, subjects: String },

    /// There is no room for it, or the account wants to know how much it needs.
    #[error(
        "NATS does not take stream {stream}: {error}. {way} (docs/configuration.md, \"Limits of an account\")"
    )]
    Limits {
        stream: String,
        error: ApiError,
        way: String,
    },

    /// Nobody answers the JetStream API: why, and what to do.
    #[error("{0}")]
    NoJetStream(String),

    /// JetStream answers, and no stream takes what is written.
    #[error(
        "no stream takes {subject}: it was only just made and its server is not known everywhere, or \
         it was deleted"
    )]
    NoStream { subject: String },

    /// The user lacks a permission: which, and what to do.
    #[error("{0}")]
    Denied(String),

    /// The server answered with an error that has no case of its own here.
    #[error("NATS refuses {subject}: {error}")]
    Refused { subject: String, error: ApiError },

    /// No answer came.
    #[error(
        "NATS ({servers}) did not answer {subject}: timed out after {timeout:.1?}. It is away, or its leader is"
    )]
    NoAnswer {
        servers: String,
        subject: String,
        timeout: Duration,
    },

    /// The client does not send, or the answer is not what the JetStream API answers.
    #[error("the request to {subject} fails: {failure}")]
    Request {
        subject: String,
        failure: ApiFailure,
    },

    /// An entry of the ledger is not one.
    #[error("entry {key} of the bucket HERALD_MIGRATIONS cannot be read: {problem}")]
    Ledger { key: String, problem: String },
}

impl MigrateError {
    /// Whether the same call may succeed later with nothing changed by anybody.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::NoStream { .. } => true,
            // HTTP's number: the server asks for another try, such as while a cluster elects.
            Self::Refused { error, .. } => error.code == 503,
            _ => false,
        }
    }

    /// The server's code, where it refuses.
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(error.err_code),
            _ => None,
        }
    }
}
