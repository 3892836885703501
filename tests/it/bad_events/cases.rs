//! The events: every way in which one can be bad, and beside it the nearest that is good.

use async_nats::HeaderMap;
use serde_json::{Value, json};

/// Largest payload of an event, largest notification (the contract's 64 KiB).
pub(crate) const LARGEST: usize = 64 * 1024;
/// The stream's `max_msg_size`, headers included.
pub(crate) const STREAM_LARGEST: usize = 128 * 1024;
/// The server takes no longer headers.
const HEADERS_LARGEST: usize = 65_535;

/// Rules whose templates fail on some events only.
pub(crate) const RULES: &str = r#"
[[rule]]
match = "custom.divide"
title = "{{ 100 // count }}"
fields = ["count"]

[[rule]]
match = "custom.steps"
title = "{% for i in range(count) %}{% for j in range(count) %}{% endfor %}{% endfor %}done"
fields = ["count"]

[[rule]]
match = "custom.long"
title = "{% for i in range(count) %}0123456789{% endfor %}"
fields = ["count"]

[[rule]]
match = "custom.level"
type = "{{ level }}"
fields = ["level"]
"#;

/// One event. `reason` is that of its dead letter; `None`: it is good.
pub(crate) struct Case {
    pub(crate) subject: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) reason: Option<&'static str>,
}

fn case(subject: &str, payload: impl Into<Vec<u8>>, reason: &'static str) -> Case {
    Case {
        subject: subject.to_owned(),
        headers: Vec::new(),
        payload: payload.into(),
        reason: Some(reason),
    }
}

fn good(subject: &str, payload: impl Into<Vec<u8>>) -> Case {
    Case {
        reason: None,
        ..case(subject, payload, "")
    }
}

impl Case {
    fn with(mut self, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        self.headers.extend(headers);
        self
    }

    pub(crate) fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            map.append(*name, value.as_str());
        }
        map
    }

    pub(crate) fn name(&self) -> String {
        let head: String = String::from_utf8_lossy(&self.payload)
            .chars()
            .take(60)
            .collect();
        format!("{} {:?} {head}", self.subject, self.reason)
    }
}

/// A payload of exactly `length` bytes, most of which no rule lets out.
pub(crate) fn payload_of(length: usize) -> Vec<u8> {
    let frame = json!({ "title": "large", "filler": "" }).to_string();
    let filler = "f".repeat(length - frame.len());
    json!({ "title": "large", "filler": filler })
        .to_string()
        .into_bytes()
}

/// What is no JSON object.
fn payloads() -> Vec<Case> {
    let x = "custom.x";
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!("{{\"title\":\"deep\",\"filler\":{open}{close}}}")
    };
    vec![
        case(x, "", "json"),
        case(x, " ", "json"),
        case(x, "{", "json"),
        case(x, "{\"title\":}", "json"),
        case(x, "{\"title\":\"a\"} {}", "json"),
        case(x, "{'title':'a'}", "json"),
        case(x, "{\"title\":NaN}", "json"),
        good(x, "\u{feff}{\"title\":\"a\"}"),
        good(x, "{\"title\":\"\\ud800\",\"\\uDE00\":[\"\\ud83d\"]}"),
        good(x, "{\"filler\":[1e999,-1E+400]}"),
        case(x, "{\"title\":\"a\nb\"}", "json"),
        case(x, deep(128), "json"),
        case(x, deep(30_000), "json"),
        case(x, "[".repeat(LARGEST), "json"),
        good(x, deep(100)),
        case(x, "[]", "not_an_object"),
        case(x, "[{\"title\":\"a\"}]", "not_an_object"),
        case(x, "null", "not_an_object"),
        case(x, "\"title\"", "not_an_object"),
        case(x, "7", "not_an_object"),
        case(x, b"{\"title\":\"\xff\"}".to_vec(), "utf8"),
        case(x, b"\xff\xfe{\0}\0".to_vec(), "utf8"),
        case(x, b"{\"title\":\"\xed\xa0\x80\"}".to_vec(), "utf8"),
    ]
}

/// Fields of wrong types.
fn fields() -> Vec<Case> {
    let bad = |payload: Value, reason| case("custom.x", payload.to_string(), reason);
    vec![
        bad(json!({ "title": 7 }), "field"),
        bad(json!({ "title": ["a"] }), "field"),
        bad(json!({ "message": {} }), "field"),
        bad(json!({ "message": true }), "field"),
        bad(json!({ "type": "fatal" }), "field"),
        bad(json!({ "type": "Info" }), "field"),
        bad(json!({ "type": 1 }), "field"),
        bad(json!({ "recipients": null }), "recipients"),
        bad(json!({ "recipients": "ann" }), "recipients"),
        bad(json!({ "recipients": 7 }), "recipients"),
        bad(json!({ "recipients": {} }), "recipients"),
        bad(json!({ "recipients": [1, 2] }), "recipients"),
        bad(json!({ "recipients": ["ann", null] }), "recipients"),
        bad(json!({ "recipients": [["ann"]] }), "recipients"),
        good(
            "custom.x",
            "{\"title\":null,\"message\":null,\"metadata\":null}",
        ),
        good("custom.x", "{\"title\":7,\"title\":\"twice\"}"),
    ]
}

