//! The KV bucket that says which migrations were applied.
//!
//! It is read at the leader (STREAM.MSG.GET), because a direct get may be answered by a replica that
//! lags, and a migration that is applied must never look pending.

use std::collections::BTreeMap;

use async_nats::jetstream::message::StreamMessage;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::Api;
use super::error::MigrateError;
use super::file::{Fields, Migration, Wanted};
use super::judge::LEDGER_BYTES_MAX;
use crate::config::NatsConfig;

/// A key that is no entry: gateways of before took a lock there, and may do so beside this one.
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

/// What the bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// By the migration's name.
    pub(super) applied: BTreeMap<String, Applied>,
    /// Revisions of the entries that somebody deleted, which is how a migration is applied again.
    deleted: BTreeMap<String, u64>,
}

/// The configuration of the bucket, as any KV client would make it.
pub(super) fn bucket(config: &NatsConfig) -> Fields {
    let names = config.names();
    let fixed = json!({
        "name": names.ledger(),
        "description": "Migrations that Herald applied",
        "subjects": [format!("{}>", names.keys())],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": max_bytes(config),
        "deny_delete": true,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
        "num_replicas": config.replicas,
    });
    let fields = fixed.as_object().into_iter().flatten();
    let wanted = fields.map(|(field, value)| {
        let wanted = Wanted {
            value: value.clone(),
            from_setting: field == "num_replicas",
        };
        (field.clone(), wanted)
    });
    wanted.collect()
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
        true => LEDGER_BYTES_MAX,
        false => -1,
    }
}

impl Ledger {
    /// Reads the whole bucket. Empty too where there is no bucket.
    pub(super) async fn read(api: &Api<'_>) -> Result<Self, MigrateError> {
        let mut ledger = Self::default();
        let names = api.config.names();
        let mut next = 1;
        // A key that is written meanwhile moves behind and is met there.
        while let Some(message) = api.next_entry(next, ">").await? {
            next = message.sequence + 1;
            match message.subject.strip_prefix(names.keys()) {
                None | Some(LOCK) => {}
                // A bucket that keeps a history has what it was before as well.
                Some(key) if is_deleted(&message) => {
                    ledger.applied.remove(key);
                    ledger.deleted.insert(key.to_owned(), message.sequence);
                }
                Some(key) => {
                    let applied = serde_json::from_slice(&message.payload);
                    let applied = applied.map_err(|error| unreadable(key, &error))?;
                    ledger.applied.insert(key.to_owned(), applied);
                    ledger.deleted.remove(key);
                }
            }
        }
        Ok(ledger)
    }

    /// Creates `entry`. Returns whether it is this call's; otherwise somebody else's is there, or was.
    pub(super) async fn create(
        &self,
        api: &Api<'_>,
        entry: &Applied,
    ) -> Result<bool, MigrateError> {
        let name = &entry.name;
        let payload = serde_json::to_vec(entry).map_err(|error| unreadable(name, &error))?;
        let deleted = self.deleted.get(name).copied().unwrap_or(0);
        api.create_entry(name, deleted, payload.into()).await
    }
}

fn unreadable(key: &str, error: &serde_json::Error) -> MigrateError {
    MigrateError::Ledger {
        key: key.to_owned(),
        problem: error.to_string(),
    }
}

/// Whether the key was deleted or purged, by the header that KV clients mark that with.
fn is_deleted(message: &StreamMessage) -> bool {
    let mark = message.headers.get("KV-Operation");
    mark.is_some_and(|mark| matches!(mark.as_str(), "DEL" | "PURGE"))
}
