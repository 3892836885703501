//! What another value of a field comes to: whether Herald can still keep its promises, and what its
//! operator is to know. Pure.

use serde_json::{Map, Value};

use super::compare::{Difference, is_unset};
use super::file::Fields;
use crate::config::NatsConfig;

/// A claim with its headers, and room to grow. A stream that takes less than this takes no claim.
const CLAIM_BYTES: i64 = 1024;
/// A bucket of the ledger that takes less has no room for the lock beside the entries of some years.
const LEDGER_BYTES: i64 = 16 * 1024;
/// The same in messages.
const LEDGER_MESSAGES: i64 = 64;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Events,
    Sessions,
    Dead,
    Ledger,
}

impl Role {
    /// The role of `stream`; one that only a later Herald knows is judged as that of events is.
    pub(super) fn of(stream: &str, config: &NatsConfig) -> Self {
        let names = config.names();
        match stream {
            _ if stream == names.sessions() => Self::Sessions,
            _ if stream == names.dead() => Self::Dead,
            _ if stream == names.ledger() => Self::Ledger,
            _ => Self::Events,
        }
    }

    /// The value of the setting in bytes.
    pub(super) fn bytes(self, config: &NatsConfig) -> Option<u64> {
        match self {
            Self::Events => config.max_bytes,
            Self::Sessions => config.sessions_max_bytes,
            Self::Dead => config.dead_max_bytes,
            Self::Ledger => None,
        }
    }

    /// The setting that decides `field`, if there is one and it is not set.
    pub(super) fn setting(self, field: &str) -> Option<&'static str> {
        match (self, field) {
            (Self::Events, "max_bytes") => Some("nats.max_bytes"),
            (Self::Sessions, "max_bytes") => Some("nats.sessions_max_bytes"),
            (Self::Dead, "max_bytes") => Some("nats.dead_max_bytes"),
            _ => None,
        }
    }
}

/// How a field stands that is not as a migration made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// No promise is kept with it, and this is why.
    Broken(&'static str),
    /// The operator's own; this comes of it.
    Edited(&'static str),
    /// As it would be had the settings been others.
    OfSettings,
}

/// How `difference` stands, in a stream that has `found` and of which `wanted` is wanted.
pub(super) fn standing(
    role: Role,
    difference: &Difference,
    wanted: &Fields,
    found: &Map<String, Value>,
) -> Standing {
    let is_setting = wanted
        .get(&difference.field)
        .is_some_and(|wanted| wanted.from_setting);
    if difference.field == "duplicate_window" {
        return window(role, difference, wanted, found);
    }
    if is_setting {
        return Standing::OfSettings;
    }
    match broken(role, difference, found) {
        Some(why) => Standing::Broken(why),
        None => Standing::Edited(consequence(role, &difference.field, found)),
    }
}

/// Fields that no migration sets, with how each stands that is set. Those that are not named here change
/// nothing for Herald.
pub(super) fn undeclared(
    role: Role,
    found: &Map<String, Value>,
) -> Vec<(&'static str, Value, Standing)> {
    const FIELDS: &[&str] = &[
        "no_ack",
        "sealed",
        "discard_new_per_subject",
        "subject_transform",
        "mirror",
        "sources",
        "republish",
        "allow_msg_counter",
        "persist_mode",
        "subject_delete_marker_ttl",
        "max_bytes",
    ];
    let set = FIELDS.iter().filter_map(|field| {
        let value = found.get(*field).filter(|value| !is_unset(value))?;
        let standing = undeclared_standing(role, field, value)?;
        Some((*field, value.clone(), standing))
    });
    set.collect()
}

/// How `value` stands in a `field` that no migration sets. Nothing: it changes nothing.
fn undeclared_standing(role: Role, field: &str, value: &Value) -> Option<Standing> {
    use Standing::{Broken, Edited};
    Some(match (role, field) {
        (_, "no_ack") => Broken("nobody would know whether a message is stored"),
        (Role::Dead, "sealed") => Edited("it takes no dead letter any more"),
        (_, "sealed") => Broken("it takes no message any more"),
        (Role::Events, "discard_new_per_subject") => {
            Broken("a subject that is full refuses every further event to its publisher")
        }
        // Claims replace one another: one a subject, and the newest stays.
        (Role::Sessions, "discard_new_per_subject") => {
            Broken("no claim could replace another, so that nobody could come back")
        }
        (Role::Ledger, "discard_new_per_subject") => {
            Broken("the lock could not be renewed, so that nobody could migrate")
        }
        (_, "subject_transform" | "mirror") => {
            Broken("messages would not be stored under the subjects that they were sent to")
        }
        (_, "sources") => Broken("it stores the messages of other streams, which it is not for"),
        (_, "allow_msg_counter") => Broken("it takes counters, and nothing else"),
        (Role::Events, "persist_mode") if value == "async" => Broken(NOT_DURABLE),
        (Role::Dead | Role::Ledger, "republish") => {
            Edited("what is stored is sent to another subject as well")
        }
        (Role::Events, "subject_delete_marker_ttl") => {
            Edited("markers are stored as if they were events, and become dead letters")
        }
        (Role::Sessions, "subject_delete_marker_ttl") => {
            Edited("markers are stored as if they were claims, which gateways leave aside")
        }
        (Role::Ledger, "max_bytes") if is_below(value, LEDGER_BYTES) => {
            Broken("the bucket has no room for the lock, so that nobody could migrate")
        }
        _ => return None,
    })
}

/// What a `field` that no migration sets is elsewhere.
pub(super) fn usual(role: Role, field: &str) -> Value {
    match (role, field) {
        (Role::Ledger, "max_bytes") => super::ledger::MAX_BYTES.into(),
        _ => Value::Null,
    }
}

fn is_below(value: &Value, least: i64) -> bool {
    value
        .as_i64()
        .is_some_and(|value| (1..least).contains(&value))
}

const NOT_DURABLE: &str = "an acknowledged event would not survive the server's restart";

/// Why the ledger's bucket, which has `found`, loses what was applied or takes no more.
fn broken_ledger(field: &str, found: &Map<String, Value>) -> Option<&'static str> {
    let number = |field: &str| found.get(field).and_then(Value::as_i64).unwrap_or(0);
    let drops = found.get("discard").is_none_or(|discard| discard == "old");
    let has_limit = number("max_bytes") > 0 || number("max_msgs") > 0;
    match field {
        "retention" | "max_age" => Some(FORGOTTEN),
        "discard" if drops && has_limit => Some(FORGOTTEN),
        "max_msgs" if drops && number(field) > 0 => Some(FORGOTTEN),
        "max_msgs" if (1..LEDGER_MESSAGES).contains(&number(field)) => {
            Some("the bucket has no room for the lock, so that nobody could migrate")
        }
        // Each renewal of the lock would stay.
        "max_msgs_per_subject" if number(field) < 1 && has_limit => {
            Some("the bucket fills with what the lock was, and then nobody could migrate")
        }
        _ => None,
    }
}

