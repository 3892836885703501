//! The KV bucket that says which migrations were applied. It also holds the lock's key.
//!
//! It is read at the leader (STREAM.MSG.GET), because a direct get may be answered by a replica that
//! lags, and a migration that is applied must never look pending.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::api::{Api, Created, Stored, Written};
use super::compare::compare;
use super::error::MigrateError;
use super::file::{Fields, Migration, Wanted, to_config};
use super::judge::Role;
use crate::config::NatsConfig;

/// Most bytes of the bucket where the streams have limits: some thousand entries.
pub(super) const MAX_BYTES: i64 = 1024 * 1024;
/// The key of the lock; every other key is a migration's name.
const LOCK: &str = "lock";

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
}

impl Applied {
    /// The entry of `migration`, applied by this version.
    pub(super) fn now(migration: &Migration, now: DateTime<Utc>) -> Self {
        let mut changes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for operation in &migration.operations {
            let fields = changes.entry(operation.stream.clone()).or_default();
            fields.extend(operation.fields.keys().chain(&operation.unset).cloned());
        }
        Self {
            name: migration.name.clone(),
            checksum: migration.checksum.clone(),
            breaks_older_gateways: migration.breaks_older_gateways,
            applied_by: env!("CARGO_PKG_VERSION").to_owned(),
            applied_at: now.to_rfc3339_opts(SecondsFormat::Secs, true),
            changes,
        }
    }
}

/// The lock's key as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LockSeen {
    pub(super) revision: u64,
    /// Whether somebody has it; otherwise it was released.
    pub(super) held: bool,
}

/// What the bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// By the migration's name.
    pub(super) applied: BTreeMap<String, Applied>,
    /// Revisions of the entries that somebody deleted, which is how a migration is applied again.
    pub(super) deleted: BTreeMap<String, u64>,
    pub(super) lock: Option<LockSeen>,
}

/// The configuration of the bucket, as any KV client would make it.
pub(super) fn bucket(config: &NatsConfig) -> Fields {
    let fixed = |value: serde_json::Value| Wanted {
        value,
        from_setting: false,
    };
    let names = config.names();
    Fields::from([
        ("name".to_owned(), fixed(names.ledger().into())),
        (
            "description".to_owned(),
            fixed("Migrations that Herald applied".into()),
        ),
        (
            "subjects".to_owned(),
            fixed(vec![format!("{}>", names.keys())].into()),
        ),
        ("storage".to_owned(), fixed("file".into())),
        ("retention".to_owned(), fixed("limits".into())),
        ("discard".to_owned(), fixed("new".into())),
        ("max_msgs_per_subject".to_owned(), fixed(1.into())),
        ("max_age".to_owned(), fixed(0.into())),
        ("max_msgs".to_owned(), fixed((-1).into())),
        ("max_bytes".to_owned(), fixed(max_bytes(config).into())),
        ("deny_delete".to_owned(), fixed(true.into())),
        ("allow_rollup_hdrs".to_owned(), fixed(true.into())),
        ("allow_direct".to_owned(), fixed(true.into())),
        (
            "num_replicas".to_owned(),
            Wanted {
                value: config.replicas.into(),
                from_setting: true,
            },
        ),
    ])
}

/// The bucket's limit. An account may take no stream without; elsewhere it stays as it always was, since a Herald of
/// before takes any other for a change by hand.
fn max_bytes(config: &NatsConfig) -> i64 {
    let limits = [
        config.max_bytes,
        config.sessions_max_bytes,
        config.dead_max_bytes,
    ];
    match limits.into_iter().flatten().any(|bytes| bytes > 0) {
        true => MAX_BYTES,
        false => -1,
    }
}

/// Makes the bucket where there is none. May be repeated.
pub(super) async fn ensure(api: &Api<'_>) -> Result<(), MigrateError> {
    let names = api.config.names();
    let stream = names.ledger();
    let wanted = bucket(api.config);
    if api.stream_config(stream).await?.is_some()
        || api.create_stream(stream, &to_config(&wanted)).await? == Created::Done
    {
        return Ok(());
    }
    // Somebody made it meanwhile, perhaps with other settings; what matters must be the same.
    let found = api.stream_config(stream).await?.unwrap_or_default();
    let drift = compare(stream, Role::Ledger, &wanted, &found).drift;
    if drift.is_empty() {
        Ok(())
    } else {
        Err(MigrateError::OtherSettings(drift))
    }
}

/// Reads the whole bucket. Empty too where there is no bucket.
pub(super) async fn read(api: &Api<'_>) -> Result<Ledger, MigrateError> {
    let mut ledger = Ledger::default();
    let names = api.config.names();
    let (stream, prefix) = (names.ledger(), names.keys());
    let mut next = 1;
    // A key that is written meanwhile moves behind and is met there.
    while let Some(message) = api
        .next_message(stream, next, &format!("{prefix}>"))
        .await?
    {
        next = message.sequence + 1;
        let Some(key) = message.subject.strip_prefix(prefix) else {
            continue;
        };
        if key == LOCK {
            ledger.lock = Some(LockSeen {
                revision: message.sequence,
                held: !is_deleted(&message),
            });
        } else if is_deleted(&message) {
            // A bucket that keeps a history has what it was before as well.
            ledger.applied.remove(key);
            ledger.deleted.insert(key.to_owned(), message.sequence);
        } else {
            let applied =
                serde_json::from_slice(&message.payload).map_err(|error| MigrateError::Ledger {
                    key: key.to_owned(),
                    problem: error.to_string(),
                })?;
            ledger.deleted.remove(key);
            ledger.applied.insert(key.to_owned(), applied);
        }
    }
    Ok(ledger)
}

/// Whether the key was deleted or purged, by the header that KV clients mark that with.
fn is_deleted(message: &Stored) -> bool {
    message.has_header("KV-Operation", |value| matches!(value, "DEL" | "PURGE"))
}

/// Adds an entry to the ledger as it was read; a conflict where somebody else did.
pub(super) async fn add(
    api: &Api<'_>,
    ledger: &Ledger,
    applied: &Applied,
) -> Result<Written, MigrateError> {
    let payload = serde_json::to_vec(applied).map_err(|error| MigrateError::Ledger {
        key: applied.name.clone(),
        problem: error.to_string(),
    })?;
    let expected = ledger.deleted.get(&applied.name).copied().unwrap_or(0);
    api.write(&applied.name, expected, HeaderMap::new(), payload)
        .await
}

/// Writes the lock's key, held by `holder` or released.
pub(super) async fn write_lock(
    api: &Api<'_>,
    expected: u64,
    holder: Option<&str>,
) -> Result<Written, MigrateError> {
    let mut headers = HeaderMap::new();
    if holder.is_none() {
        headers.insert("KV-Operation", "DEL");
    }
    let payload = holder.unwrap_or_default().as_bytes().to_vec();
    api.write(LOCK, expected, headers, payload).await
}
