//! What is there against what should be: how each migration stands, which fields of which stream are other than
//! wanted, what comes of each, and what to do. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Applied, MigrateError, Migration, OperationKind, Role, bucket, fold, is_duration};
use crate::config::NatsConfig;

/// A bucket that takes less has no room for the entries of some years.
const LEDGER_BYTES_MIN: i64 = 16 * 1024;
/// The same in messages.
const LEDGER_MESSAGES_MIN: i64 = 64;
/// A claim with its headers, and room to grow. A stream that takes less than this takes no claim.
const CLAIM_BYTES: i64 = 1024;

/// How a field stands that is not as a migration made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldState {
    /// No promise is kept with it, and this is why.
    Broken(&'static str),
    /// The operator's own; this comes of it.
    Edited(&'static str),
    /// As it would be had the settings been others.
    OfSettings,
}

use FieldState::{Broken, Edited, OfSettings};
use Role::{Dead, Events, Ledger, Revoked, Sessions};

const WORKS: &str = "Herald works with it";

/// Why no promise is kept with `field` as it is in a stream that has `found`.
fn broken(role: Role, field: &str, found: &Map<String, Value>) -> Option<&'static str> {
    let number = |field: &str| found.get(field).and_then(Value::as_i64).unwrap_or(0);
    let is_below = |least: i64| (1..least).contains(&number(field));
    let drops = found.get("discard").is_none_or(|discard| discard == "old");
    let has_limit = number("max_bytes") > 0 || number("max_msgs") > 0;
    let is_async = found
        .get("persist_mode")
        .is_some_and(|mode| mode == "async");
    let forgotten = "the bucket would forget which migrations were applied";
    let no_room = "the bucket has no room for the ledger, so that nobody could migrate";
    let not_durable = "an acknowledged event would not survive the server's restart";
    let removable = "somebody could remove a revocation";
    Some(match (role, field) {
        (_, "subjects") => "it does not take the messages that it is for, and those alone",
        (Events | Sessions | Revoked, "republish") => "gateways do not hear what is stored",
        (Events | Sessions | Dead | Revoked, "allow_direct") => {
            "gateways cannot read what they missed"
        }
        (Ledger, "retention" | "max_age") => forgotten,
        (Ledger, "discard" | "max_msgs") if drops && has_limit => forgotten,
        (Ledger, "max_msgs") if is_below(LEDGER_MESSAGES_MIN) => no_room,
        (Ledger, "max_bytes") if is_below(LEDGER_BYTES_MIN) => no_room,
        (_, "retention") => "messages go before they are old",
        (Events, "storage") => not_durable,
        (Events, "persist_mode") if is_async => not_durable,
        (Sessions, "max_msg_size") if is_below(CLAIM_BYTES) => {
            "it takes no claim: nobody could join"
        }
        (Events, "discard_new_per_subject") => "a full subject refuses every further event",
        // Claims replace one another: one a subject, and the newest stays.
        (Sessions, "discard_new_per_subject") => {
            "no claim replaces another: nobody could come back"
        }
        (Revoked, "storage" | "persist_mode") if is_async || field == "storage" => {
            "a revocation would not survive the server's restart"
        }
        (Revoked, "discard" | "max_bytes" | "max_msgs") if drops && has_limit => removable,
        (Revoked, "max_msgs_per_subject" | "allow_rollup_hdrs" | "allow_msg_ttl") => removable,
        (Revoked, "deny_delete" | "deny_purge") => removable,
        (Events | Sessions | Revoked | Ledger, "sealed") => "it takes no message any more",
        (_, "no_ack") => "nobody would know whether a message is stored",
        (_, "subject_transform" | "mirror") => "messages are not stored under their own subjects",
        (_, "sources") => "it stores the messages of other streams, which it is not for",
        (_, "allow_msg_counter") => "it takes counters, and nothing else",
        _ => return None,
    })
}

