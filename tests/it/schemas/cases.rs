//! Events, and whether a gateway takes them, and whether their schemas do.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::judge::{names, printed};

/// Who is right about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Both {
    Take,
    Refuse,
    /// The gateway refuses it, and no schema could say it.
    OnlyGateway,
    /// The schema refuses it, and says why although the gateway does not.
    OnlySchema,
}

pub(super) struct Case {
    pub(super) event: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: String,
    pub(super) both: Both,
}

/// A plain event.
fn plain(event: &str, payload: &Value, both: Both) -> Case {
    Case {
        event: event.to_owned(),
        headers: Vec::new(),
        payload: payload.to_string(),
        both,
    }
}

/// A CloudEvent in structured mode, as it is changed, without and with its header.
fn structured(change: &Value, both: Both) -> [Case; 2] {
    let mut envelope =
        json!({ "specversion": "1.0", "id": "1", "source": "/tests", "type": "com.example.x" });
    for (name, value) in change.as_object().unwrap() {
        envelope[name] = value.clone();
    }
    let mut with_header = plain("record.updated", &envelope, both);
    let header = "application/cloudevents+json; charset=utf-8".to_owned();
    with_header.headers.push(("content-type", header));
    [plain("record.updated", &envelope, both), with_header]
}

/// A CloudEvent in binary mode with these headers beside, or in place of, the right ones.
fn binary(headers: &[(&'static str, &str)], payload: &str, both: Both) -> Case {
    let mut all = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", "1".to_owned()),
        ("ce-source", "/tests".to_owned()),
        ("ce-type", "com.example.x".to_owned()),
    ];
    for (name, value) in headers {
        all.retain(|(known, _)| known != name);
        // No value: the header is left out.
        if *value != "-" {
            all.push((name, (*value).to_owned()));
        }
    }
    Case {
        event: "record.updated".to_owned(),
        headers: all,
        payload: payload.to_owned(),
        both,
    }
}

/// The events of which each category and each name is one.
fn events() -> Vec<String> {
    let is_event = |name: &String| {
        let (category, _) = name.split_once('.').unwrap_or((name, ""));
        ["record", "function"].contains(&category) && name.contains('.')
    };
    let mut events: Vec<_> = names().into_iter().filter(is_event).collect();
    assert_eq!(events.len(), 8);
    events.extend(["system.maintenance", "custom.order_placed"].map(str::to_owned));
    events
}

/// Of every event: nothing, all that its schema shows, all of every type, and what is no object.
fn of_every_event() -> Vec<Case> {
    let mut cases = Vec::new();
    let numbers = json!(["18446744073709551616", -1, 0, 1.5, 1e300]);
    for event in events() {
        let case = |payload: Value, both| plain(&event, &payload, both);
        let schema: Value = serde_json::from_str(&printed(&[&event])).unwrap();
        let empty = serde_json::Map::new();
        let parts = schema["$defs"].as_object().unwrap_or(&empty).values();
        let names: BTreeSet<_> = parts
            .chain([&schema])
            .filter_map(|part| part["properties"].as_object())
            .flat_map(|properties| properties.keys().cloned())
            .filter(|name| {
                !["title", "message", "type", "metadata", "recipients"].contains(&name.as_str())
            })
            .collect();
        for value in [
            json!(null),
            json!("text"),
            json!(true),
            json!({ "a": [1] }),
            numbers.clone(),
            json!(7),
        ] {
            let fields = names.iter().map(|name| (name.clone(), value.clone()));
            cases.push(case(Value::Object(fields.collect()), Both::Take));
        }
        for example in schema["examples"].as_array().into_iter().flatten() {
            cases.push(case(example.clone(), Both::Take));
        }
        cases.extend([
            case(json!({}), Both::Take),
            case(json!({ "title": 7 }), Both::Refuse),
            case(json!({ "recipients": null }), Both::Refuse),
        ]);
        for other in [json!([]), json!("text"), json!(7), json!(true), json!(null)] {
            cases.push(case(other, Both::Refuse));
        }
    }
    cases
}

/// The fields that every event may have.
fn of_every_field() -> Vec<Case> {
    let take = |payload: Value| plain("custom.x", &payload, Both::Take);
    let refuse = |payload: Value| plain("custom.x", &payload, Both::Refuse);
    let mut cases = vec![
        take(
            json!({ "title": "", "message": "", "type": "alert", "metadata": {}, "recipients": ["ann", ""] }),
        ),
        take(json!({ "title": null, "message": null, "type": null, "metadata": null })),
        take(json!({ "recipients": [] })),
        take(json!({ "Title": 7, "timestamp": 7, "id": {}, "read": "no" })),
        // Not yet a CloudEvent, or not one at all.
        take(json!({ "specversion": "1.0", "id": "1", "source": "/tests" })),
        take(json!({ "specversion": true, "id": "1", "source": "/tests", "type": "info" })),
        take(json!({ "specversion": "x", "id": 1, "source": "/tests", "type": "info" })),
        refuse(json!({ "specversion": "2.0", "id": "1", "source": "/tests", "type": "info" })),
        refuse(json!({ "specversion": 1.0, "id": "1", "source": "/tests", "type": "info" })),
        refuse(json!({ "specversion": "1.0", "id": "1", "source": "/tests", "type": null })),
    ];
    for kind in ["info", "success", "warning", "error", "alert"] {
        cases.push(take(json!({ "type": kind })));
    }
    for metadata in [
        json!([]),
        json!("text"),
        json!(0),
        json!(false),
        json!({ "event": 7, "eventId": {} }),
    ] {
        cases.push(take(json!({ "metadata": metadata })));
    }
    for value in [json!(7), json!([]), json!({}), json!(true)] {
        for field in ["title", "message", "type"] {
            cases.push(refuse(json!({ field: value })));
        }
    }
    for kind in ["", "Info", "fatal", "info "] {
        cases.push(refuse(json!({ "type": kind })));
    }
    let nobody = [
        json!("ann"),
        json!(7),
        json!({}),
        json!(true),
        json!([1]),
        json!(["ann", null]),
        json!([["ann"]]),
    ];
    for recipients in nobody {
        cases.push(refuse(json!({ "recipients": recipients })));
    }
    cases
}

/// What the data of a CloudEvent may be.
fn data() -> Vec<(Both, Value)> {
    use Both::{OnlyGateway, OnlySchema, Refuse, Take};
    let object = json!({ "title": "a" });
    vec![
        (Take, json!({})),
        (Take, json!({ "data": object })),
        (Take, json!({ "data": null })),
        (Take, json!({ "data": "" })),
        (Take, json!({ "data": " \n" })),
        (Take, json!({ "data": "null" })),
        (Take, json!({ "data": object.to_string() })),
        (Take, json!({ "data": { "title": null } })),
        (Refuse, json!({ "data": "text" })),
        (Refuse, json!({ "data": "[]" })),
        (Refuse, json!({ "data": [] })),
        (Refuse, json!({ "data": 7 })),
        (Refuse, json!({ "data": false })),
        (Refuse, json!({ "data": { "type": "fatal" } })),
        (Refuse, json!({ "data": { "recipients": null } })),
        (OnlyGateway, json!({ "data": "{\"title\":7}" })),
        (Refuse, json!({ "data": "{" })),
        (OnlyGateway, json!({ "data": "{,}" })),
        (
            OnlySchema,
            json!({ "data": { "specversion": "1.0", "id": "1", "source": "a", "type": "info" } }),
        ),
        (Take, json!({ "data_base64": "e30=" })),
        (Take, json!({ "data_base64": "e30" })),
        (Take, json!({ "data_base64": "" })),
        (Take, json!({ "data_base64": "e30=", "data": null })),
        (Take, json!({ "data_base64": null, "data": object })),
        (Refuse, json!({ "data_base64": "e30=", "data": object })),
        (Refuse, json!({ "data_base64": "e30=", "data": "" })),
        (Refuse, json!({ "data_base64": "***" })),
        (Refuse, json!({ "data_base64": 7 })),
        (OnlyGateway, json!({ "data_base64": "W10=" })),
    ]
}

/// What its attributes may be.
fn attributes() -> Vec<(Both, Value)> {
    use Both::{Refuse, Take};
    let object = json!({ "title": "a" });
    vec![
        (
            Take,
            json!({ "data": object, "datacontenttype": "application/json" }),
        ),
        (
            Take,
            json!({ "data": object, "datacontenttype": " TEXT/JSON ; charset=utf-8" }),
        ),
        (
            Take,
            json!({ "data": object, "datacontenttype": "application/vnd.example+json" }),
        ),
        (Take, json!({ "data": object, "datacontenttype": null })),
        (Take, json!({ "datacontenttype": "text/plain" })),
        (Take, json!({ "data": "", "datacontenttype": "text/plain" })),
        (
            Take,
            json!({ "data_base64": "e30=", "datacontenttype": "Application/Octet-Stream" }),
        ),
        (
            Refuse,
            json!({ "data": object, "datacontenttype": "application/octet-stream" }),
        ),
        (
            Refuse,
            json!({ "data": object, "datacontenttype": "text/plain" }),
        ),
        (
            Refuse,
            json!({ "data": object, "datacontenttype": "application/jsonp" }),
        ),
        (Refuse, json!({ "data": object, "datacontenttype": "json" })),
        (Refuse, json!({ "data": object, "datacontenttype": "" })),
        (
            Refuse,
            json!({ "data_base64": "e30=", "datacontenttype": "text/plain" }),
        ),
        (Refuse, json!({ "datacontenttype": 7 })),
        (Refuse, json!({ "specversion": "1.1" })),
        (Refuse, json!({ "specversion": 1.0 })),
        (Refuse, json!({ "id": "" })),
        (Refuse, json!({ "id": 7 })),
        (Refuse, json!({ "source": "" })),
        (Refuse, json!({ "source": null })),
        (Refuse, json!({ "type": {} })),
        (
            Take,
            json!({ "subject": null, "extension": { "any": [] }, "time": "yesterday", "traceparent": 7 }),
        ),
    ]
}

fn cloud_events() -> Vec<Case> {
    use Both::{OnlyGateway, OnlySchema, Refuse, Take};
    let structures = data().into_iter().chain(attributes());
    let structures = structures.flat_map(|(both, change)| structured(&change, both));
    let text = "{\"title\":\"a\"}";
    let binaries = [
        binary(&[], text, Take),
        binary(&[], "", Take),
        binary(&[], "null", Take),
        binary(
            &[("ce-datacontenttype", "application/json"), ("ce-x", "y")],
            text,
            Take,
        ),
        binary(&[("ce-id", "-")], text, Refuse),
        binary(&[("ce-id", "")], text, Refuse),
        binary(&[("ce-source", "-")], text, Refuse),
        binary(&[("ce-type", "-")], text, Refuse),
        binary(&[("ce-specversion", "-")], text, Refuse),
        binary(&[("ce-specversion", "0.3")], text, Refuse),
        binary(&[], "[]", Refuse),
        binary(&[], "{\"title\":7}", Refuse),
        binary(&[("ce-datacontenttype", "text/plain")], text, OnlyGateway),
        binary(&[("ce-specversion", "\"1.0\"")], text, OnlySchema),
    ];
    structures.chain(binaries).collect()
}

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [of_every_event(), of_every_field(), cloud_events()]
        .into_iter()
        .flatten()
        .collect()
}
