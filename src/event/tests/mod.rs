//! Decoding by table, and the properties that hold for any bytes.

mod cloudevents;

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::json;

use super::{BadEvent, Event, PAYLOAD_MAX, Payload, Reason, Recipients, Severity, StoredMessage};
use crate::json::{Map, Value, parse};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn message(subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> StoredMessage {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    StoredMessage {
        subject: subject.into(),
        sequence: 1,
        time: DateTime::UNIX_EPOCH,
        last_sequence: None,
        headers: (!headers.is_empty()).then_some(map),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn decode(message: &StoredMessage) -> Result<Event, BadEvent> {
    super::decode(message, |_| &Payload::Herald)
}

fn decoded(headers: &[(&str, &str)], payload: &str) -> Event {
    decode(&message("ws.acme.custom.x", headers, payload.as_bytes())).unwrap()
}

fn bad(headers: &[(&str, &str)], payload: &[u8]) -> BadEvent {
    decode(&message("ws.acme.custom.x", headers, payload)).unwrap_err()
}

fn reason(headers: &[(&str, &str)], payload: &[u8]) -> Reason {
    bad(headers, payload).reason
}

fn value(text: &str) -> Value {
    parse(text.as_bytes()).unwrap()
}

fn map(text: &str) -> Map {
    match value(text) {
        Value::Object(map) => map,
        other => panic!("no object: {other}"),
    }
}

#[test]
fn a_subject_is_exactly_four_tokens_with_a_slug_for_the_workspace() {
    for (subject, want) in [
        ("ws.acme.custom.x", None),
        ("ws.acme.record.created", None),
        ("ws.acme.custom", Some(Reason::Subject)),
        ("ws.acme.custom.x.y", Some(Reason::Subject)),
        ("ws._acme.custom.x", Some(Reason::Subject)),
        ("ws.caf\u{e9}.custom.x", Some(Reason::Subject)),
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
    assert_eq!(event.metadata, Some(value(r#"{"a":1}"#)));
    let users = ["u1".to_owned(), "u2".to_owned()];
    assert_eq!(event.recipients, Recipients::Users(users.into()));
    assert_eq!(event.traceparent.as_deref(), Some(TRACEPARENT));
    assert_eq!(event.fields, map(r#"{"data":{"b":2}}"#));
}

#[test]
fn in_a_foreign_payload_nothing_is_meant_for_herald() {
    let payload = r#"{"title":{"a":1},"message":[2],"type":"charge.succeeded","metadata":"m","recipients":null}"#;
    let foreign = |recipients: Option<&str>, payload: &str| {
        let path = |text: &str| text.split('.').map(str::to_owned).collect();
        let payload_is = Payload::Foreign {
            recipients: recipients.map(path),
        };
        let message = message("ws.acme.custom.x", &[], payload.as_bytes());
        super::decode(&message, |_| &payload_is)
    };
    let event = foreign(None, payload).unwrap();
    assert_eq!((event.title, event.message), (None, None));
    assert_eq!((event.severity, event.metadata), (None, None));
    assert_eq!(event.recipients, Recipients::Everyone);
    assert_eq!(event.fields, map(payload));
    // It is an object all the same.
    assert_eq!(
        foreign(None, "[1]").unwrap_err().reason,
        Reason::NotAnObject
    );
    assert_eq!(foreign(None, "a=1").unwrap_err().reason, Reason::Json);

    let payload =
        r#"{"a":{"one":"u1","number":7,"list":["u1",7],"none":[],"null":null,"bad":["u",{}]}}"#;
    for (path, users) in [
        ("a.one", Some(&["u1"][..])),
        ("a.number", Some(&["7"])),
        ("a.list", Some(&["7", "u1"])),
        ("a.none", Some(&[])),
        ("a.null", None),
        ("a.bad", None),
        ("a", None),
        ("b", None),
        ("a.b.c", None),
        ("a.one.x", None),
    ] {
        let got = foreign(Some(path), payload);
        match users {
            Some(users) => {
                let users = users.iter().map(|user| (*user).to_owned());
                assert_eq!(got.unwrap().recipients, Recipients::Users(users.collect()));
            }
            None => assert_eq!(got.unwrap_err().reason, Reason::Recipients, "{path}"),
        }
    }
}

#[test]
fn metadata_is_any_json_as_it_was_written() {
    for metadata in [
        r#"{"a":18446744073709551616,"b":[-0,1E5,1e400]}"#,
        "[1,[]]",
        r#""x""#,
        "1.0",
        "false",
    ] {
        let event = decoded(&[], &format!("{{\"metadata\": {metadata}}}"));
        assert_eq!(event.metadata.unwrap().to_string(), metadata);
    }
}

#[test]
fn what_is_legal_json_is_taken_and_what_nothing_uses_is_not_judged() {
    for (payload, title) in [
        ("\u{feff}{\"title\":\"T\"}", "T"),
        (r#"{"title":"cut \ud83d"}"#, "cut \u{fffd}"),
        (r#"{"title":"T","data":{"\ud83d":["\uDE00"]}}"#, "T"),
        (r#"{"title":"T","data":1e400,"n":[-1E+9999]}"#, "T"),
        (r#"{"t\u0069tle":"T","title2":"\u0000"}"#, "T"),
        ("\r\n\t {\"title\" : \"T\"} \n", "T"),
    ] {
        assert_eq!(
            decoded(&[], payload).title.as_deref(),
            Some(title),
            "{payload}"
        );
    }
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
    let table: &[(&[u8], Reason)] = &[
        (b"", Reason::Json),
        (b"x", Reason::Json),
        (b"{", Reason::Json),
        (b"{}{}", Reason::Json),
        (b"{\"a\":NaN}", Reason::Json),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", Reason::Json),
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
        assert_eq!(reason(&[], payload), *want, "{text:.60}");
    }
}

#[test]
fn a_detail_says_what_is_wrong_and_where() {
    let deep = format!("{{\n\"a\":{}", "[".repeat(200));
    for (payload, detail) in [
        (
            &*deep,
            "the payload is nested too deeply: more than 127 objects and lists stand in each other at line 2 column 131",
        ),
        (
            "{\"a\":1,\n  'b':2}",
            "the payload is not JSON: a name in double quotes is expected at line 2 column 3",
        ),
        (
            " ",
            "the payload is not JSON: it is empty at line 1 column 2",
        ),
        (
            r#"{"title":{}}"#,
            "title is an object, not a string; where the sender means something else by it, the rule of this event needs payload = \"foreign\"",
        ),
        (
            "[{}]",
            "the payload is a list, not an object: publish each event by itself",
        ),
        ("7", "the payload is a number, not an object"),
    ] {
        assert_eq!(bad(&[], payload.as_bytes()).detail, detail);
    }
    assert_eq!(
        bad(&[], b"{\"a\":\"\xff\"}").detail,
        "the payload is not UTF-8 at line 1 column 7"
    );
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
        r#"{"recipients":"hunter2"}"#,
        r#"{"a":hunter2}"#,
        r#""hunter2""#,
    ] {
        let bad = decode(&message("ws.acme.custom.x", &[], payload.as_bytes())).unwrap_err();
        assert!(!bad.to_string().contains("hunter2"), "{bad}");
    }
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