fn subjects() -> Vec<Case> {
    let bad = |subject: &str, reason| case(subject, "{}", reason);
    let longest = "x".repeat(64);
    vec![
        bad("other.x", "unknown_category"),
        bad("Record.created", "unknown_category"),
        bad("session.x", "unknown_category"),
        bad("record.exploded", "unknown_name"),
        bad("record.Created", "unknown_name"),
        bad("function.created", "unknown_name"),
        bad("custom", "subject"),
        bad("record.created.now", "subject"),
        bad("custom.a.b.c.d.e.f.g.h", "subject"),
        bad(&format!("custom.{longest}x"), "subject"),
        bad("custom.\u{e9}", "subject"),
        bad("custom.a$b", "subject"),
        bad(&format!("custom.{}", "long.".repeat(200) + "x"), "subject"),
        good(&format!("custom.{longest}"), "{}"),
    ]
}

fn templates() -> Vec<Case> {
    let counting = |subject: &str, count: u64, reason| {
        case(subject, json!({ "count": count }).to_string(), reason)
    };
    vec![
        counting("custom.divide", 0, "template"),
        counting("custom.steps", 10_000, "template"),
        counting("custom.long", 1639, "template"),
        case("custom.level", "{\"level\":\"fatal\"}", "template"),
        case("custom.level", "{}", "template"),
        good("custom.divide", "{\"count\":5}"),
        good("custom.steps", "{\"count\":5}"),
        good("custom.long", "{\"count\":1638}"),
        good("custom.level", "{\"level\":\"alert\"}"),
        // What the publisher gives needs no template.
        good("custom.divide", "{\"count\":0,\"title\":\"given\"}"),
    ]
}

fn sizes() -> Vec<Case> {
    let x = "custom.x";
    let headers = "h".repeat(60_000);
    let mut large = vec![
        good(x, payload_of(LARGEST)),
        case(x, payload_of(LARGEST + 1), "too_large"),
        good(x, payload_of(LARGEST)).with(&[("x-large", &headers)]),
        case(x, payload_of(LARGEST + 1), "too_large").with(&[("x-large", &headers)]),
        case(x, payload_of(STREAM_LARGEST), "too_large"),
        case(x, "x".repeat(STREAM_LARGEST), "too_large"),
        // The title makes it too long only once it is encoded: each of these is six bytes then.
        case(
            x,
            json!({ "title": "\u{1}".repeat(10_900) }).to_string(),
            "notification_too_large",
        ),
        case(
            x,
            json!({ "title": "t".repeat(65_400) }).to_string(),
            "notification_too_large",
        ),
        case(
            x,
            json!({ "metadata": { "m": "m".repeat(65_400) } }).to_string(),
            "notification_too_large",
        ),
    ];
    // As long as headers can be, and then as large as a message can be in the stream, to the byte.
    let fill = "h".repeat(HEADERS_LARGEST - "NATS/1.0\r\nx-large: \r\n\r\n".len());
    let fill = [("x-large", fill.as_str())];
    large.push(good(x, payload_of(LARGEST)).with(&fill));
    let rest = payload_of(STREAM_LARGEST - HEADERS_LARGEST);
    large.push(case(x, rest, "too_large").with(&fill));
    large
}

fn cloud_events() -> Vec<Case> {
    let x = "custom.x";
    let binary: [(&'static str, &str); 4] = [
        ("ce-specversion", "1.0"),
        ("ce-id", "id-1"),
        ("ce-source", "/tests"),
        ("ce-type", "com.example.x"),
    ];
    let without = |name: &str| -> Vec<(&'static str, &str)> {
        binary
            .into_iter()
            .filter(|header| header.0 != name)
            .collect()
    };
    let bad = |headers: &[(&'static str, &str)]| case(x, "{}", "cloudevent").with(headers);
    let structured = (
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    );
    let envelope = |change: Value| {
        let mut envelope = json!({
            "specversion": "1.0", "id": "id-2", "source": "/tests", "type": "com.example.x",
            "data": { "title": "structured" },
        });
        for (name, value) in change.as_object().expect("changes") {
            envelope[name] = value.clone();
        }
        envelope.to_string()
    };
    let bad_envelope = |change: Value| case(x, envelope(change), "cloudevent").with(&[structured]);
    vec![
        bad(&without("ce-id")),
        bad(&without("ce-type")),
        bad(&without("ce-specversion")),
        bad(&[&without("ce-specversion")[..], &[("ce-specversion", "0.3")]].concat()),
        bad(&[&without("ce-id")[..], &[("ce-id", "")]].concat()),
        bad(&[&binary[..], &[("ce-id", "id-2")]].concat()),
        bad(&[&binary[..], &[("CE-ID", "id-2")]].concat()),
        bad(&[&binary[..], &[("ce-datacontenttype", "text/plain")]].concat()),
        case(x, "[]", "not_an_object").with(&binary),
        case(x, "{}", "cloudevent").with(&[structured]),
        case(x, "[]", "not_an_object").with(&[structured]),
        case(x, "{}", "cloudevent").with(&[("content-type", "application/cloudevents-batch+json")]),
        bad_envelope(json!({ "data": [] })),
        bad_envelope(json!({ "id": 7 })),
        bad_envelope(json!({ "specversion": "2.0" })),
        bad_envelope(json!({ "data_base64": "e30=" })),
        bad_envelope(json!({ "data": null, "data_base64": "e3" })),
        case(
            x,
            envelope(json!({ "data": { "recipients": "ann" } })),
            "recipients",
        )
        .with(&[structured]),
        good(x, "{\"title\":\"binary\"}").with(&binary),
        good(x, envelope(json!({}))).with(&[structured]),
    ]
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        payloads(),
        fields(),
        subjects(),
        templates(),
        sizes(),
        cloud_events(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
