//! What a client gets beside notifications if it offers `herald.v2`, and that nobody else gets it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::{expiring, token};

const HEARTBEAT: &str = "{\"type\":\"heartbeat\"}";

/// Joins with a token by subprotocol, beside these offers.
async fn offering(gateway: &Gateway, token: &str, offer: &str) -> Client {
    let url = format!("{}/?workspaceSlug=acme", gateway.url());
    let mut request = url.into_client_request().unwrap();
    let offer = format!("{offer}, bearer.{token}");
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", offer.parse().unwrap());
    Client::attempt_with(request).await.unwrap()
}

fn renewal(token: &str) -> String {
    json!({ "type": "token", "token": token }).to_string()
}

/// Seconds from now until a time in milliseconds.
fn until(time: &Value) -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    time.as_f64().unwrap() / 1000.0 - now.unwrap().as_secs_f64()
}

#[tokio::test]
async fn hello_comes_first_and_heartbeats_and_tokens_are_answered() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = offering(&gateway, &expiring("ann", "acme", 60), "herald.v2").await;
    publisher
        .event("acme.custom.x", &json!({ "title": "first" }))
        .await;
    let hello = ann.notification().await;
    assert_eq!(hello["herald"], "hello");
    assert_eq!(hello["heartbeat"], 25_000);
    assert!(hello["session"].as_str().is_some_and(|id| id.len() == 32));
    let left = until(&hello["expiresAt"]);
    assert!((50.0..=60.5).contains(&left), "{hello}");
    assert_eq!(hello.as_object().unwrap().len(), 4, "{hello}");
    assert_eq!(ann.notification().await["title"], "first");
    for _ in 0..3 {
        ann.send(HEARTBEAT).await;
        assert_eq!(ann.text().await, "{\"herald\":\"heartbeat\"}");
    }
    ann.send(&renewal(&expiring("ann", "acme", 1000))).await;
    let answer = ann.notification().await;
    assert_eq!(answer["herald"], "token");
    let left = until(&answer["expiresAt"]);
    assert!((990.0..=1000.5).contains(&left), "{answer}");
    // Anything else is not answered.
    ann.send("{\"type\":\"other\"}").await;
    assert!(ann.is_quiet(Duration::from_millis(200)).await);
    // None of it is a notification.
    let delivered = gateway.metric("herald_deliveries_total", "").await;
    assert_eq!(delivered, 1.0);
}

/// The contract's clients parse each message as a notification.
#[tokio::test]
async fn without_v2_a_client_gets_notifications_and_nothing_else() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut clients = [
        Client::join(&gateway, "ann", "acme").await,
        offering(&gateway, &token("bob", "acme"), "herald.v1").await,
    ];
    for (client, user) in clients.iter_mut().zip(["ann", "bob"]) {
        client.send(HEARTBEAT).await;
        client.send(&renewal(&token(user, "acme"))).await;
        assert!(client.is_quiet(Duration::from_millis(200)).await);
    }
    publisher
        .event("acme.custom.x", &json!({ "title": "only" }))
        .await;
    for client in &mut clients {
        assert_eq!(client.notification().await["title"], "only");
    }
}

/// The token ends after 3 s, and each is followed by the next a second before.
#[tokio::test]
async fn tokens_of_a_few_seconds_are_renewed_in_time() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = offering(&gateway, &expiring("ann", "acme", 3), "herald.v2").await;
    assert_eq!(ann.notification().await["herald"], "hello");
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        ann.send(&renewal(&expiring("ann", "acme", 3))).await;
        assert_eq!(ann.notification().await["herald"], "token");
    }
    // As many as one likes is still too many.
    for _ in 0..2 {
        ann.send(&renewal(&expiring("ann", "acme", 3))).await;
    }
    assert_eq!(
        ann.closed().await,
        (4029, "too many token messages".to_owned())
    );
}

/// A client that asks and does not read: what is answered does not pile up.
#[tokio::test]
async fn a_flood_of_heartbeats_ends_its_own_socket_and_no_other() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut witness = offering(&gateway, &token("bob", "acme"), "herald.v2").await;
    assert_eq!(witness.notification().await["herald"], "hello");
    let mut ann = offering(&gateway, &token("ann", "acme"), "herald.v2").await;
    for _ in 0..300 {
        ann.send(HEARTBEAT).await;
    }
    publisher
        .event("acme.custom.x", &json!({ "title": "meanwhile" }))
        .await;
    assert_eq!(witness.notification().await["title"], "meanwhile");
    assert_eq!(ann.closed().await, (4029, "too many messages".to_owned()));
}
