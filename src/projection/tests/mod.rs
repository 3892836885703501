//! The mapping by table: what the built-in rules make of events, and what publishers give.

mod properties;
mod rules;

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::DateTime;
use serde_json::{Value, json};

use super::rules::{DEFAULT_RULES, RuleSet};
use super::{ENCODED_MAX, Notification, Projector, Recipients};
use crate::config::TypeMode;
use crate::event::{BadEvent, Reason, StoredMessage, is_traceparent};
use crate::json::parse;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn message(event: &str, payload: impl AsRef<[u8]>) -> StoredMessage {
    StoredMessage {
        subject: format!("ws.acme.{event}").into(),
        sequence: 42,
        time: DateTime::from_timestamp(1_700_000_000, 123_987_654).unwrap(),
        last_sequence: None,
        headers: None,
        payload: Bytes::copy_from_slice(payload.as_ref()),
    }
}

fn with_headers(mut message: StoredMessage, headers: &[(&str, &str)]) -> StoredMessage {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    message.headers = Some(map);
    message
}

/// A projector with these rules.
fn ruled(rules: &str) -> Projector {
    Projector {
        rules: RuleSet::parse(rules).unwrap(),
        stream: "EVENTS".to_owned(),
        type_mode: TypeMode::Severity,
        traceparent: false,
    }
}

fn built_in() -> Projector {
    ruled(DEFAULT_RULES)
}

fn json_of(notification: &Notification) -> Value {
    parse(notification.encoded.as_bytes()).unwrap().into()
}

fn projected(projector: &Projector, event: &str, payload: &Value) -> Value {
    let notification = projector.project(&message(event, payload.to_string()));
    json_of(&notification.unwrap())
}

fn bad(projector: &Projector, event: &str, payload: &Value) -> BadEvent {
    let result = projector.project(&message(event, payload.to_string()));
    result.unwrap_err()
}

#[test]
fn the_bytes_of_a_notification_are_fixed() {
    let event = message(
        "record.created",
        r#"{"recordId":"r1","collection":"orders","data":{"secret":1}}"#,
    );
    let notification = built_in().project(&event).unwrap();
    assert_eq!(
        notification.encoded,
        concat!(
            r#"{"id":"notif_018bcfe5-687b-7776-92d3-196f76387947","title":"Record created","#,
            r#""message":"Record r1 was created in orders.","type":"info","read":false,"#,
            r#""timestamp":"2023-11-14T22:13:20.123Z","#,
            r#""metadata":{"event":"record.created","collection":"orders","recordId":"r1"}}"#
        )
    );
    for (id, record) in [
        ("0", "Record 0"),
        ("\"\"", "A record"),
        ("null", "A record"),
    ] {
        let payload = format!("{{\"recordId\":{id}}}");
        for (event, what) in [
            ("record.created", "created"),
            ("record.updated", "updated"),
            ("record.deleted", "deleted"),
        ] {
            let event = message(event, payload.as_str());
            let encoded = built_in().project(&event).unwrap().encoded;
            let said = format!("\"message\":\"{record} was {what}.\"");
            assert!(encoded.contains(&said), "{id}: {encoded}");
        }
    }
    assert_eq!(
        notification.id,
        "notif_018bcfe5-687b-7776-92d3-196f76387947"
    );
    assert_eq!(notification.recipients, Recipients::Everyone);
}