/// What comes of `field` as it is in a stream that has `found`, where Herald works with it.
fn edited(role: Role, field: &str, found: &Map<String, Value>) -> Option<&'static str> {
    let refuses = found.get("discard").is_some_and(|discard| discard == "new");
    Some(match (role, field) {
        (Events, "max_bytes" | "max_msgs" | "discard") if refuses => {
            "when full it refuses new events"
        }
        (Events, "max_bytes" | "max_msgs" | "discard") => "when full it drops events that are owed",
        (Events, "max_msgs_per_subject") => "of a busy subject it drops events that are owed",
        (Events, "allow_rollup_hdrs" | "allow_msg_ttl") => "a publisher can remove events",
        (Events, "allow_msg_schedules") => "a publisher can have events stored later",
        (Events, "subject_delete_marker_ttl") => "markers become dead letters",
        (Events | Dead, "max_msg_size") => "what is larger is refused, and its publisher is told",
        (Sessions, "max_bytes" | "max_msgs" | "discard") if refuses => {
            "when full it refuses newcomers"
        }
        (Sessions, "max_bytes" | "max_msgs" | "discard" | "max_age") => {
            "lost claims are made again"
        }
        (Sessions, "subject_delete_marker_ttl") => {
            "markers are stored, and gateways leave them aside"
        }
        (Dead, "max_bytes" | "max_msgs" | "max_age" | "discard") => {
            "dead letters are kept in another number, or for another time"
        }
        (Dead, "sealed") => "it takes no dead letter any more",
        (Revoked, "max_bytes" | "max_msgs" | "max_msg_size") => "when full it refuses revocations",
        (Revoked, "allow_msg_schedules") => "a revocation could be stored later",
        (Dead | Ledger, "republish") => "what is stored is sent to another subject as well",
        (Ledger, "max_msgs") => "a full bucket takes no further migration",
        (Ledger, "max_msgs_per_subject") => "the bucket keeps what was deleted from it",
        (Ledger, "discard_new_per_subject") => "a migration cannot be applied again",
        _ => return None,
    })
}

/// A window is too short where it forgets a retry that it was made to know. In EVENTS and REVOKED, whose age is for the
/// settings to say, one that is as short as the age was made so by them, and one that the server would not take
/// beside the wanted age has to go with it. The age of the others is fixed: what is shorter was made so by hand.
fn window(role: Role, wanted: &Map<String, Value>, found: &Map<String, Value>) -> FieldState {
    let of = |fields: &Map<String, Value>, field| {
        let value = fields.get(field).and_then(Value::as_i64);
        value.filter(|value| *value > 0).unwrap_or(i64::MAX)
    };
    let [have, wish] = [found, wanted].map(|fields| of(fields, "duplicate_window"));
    let [age, wanted_age] = [found, wanted].map(|fields| of(fields, "max_age"));
    match role {
        Events | Revoked if have > wanted_age || (age..wish).contains(&have) => OfSettings,
        _ if have > wish => Edited("what is sent again is known for longer"),
        Events => Broken("a publisher's retry would be stored twice"),
        // The server takes no window that is longer than the age.
        Sessions if age < wish => Broken(
            "a claim that is sent again would be stored twice; a longer one needs a longer max_age, too",
        ),
        Sessions => Broken("a claim that is sent again would be stored twice"),
        Dead | Revoked | Ledger => Edited(WORKS),
    }
}

/// Sets what `found` has of a stream against `wanted`.
pub(super) fn compare(
    stream: &str,
    wanted: &Map<String, Value>,
    found: &Map<String, Value>,
    config: &NatsConfig,
) -> Vec<(FieldState, Difference)> {
    let role = Role::of(stream, config);
    let fields: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let judged = fields.into_iter().filter_map(|field| {
        let of = |fields: &Map<String, Value>| fields.get(field).cloned().unwrap_or_default();
        let (wish, have) = (of(wanted), of(found));
        if same(&wish, &have) {
            return None;
        }
        let setting = role.setting(field);
        let is_set = setting.is_some() && (field != "max_bytes" || role.limit(config).is_some());
        let is_declared = wanted.contains_key(field);
        let state = match (field.as_str(), broken(role, field, found)) {
            ("duplicate_window", _) if is_declared => window(role, wanted, found),
            _ if is_set => OfSettings,
            (_, Some(why)) => Broken(why),
            // Buckets of before have no limit; it matters only where an account asks for one. The other has no setting.
            ("max_bytes", _) if matches!(role, Ledger | Revoked) => return None,
            _ => Edited(edited(role, field, found).or(is_declared.then_some(WORKS))?),
        };
        let difference = Difference {
            stream: stream.to_owned(),
            field: field.clone(),
            found: have,
            wanted: wish,
            consequence: match state {
                Broken(consequence) | Edited(consequence) => Some(consequence),
                OfSettings => None,
            },
            setting: setting.filter(|_| !is_set),
        };
        Some((state, difference))
    });
    judged.collect()
}

