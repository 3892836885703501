//! CloudEvents by table: both modes, as the specification has them and as SDKs write them.

use serde_json::json;

use super::{Reason, TRACEPARENT, bad, decoded, map, reason};

const OTHER: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01";

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
        // SDKs that encode nothing send what is no escape, no quoting, or decodes to no text.
        ("100%", "100%"),
        ("50% off %4 %zz%20", "50% off %4 %zz "),
        ("caf%E9", "caf%E9"),
        ("%C0%A0", "%C0%A0"),
        ("a%0ab", "a%0ab"),
        ("\"a", "\"a"),
        ("\"a\"b\"", "\"a\"b\""),
        ("\"", "\""),
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
    assert_eq!(reason(&CE, b"{"), Reason::Json);
}

#[test]
fn what_herald_does_not_use_of_a_cloudevent_is_not_judged() {
    for more in [
        ("ce-time", "soon"),
        ("ce-subject", "%ff"),
        ("ce-dataschema", "\"x"),
        ("ce-flag", "true"),
        ("ce-my_own", "x"),
        ("ce-", "x"),
        ("ce-data", "x"),
        ("content-type", "application/json; charset=utf-8"),
        ("Content-Type", "application/vnd.x+json"),
        ("content-type", "application/octet-stream"),
    ] {
        let headers = [CE.as_slice(), &[more, more]].concat();
        let event = decoded(&headers, r#"{"title":"T"}"#);
        assert_eq!(event.title.as_deref(), Some("T"), "{more:?}");
        assert_eq!(event.event_id.as_deref(), Some("e-1"), "{more:?}");
    }
}

#[test]
fn no_data_is_an_empty_object() {
    for payload in ["", " ", "\u{feff}", "null", "{}"] {
        let mut headers = CE.to_vec();
        if payload.is_empty() {
            // Of what is not there, the type does not matter.
            headers.push(("ce-datacontenttype", "text/plain"));
        }
        let event = decoded(&headers, payload);
        assert_eq!(event.event_id.as_deref(), Some("e-1"), "{payload:?}");
        assert!(event.fields.is_empty());
    }
    // `bnVsbA==` is null, `e30=` is {}.
    for data in [
        "",
        r#","data":null"#,
        r#","data":null,"data_base64":null"#,
        r#","data":{}"#,
        r#","data_base64":"""#,
        r#","data_base64":"bnVsbA==""#,
        r#","data_base64":"e30=""#,
    ] {
        let envelope =
            format!(r#"{{"specversion":"1.0","id":"e","source":"/s","type":"t"{data}}}"#);
        for headers in [&[][..], &[("content-type", "application/cloudevents+json")]] {
            let event = decoded(headers, &envelope);
            assert_eq!(event.event_id.as_deref(), Some("e"), "{envelope}");
            assert!(event.fields.is_empty() && event.title.is_none());
        }
    }
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
        assert_eq!(event.fields, map(r#"{"collection":"c"}"#));
    }
}

#[test]
fn an_envelope_without_a_content_type_is_known_by_its_attributes() {
    let envelope = json!({
        "specversion": "1.0", "id": "e-1", "source": "/s", "type": "info", "title": "plain",
        "number": 7, "flag": true, "subject": null, "data": {"title": "T"},
    });
    for headers in [
        &[][..],
        &[("content-type", "application/json")],
        &[("x", "y")],
    ] {
        let event = decoded(headers, &envelope.to_string());
        assert_eq!(event.event_id.as_deref(), Some("e-1"));
        assert_eq!(event.title.as_deref(), Some("T"));
        assert!(event.fields.is_empty() && event.severity.is_none());
    }
    // With one of the four missing, or a version that is none, it is a payload like others.
    for name in ["specversion", "id", "source", "type"] {
        let mut plain = envelope.clone();
        plain.as_object_mut().unwrap().remove(name);
        let event = decoded(&[], &plain.to_string());
        assert_eq!(event.title.as_deref(), Some("plain"), "{name}");
        assert_eq!(event.event_id, None);
    }
    for (version, id) in [
        (json!(null), json!("e")),
        (json!([1]), json!("e")),
        (json!("v2"), json!(7)),
    ] {
        let mut plain = envelope.clone();
        plain["specversion"] = version;
        plain["id"] = id;
        let event = decoded(&[], &plain.to_string());
        assert_eq!(event.title.as_deref(), Some("plain"), "{plain}");
    }
    // With all four, one of a wrong type is told.
    for (name, value, detail) in [
        ("id", json!(7), "the attribute id is a number, not a string"),
        ("id", json!(null), "the attribute id is missing or empty"),
        (
            "source",
            json!({}),
            "the attribute source is an object, not a string",
        ),
        (
            "type",
            json!(null),
            "the attribute type is missing or empty",
        ),
        (
            "specversion",
            json!(1.0),
            "the attribute specversion is a number, not a string",
        ),
    ] {
        let mut wrong = envelope.clone();
        wrong[name] = value;
        let bad = bad(&[], wrong.to_string().as_bytes());
        assert_eq!((bad.reason, &*bad.detail), (Reason::CloudEvent, detail));
    }
    // In binary mode the payload is the data, whatever it looks like.
    let event = decoded(&CE, &envelope.to_string());
    assert_eq!(event.title.as_deref(), Some("plain"));
}

#[test]
fn data_base64_is_decoded() {
    let with = |data: &str, more: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"e","source":"/s","type":"t","data_base64":{data}{more}}}"#
        )
    };
    // {"title":"x"}, with padding and without.
    for data in [r#""eyJ0aXRsZSI6IngifQ==""#, r#""eyJ0aXRsZSI6IngifQ""#] {
        for more in [
            "",
            r#","data":null"#,
            r#","datacontenttype":"application/json; charset=utf-8""#,
            r#","datacontenttype":"application/octet-stream""#,
        ] {
            let event = decoded(&[], &with(data, more));
            assert_eq!(event.title.as_deref(), Some("x"), "{data} {more}");
        }
    }
    for (data, more, detail) in [
        ("7", "", "data_base64 is a number, not a string"),
        (r#""{}""#, "", "data_base64 is not base64"),
        (
            r#""eyJ0""#,
            "",
            "what data_base64 holds is not JSON: it ends too early at line 1 column 4",
        ),
        (
            r#""/w==""#,
            "",
            "what data_base64 holds is not UTF-8 at line 1 column 1",
        ),
        (r#""W10=""#, "", "the data is a list, not a JSON object"),
        (
            r#""e30=""#,
            r#","data":{}"#,
            "data and data_base64 are both given",
        ),
        (
            r#""e30=""#,
            r#","datacontenttype":"text/plain""#,
            "the attribute datacontenttype is not JSON",
        ),
    ] {
        let bad = bad(&[], with(data, more).as_bytes());
        assert_eq!((bad.reason, &*bad.detail), (Reason::CloudEvent, detail));
    }
}

/// `data: JSON.stringify(object)` in JavaScript, `json.dumps` in Python, bytes in Go.
#[test]
fn data_that_is_the_text_of_an_object_is_that_object() {
    let with = |data: &str, content_type: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"e","source":"/s","type":"t","data":{data}{content_type}}}"#
        )
    };
    let json_type = r#","datacontenttype":"application/vnd.x+json""#;
    for content_type in ["", json_type] {
        let text = with(r#""{\"title\":\"x\"}""#, content_type);
        assert_eq!(decoded(&[], &text).title.as_deref(), Some("x"));
        for data in [r#""""#, r#"" \n""#, r#""null""#, r#""{}""#] {
            let event = decoded(&[], &with(data, content_type));
            assert!(event.fields.is_empty() && event.title.is_none(), "{data}");
        }
        for data in [r#""x""#, r#""[]""#, r#""{""#, r#""\"{}\"""#] {
            let bad = bad(&[], with(data, content_type).as_bytes());
            assert_eq!(bad.detail, "the data is a string, not a JSON object");
        }
    }
    let plain_type = r#","datacontenttype":"text/plain""#;
    assert!(decoded(&[], &with(r#""""#, plain_type)).fields.is_empty());
    for data in [r#""{}""#, "{}"] {
        for content_type in [
            plain_type,
            r#","datacontenttype":"application/octet-stream""#,
        ] {
            let bad = bad(&[], with(data, content_type).as_bytes());
            assert_eq!(bad.detail, "the attribute datacontenttype is not JSON");
        }
    }
    let binary = [
        CE.as_slice(),
        &[("ce-datacontenttype", "application/octet-stream")],
    ]
    .concat();
    let event = decoded(&binary, r#"{"title":"x"}"#);
    assert_eq!(event.title.as_deref(), Some("x"));
    assert_eq!(reason(&binary, b"\x00\x01"), Reason::Json);
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
        ("data", json!("{")),
        ("data", json!([])),
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
