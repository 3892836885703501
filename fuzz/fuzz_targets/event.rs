//! A stored message, decoded and projected: its subject behind `ws.acme.`, headers a line each, an empty
//! line, and the payload.

#![no_main]

use std::sync::LazyLock;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use chrono::DateTime;
use herald::event::{Recipients, Severity, StoredMessage, is_traceparent};
use herald::fuzzing::projection::projector;
use herald::projection::{ENCODED_MAX, Projector};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static PROJECTOR: LazyLock<Projector> =
    LazyLock::new(|| projector(None).expect("the built-in rules"));

fn message(data: &[u8]) -> Option<StoredMessage> {
    let end = data.windows(2).position(|two| two == b"\n\n")?;
    let (head, payload) = data.split_at(end);
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let subject = format!("ws.acme.{}", lines.next()?);
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        headers.append(
            name.parse::<HeaderName>().ok()?,
            value.parse::<HeaderValue>().ok()?,
        );
    }
    Some(StoredMessage {
        subject: subject.into(),
        sequence: 7,
        time: DateTime::from_timestamp(1_764_000_000, 123_456_789)?,
        last_sequence: None,
        headers: (!headers.is_empty()).then_some(headers),
        payload: Bytes::copy_from_slice(payload.get(2..)?),
    })
}

fn json(text: &[u8]) -> Value {
    herald::json::parse(text).expect("JSON").into()
}

/// What the fields are read from: of an envelope, its data.
fn fields(message: &StoredMessage) -> Value {
    let payload = json(&message.payload);
    let is_text = |name: &&str| payload[*name].is_string();
    if !["specversion", "id", "source", "type"].iter().all(is_text) {
        return payload;
    }
    match &payload["data_base64"] {
        Value::String(text) => {
            let bytes = text.trim_end_matches('=');
            let bytes = STANDARD_NO_PAD.decode(bytes).expect("it was decoded");
            herald::json::parse(&bytes).map_or(Value::Null, Value::from)
        }
        _ => payload["data"].clone(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(message) = message(data) else {
        return;
    };
    let Ok(notification) = PROJECTOR.project(&message) else {
        return;
    };
    let text = &notification.encoded;
    assert!(text.len() <= ENCODED_MAX);
    assert!(!text.contains(['\n', '\r']), "a line break");
    let Value::Object(json) = json(text.as_bytes()) else {
        panic!("no object: {text}");
    };
    let keys = [
        "id",
        "message",
        "metadata",
        "read",
        "timestamp",
        "title",
        "type",
    ];
    assert!(json.keys().map(String::as_str).eq(keys), "{text}");
    assert_eq!(json["id"], notification.id);
    assert!(notification.id.starts_with("notif_"));
    assert!(json["title"].is_string() && json["message"].is_string());
    assert!(json["type"].as_str().and_then(Severity::parse).is_some());
    assert_eq!(json["read"], false);
    assert_eq!(json["timestamp"], "2025-11-24T16:00:00.123Z");
    if json["metadata"].is_object() {
        let own = |name: &str| json["metadata"][name].as_str().unwrap_or_default();
        assert_eq!(
            format!("ws.acme.{}", own("event")),
            message.subject.as_str()
        );
        assert!(is_traceparent(own("traceparent")));
    }
    if message.headers.is_none() {
        let fields = fields(&message);
        let recipients = fields.get("recipients");
        let is_for_all = notification.recipients == Recipients::Everyone;
        assert_eq!(is_for_all, recipients.is_none());
        let is_list = |list: &Value| {
            list.as_array()
                .is_some_and(|all| all.iter().all(Value::is_string))
        };
        assert!(recipients.is_none_or(is_list), "bad recipients were taken");
    }
    let again = PROJECTOR.project(&message).expect("as before");
    assert_eq!(again.encoded, notification.encoded, "not the same twice");
});