/// Whether `found` is what `wanted` asks for. The server leaves out what is unset, and writes "no limit"
/// as -1 where 0 was sent.
pub(super) fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        // Of both, since what an object has beyond the wanted one counts as well: `headers_only`.
        (Value::Object(wanted), Value::Object(found)) => {
            let mut names = wanted.keys().chain(found.keys());
            let value =
                |object: &Map<String, Value>, name| object.get(name).cloned().unwrap_or_default();
            names.all(|name| same(&value(wanted, name), &value(found, name)))
        }
        _ => wanted == found || (is_unset(wanted) && is_unset(found)),
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// A field of a stream that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub stream: String,
    /// The field's name in StreamConfig.
    pub field: String,
    /// What the server has, in the JetStream API's form; null where it has none.
    pub found: Value,
    /// What is wanted, in the same form.
    pub wanted: Value,
    /// What comes of it, where no setting explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<&'static str>,
    /// The setting that would decide it, and does not because it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<&'static str>,
}

impl Difference {
    /// One sentence on a value that its operator gave it: what comes of it, and what to do.
    pub fn advice(&self) -> String {
        let stream = &self.stream;
        let way = match self.setting {
            _ if self.cannot_be_edited() => format!("keep it, or {}", self.way_back()),
            Some(setting) => {
                format!("set {setting} to say so, or put it back with `nats stream edit {stream}`")
            }
            None => format!("keep it, or put it back with `nats stream edit {stream}`"),
        };
        format!("{self}. It was changed by hand and is left as it is: {way}")
    }

    /// Whether the stream is to take less of the account than it does.
    pub(super) fn is_lowered(&self) -> bool {
        let size = |value: &Value| match value.as_i64() {
            Some(size) if size > 0 => size,
            _ => i64::MAX,
        };
        matches!(self.field.as_str(), "max_bytes" | "num_replicas")
            && size(&self.wanted) < size(&self.found)
    }

    /// Whether the server lets nobody undo it.
    fn cannot_be_edited(&self) -> bool {
        match self.field.as_str() {
            "sealed" | "mirror" | "allow_msg_counter" | "persist_mode" | "storage" => true,
            "retention" => self.found == "workqueue",
            _ => false,
        }
    }

    /// How it is undone, in words that follow "or".
    pub(super) fn way_back(&self) -> String {
        let stream = &self.stream;
        if self.cannot_be_edited() {
            return format!(
                "make the stream anew, since the server lets nobody undo that: `nats stream backup {stream} FOLDER`, \
                `nats stream rm {stream}`, then `nats stream restore --config FILE FOLDER` with its configuration as \
                Herald makes it (docs/operations.md, \"A sealed stream\")"
            );
        }
        let bytes = match (self.field.as_str(), self.wanted.as_i64()) {
            ("max_bytes", Some(bytes)) => format!(" --max-bytes={bytes}"),
            _ => String::new(),
        };
        format!("put it back (nats stream edit {stream}{bytes})")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, field) = (&self.stream, &self.field);
        let found = readable(field, &self.found);
        let wanted = readable(field, &self.wanted);
        write!(f, "stream {stream}: {field} is {found}, wanted {wanted}")?;
        match self.consequence {
            Some(consequence) => write!(f, " ({consequence})"),
            None => Ok(()),
        }
    }
}

/// `value` as a person writes it.
fn readable(field: &str, value: &Value) -> String {
    match value.as_i64() {
        Some(nanoseconds) if is_duration(field) && nanoseconds > 0 => {
            let duration = Duration::from_nanos(nanoseconds.unsigned_abs());
            humantime::format_duration(duration).to_string()
        }
        Some(0 | -1) if field.starts_with("max_") => "no limit".to_owned(),
        _ if value.is_null() => "not set".to_owned(),
        _ => value.to_string(),
    }
}

/// All of `differences` in one sentence.
pub(super) fn list(differences: &[Difference]) -> String {
    let parts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    parts.join("; ")
}