/// Event, payload, `type` in both modes, title and message.
const BUILT_IN: &str = "
record.created            | full   | info    | record_created           | Record created         | Record r1 was created in orders.
record.updated            | full   | info    | record_updated           | Record updated         | Record r1 was updated in orders.
record.deleted            | full   | info    | record_deleted           | Record deleted         | Record r1 was deleted from orders.
record.bulk_completed     | full   | warning | record_bulk_completed    | Bulk operation completed with failures | Bulk import of 9 records in orders completed, 2 failed.
record.bulk_completed     | good   | success | record_bulk_completed    | Bulk operation completed | Bulk import of 9 records in orders completed.
record.bulk_completed     | odd    | success | record_bulk_completed    | Bulk operation completed | Bulk operation in 7 completed.
record.bulk_completed     | empty  | success | record_bulk_completed    | Bulk operation completed | Bulk operation completed.
record.created            | empty  | info    | record_created           | Record created         | A record was created.
function.started          | full   | info    | function_started         | Function started       | sync started.
function.completed        | full   | success | function_complete        | Function completed     | sync completed in 1200 ms.
function.failed           | full   | error   | function_failed          | Function failed        | sync failed after 1200 ms.
function.timeout          | full   | warning | function_timeout         | Function timed out     | sync timed out after 1200 ms.
function.failed           | empty  | error   | function_failed          | Function failed        | A function failed.
system.maintenance        | full   | alert   | alert                    | Scheduled maintenance  | Maintenance is planned for acme.
system.workspace_updated  | full   | info    | system_workspace_updated | Workspace updated      | The workspace acme was updated.
system.account_updated    | full   | info    | system_account_updated   | Account updated        | Your user account was updated.
system.disk-full          | full   | info    | system_disk-full         | Disk full              | System event in acme.
system.alert              | full   | alert   | alert                    | Alert                  | An alert was raised in acme.
custom.alert              | full   | alert   | alert                    | Alert                  | An alert was raised in acme.
custom.order_placed       | full   | info    | custom_order_placed      | Order placed           | Order placed in acme.
";

#[test]
fn each_event_of_the_contract_has_a_rule() {
    let full = json!({
        "collection": "orders", "recordId": "r1", "data": {"card": "4111"},
        "operation": "import", "count": 9, "failed": 2,
        "function": "sync", "executionId": "e1", "durationMs": 1200, "error": "password",
    });
    let mut good = full.clone();
    good["failed"] = json!(0);
    let odd = json!({"collection": 7, "operation": null, "count": "x", "failed": "x"});
    for row in BUILT_IN.lines().filter(|row| !row.is_empty()) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [event, payload, severity, name, title, text] = cells[..] else {
            panic!("a row of six: {row}");
        };
        let payload = match payload {
            "full" => &full,
            "good" => &good,
            "odd" => &odd,
            _ => &json!({}),
        };
        let mut projector = built_in();
        let got = projected(&projector, event, payload);
        let parts = [&got["type"], &got["title"], &got["message"]];
        assert_eq!(parts, [severity, title, text], "{row}");
        assert_eq!(got["metadata"]["event"], event);
        for secret in ["4111", "password"] {
            assert!(!got.to_string().contains(secret), "{row}");
        }
        projector.type_mode = TypeMode::Event;
        let got = projected(&projector, event, payload);
        assert_eq!(got["type"], name, "{row}");
    }
}

#[test]
fn what_a_publisher_gives_is_taken_and_a_rule_fills_the_rest() {
    let given = json!({"title": "T", "message": "", "type": "alert", "recipients": ["u"],
        "metadata": {"b": 1.5, "a": {"z": [null], "y": 12_345_678_901_234_567_890_u64}}, "collection": "c"});
    let notification = built_in()
        .project(&message("record.created", given.to_string()))
        .unwrap();
    let got = json_of(&notification);
    assert_eq!(
        (&got["title"], &got["message"], &got["type"]),
        (&json!("T"), &json!(""), &json!("alert"))
    );
    assert_eq!(
        notification.recipients,
        Recipients::Users(["u".to_owned()].into())
    );
    let metadata = r#""metadata":{"event":"record.created","a":{"y":12345678901234567890,"z":[null]},"b":1.5}}"#;
    assert!(
        notification.encoded.ends_with(metadata),
        "{}",
        notification.encoded
    );

    let empty = projected(
        &built_in(),
        "record.created",
        &json!({"metadata": {}, "collection": "c"}),
    );
    assert_eq!(empty["metadata"], json!({"event": "record.created"}));
}

