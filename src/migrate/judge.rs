//! What another value of a field comes to: whether Herald can still keep its promises, and what its
//! operator is to know. Pure.

use serde_json::{Map, Value};

use super::compare::Difference;
use super::file::Fields;
use crate::config::NatsConfig;

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
    match broken(role, &difference.field, &difference.found) {
        Some(why) => Standing::Broken(why),
        None => Standing::Edited(consequence(role, &difference.field, found)),
    }
}

/// Fields that no migration sets, and that break a promise by being set: name, value, why.
pub(super) fn undeclared(
    role: Role,
    found: &Map<String, Value>,
) -> Vec<(&'static str, Value, &'static str)> {
    let is_on = |field: &str| found.get(field).is_some_and(|value| value == true);
    let is_set = |field: &str| found.get(field).is_some_and(|value| !value.is_null());
    let mut broken = Vec::new();
    if is_on("no_ack") {
        let why = "nobody would know whether a message is stored";
        broken.push(("no_ack", true.into(), why));
    }
    if is_on("sealed") && role != Role::Dead {
        broken.push(("sealed", true.into(), "it takes no message any more"));
    }
    // Claims replace one another: one a subject, and the newest stays.
    if role == Role::Sessions && is_on("discard_new_per_subject") {
        let why = "no claim could replace another, so that nobody could come back";
        broken.push(("discard_new_per_subject", true.into(), why));
    }
    for field in ["subject_transform", "mirror"] {
        if is_set(field) {
            let why = "messages would not be stored under the subjects that they were sent to";
            broken.push((field, found.get(field).cloned().unwrap_or_default(), why));
        }
    }
    broken
}

/// Why no promise is kept with `found` in `field`.
fn broken(role: Role, field: &str, found: &Value) -> Option<&'static str> {
    match (role, field) {
        (_, "subjects") => Some("it does not take the messages that it is for, and those alone"),
        (_, "republish") => Some("gateways do not hear what is stored"),
        (Role::Events | Role::Sessions | Role::Dead, "allow_direct") => {
            Some("gateways cannot read what they missed")
        }
        (_, "retention") => Some("messages go before they are old"),
        (Role::Events, "storage") => {
            Some("an acknowledged event would not survive the server's restart")
        }
        (Role::Sessions, "max_msg_size")
            if found
                .as_i64()
                .is_some_and(|size| (1..CLAIM_BYTES).contains(&size)) =>
        {
            Some("it takes no claim, so that nobody could join")
        }
        (Role::Ledger, "max_age") => Some("what was applied would be forgotten"),
        _ => None,
    }
}

/// A window is too short where it forgets a retry that it was made to know. One that is as short as the
/// stream's own age was made so by the settings, and one that the server would not take beside the
/// wanted age has to go with it.
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
        return match have > wanted_age {
            true => Standing::OfSettings,
            false => Standing::Edited("a publisher's retry is known for longer"),
        };
    }
    if have >= age(found.get("max_age")) {
        return Standing::OfSettings;
    }
    match role {
        Role::Events => Standing::Broken("a publisher's retry would be stored twice"),
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
        _ => WORKS,
    }
}
