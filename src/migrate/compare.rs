//! What is there against what is wanted, field by field. Pure.

use serde_json::{Map, Value};

use super::difference::Difference;
use super::file::Fields;
use super::judge::{Role, Standing, declared, undeclared, usual, window};

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

/// Sets what `found` has of a stream against `wanted`.
pub(super) fn compare(
    stream: &str,
    role: Role,
    wanted: &Fields,
    found: &Map<String, Value>,
) -> Compared {
    let mut compared = Compared::default();
    let mut add = |difference: Difference, standing| {
        let (list, consequence) = match standing {
            Standing::OfSettings => (&mut compared.differences, None),
            Standing::Broken(why) => (&mut compared.drift, Some(why)),
            Standing::Edited(consequence) => (&mut compared.edits, Some(consequence)),
        };
        list.push(Difference {
            consequence,
            ..difference
        });
    };
    let difference = |field: &str, found: &Value, wanted: &Value| Difference {
        stream: stream.to_owned(),
        field: field.to_owned(),
        found: found.clone(),
        wanted: wanted.clone(),
        consequence: None,
        setting: None,
    };
    for (field, wish) in wanted {
        let have = found.get(field).unwrap_or(&Value::Null);
        if same(&wish.value, have) {
            continue;
        }
        let mut difference = difference(field, have, &wish.value);
        let standing = match field.as_str() {
            "duplicate_window" => window(role, &difference, wanted, found),
            _ if wish.from_setting => Standing::OfSettings,
            _ => {
                difference.setting = role.setting(field);
                declared(role, field, have, found)
            }
        };
        add(difference, standing);
    }
    for (field, have) in found {
        if wanted.contains_key(field) || is_unset(have) {
            continue;
        }
        if let Some(standing) = undeclared(role, field, have) {
            add(difference(field, have, &usual(role, field)), standing);
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
            r#"{"discard_new_per_subject": true}"#,
            "edited discard_new_per_subject",
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
