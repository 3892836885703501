//! The socket: notifications, control messages, and what a client sends.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::judge::verdicts;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::{expiring, token};

/// The built-in rules behind one for a webhook.
const FOREIGN: &str = r#"
[[rule]]
match = "custom.stripe"
payload = "foreign"
title = "{{ type }}"
fields = ["id", "type", "data.object.amount"]
"#;

async fn with_control(gateway: &Gateway) -> Client {
    let url = format!("{}/?workspaceSlug=acme", gateway.url());
    let mut request = url.into_client_request().unwrap();
    let offer = format!("herald.v2, bearer.{}", expiring("ann", "acme", 60));
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", offer.parse().unwrap());
    Client::attempt_with(request).await.unwrap()
}

fn all(schema: &str, values: impl IntoIterator<Item = Value>) -> Vec<(String, Value)> {
    let values = values.into_iter();
    values.map(|value| (schema.to_owned(), value)).collect()
}

fn assert_right(values: &[(String, Value)]) {
    for (fault, value) in verdicts(values).into_iter().zip(values) {
        assert_eq!(fault, None, "{value:?}");
    }
}

/// With each setting that changes what a notification looks like.
#[tokio::test]
async fn notifications_are_what_their_schema_says() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().unwrap();
    let rules = format!("{FOREIGN}\n{}", herald::projection::DEFAULT_RULES);
    let rules = file(folder.path(), "rules.toml", rules);
    let gateway = Gateway::builder(&nats)
        .set("projection.rules", rules)
        .set("projection.type", "event")
        .set("projection.traceparent", "true")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let events = [
        (
            "record.created",
            json!({ "collection": "orders", "recordId": "r1", "data": { "secret": 1 } }),
        ),
        ("record.updated", json!({})),
        ("record.deleted", json!({ "recordId": 7 })),
        (
            "record.bulk_completed",
            json!({ "count": 12, "failed": 1, "operation": "import" }),
        ),
        ("function.started", json!({ "function": "sync" })),
        (
            "function.completed",
            json!({ "function": "sync", "executionId": "e1", "durationMs": 7 }),
        ),
        ("function.failed", json!({ "error": "no" })),
        ("function.timeout", json!({ "message": "given" })),
        ("system.maintenance", json!({ "metadata": [1, "a", null] })),
        ("system.other", json!({ "metadata": "text" })),
        ("custom.alert", json!({ "metadata": false })),
        (
            "custom.x",
            json!({ "type": "success", "title": "", "metadata": { "event": 7, "eventId": 7, "a": {} } }),
        ),
        (
            "custom.x",
            json!({ "specversion": "1.0", "id": "e1", "source": "/tests", "type": "x", "data": {} }),
        ),
        (
            "custom.stripe",
            json!({ "id": "evt_1", "type": "charge.succeeded", "recipients": 7,
            "data": { "object": { "amount": 2050, "card": "4111" } } }),
        ),
    ];
    for (event, payload) in &events {
        publisher.event(&format!("acme.{event}"), payload).await;
    }
    let sent = ann.notifications(events.len()).await;
    assert_eq!(sent[0]["type"], "record_created");
    assert_eq!(sent[13]["title"], "charge.succeeded");
    assert!(sent[0]["metadata"]["traceparent"].is_string());
    assert_right(&all("notification", sent.iter().cloned()));

    refuse_changes(&sent[0]);
}

/// None of it is said in vain: another value is refused.
fn refuse_changes(sent: &Value) {
    let changes = [
        ("/id", json!("notif_1")),
        ("/title", json!(null)),
        ("/message", json!(7)),
        ("/type", json!("")),
        ("/read", json!("false")),
        ("/timestamp", json!("yesterday")),
        ("/metadata/event", json!("record_created")),
        ("/metadata/traceparent", json!(7)),
    ];
    let changed = changes.map(|(place, value)| {
        let mut one = sent.clone();
        *one.pointer_mut(place).unwrap() = value;
        one
    });
    let without = ["id", "title", "message", "type", "read"].map(|name| {
        let mut one = sent.clone();
        one.as_object_mut().unwrap().remove(name).unwrap();
        one
    });
    let wrong = all("notification", changed.into_iter().chain(without));
    for (fault, value) in verdicts(&wrong).into_iter().zip(&wrong) {
        assert!(fault.is_some(), "{value:?}");
    }
}

