//! A rules file: read, and tried on events. What templates cost is bounded: see also libFuzzer's own limits of
//! time and memory.

#![no_main]

use bytes::Bytes;
use chrono::DateTime;
use herald::event::StoredMessage;
use herald::fuzzing::projection::projector;
use herald::projection::ENCODED_MAX;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const EVENTS: [(&str, &str); 5] = [
    (
        "record.created",
        r#"{"collection":"orders","recordId":"r1","data":{"status":"paid","total":12.5,"tags":["a","b"]}}"#,
    ),
    (
        "record.bulk_completed",
        r#"{"collection":"orders","operation":"import","count":12,"failed":2}"#,
    ),
    (
        "function.failed",
        r#"{"function":"f","executionId":"e1","durationMs":17,"error":"x\ny \"z\""}"#,
    ),
    (
        "custom.order_placed",
        r#"{"n":18446744073709551615,"deep":[[[[{"a":null}]]]],"text":"\u0000\ud83e\udd80"}"#,
    ),
    (
        "custom.stripe",
        r#"{"type":"charge.succeeded","event":{"type":"t"},"recipients":null,"data":{"object":{"amount":2050}},"commits":[{"message":"m"},1]}"#,
    ),
];

fuzz_target!(|data: &str| {
    let Some(projector) = projector(Some(data)) else {
        return;
    };
    for (name, payload) in EVENTS {
        let message = StoredMessage {
            subject: format!("ws.acme.{name}").into(),
            sequence: 7,
            time: DateTime::from_timestamp(1_764_000_000, 0).expect("a time"),
            last_sequence: None,
            headers: None,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let first = projector.project(&message);
        if let Ok(notification) = &first {
            assert!(notification.encoded.len() <= ENCODED_MAX);
            let json: Value = serde_json::from_str(&notification.encoded).expect("JSON");
            assert_eq!(json["metadata"]["event"], name);
        }
        let again = projector.project(&message);
        assert_eq!(
            first.map(|one| one.encoded),
            again.map(|one| one.encoded),
            "not the same twice"
        );
    }
});
