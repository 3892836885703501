//! What holds for any event: nothing leaks, and the same goes in as comes out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{built_in, json_of, message};
use crate::config::TypeMode;
use crate::projection::ENCODED_MAX;

/// Every string and key of `value`.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| texts(value, into)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            into.push(key.clone());
            texts(value, into);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Payload fields whose every text begins with `secret`.
fn secrets() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let leaf = prop_oneof![
        "secret[a-zA-Z0-9\"\\\\\u{0}-\u{1f}é😀]{0,20}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("secret[a-z]{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let name =
        "data|error|token|name|collection|recordId|failed|count|durationMs|event|secret[a-z]{0,3}";
    prop::collection::btree_map(name, value, 0..6).prop_map(|map| map.into_iter().collect())
}

const EVENTS: [&str; 11] = [
    "record.created",
    "record.updated",
    "record.deleted",
    "record.bulk_completed",
    "function.started",
    "function.completed",
    "function.failed",
    "function.timeout",
    "system.maintenance",
    "custom.alert",
    "custom.x",
];

proptest! {
    #[test]
    fn nothing_outside_the_allow_list_leaves(
        event in prop::sample::select(&EVENTS[..]),
        mut fields in secrets(),
        event_mode in any::<bool>(),
    ) {
        let mut projector = built_in();
        projector.type_mode = if event_mode { TypeMode::Event } else { TypeMode::Severity };
        // The fields that the built-in rules do allow are there, and are not secret.
        for allowed in ["collection", "recordId", "operation", "count", "failed", "function", "executionId", "durationMs"] {
            if fields.contains_key(allowed) {
                fields.insert(allowed.to_owned(), json!(3));
            }
        }
        let message = message(event, Value::Object(fields).to_string());
        let notification = projector.project(&message).unwrap();
        let got = json_of(&notification);
        let mut found = Vec::new();
        texts(&got, &mut found);
        for text in found {
            prop_assert!(!text.contains("secret"), "{}", notification.encoded);
        }
        // The contract's shape, and one line.
        let keys: Vec<_> = got.as_object().unwrap().keys().map(String::as_str).collect();
        prop_assert_eq!(keys, ["id", "message", "metadata", "read", "timestamp", "title", "type"]);
        prop_assert!(got["title"].is_string() && got["message"].is_string() && got["type"].is_string());
        prop_assert_eq!(&got["read"], &json!(false));
        prop_assert!(!notification.encoded.contains(['\n', '\r']));
    }

    #[test]
    fn any_event_gives_the_same_bytes_again_and_at_most_64_kib(
        event in prop::sample::select(&EVENTS[..]),
        fields in secrets(),
        metadata in prop::option::of(secrets()),
        title in prop::option::of("[\u{0}-\u{ff}]{0,50}"),
        repeat in 1usize..3000,
    ) {
        let mut payload = serde_json::Map::clone(&fields);
        payload.remove("event");
        if let Some(metadata) = metadata {
            payload.insert("metadata".to_owned(), Value::Object(metadata));
        }
        if let Some(title) = title {
            payload.insert("title".to_owned(), json!(title.repeat(repeat)));
        }
        let message = message(event, Value::Object(payload).to_string());
        let projector = built_in();
        match (projector.project(&message), built_in().project(&message)) {
            (Ok(once), Ok(again)) => {
                prop_assert_eq!(&once.encoded, &again.encoded);
                prop_assert!(once.encoded.len() <= ENCODED_MAX);
                prop_assert_eq!(&json_of(&once)["id"], &json!(once.id));
            }
            (Err(once), Err(again)) => prop_assert_eq!(once, again),
            (once, again) => prop_assert!(false, "{once:?} {again:?}"),
        }
    }
}