#[test]
fn metadata_that_is_no_object_passes_alone_and_numbers_as_they_were_written() {
    let mut projector = built_in();
    projector.traceparent = true;
    for given in [
        "[1,{\"event\":\"x\"}]",
        "\"x\"",
        "-0",
        "1E5",
        "1e400",
        "true",
        "[18446744073709551616,1234567890123456789012345678901234567890]",
    ] {
        let event = message("custom.x", format!("{{\"metadata\": {given} }}"));
        let encoded = projector.project(&event).unwrap().encoded;
        let end = format!(",\"metadata\":{given}}}");
        assert!(encoded.ends_with(&end), "{encoded}");
    }
    // Of the fields that a rule allows, too, and in an object beside Herald's own keys.
    projector.traceparent = false;
    for (event, payload, metadata) in [
        (
            "record.created",
            r#"{"recordId": 12345678901234567890123, "collection": "o"}"#,
            r#"{"event":"record.created","collection":"o","recordId":12345678901234567890123}"#,
        ),
        (
            "custom.x",
            r#"{"metadata":{"z":-0.0,"event":1,"a":{"n":[1e-7, 0.10]}}}"#,
            r#"{"event":"custom.x","a":{"n":[1e-7,0.10]},"z":-0.0}"#,
        ),
    ] {
        let encoded = projector.project(&message(event, payload)).unwrap().encoded;
        assert!(
            encoded.ends_with(&format!(",\"metadata\":{metadata}}}")),
            "{encoded}"
        );
    }
}

#[test]
fn reserved_metadata_is_always_heralds_own() {
    let forged = json!({"metadata": {"event": "x", "eventId": "x", "traceparent": "x", "k": 1}});
    let plain = message("custom.x", forged.to_string());
    let mut projector = built_in();
    let metadata = |projector: &Projector, message: &StoredMessage| {
        json_of(&projector.project(message).unwrap())["metadata"].clone()
    };
    assert_eq!(
        metadata(&projector, &plain),
        json!({"event": "custom.x", "k": 1})
    );

    let cloudevent = with_headers(
        plain.clone(),
        &[
            ("ce-specversion", "1.0"),
            ("ce-id", "e%201"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("traceparent", TRACEPARENT),
        ],
    );
    let want = json!({"event": "custom.x", "eventId": "e 1", "k": 1});
    assert_eq!(metadata(&projector, &cloudevent), want);

    projector.traceparent = true;
    assert_eq!(
        metadata(&projector, &cloudevent)["traceparent"],
        TRACEPARENT
    );
    let derived = metadata(&projector, &plain)["traceparent"].clone();
    assert_eq!(
        derived,
        super::EventIdentity::new("EVENTS", 42, plain.time).traceparent()
    );
    assert!(is_traceparent(derived.as_str().unwrap()));
    let notification = projector.project(&plain).unwrap();
    let trace_id = notification.id.replace("notif_", "").replace('-', "");
    assert_eq!(derived.as_str().unwrap().get(3..35), Some(&*trace_id));
}

#[test]
fn an_encoded_notification_of_64_kib_is_sent_and_one_byte_more_is_not() {
    let projector = built_in();
    let with = |len: usize| json!({"title": "", "message": "", "metadata": {"a": "x".repeat(len)}});
    let empty = message("custom.x", with(0).to_string());
    let around = projector.project(&empty).unwrap().encoded.len();
    let fits = ENCODED_MAX - around;
    let largest = message("custom.x", with(fits).to_string());
    let largest = projector.project(&largest).unwrap();
    assert_eq!(largest.encoded.len(), ENCODED_MAX);
    assert_eq!(
        bad(&projector, "custom.x", &with(fits + 1)).reason,
        Reason::NotificationTooLarge
    );
}
