//! Promises 1 and 2 without faults: who gets what, from when on, in which order.

use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

#[tokio::test]
async fn events_of_all_categories_reach_the_workspace_in_order() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "acme").await;
    let events = [
        "record.created",
        "record.updated",
        "record.deleted",
        "record.bulk_completed",
        "function.started",
        "function.completed",
        "function.failed",
        "function.timeout",
        "system.maintenance",
        "system.user_updated",
        "custom.anything",
    ];
    for event in events {
        publisher
            .event(
                &format!("acme.{event}"),
                &json!({ "collection": "orders", "recordId": "7" }),
            )
            .await;
    }
    for client in [&mut ann, &mut bob] {
        for event in events {
            let notification = client.notification().await;
            assert_eq!(notification["metadata"]["event"], event);
            assert_eq!(notification["read"], false);
            for field in ["id", "title", "message", "type", "timestamp"] {
                let text = notification[field].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{field} of {notification}");
            }
        }
    }
}

#[tokio::test]
async fn nobody_gets_another_workspaces_or_another_recipients_notification() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "acme").await;
    let mut eve = Client::join(&gateway, "eve", "globex").await;
    let to = |recipients: serde_json::Value, title: &str| json!({ "title": title, "recipients": recipients });
    publisher
        .event("acme.custom.x", &to(json!(["ann"]), "ann's"))
        .await;
    publisher
        .event("acme.custom.x", &to(json!([]), "nobody's"))
        .await;
    publisher
        .event("acme.custom.x", &to(json!(["bob", "eve", "bob"]), "bob's"))
        .await;
    publisher
        .event("acme.custom.x", &json!({ "title": "all" }))
        .await;
    publisher
        .event("globex.custom.x", &json!({ "title": "globex" }))
        .await;
    for (client, titles) in [
        (&mut ann, vec!["ann's", "all"]),
        (&mut bob, vec!["bob's", "all"]),
        (&mut eve, vec!["globex"]),
    ] {
        for title in titles {
            assert_eq!(client.notification().await["title"], title);
        }
    }
}

#[tokio::test]
async fn what_was_stored_before_is_never_delivered() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "before" }))
        .await;
    let mut first = Client::join(&gateway, "ann", "acme").await;
    publisher
        .event("acme.custom.x", &json!({ "title": "between" }))
        .await;
    assert_eq!(first.notification().await["title"], "between");
    let mut second = Client::join(&gateway, "bob", "acme").await;
    publisher
        .event("acme.custom.x", &json!({ "title": "after" }))
        .await;
    assert_eq!(second.notification().await["title"], "after");
    assert_eq!(first.notification().await["title"], "after");
}

#[tokio::test]
async fn an_event_published_right_after_open_always_arrives() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    for round in 0..1000 {
        let workspace = format!("fresh-{round}");
        let stale = format!("{workspace}.record.created");
        publisher.event(&stale, &json!({ "title": "before" })).await;
        let mut client = Client::join(&gateway, "ann", &workspace).await;
        publisher
            .event(
                &stale,
                &json!({ "title": "after", "message": round.to_string() }),
            )
            .await;
        let notification = client.notification().await;
        assert_eq!(notification["title"], "after", "round {round}");
        assert_eq!(notification["message"], round.to_string());
    }
}

#[tokio::test]
async fn a_publisher_cannot_forge_the_servers_headers() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Nats-Stream", "OTHER"),
        ("Nats-Subject", "ws.globex.custom.x"),
        ("Nats-Sequence", "1"),
        ("Nats-Last-Sequence", "999999"),
        ("Nats-Time-Stamp", "1999-01-01T00:00:00Z"),
    ] {
        headers.insert(name, value);
    }
    for title in ["one", "two"] {
        publisher
            .raw(
                "acme.custom.x",
                headers.clone(),
                json!({ "title": title }).to_string(),
            )
            .await;
        let notification = ann.notification().await;
        assert_eq!(notification["title"], title);
        let time = notification["timestamp"].as_str().unwrap_or_default();
        assert!(time.starts_with("20"), "{time}");
    }
    assert!(gateway.metric("herald_repairs_total", "").await < 0.5);
}

#[tokio::test]
async fn a_message_on_live_that_the_server_did_not_republish_is_dropped_and_counted() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let client = nats.connect().await;
    client
        .publish("live.ws.acme.custom.x", "{\"title\":\"forged\"}".into())
        .await
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Stream", "EVENTS");
    headers.insert("Nats-Subject", "ws.globex.custom.x");
    headers.insert("Nats-Sequence", "5");
    headers.insert("Nats-Last-Sequence", "0");
    headers.insert("Nats-Time-Stamp", "2026-01-01T00:00:00Z");
    client
        .publish_with_headers(
            "live.ws.acme.custom.x",
            headers,
            "{\"title\":\"forged\"}".into(),
        )
        .await
        .unwrap();
    client.flush().await.unwrap();
    gateway
        .metric_becomes("herald_live_dropped_total", "forged", 2.0)
        .await;
    publisher
        .event("acme.custom.x", &json!({ "title": "true" }))
        .await;
    assert_eq!(ann.notification().await["title"], "true");
}

#[tokio::test]
async fn an_event_whose_republish_was_lost_comes_once_it_is_found() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    publisher
        .unheard("EVENTS", async || {
            let lost = json!({ "title": "lost" });
            publisher.event("acme.custom.a", &lost).await;
        })
        .await;
    publisher
        .event("acme.custom.b", &json!({ "title": "other" }))
        .await;
    assert_eq!(ann.notification().await["title"], "other");
    publisher
        .event("acme.custom.a", &json!({ "title": "next" }))
        .await;
    assert_eq!(ann.notification().await["title"], "lost");
    assert_eq!(ann.notification().await["title"], "next");
    gateway
        .metric_becomes("herald_events_late_total", "", 1.0)
        .await;
    assert!(ann.is_quiet(Duration::from_millis(200)).await);
}
