//! A stored message, decoded and projected: its subject behind `ws.acme.`, headers a line each, an empty
//! line, and the payload.

#![no_main]

use std::sync::LazyLock;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use chrono::DateTime;
use herald::event::{Recipients, Severity, StoredMessage, WorkspaceSlug};
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
        workspace: WorkspaceSlug::parse("acme").ok()?,
        subject: subject.into(),
        sequence: 7,
        time: DateTime::from_timestamp(1_764_000_000, 123_456_789)?,
        headers: (!headers.is_empty()).then_some(headers),
        payload: Bytes::copy_from_slice(payload.get(2..)?),
    })
}

/// Whether the payload, read as plain JSON, names recipients in another form than a list of strings.
fn has_bad_recipients(message: &StoredMessage) -> bool {
    let payload: Value = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
    let is_bad = |list: &Value| {
        !list
            .as_array()
            .is_some_and(|all| all.iter().all(Value::is_string))
    };
    payload.get("recipients").is_some_and(is_bad)
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
    let Ok(Value::Object(json)) = serde_json::from_str(text) else {
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
    assert_eq!(json["metadata"]["event"], notification.event.to_string());
    assert_eq!(json["metadata"]["traceparent"], notification.traceparent);
    if message.headers.is_none() {
        assert!(!has_bad_recipients(&message), "bad recipients were taken");
        let payload: Value = serde_json::from_slice(&message.payload).expect("it was decoded");
        let is_for_all = notification.recipients == Recipients::Everyone;
        assert_eq!(is_for_all, payload.get("recipients").is_none());
    }
    let again = PROJECTOR.project(&message).expect("as before");
    assert_eq!(again.encoded, notification.encoded, "not the same twice");
});
