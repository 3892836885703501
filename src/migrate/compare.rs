//! What is there against what is wanted, field by field. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::file::{Fields, is_duration};
use super::judge::{self, Role, Standing};

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

/// What is there against what is wanted.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// With these no promise is kept.
    pub(super) drift: Vec<Difference>,
    /// These are the operator's own, and stay.
    pub(super) edits: Vec<Difference>,
    /// These a setting decides.
    pub(super) differences: Vec<Difference>,
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
        let Self {
            stream,
            field,
            found,
            wanted,
            consequence,
            setting: _,
        } = self;
        let found = readable(field, found);
        let wanted = readable(field, wanted);
        write!(f, "stream {stream}: {field} is {found}, wanted {wanted}")?;
        match consequence {
            Some(consequence) => write!(f, " ({consequence})"),
            None => Ok(()),
        }
    }
}

/// `value` as a person writes it.
pub(super) fn readable(field: &str, value: &Value) -> String {
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

/// Sets what `found` has of a stream against `wanted`.
pub(super) fn compare(
    stream: &str,
    role: Role,
    wanted: &Fields,
    found: &Map<String, Value>,
) -> Compared {
    let mut compared = Compared::default();
    let difference = |field: &str, found: Value, wanted: Value| Difference {
        stream: stream.to_owned(),
        field: field.to_owned(),
        found,
        wanted,
        consequence: None,
        setting: None,
    };
    for (field, wish) in wanted {
        let have = found.get(field).unwrap_or(&Value::Null);
        if same(&wish.value, have) {
            continue;
        }
        let mut difference = difference(field, have.clone(), wish.value.clone());
        match judge::standing(role, &difference, wanted, found) {
            Standing::OfSettings => compared.differences.push(difference),
            Standing::Broken(why) => {
                difference.consequence = Some(why);
                compared.drift.push(difference);
            }
            Standing::Edited(consequence) => {
                difference.consequence = Some(consequence);
                difference.setting = role.setting(field);
                compared.edits.push(difference);
            }
        }
    }
    for (field, have, standing) in judge::undeclared(role, found) {
        if wanted.contains_key(field) {
            continue;
        }
        let mut difference = difference(field, have, judge::usual(role, field));
        match standing {
            Standing::Broken(why) => {
                difference.consequence = Some(why);
                compared.drift.push(difference);
            }
            Standing::Edited(consequence) => {
                difference.consequence = Some(consequence);
                compared.edits.push(difference);
            }
            Standing::OfSettings => {}
        }
    }
    compared
}

/// Whether `found` is what `wanted` asks for. The server leaves out what is unset, and writes "no limit"
/// as -1 where 0 was sent.
pub(super) fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        // Of both, since what an object has beyond the wanted one counts as well: `headers_only`.
        (Value::Object(wanted), Value::Object(found)) => {
            let value = |object: &Map<String, Value>, name| {
                object.get(name).cloned().unwrap_or(Value::Null)
            };
            let mut names = wanted.keys().chain(found.keys());
            names.all(|name| same(&value(wanted, name), &value(found, name)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(a, b)| same(a, b))
        }
        _ => wanted == found || (is_unset(wanted) && is_unset(found)),
    }
}

pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migrate::file::{Wanted, to_config};

    #[test]
    fn values_are_the_same_or_not_as_the_server_means_them() {
        for (wanted, found, expected) in [
            (json!(1), json!(1), true),
            (json!(1), json!(2), false),
            (json!(false), Value::Null, true),
            (json!(true), Value::Null, false),
            (json!(-1), json!(0), true),
            (json!(-1), json!(10), false),
            (json!("file"), json!("memory"), false),
            (json!(["a"]), json!(["a"]), true),
            (json!(["a"]), json!(["a", "b"]), false),
            (
                json!({"src": "a"}),
                json!({"src": "a", "headers_only": false}),
                true,
            ),
            (
                json!({"src": "a"}),
                json!({"src": "a", "headers_only": true}),
                false,
            ),
            (json!({"src": "a"}), json!({"src": "b"}), false),
            (json!({"src": "a"}), Value::Null, false),
        ] {
            assert_eq!(same(&wanted, &found), expected, "{wanted} and {found}");
        }
    }

    #[test]
    fn a_difference_reads_as_a_sentence() {
        let difference = Difference {
            stream: "EVENTS".to_owned(),
            field: "max_age".to_owned(),
            found: json!(7_200_000_000_000_u64),
            wanted: json!(90_000_000_000_u64),
            consequence: None,
            setting: None,
        };
        assert_eq!(
            difference.to_string(),
            "stream EVENTS: max_age is 2h, wanted 1m 30s"
        );
    }

    fn fields(max_age: i64) -> Fields {
        let fixed = |value: Value| Wanted {
            value,
            from_setting: false,
        };
        let of_setting = |value: Value| Wanted {
            value,
            from_setting: true,
        };
        Fields::from([
            ("subjects".to_owned(), fixed(json!(["ws.>"]))),
            ("retention".to_owned(), fixed(json!("limits"))),
            ("storage".to_owned(), fixed(json!("file"))),
            ("discard".to_owned(), fixed(json!("new"))),
            ("max_bytes".to_owned(), fixed(json!(-1))),
            ("max_msgs".to_owned(), fixed(json!(-1))),
            ("max_msg_size".to_owned(), fixed(json!(131_072))),
            ("max_age".to_owned(), of_setting(json!(max_age))),
            (
                "duplicate_window".to_owned(),
                of_setting(json!(max_age.min(120))),
            ),
            ("allow_direct".to_owned(), fixed(json!(true))),
            (
                "republish".to_owned(),
                fixed(json!({"src": "ws.>", "dest": "live.ws.>"})),
            ),
        ])
    }

    /// Fields that differ, each with the list that it is in.
    fn judged(role: Role, wanted: &Fields, change: &Value) -> String {
        let mut found = to_config(wanted);
        found.extend(change.as_object().unwrap().clone());
        let compared = compare("S", role, wanted, &found);
        let all = [
            ("broken", compared.drift),
            ("edited", compared.edits),
            ("setting", compared.differences),
        ];
        let all = all.into_iter().flat_map(|(word, list)| {
            list.into_iter()
                .map(move |difference| format!("{word} {}", difference.field))
        });
        all.collect::<Vec<_>>().join(", ")
    }

    /// What was changed, and what that is.
    const CASES: &[(Role, &str, &str)] = &[
        (Role::Events, "{}", ""),
        (
            Role::Events,
            r#"{"max_bytes": 1000000000}"#,
            "edited max_bytes",
        ),
        (
            Role::Events,
            r#"{"max_msgs": 10, "discard": "old"}"#,
            "edited discard, edited max_msgs",
        ),
        (
            Role::Events,
            r#"{"max_msg_size": 1024}"#,
            "edited max_msg_size",
        ),
        (
            Role::Events,
            r#"{"description": "x", "compression": "s2", "metadata": {"a": "b"}, "placement": {"tags": ["a"]}, "deny_purge": true}"#,
            "",
        ),
        (
            Role::Events,
            r#"{"subjects": ["ws.>", "more"]}"#,
            "broken subjects",
        ),
        (Role::Events, r#"{"republish": null}"#, "broken republish"),
        (
            Role::Events,
            r#"{"republish": {"src": "ws.>", "dest": "live.ws.>", "headers_only": true}}"#,
            "broken republish",
        ),
        (
            Role::Events,
            r#"{"allow_direct": false}"#,
            "broken allow_direct",
        ),
        (
            Role::Events,
            r#"{"retention": "interest"}"#,
            "broken retention",
        ),
        (Role::Events, r#"{"storage": "memory"}"#, "broken storage"),
        (Role::Sessions, r#"{"storage": "memory"}"#, "edited storage"),
        (
            Role::Sessions,
            r#"{"max_msg_size": 100}"#,
            "broken max_msg_size",
        ),
        (
            Role::Sessions,
            r#"{"max_msg_size": 4096}"#,
            "edited max_msg_size",
        ),
        (
            Role::Sessions,
            r#"{"discard_new_per_subject": true}"#,
            "broken discard_new_per_subject",
        ),
        (Role::Events, r#"{"no_ack": true}"#, "broken no_ack"),
        (Role::Events, r#"{"sealed": true}"#, "broken sealed"),
        (Role::Dead, r#"{"sealed": true}"#, "edited sealed"),
        (
            Role::Events,
            r#"{"sources": [{"name": "OTHER"}]}"#,
            "broken sources",
        ),
        (Role::Events, r#"{"sources": [], "mirror": null}"#, ""),
        (
            Role::Dead,
            r#"{"mirror": {"name": "OTHER"}}"#,
            "broken mirror",
        ),
        (
            Role::Events,
            r#"{"max_msgs_per_subject": 1, "discard_new_per_subject": true}"#,
            "broken discard_new_per_subject",
        ),
        (
            Role::Events,
            r#"{"persist_mode": "async"}"#,
            "broken persist_mode",
        ),
        (Role::Events, r#"{"persist_mode": "default"}"#, ""),
        (
            Role::Events,
            r#"{"subject_delete_marker_ttl": 60}"#,
            "edited subject_delete_marker_ttl",
        ),
        (
            Role::Events,
            r#"{"max_consumers": 3, "mirror_direct": true, "deny_delete": true, "consumer_limits": {"max_ack_pending": 1}, "first_seq": 7, "allow_atomic": true}"#,
            "",
        ),
        (
            Role::Events,
            r#"{"subject_transform": {"src": ">", "dest": "x.>"}}"#,
            "broken subject_transform",
        ),
        // The window: what the settings made, what an operator made, what the server would refuse.
        (
            Role::Events,
            r#"{"duplicate_window": 60}"#,
            "broken duplicate_window",
        ),
        (
            Role::Events,
            r#"{"duplicate_window": 600}"#,
            "edited duplicate_window",
        ),
        (
            Role::Events,
            r#"{"duplicate_window": 60, "max_age": 60}"#,
            "setting duplicate_window, setting max_age",
        ),
        (
            Role::Events,
            r#"{"duplicate_window": 7200, "max_age": 7200}"#,
            "setting duplicate_window, setting max_age",
        ),
        (
            Role::Sessions,
            r#"{"duplicate_window": 1}"#,
            "broken duplicate_window",
        ),
        (
            Role::Dead,
            r#"{"duplicate_window": 1}"#,
            "edited duplicate_window",
        ),
        // The age of these has no setting.
        (
            Role::Sessions,
            r#"{"duplicate_window": 5, "max_age": 5}"#,
            "broken duplicate_window, edited max_age",
        ),
        (
            Role::Sessions,
            r#"{"duplicate_window": 119, "max_age": 119}"#,
            "broken duplicate_window, edited max_age",
        ),
        (
            Role::Dead,
            r#"{"duplicate_window": 60, "max_age": 60}"#,
            "edited duplicate_window, edited max_age",
        ),
        (
            Role::Dead,
            r#"{"duplicate_window": 7200, "max_age": 7200}"#,
            "edited duplicate_window, edited max_age",
        ),
        (Role::Dead, r#"{"max_age": 300}"#, "edited max_age"),
    ];

    /// What was changed of the ledger's bucket, and what that is.
    const OF_THE_LEDGER: &[(&str, &str)] = &[
        ("{}", ""),
        (r#"{"retention": "interest"}"#, "broken retention"),
        (r#"{"max_age": 60}"#, "broken max_age"),
        (r#"{"discard": "old"}"#, "edited discard"),
        (
            r#"{"discard": "old", "max_msgs": 5}"#,
            "broken discard, broken max_msgs",
        ),
        (
            r#"{"discard": "old", "max_bytes": 1000000}"#,
            "broken discard",
        ),
        (r#"{"max_msgs": 5}"#, "broken max_msgs"),
        (r#"{"max_msgs": 1000}"#, "edited max_msgs"),
        (r#"{"max_bytes": 100}"#, "broken max_bytes"),
        (r#"{"max_bytes": 1000000}"#, ""),
        (
            r#"{"max_msgs_per_subject": -1}"#,
            "edited max_msgs_per_subject",
        ),
        (
            r#"{"max_msgs_per_subject": 5, "max_bytes": 1000000}"#,
            "edited max_msgs_per_subject",
        ),
        (
            r#"{"max_msgs_per_subject": -1, "max_bytes": 1000000}"#,
            "broken max_msgs_per_subject",
        ),
        (
            r#"{"discard_new_per_subject": true}"#,
            "broken discard_new_per_subject",
        ),
        (
            r#"{"republish": {"src": ">", "dest": "x.>"}}"#,
            "edited republish",
        ),
        (r#"{"storage": "memory"}"#, "edited storage"),
        (r#"{"sealed": true}"#, "broken sealed"),
    ];

    #[test]
    fn a_ledger_that_forgets_or_takes_nothing_is_refused() {
        let mut wanted = crate::migrate::ledger::bucket(&crate::config::NatsConfig::default());
        wanted.remove("max_bytes");
        for (change, expected) in OF_THE_LEDGER {
            let change = serde_json::from_str(change).unwrap();
            assert_eq!(
                judged(Role::Ledger, &wanted, &change),
                *expected,
                "{change}"
            );
        }
    }

    #[test]
    fn the_way_back_is_one_that_the_server_takes() {
        let of = |field: &str, wanted: Value| Difference {
            stream: "S".to_owned(),
            field: field.to_owned(),
            found: true.into(),
            wanted,
            consequence: None,
            setting: None,
        };
        for (difference, way) in [
            (of("subjects", Value::Null), "(nats stream edit S)"),
            (
                of("max_bytes", 9.into()),
                "(nats stream edit S --max-bytes=9)",
            ),
            (of("sealed", Value::Null), "nats stream rm S"),
        ] {
            assert!(difference.way_back().contains(way), "{difference:?}");
        }
        let advice = of("sealed", Value::Null).advice();
        assert!(
            advice.contains("restore") && !advice.contains("edit"),
            "{advice}"
        );
    }

    #[test]
    fn only_what_breaks_a_promise_is_refused() {
        for (role, change, expected) in CASES {
            let mut wanted = fields(3600);
            if *role != Role::Events {
                wanted
                    .values_mut()
                    .for_each(|wanted| wanted.from_setting = false);
            }
            let change = serde_json::from_str(change).unwrap();
            assert_eq!(judged(*role, &wanted, &change), *expected, "{change}");
        }
    }
}