/// Each way back once, in words that follow "To go on,".
pub(super) fn ways_back(differences: &[Difference]) -> String {
    let ways: BTreeSet<String> = differences.iter().map(Difference::way_back).collect();
    Vec::from_iter(ways).join("; ")
}

/// How a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationState {
    /// In the ledger, with this file's checksum.
    Applied,
    /// Not in the ledger.
    Pending,
    /// In the ledger, with another checksum.
    Changed,
    /// In the ledger, but not a file of this binary.
    Unknown,
}

/// One migration, known or in the ledger or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationEntry {
    pub name: String,
    pub state: MigrationState,
    pub breaks_older_gateways: bool,
    /// The file's checksum; the ledger's where there is no file.
    pub checksum: String,
    /// The ledger's entry.
    pub applied: Option<Applied>,
}

/// A stream that should be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct MissingStream {
    pub(super) stream: String,
    /// The migration that made it.
    pub(super) migration: String,
}

/// Every migration of the binary and of the ledger, by name.
fn entries(migrations: &[Migration], ledger: &BTreeMap<String, Applied>) -> Vec<MigrationEntry> {
    let names = migrations.iter().map(|migration| &migration.name);
    let names: BTreeSet<&String> = names.chain(ledger.keys()).collect();
    let entries = names.into_iter().filter_map(|name| {
        let file = migrations.iter().find(|migration| migration.name == *name);
        let applied = ledger.get(name);
        let of_file = file.map(|file| (file.breaks_older_gateways, &file.checksum));
        let of_ledger = applied.map(|applied| (applied.breaks_older_gateways, &applied.checksum));
        let (breaks_older_gateways, checksum) = of_file.or(of_ledger)?;
        Some(MigrationEntry {
            name: name.clone(),
            state: match of_ledger {
                None => MigrationState::Pending,
                _ if file.is_none() => MigrationState::Unknown,
                Some((_, applied)) if applied == checksum => MigrationState::Applied,
                Some(_) => MigrationState::Changed,
            },
            breaks_older_gateways,
            checksum: checksum.clone(),
            applied: applied.cloned(),
        })
    });
    entries.collect()
}

/// How the migrations stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Every migration, in order.
    pub migrations: Vec<MigrationEntry>,
    /// Streams that the ledger says were made but that are not there.
    pub(super) missing: Vec<MissingStream>,
    /// Values that somebody changed by hand, with which Herald cannot keep its promises.
    pub(super) drift: Vec<Difference>,
    /// Values of streams that no migration made, but that a pending one would make otherwise.
    pub(super) other_settings: Vec<Difference>,
    /// Values that somebody changed by hand and that Herald can work with: see [`Difference::advice`].
    pub edits: Vec<Difference>,
    /// Values that are not what the settings say. `herald migrate` reconciles them.
    pub differences: Vec<Difference>,
    /// The ledger's bucket is among `drift`: what it says cannot be relied on.
    #[serde(skip)]
    pub(super) ledger_drifts: bool,
}

