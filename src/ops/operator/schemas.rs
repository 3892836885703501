//! The requests and answers as JSON Schemas, which the service's INFO has in the metadata of each endpoint.

use serde_json::{Map, Value, json};

use super::wire::{END_REASONS, OVER_MAX, OperatorEndpoint, PAGE_SESSIONS};

/// As a session is written.
const SESSION: &str = "^[0-9a-fA-F]{32}$";

/// The schemas of a request and its answer, as text: metadata of a micro service has no other values.
pub(super) fn of(endpoint: OperatorEndpoint) -> [String; 2] {
    [request(endpoint), answer(endpoint)].map(|schema| schema.to_string())
}

/// An object with these keys and no other, of which those that are not `required` may be missing.
fn object(keys: &[(&str, Value)], required: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": properties(keys),
        "required": required,
        "additionalProperties": false,
    })
}

fn properties(keys: &[(&str, Value)]) -> Map<String, Value> {
    let keys = keys.iter();
    keys.map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect()
}

fn text() -> Value {
    json!({ "type": "string" })
}

/// `null` is as if the key were missing, here and below.
fn optional_text() -> Value {
    json!({ "type": ["string", "null"] })
}

fn optional_session() -> Value {
    json!({ "type": ["string", "null"], "pattern": SESSION })
}

fn optional_number(least: u64, most: u64) -> Value {
    json!({ "type": ["integer", "null"], "minimum": least, "maximum": most })
}

fn null() -> Value {
    json!({ "type": "null" })
}

fn request(endpoint: OperatorEndpoint) -> Value {
    let [_, most] = PAGE_SESSIONS;
    match endpoint {
        OperatorEndpoint::Gateways => object(&[("gateway", optional_text())], &[]),
        OperatorEndpoint::Sessions => object(
            &[
                ("gateway", optional_text()),
                ("workspace", optional_text()),
                ("user", optional_text()),
                ("issuer", optional_text()),
                ("older_s", optional_number(0, u64::MAX)),
                ("younger_s", optional_number(0, u64::MAX)),
                ("after", optional_session()),
                ("limit", optional_number(1, most as u64)),
                ("count", json!({ "type": "boolean" })),
            ],
            &[],
        ),
        OperatorEndpoint::Disconnect => disconnect(),
        OperatorEndpoint::Drain => object(&[("gateway", text())], &["gateway"]),
        OperatorEndpoint::LogLevel => object(
            &[("gateway", text()), ("level", optional_text())],
            &["gateway", "level"],
        ),
    }
}

/// Whose sessions end, and how: of each exactly what is possible together.
fn disconnect() -> Value {
    let keys = [
        "session",
        "user",
        "issuer",
        "workspace",
        "code",
        "reason",
        "over_ms",
    ];
    let mut schema = object(&keys.map(|key| (key, json!({}))), &[]);
    let whose = [
        (
            "session",
            [
                ("session", json!({ "type": "string", "pattern": SESSION })),
                ("user", null()),
                ("issuer", null()),
                ("workspace", null()),
            ],
        ),
        (
            "user",
            [
                ("session", null()),
                ("user", text()),
                ("issuer", optional_text()),
                ("workspace", optional_text()),
            ],
        ),
        (
            "workspace",
            [
                ("session", null()),
                ("user", null()),
                ("issuer", null()),
                ("workspace", text()),
            ],
        ),
    ];
    let whose = whose
        .map(|(required, keys)| json!({ "required": [required], "properties": properties(&keys) }));
    let [default, ..] = END_REASONS;
    let ways = END_REASONS.map(|reason| {
        let (code, text) = (reason.code(), reason.text());
        let is_default = code == default.code();
        let (codes, required) = match is_default {
            true => (json!([code, null]), json!([])),
            false => (json!([code]), json!(["code"])),
        };
        let most = if reason.is_immediate() {
            0
        } else {
            OVER_MAX.as_secs() * 1000
        };
        let keys = [
            ("code", json!({ "enum": codes })),
            ("reason", json!({ "enum": [text, null] })),
            ("over_ms", optional_number(0, most)),
        ];
        json!({ "required": required, "properties": properties(&keys) })
    });
    let both = json!([{ "anyOf": whose }, { "anyOf": ways }]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("allOf".to_owned(), both);
    }
    schema
}

