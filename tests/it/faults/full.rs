//! Streams at their limit: what cannot be stored is its publisher's to know, sockets stay, joins are put off,
//! and all goes on when there is room again.

use async_nats::Client as NatsClient;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::nats::cluster::request;
use crate::support::token::token;

/// The stream's configuration, of which `change` makes the new one. Returns the old one.
async fn update(client: &NatsClient, stream: &str, change: impl FnOnce(&mut Value)) -> Value {
    let info = request(client, &format!("$JS.API.STREAM.INFO.{stream}"), "").await;
    let old = info.expect("it answers")["config"].clone();
    let mut config = old.clone();
    change(&mut config);
    let subject = format!("$JS.API.STREAM.UPDATE.{stream}");
    let answer = request(client, &subject, &config.to_string())
        .await
        .expect("it answers");
    assert!(answer["error"].is_null(), "{answer}");
    old
}

/// Bounds a stream to `bytes`, beyond which it takes nothing.
async fn bound(client: &NatsClient, stream: &str, bytes: u32) -> Value {
    update(client, stream, |config| {
        config["max_bytes"] = bytes.into();
        config["discard"] = "new".into();
    })
    .await
}

#[tokio::test]
async fn full_streams_put_joins_off_and_close_nobody() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let events = bound(&client, "EVENTS", 300_000).await;
    let sessions = bound(&client, "SESSIONS", 1).await;
    let payload = json!({ "title": "large", "message": "x".repeat(50_000) });
    let mut stored = 0;
    let refusal = loop {
        let answer = request(&client, "ws.acme.custom.large", &payload.to_string()).await;
        let answer: Value = answer.expect("an answer");
        if answer["error"].is_object() {
            break answer;
        }
        stored += 1;
    };
    assert!(refusal["error"]["description"].is_string(), "{refusal}");
    for _ in 0..stored {
        assert_eq!(ann.notification().await["title"], "large");
    }
    let query = format!("token={}&workspaceSlug=acme", token("bob", "acme"));
    let refused = Client::attempt(&gateway, &query)
        .await
        .expect_err("no claim can be stored");
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    assert!(ann.is_open().await);
    for (stream, old) in [("EVENTS", events), ("SESSIONS", sessions)] {
        update(&client, stream, |config| *config = old).await;
    }
    let mut bob = Client::join(&gateway, "bob", "acme").await;
    request(
        &client,
        "ws.acme.custom.small",
        &json!({ "title": "again" }).to_string(),
    )
    .await
    .expect("stored");
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.notification().await["title"], "again");
    }
}
