//! A batch: what became of each event.

use serde_json::{Value, json};

use super::{count, on};
use crate::support::client::Client;
use crate::support::nats::Nats;

const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

fn event(id: &str, data: &Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/t", "type": "t", "data": data })
}

#[tokio::test]
async fn each_event_of_a_batch_has_its_own_end() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let good: Vec<Value> = (0..100)
        .map(|n| event(&format!("e{n}"), &json!({"title": n.to_string()})))
        .collect();
    let body = json!(good).to_string();
    let key = ("Idempotency-Key", "b1");
    let first = sender.post("acme/custom.x", &[BATCH, key], &body).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.body["deduplicationSeconds"], 120);
    let events = first.body["events"].as_array().unwrap();
    assert_eq!(events.len(), 100);
    for (n, event) in events.iter().enumerate() {
        let wanted = json!({"id": format!("e{n}"), "status": 201, "stream": "EVENTS", "sequence": n + 1, "duplicate": false});
        assert_eq!(*event, wanted);
    }
    // In the order of the list.
    for (n, notification) in ann.notifications(100).await.iter().enumerate() {
        assert_eq!(notification["title"], n.to_string());
        assert_eq!(notification["metadata"]["eventId"], format!("e{n}"));
    }
    let again = sender.post("acme/custom.x", &[BATCH, key], &body).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.body["events"][99]["status"], 200);
    assert_eq!(count(&nats).await, 100);

    let mixed = json!([
        event("good", &json!({})),
        event("bad", &json!({"recipients": null})),
        {"id": "none"},
        7,
        event("large", &json!({"title": "x".repeat(65_536)})),
        event("last", &json!({})),
    ]);
    let mixed = sender
        .post("acme/custom.x", &[BATCH], &mixed.to_string())
        .await;
    mixed.assert_is(422, "batch", "some");
    let events = mixed.body["events"].as_array().unwrap();
    let statuses: Vec<_> = events
        .iter()
        .map(|event| event["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 422, 422, 422, 413, 201], "{mixed:?}");
    assert_eq!(events[1]["problem"]["reason"], "recipients");
    assert_eq!(events[1]["problem"]["stored"], "no");
    assert_eq!(
        (&events[2]["id"], &events[3]["id"]),
        (&json!("none"), &Value::Null)
    );
    assert_eq!(count(&nats).await, 102);
    let bad = sender.post("acme/custom.x", &[BATCH], "[7]").await;
    bad.assert_is(422, "batch", "no");
}

#[tokio::test]
async fn an_empty_batch_is_right_and_one_that_is_none_is_not() {
    let nats = Nats::jetstream().await;
    let (_gateway, sender) = on(&nats).await;
    let empty = sender.post("acme/custom.x", &[BATCH], "[]").await;
    assert_eq!((empty.status, &empty.body["events"]), (200, &json!([])));
    for body in ["", "{}", "[", "null", "[{}]]"] {
        let refused = sender.post("acme/custom.x", &[BATCH], body).await;
        refused.assert_is(400, "malformed", "no");
    }
    let many = json!(vec![event("e", &json!({})); 101]).to_string();
    sender
        .post("acme/custom.x", &[BATCH], &many)
        .await
        .assert_is(413, "too-large", "no");
    let large = format!("[{}]", " ".repeat(1024 * 1024));
    sender
        .post("acme/custom.x", &[BATCH], &large)
        .await
        .assert_is(413, "too-large", "no");
    assert_eq!(count(&nats).await, 0);
}