const FORGOTTEN: &str = "the bucket would forget which migrations were applied";

/// Why no promise is kept with `difference`, in a stream that has `found`.
fn broken(role: Role, difference: &Difference, found: &Map<String, Value>) -> Option<&'static str> {
    if role == Role::Ledger
        && let Some(why) = broken_ledger(&difference.field, found)
    {
        return Some(why);
    }
    match (role, difference.field.as_str()) {
        (_, "subjects") => Some("it does not take the messages that it is for, and those alone"),
        (_, "republish") => Some("gateways do not hear what is stored"),
        (Role::Events | Role::Sessions | Role::Dead, "allow_direct") => {
            Some("gateways cannot read what they missed")
        }
        (_, "retention") => Some("messages go before they are old"),
        (Role::Events, "storage") => Some(NOT_DURABLE),
        (Role::Sessions, "max_msg_size") if is_below(&difference.found, CLAIM_BYTES) => {
            Some("it takes no claim, so that nobody could join")
        }
        _ => None,
    }
}

/// A window is too short where it forgets a retry that it was made to know. In EVENTS, whose age is for the
/// settings to say, one that is as short as the age was made so by them, and one that the server would not take
/// beside the wanted age has to go with it. The age of the others is fixed: what is shorter was made so by hand.
fn window(
    role: Role,
    difference: &Difference,
    wanted: &Fields,
    found: &Map<String, Value>,
) -> Standing {
    let age = |value: Option<&Value>| match value.and_then(Value::as_i64) {
        None | Some(0) => i64::MAX,
        Some(age) => age,
    };
    let have = difference.found.as_i64().unwrap_or(0);
    let wish = difference.wanted.as_i64().unwrap_or(0);
    let wanted_age = age(wanted.get("max_age").map(|wanted| &wanted.value));
    if have > wish {
        return match (role, have > wanted_age) {
            (Role::Events, true) => Standing::OfSettings,
            _ => Standing::Edited("what is sent again is known for longer"),
        };
    }
    let found_age = age(found.get("max_age"));
    match role {
        Role::Events if have >= found_age => Standing::OfSettings,
        Role::Events => Standing::Broken("a publisher's retry would be stored twice"),
        // The server takes no window that is longer than the age.
        Role::Sessions if found_age < wish => Standing::Broken(
            "a claim that is sent again would be stored twice; a longer one needs a longer max_age, too",
        ),
        Role::Sessions => Standing::Broken("a claim that is sent again would be stored twice"),
        Role::Dead | Role::Ledger => Standing::Edited(WORKS),
    }
}

const WORKS: &str = "Herald works with it";

/// What comes of another value in `field` of a stream that has `found`.
fn consequence(role: Role, field: &str, found: &Map<String, Value>) -> &'static str {
    let drops = found.get("discard").is_none_or(|discard| discard == "old");
    match (role, field) {
        (Role::Events, "max_bytes" | "max_msgs") if drops => {
            "a full stream drops events that a gateway may still have to fetch"
        }
        (Role::Events, "max_bytes" | "max_msgs") => "a full stream refuses new events",
        (Role::Events, "max_msgs_per_subject") => {
            "events of a busy subject go while a gateway may still have to fetch them"
        }
        (Role::Events, "discard") => {
            "a full stream drops events that a gateway may still have to fetch, and refuses none"
        }
        (Role::Sessions, "max_bytes" | "max_msgs") if drops => {
            "a full stream drops claims, which gateways make again"
        }
        (Role::Sessions, "max_bytes" | "max_msgs") => "a full stream refuses newcomers",
        (Role::Sessions, "discard") => "a full stream drops claims, which gateways make again",
        (Role::Sessions, "max_age") => "claims that are dropped earlier are made again",
        (Role::Dead, "max_bytes" | "max_msgs" | "max_age" | "discard") => {
            "dead letters are kept in another number, or for another time"
        }
        (Role::Events | Role::Dead, "max_msg_size") => {
            "what is larger is refused, and its publisher is told"
        }
        (Role::Events, "allow_rollup_hdrs" | "allow_msg_ttl") => {
            "a publisher can remove events that a gateway may still have to fetch"
        }
        (Role::Events, "allow_msg_schedules") => "a publisher can have events stored later",
        (Role::Ledger, "max_bytes" | "max_msgs") => "a full bucket takes no further migration",
        (Role::Ledger, "max_msgs_per_subject") => "the bucket keeps what the lock was",
        _ => WORKS,
    }
}