#[tokio::test]
async fn control_messages_are_what_their_schemas_say() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = with_control(&gateway).await;
    let hello = ann.notification().await;
    ann.send(&json!({ "type": "heartbeat" }).to_string()).await;
    let heartbeat = ann.notification().await;
    let fresh = token("ann", "acme");
    ann.send(&json!({ "type": "token", "token": fresh }).to_string())
        .await;
    let renewed = ann.notification().await;
    let mut right = Vec::new();
    for (kind, message) in [
        ("hello", &hello),
        ("heartbeat", &heartbeat),
        ("token", &renewed),
    ] {
        assert_eq!(message["herald"], kind);
        right.extend(all(&format!("control.{kind}"), [message.clone()]));
        right.extend(all("control", [message.clone()]));
    }
    assert_right(&right);

    let mut wrong = vec![
        json!({ "herald": "later" }),
        json!({}),
        json!({ "herald": "token" }),
    ];
    for name in ["herald", "session", "expiresAt", "heartbeat"] {
        let mut one = hello.clone();
        one[name] = json!("x");
        wrong.push(one.clone());
        one.as_object_mut().unwrap().remove(name);
        wrong.push(one);
    }
    let mut wrong = all("control", wrong);
    // A notification is no control message, nor the other way round.
    wrong.extend(all("notification", [hello, heartbeat]));
    for (fault, value) in verdicts(&wrong).into_iter().zip(&wrong) {
        assert!(fault.is_some(), "{value:?}");
    }
}

/// What comes of a message that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// The answer of this kind.
    Answer(&'static str),
    /// This close code.
    Close(u16),
    /// Nothing: it is activity.
    Nothing,
}

#[tokio::test]
async fn what_a_client_may_send_is_what_is_answered() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let fresh = token("ann", "acme");
    let cases = [
        (json!({ "type": "heartbeat" }), Comes::Answer("heartbeat")),
        (
            json!({ "type": "heartbeat", "at": 7 }),
            Comes::Answer("heartbeat"),
        ),
        (
            json!({ "type": "token", "token": fresh }),
            Comes::Answer("token"),
        ),
        (
            json!({ "type": "token", "token": fresh, "at": 7 }),
            Comes::Answer("token"),
        ),
        (json!({ "type": "token" }), Comes::Close(4001)),
        (json!({ "type": "token", "token": "" }), Comes::Close(4001)),
        (json!({ "type": "token", "token": 7 }), Comes::Close(4001)),
        (
            json!({ "type": "token", "token": null }),
            Comes::Close(4001),
        ),
        (json!({ "type": "Heartbeat" }), Comes::Nothing),
        (json!({ "type": ["heartbeat"] }), Comes::Nothing),
        (json!({ "herald": "heartbeat" }), Comes::Nothing),
        (json!({}), Comes::Nothing),
        (json!([{ "type": "heartbeat" }]), Comes::Nothing),
        (json!("heartbeat"), Comes::Nothing),
    ];
    for (message, comes) in &cases {
        let mut ann = with_control(&gateway).await;
        assert_eq!(ann.notification().await["herald"], "hello");
        ann.send(&message.to_string()).await;
        match comes {
            Comes::Answer(kind) => {
                assert_eq!(ann.notification().await["herald"], *kind, "{message}")
            }
            Comes::Close(code) => assert_eq!(ann.closed().await.0, *code, "{message}"),
            Comes::Nothing => {
                ann.send(&json!({ "type": "token", "token": fresh }).to_string())
                    .await;
                assert_eq!(ann.notification().await["herald"], "token", "{message}");
            }
        }
    }
    let messages = all("client", cases.iter().map(|(message, _)| message.clone()));
    for (fault, (message, comes)) in verdicts(&messages).into_iter().zip(&cases) {
        let is_answered = matches!(comes, Comes::Answer(_));
        assert_eq!(fault.is_none(), is_answered, "{message}: {fault:?}");
    }
}
