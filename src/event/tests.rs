//! Decoding by table, and the properties that hold for any bytes.

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::json;

use super::{Event, PAYLOAD_MAX, Reason, Recipients, Severity, StoredMessage, decode};
use crate::event::WorkspaceSlug;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01";

fn message(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> StoredMessage {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    StoredMessage {
        workspace: WorkspaceSlug::parse("acme").unwrap(),
        subject: subject.into(),
        sequence: 1,
        time: DateTime::UNIX_EPOCH,
        headers: (!headers.is_empty()).then_some(map),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn decoded(headers: &[(&str, &str)], payload: &str) -> Event {
    decode(&message("ws.acme.custom.x", headers, payload.as_bytes())).unwrap()
}

fn reason(headers: &[(&str, &str)], payload: &[u8]) -> Reason {
    decode(&message("ws.acme.custom.x", headers, payload))
        .unwrap_err()
        .reason
}

#[test]
fn a_subject_is_exactly_four_tokens_of_the_rooms_own_workspace() {
    for (subject, want) in [
        ("ws.acme.custom.x", None),
        ("ws.acme.record.created", None),
        ("ws.acme.custom", Some(Reason::Subject)),
        ("ws.acme.custom.x.y", Some(Reason::Subject)),
        ("ws.globex.custom.x", Some(Reason::Subject)),
        ("live.ws.acme.custom.x", Some(Reason::Subject)),
        ("xs.acme.custom.x", Some(Reason::Subject)),
        ("", Some(Reason::Subject)),
        ("ws.acme..x", Some(Reason::UnknownCategory)),
        ("ws.acme.secret.x", Some(Reason::UnknownCategory)),
        ("ws.acme.record.exploded", Some(Reason::UnknownName)),
    ] {
        let got = decode(&message(subject, &[], b"{}")).err();
        assert_eq!(got.map(|bad| bad.reason), want, "{subject:?}");
    }
}

#[test]
fn what_is_given_is_taken_and_the_rest_is_kept_apart() {
    let event = decoded(
        &[
            ("traceparent", TRACEPARENT),
            ("Nats-Subject", "ws.forged.custom.y"),
        ],
        r#"{"title":"T","message":"","type":"alert","metadata":{"a":1},"recipients":["u2","u1","u1"],"data":{"b":2}}"#,
    );
    assert_eq!(event.name.to_string(), "custom.x");
    assert_eq!(
        (event.title.as_deref(), event.message.as_deref()),
        (Some("T"), Some(""))
    );
    assert_eq!(event.severity, Some(Severity::Alert));
    assert_eq!(event.metadata, json!({"a": 1}).as_object().cloned());
    let users = ["u1".to_owned(), "u2".to_owned()];
    assert_eq!(event.recipients, Recipients::Users(users.into()));
    assert_eq!(event.traceparent.as_deref(), Some(TRACEPARENT));
    assert_eq!(
        Some(event.fields),
        json!({"data": {"b": 2}}).as_object().cloned()
    );
}

#[test]
fn absent_and_null_are_the_same_but_for_recipients() {
    for payload in [
        "{}",
        r#"{"title":null,"message":null,"type":null,"metadata":null}"#,
    ] {
        let event = decoded(&[], payload);
        assert_eq!((event.title, event.message), (None, None));
        assert_eq!((event.severity, event.metadata), (None, None));
        assert_eq!(event.recipients, Recipients::Everyone);
        assert!(event.fields.is_empty());
    }
    let nobody = decoded(&[], r#"{"recipients":[]}"#).recipients;
    assert_eq!(nobody, Recipients::Users([].into()));
}

#[test]
fn each_wrong_payload_has_its_reason() {
    let deep = "[".repeat(4000) + &"]".repeat(4000);
    let deep = format!("{{\"a\":{deep}}}");
    let table: [(&[u8], Reason); 27] = [
        (b"", Reason::Json),
        (b"x", Reason::Json),
        (b"{", Reason::Json),
        (b"{}{}", Reason::Json),
        (b"{\"a\":1e999}", Reason::Json),
        (b"{\"a\":\"\\ud800\"}", Reason::Json),
        (b"\xef\xbb\xbf{}", Reason::Json),
        (deep.as_bytes(), Reason::Json),
        (b"{\"a\":\"\xff\"}", Reason::Utf8),
        (b"[]", Reason::NotAnObject),
        (b"null", Reason::NotAnObject),
        (b"\"{}\"", Reason::NotAnObject),
        (br#"{"title":1}"#, Reason::Field),
        (br#"{"message":[]}"#, Reason::Field),
        (br#"{"type":1}"#, Reason::Field),
        (br#"{"type":"Info"}"#, Reason::Field),
        (br#"{"type":"fatal"}"#, Reason::Field),
        (br#"{"metadata":[]}"#, Reason::Field),
        (br#"{"metadata":"x"}"#, Reason::Field),
        (br#"{"recipients":null}"#, Reason::Recipients),
        (br#"{"recipients":"u"}"#, Reason::Recipients),
        (br#"{"recipients":1}"#, Reason::Recipients),
        (br#"{"recipients":{}}"#, Reason::Recipients),
        (br#"{"recipients":[1]}"#, Reason::Recipients),
        (br#"{"recipients":["u",null]}"#, Reason::Recipients),
        (
            br#"{"recipients":["u"],"recipients":null}"#,
            Reason::Recipients,
        ),
        (br#"{"recipients":[["u"]]}"#, Reason::Recipients),
    ];
    for (payload, want) in table {
        let text = String::from_utf8_lossy(payload);
        assert_eq!(reason(&[], payload), want, "{text:.60}");
    }
}

#[test]
fn a_payload_of_64_kib_is_taken_whatever_its_headers_and_one_byte_more_is_not() {
    let fill = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
    let long = "h".repeat(10_000);
    for headers in [&[][..], &[("x", long.as_str())]] {
        let payload = fill(PAYLOAD_MAX);
        assert_eq!(payload.len(), 65_536);
        decoded(headers, &payload);
        assert_eq!(
            reason(headers, fill(PAYLOAD_MAX + 1).as_bytes()),
            Reason::TooLarge
        );
    }
}

#[test]
fn a_detail_holds_no_value_of_the_payload() {
    for payload in [
        r#"{"title":{"hunter2":"hunter2"}}"#,
        r#"{"type":"hunter2"}"#,
        r#"{"metadata":"hunter2"}"#,
        r#"{"recipients":"hunter2"}"#,
        r#"{"a":hunter2}"#,
        r#""hunter2""#,
    ] {
        let bad = decode(&message("ws.acme.custom.x", &[], payload.as_bytes())).unwrap_err();
        assert!(!bad.to_string().contains("hunter2"), "{bad}");
    }
}

const CE: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "e-1"),
    ("ce-source", "/orders"),
    ("ce-type", "com.example.order"),
];

#[test]
fn binary_cloudevents_give_their_id_and_their_trace() {
    let with = |more: &[(&'static str, &'static str)]| [CE.as_slice(), more].concat();
    for (headers, id, traceparent) in [
        (with(&[]), "e-1", None),
        (with(&[("CE-Time", "2026-01-02T03:04:05Z")]), "e-1", None),
        (
            with(&[("ce-datacontenttype", "Application/JSON; charset=utf-8")]),
            "e-1",
            None,
        ),
        (
            with(&[("ce-datacontenttype", "application/vnd.x+json")]),
            "e-1",
            None,
        ),
        (
            with(&[("ce-traceparent", TRACEPARENT)]),
            "e-1",
            Some(TRACEPARENT),
        ),
        (
            with(&[("ce-traceparent", OTHER), ("traceparent", TRACEPARENT)]),
            "e-1",
            Some(TRACEPARENT),
        ),
        (
            with(&[("ce-traceparent", TRACEPARENT), ("traceparent", "x")]),
            "e-1",
            Some(TRACEPARENT),
        ),
        (with(&[("ce-traceparent", "x")]), "e-1", None),
    ] {
        let event = decoded(&headers, "{}");
        assert_eq!(event.event_id.as_deref(), Some(id), "{headers:?}");
        assert_eq!(event.traceparent.as_deref(), traceparent, "{headers:?}");
    }
    for (value, id) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%41%4a%4A", "AJJ"),
        ("100%25%32%35", "100%25"),
        ("\"a \\\"b\\\" %20c\"", "a \"b\"  c"),
        ("é", "é"),
    ] {
        let mut headers = CE.to_vec();
        headers[1] = ("Ce-Id", value);
        assert_eq!(
            decoded(&headers, "{}").event_id.as_deref(),
            Some(id),
            "{value}"
        );
    }
}

#[test]
fn a_broken_binary_cloudevent_is_a_bad_event() {
    for missing in 0..CE.len() {
        let mut headers = CE.to_vec();
        let (name, _) = headers.remove(missing);
        assert_eq!(reason(&headers, b"{}"), Reason::CloudEvent, "{name}");
        headers.push((name, ""));
        assert_eq!(reason(&headers, b"{}"), Reason::CloudEvent, "{name}");
    }
    for more in [
        ("ce-specversion", "1.0"),
        ("CE-ID", "e-1"),
        ("ce-x", "%"),
        ("ce-x", "%4"),
        ("ce-x", "%zz"),
        ("ce-x", "%C0%A0"),
        ("ce-x", "%ff"),
        ("ce-x", "%0a"),
        ("ce-x", "\"a"),
        ("ce-x", "\"a\"b\""),
        ("ce-", "x"),
        ("ce-a_b", "x"),
        ("ce-data", "x"),
        ("ce-datacontenttype", "text/plain"),
        ("ce-datacontenttype", "json"),
    ] {
        let mut headers = CE.to_vec();
        headers.push(more);
        assert_eq!(reason(&headers, b"{}"), Reason::CloudEvent, "{more:?}");
    }
    let mut headers = CE.to_vec();
    headers[0] = ("ce-specversion", "0.3");
    assert_eq!(reason(&headers, b"{}"), Reason::CloudEvent);
    assert_eq!(reason(&[("ce-id", "x")], b"{}"), Reason::CloudEvent);
    assert_eq!(reason(&CE, b"[]"), Reason::NotAnObject);
}

#[test]
fn structured_cloudevents_are_taken_apart() {
    let envelope = json!({
        "specversion": "1.0", "id": "e-1", "source": "/s", "type": "t", "subject": null,
        "datacontenttype": "application/json", "traceparent": TRACEPARENT,
        "data": {"title": "T", "collection": "c"},
    });
    for content_type in [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=UTF-8",
        "application/cloudevents",
    ] {
        // Attributes repeated as headers do not count in this mode.
        let headers = [("Content-Type", content_type), ("ce-id", "other")];
        let event = decoded(&headers, &envelope.to_string());
        assert_eq!(event.event_id.as_deref(), Some("e-1"));
        assert_eq!(event.title.as_deref(), Some("T"));
        assert_eq!(event.traceparent.as_deref(), Some(TRACEPARENT));
        assert_eq!(
            Some(event.fields),
            json!({"collection": "c"}).as_object().cloned()
        );
    }
    // Without the content type it is a plain payload, and then `type` is no severity.
    let plain = [("content-type", "application/json")];
    let payload = envelope.to_string();
    assert_eq!(reason(&plain, payload.as_bytes()), Reason::Field);
}

#[test]
fn a_broken_structured_cloudevent_is_a_bad_event() {
    let good = json!({"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "data": {}});
    let structured = [("content-type", "application/cloudevents+json")];
    decoded(&structured, &good.to_string());
    for (name, value) in [
        ("specversion", json!("1")),
        ("specversion", json!(1.0)),
        ("specversion", json!(null)),
        ("id", json!("")),
        ("id", json!(7)),
        ("source", json!(null)),
        ("type", json!([])),
        ("data", json!(null)),
        ("data", json!("{}")),
        ("data", json!([])),
        ("data_base64", json!("e30=")),
        ("datacontenttype", json!("text/xml")),
        ("datacontenttype", json!(1)),
    ] {
        let mut envelope = good.clone();
        envelope[name] = value.clone();
        let payload = envelope.to_string();
        assert_eq!(
            reason(&structured, payload.as_bytes()),
            Reason::CloudEvent,
            "{name} {value}"
        );
    }
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("data");
    assert_eq!(
        reason(&structured, without.to_string().as_bytes()),
        Reason::CloudEvent
    );
    for content_type in [
        "application/cloudevents-batch+json",
        "application/cloudevents+avro",
        "application/cloudeventsx",
    ] {
        let headers = [("content-type", content_type)];
        assert_eq!(
            reason(&headers, good.to_string().as_bytes()),
            Reason::CloudEvent
        );
    }
    let twice = [structured[0], ("Content-Type", "application/json")];
    assert_eq!(
        reason(&twice, good.to_string().as_bytes()),
        Reason::CloudEvent
    );
}

fn any_headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        "[cC][eE]-[a-z0-9]{0,12}|[tT]raceparent|[cC]ontent-[tT]ype",
        Just("ce-specversion".to_owned()),
        Just("ce-id".to_owned()),
        "[!-9;-~]{1,20}",
    ];
    let value = prop_oneof![
        "[^\r\n]{0,40}",
        "(application/cloudevents|1\\.0|%[0-9a-f]{0,2}|\"|\\\\)*",
    ];
    prop::collection::vec((name, value), 0..8)
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        ".{0,12}".prop_map(|value| json!(value)),
    ];
    let value = leaf.prop_recursive(4, 32, 4, |inner| {
        let key = "title|message|type|metadata|recipients|data|specversion|id|[a-z]{1,4}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|value| json!(value)),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|value| json!(value)),
        ]
    });
    // Half of the well-formed texts have one byte changed.
    let bent = (
        value,
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    );
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        bent.prop_map(|(value, at, byte, bend)| {
            let mut bytes = value.to_string().into_bytes();
            if bend {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }),
    ]
}

proptest! {
    #[test]
    fn decoding_never_panics_and_always_says_the_same(
        subject in prop_oneof![Just("ws.acme.custom.x".to_owned()), ".{0,30}", "ws\\.acme(\\.[a-z*>]{0,8}){0,4}"],
        headers in any_headers(),
        payload in any_payload(),
    ) {
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let once = decode(&message(&subject, &pairs, &payload));
        // A second map has its own order of names.
        let again = decode(&message(&subject, &pairs, &payload));
        prop_assert_eq!(once, again);
    }
}