impl Status {
    /// Sets the streams that are `found` against what the `migrations` in the `ledger` want.
    pub(super) fn new(
        migrations: &[Migration],
        ledger: &BTreeMap<String, Applied>,
        found: &BTreeMap<String, Map<String, Value>>,
        config: &NatsConfig,
    ) -> Self {
        let mut status = Self {
            migrations: entries(migrations, ledger),
            ..Self::default()
        };
        // First, as it is the one to be put right first. Also where the ledger is empty: it may be so because its
        // bucket keeps nothing.
        let names = config.names();
        if let Some(found) = found.get(names.ledger()) {
            status.add(compare(names.ledger(), &bucket(config), found, config));
            status.ledger_drifts = !status.drift.is_empty();
        }
        let is_applied = |one: &&Migration| ledger.contains_key(&one.name);
        let (applied, pending): (Vec<_>, Vec<_>) = migrations.iter().partition(is_applied);
        let unknown = status.in_state(MigrationState::Unknown);
        let unknown: Vec<&Applied> = unknown
            .filter_map(|entry| ledger.get(&entry.name))
            .collect();
        let next = fold(pending.iter().take(1).flat_map(|one| &one.operations));
        // What a migration that this binary does not know has set is not judged. And a process that was cut short,
        // or works now, has done a part of the next migration.
        let is_unexplained = |(_, difference): &(FieldState, Difference)| {
            let (stream, field) = (difference.stream.as_str(), &difference.field);
            let mut changes = unknown.iter().filter_map(|one| one.changes.get(stream));
            let wanted = next.get(stream).and_then(|wish| wish.get(field));
            !changes.any(|fields| fields.contains(field))
                && !wanted.is_some_and(|wanted| same(wanted, &difference.found))
        };
        let wishes = fold(applied.iter().flat_map(|one| &one.operations));
        for (stream, wish) in &wishes {
            if let Some(found) = found.get(*stream) {
                let compared = compare(stream, wish, found, config);
                status.add(compared.into_iter().filter(is_unexplained).collect());
                continue;
            }
            let makes = |one: &&&Migration| one.operations.iter().any(|one| one.stream == *stream);
            status
                .missing
                .extend(applied.iter().find(makes).map(|one| MissingStream {
                    stream: (*stream).to_owned(),
                    migration: one.name.clone(),
                }));
        }
        // Streams that a pending migration would make but that are there and are others.
        let creates = pending.iter().flat_map(|one| &one.operations);
        let creates = creates.filter(|one| one.kind == OperationKind::Create);
        for (stream, wish) in fold(creates) {
            if let Some(found) = found.get(stream).filter(|_| !wishes.contains_key(stream)) {
                let mut others = Self::default();
                others.add(compare(stream, &wish, found, config));
                status.other_settings.extend(others.drift);
            }
        }
        status
    }

    fn add(&mut self, compared: Vec<(FieldState, Difference)>) {
        for (state, difference) in compared {
            match state {
                Broken(_) => self.drift.push(difference),
                Edited(_) => self.edits.push(difference),
                OfSettings => self.differences.push(difference),
            }
        }
    }

    /// Why the gateway must not serve where revocations end before the tokens that they revoke: these would come back.
    /// `None` where they do not.
    pub fn forgets_revocations(&self, config: &NatsConfig) -> Option<String> {
        let names = config.names();
        let mut differences = self.differences.iter();
        let age = differences.find(|difference| {
            difference.stream == names.revoked() && difference.field == "max_age"
        })?;
        let nanoseconds = |value: &Value| value.as_u64().filter(|age| *age > 0).unwrap_or(u64::MAX);
        (nanoseconds(&age.found) < nanoseconds(&age.wanted)).then(|| {
            format!("{age} (auth.max_token_age): revoked tokens would come back. herald migrate reconciles it")
        })
    }

    /// Whether everything is applied and as it should be. Differences from the settings do not count.
    pub fn is_applied(&self) -> bool {
        self.pending().next().is_none() && self.check().is_ok()
    }

    /// The migrations to be applied, in order.
    pub fn pending(&self) -> impl Iterator<Item = &str> {
        self.in_state(MigrationState::Pending)
            .map(|entry| entry.name.as_str())
    }

    /// The migrations in the ledger that this binary does not know.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.in_state(MigrationState::Unknown)
            .map(|entry| entry.name.as_str())
    }

    fn in_state(&self, state: MigrationState) -> impl Iterator<Item = &MigrationEntry> {
        let entries = self.migrations.iter();
        entries.filter(move |entry| entry.state == state)
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
        self.check_entries()?;
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

    fn check_entries(&self) -> Result<(), MigrateError> {
        if let Some(changed) = self.in_state(MigrationState::Changed).next() {
            let applied = changed.applied.as_ref();
            return Err(MigrateError::Changed {
                name: changed.name.clone(),
                applied: applied
                    .map(|applied| applied.checksum.clone())
                    .unwrap_or_default(),
                ours: changed.checksum.clone(),
            });
        }
        let unknown = self.in_state(MigrationState::Unknown);
        let breaking = unknown.filter(|entry| entry.breaks_older_gateways);
        let breaking: Vec<String> = breaking.map(|entry| entry.name.clone()).collect();
        if !breaking.is_empty() {
            return Err(MigrateError::Ahead { breaking });
        }
        let mut entries = self.migrations.iter().rev();
        let last = entries.find(|entry| entry.applied.is_some());
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