/// Later versions may add keys to an answer.
fn answer(endpoint: OperatorEndpoint) -> Value {
    let own: &[&str] = match endpoint {
        OperatorEndpoint::Gateways => &["version", "started", "ready", "sockets", "migrations"],
        OperatorEndpoint::Sessions => &["sessions"],
        OperatorEndpoint::Disconnect => &["closing"],
        OperatorEndpoint::Drain => &["sockets"],
        OperatorEndpoint::LogLevel => &["log_level"],
    };
    let required: Vec<_> = ["gateway", "process"].iter().chain(own).collect();
    json!({ "type": "object", "required": required })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::operator::is_understood;

    /// Whether `value` is valid, by the part of JSON Schema that is used here.
    fn accepts(schema: &Value, value: &Value) -> bool {
        let all = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
        let types = match &schema["type"] {
            Value::Null => Vec::new(),
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        };
        let is = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            other => panic!("{other}"),
        };
        let in_bounds = |number: f64| {
            let bound = |key: &str, default| schema[key].as_f64().unwrap_or(default);
            (bound("minimum", f64::MIN)..=bound("maximum", f64::MAX)).contains(&number)
        };
        let fits = |text: &str| match schema["pattern"].as_str() {
            None => true,
            Some(SESSION) => text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit()),
            Some(other) => panic!("{other}"),
        };
        let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
        let is_known = |(key, value): (&String, &Value)| match schema["properties"].get(key) {
            Some(schema) => accepts(schema, value),
            None => schema["additionalProperties"] != false,
        };
        let any = all("anyOf");
        (types.is_empty() || types.iter().any(is))
            && (all("enum").is_empty() || all("enum").contains(value))
            && value.as_f64().is_none_or(in_bounds)
            && value.as_str().is_none_or(fits)
            && all("required").iter().all(has)
            && value
                .as_object()
                .is_none_or(|object| object.iter().all(is_known))
            && all("allOf").iter().all(|schema| accepts(schema, value))
            && (any.is_empty() || any.iter().any(|schema| accepts(schema, value)))
    }

    /// What one key may have, right and wrong.
    fn values() -> Vec<Value> {
        let mut values = vec![
            json!(null),
            json!(true),
            json!(false),
            json!(""),
            json!("acme"),
            json!([]),
            json!({}),
            json!(-1),
            json!(0),
            json!(1),
            json!(1.5),
            json!(2000),
            json!(2001),
            json!(600_000),
            json!(600_001),
            json!(u64::MAX),
            json!(1e30),
            json!("0f6b0c1e5f0b4a9d8a3c2f7e9d1b6a54"),
            json!("0f6b0c1e-5f0b-4a9d-8a3c-2f7e9d1b6a54"),
            json!(1000),
        ];
        values.extend(END_REASONS.map(|reason| json!(reason.code())));
        values.extend(END_REASONS.map(|reason| json!(reason.text())));
        values
    }

    /// `base` with each value of each of these keys.
    fn with_each<'a>(base: &'a Value, keys: &'a [&str]) -> impl Iterator<Item = Value> + 'a {
        keys.iter().flat_map(move |key| {
            values().into_iter().map(move |value| {
                let mut body = base.clone();
                body[*key] = value;
                body
            })
        })
    }

    /// Each value of each key, alone and beside what is there anyway, and of the keys that depend on each other any two.
    /// A number such as `1.0` is not among them: a schema takes it for an integer.
    #[test]
    fn what_a_schema_accepts_is_understood_and_nothing_else() {
        let keys = [
            "gateway",
            "workspace",
            "user",
            "issuer",
            "older_s",
            "younger_s",
            "after",
            "limit",
            "count",
            "session",
            "code",
            "reason",
            "over_ms",
            "level",
            "stream",
        ];
        let dependent = ["code", "reason", "over_ms", "session", "workspace"];
        let bases = [
            json!({}),
            json!({"gateway": "gw-1"}),
            json!({"user": "ada"}),
            json!({"workspace": "acme"}),
            json!({"session": "0f6b0c1e5f0b4a9d8a3c2f7e9d1b6a54"}),
            json!({"user": "ada", "code": 4001}),
        ];
        for endpoint in OperatorEndpoint::ALL {
            let [schema, _] = of(endpoint);
            let schema = serde_json::from_str(&schema).unwrap();
            let (mut understood, mut refused) = (0, 0);
            let mut check = |body: &Value| {
                let is_right = is_understood(endpoint, body.to_string().as_bytes());
                assert_eq!(accepts(&schema, body), is_right, "{endpoint:?} {body}");
                *if is_right {
                    &mut understood
                } else {
                    &mut refused
                } += 1;
            };
            values().iter().for_each(&mut check);
            for base in &bases {
                for body in with_each(base, &keys) {
                    check(&body);
                }
            }
            if endpoint == OperatorEndpoint::Disconnect {
                for base in with_each(&json!({"user": "ada"}), &dependent) {
                    with_each(&base, &dependent).for_each(|body| check(&body));
                }
            }
            assert!(
                understood > 3 && refused > 10,
                "{endpoint:?}: {understood}, {refused}"
            );
        }
    }
}
