//! What another value of a field comes to: whether Herald can still keep its promises, and what its
//! operator is to know. Pure.

use serde_json::{Map, Value};

use super::difference::Difference;
use super::file::Fields;
use crate::config::NatsConfig;

/// Most bytes of the ledger's bucket where the streams have limits: some thousand entries.
pub(super) const LEDGER_BYTES_MAX: i64 = 1024 * 1024;
/// A bucket that takes less has no room for the entries of some years.
const LEDGER_BYTES_MIN: i64 = 16 * 1024;
/// The same in messages.
const LEDGER_MESSAGES_MIN: i64 = 64;
/// A claim with its headers, and room to grow. A stream that takes less than this takes no claim.
const CLAIM_BYTES: i64 = 1024;

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
#[derive(Debug)]
pub(super) enum Standing {
    /// No promise is kept with it, and this is why.
    Broken(&'static str),
    /// The operator's own; this comes of it.
    Edited(&'static str),
    /// As it would be had the settings been others.
    OfSettings,
}

use Standing::{Broken, Edited, OfSettings};

const FORGOTTEN: &str = "the bucket would forget which migrations were applied";
const NO_ROOM: &str = "the bucket has no room for the ledger, so that nobody could migrate";
const NOT_DURABLE: &str = "an acknowledged event would not survive the server's restart";
const WORKS: &str = "Herald works with it";

/// How `have` stands in a `field` that a migration sets otherwise, in a stream that has `found`.
pub(super) fn declared(
    role: Role,
    field: &str,
    have: &Value,
    found: &Map<String, Value>,
) -> Standing {
    let number = |field: &str| found.get(field).and_then(Value::as_i64).unwrap_or(0);
    let drops = found.get("discard").is_none_or(|discard| discard == "old");
    let has_limit = number("max_bytes") > 0 || number("max_msgs") > 0;
    match (role, field) {
        (_, "subjects") => Broken("it does not take the messages that it is for, and those alone"),
        (_, "republish") => Broken("gateways do not hear what is stored"),
        (Role::Events | Role::Sessions | Role::Dead, "allow_direct") => {
            Broken("gateways cannot read what they missed")
        }
        (Role::Ledger, "retention" | "max_age") => Broken(FORGOTTEN),
        (Role::Ledger, "discard") if drops && has_limit => Broken(FORGOTTEN),
        (Role::Ledger, "max_msgs") if drops && number(field) > 0 => Broken(FORGOTTEN),
        (Role::Ledger, "max_msgs") if is_below(have, LEDGER_MESSAGES_MIN) => Broken(NO_ROOM),
        (Role::Ledger, "max_bytes" | "max_msgs") => {
            Edited("a full bucket takes no further migration")
        }
        (Role::Ledger, "max_msgs_per_subject") => {
            Edited("the bucket keeps what was deleted from it")
        }
        (_, "retention") => Broken("messages go before they are old"),
        (Role::Events, "storage") => Broken(NOT_DURABLE),
        (Role::Sessions, "max_msg_size") if is_below(have, CLAIM_BYTES) => {
            Broken("it takes no claim, so that nobody could join")
        }
        (Role::Events, "max_bytes" | "max_msgs") if drops => {
            Edited("a full stream drops events that a gateway may still have to fetch")
        }
        (Role::Events, "max_bytes" | "max_msgs") => Edited("a full stream refuses new events"),
        (Role::Events, "max_msgs_per_subject") => {
            Edited("events of a busy subject go while a gateway may still have to fetch them")
        }
        (Role::Events, "discard") => Edited(
            "a full stream drops events that a gateway may still have to fetch, and refuses none",
        ),
        (Role::Sessions, "max_bytes" | "max_msgs") if drops => {
            Edited("a full stream drops claims, which gateways make again")
        }
        (Role::Sessions, "max_bytes" | "max_msgs") => Edited("a full stream refuses newcomers"),
        (Role::Sessions, "discard") => {
            Edited("a full stream drops claims, which gateways make again")
        }
        (Role::Sessions, "max_age") => Edited("claims that are dropped earlier are made again"),
        (Role::Dead, "max_bytes" | "max_msgs" | "max_age" | "discard") => {
            Edited("dead letters are kept in another number, or for another time")
        }
        (Role::Events | Role::Dead, "max_msg_size") => {
            Edited("what is larger is refused, and its publisher is told")
        }
        (Role::Events, "allow_rollup_hdrs" | "allow_msg_ttl") => {
            Edited("a publisher can remove events that a gateway may still have to fetch")
        }
        (Role::Events, "allow_msg_schedules") => Edited("a publisher can have events stored later"),
        _ => Edited(WORKS),
    }
}

/// How `have` stands in a `field` that no migration sets. Nothing: it changes nothing for Herald.
pub(super) fn undeclared(role: Role, field: &str, have: &Value) -> Option<Standing> {
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
            Edited("a migration whose entry was deleted cannot be applied again")
        }
        (_, "subject_transform" | "mirror") => {
            Broken("messages would not be stored under the subjects that they were sent to")
        }
        (_, "sources") => Broken("it stores the messages of other streams, which it is not for"),
        (_, "allow_msg_counter") => Broken("it takes counters, and nothing else"),
        (Role::Events, "persist_mode") if have == "async" => Broken(NOT_DURABLE),
        (Role::Dead | Role::Ledger, "republish") => {
            Edited("what is stored is sent to another subject as well")
        }
        (Role::Events, "subject_delete_marker_ttl") => {
            Edited("markers are stored as if they were events, and become dead letters")
        }
        (Role::Sessions, "subject_delete_marker_ttl") => {
            Edited("markers are stored as if they were claims, which gateways leave aside")
        }
        (Role::Ledger, "max_bytes") if is_below(have, LEDGER_BYTES_MIN) => Broken(NO_ROOM),
        _ => return None,
    })
}

/// What a `field` that no migration sets is elsewhere.
pub(super) fn usual(role: Role, field: &str) -> Value {
    match (role, field) {
        (Role::Ledger, "max_bytes") => LEDGER_BYTES_MAX.into(),
        _ => Value::Null,
    }
}

fn is_below(value: &Value, least: i64) -> bool {
    value
        .as_i64()
        .is_some_and(|value| (1..least).contains(&value))
}

/// A window is too short where it forgets a retry that it was made to know. In EVENTS, whose age is for the
/// settings to say, one that is as short as the age was made so by them, and one that the server would not take
/// beside the wanted age has to go with it. The age of the others is fixed: what is shorter was made so by hand.
pub(super) fn window(
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
            (Role::Events, true) => OfSettings,
            _ => Edited("what is sent again is known for longer"),
        };
    }
    let found_age = age(found.get("max_age"));
    match role {
        Role::Events if have >= found_age => OfSettings,
        Role::Events => Broken("a publisher's retry would be stored twice"),
        // The server takes no window that is longer than the age.
        Role::Sessions if found_age < wish => Broken(
            "a claim that is sent again would be stored twice; a longer one needs a longer max_age, too",
        ),
        Role::Sessions => Broken("a claim that is sent again would be stored twice"),
        Role::Dead | Role::Ledger => Edited(WORKS),
    }
}
