//! What is there against what is wanted, field by field. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::file::{Fields, is_duration};

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
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stream,
            field,
            found,
            wanted,
        } = self;
        let found = readable(field, found);
        let wanted = readable(field, wanted);
        write!(f, "stream {stream}: {field} is {found}, wanted {wanted}")
    }
}

/// `value` as a person writes it.
pub(super) fn readable(field: &str, value: &Value) -> String {
    match value.as_u64() {
        Some(nanoseconds) if is_duration(field) && nanoseconds > 0 => {
            humantime::format_duration(Duration::from_nanos(nanoseconds)).to_string()
        }
        _ if value.is_null() => "not set".to_owned(),
        _ => value.to_string(),
    }
}

/// The fields of `wanted` that `found` has otherwise, split into those that a migration fixes (drift)
/// and those that a setting decides (differences).
pub(super) fn compare(
    stream: &str,
    wanted: &Fields,
    found: &Map<String, Value>,
) -> (Vec<Difference>, Vec<Difference>) {
    let mut drift = Vec::new();
    let mut differences = Vec::new();
    for (field, wish) in wanted {
        let have = found.get(field).unwrap_or(&Value::Null);
        if same(&wish.value, have) {
            continue;
        }
        let list = if wish.from_setting {
            &mut differences
        } else {
            &mut drift
        };
        list.push(Difference {
            stream: stream.to_owned(),
            field: field.clone(),
            found: have.clone(),
            wanted: wish.value.clone(),
        });
    }
    (drift, differences)
}

/// Whether `found` is what `wanted` asks for. The server leaves out what is unset, writes "no limit"
/// as -1 where 0 was sent, and adds to objects what they were not given.
pub(super) fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .all(|(name, wanted)| same(wanted, found.get(name).unwrap_or(&Value::Null))),
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
        };
        assert_eq!(
            difference.to_string(),
            "stream EVENTS: max_age is 2h, wanted 1m 30s"
        );
    }
}
