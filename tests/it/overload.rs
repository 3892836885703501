//! More than a gateway can take at once: what is dropped is read back, and costs nobody else.

use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, signal};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw_nats::RawNats;
use crate::support::soon;

/// More than a subscription holds.
const EVENTS: usize = 40_000;

#[tokio::test]
async fn only_the_room_that_missed_something_looks() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut flood = RawNats::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "globex").await;
    let reading = tokio::spawn(async move {
        for number in 0..EVENTS {
            let title = ann.notification().await["title"].clone();
            assert_eq!(title, number.to_string());
        }
    });
    // It wakes up to all of it at once, and its connection is quicker than a room.
    signal(gateway.pid(), "-STOP");
    for number in 0..EVENTS {
        let body = json!({ "title": number.to_string() }).to_string();
        flood.publish(b"ws.acme.custom.x", body.as_bytes()).await;
    }
    flood.flush().await;
    let title = json!({ "title": "bob's" });
    publisher.event("globex.custom.x", &title).await;
    signal(gateway.pid(), "-CONT");
    soon(reading).await.expect("every event, once and in order");
    assert_eq!(bob.notification().await["title"], "bob's");

    let dropped = gateway.metric("herald_nats_slow_consumers_total", "").await;
    assert!(dropped > 0.5, "{dropped}: nothing was dropped");
    let lines = gateway.output();
    let lines = |words: &[&str]| {
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        lines.lines().filter(has_all).count()
    };
    assert!(lines(&["looking for what was missed", "acme"]) > 0);
    assert_eq!(lines(&["looking for what was missed", "globex"]), 0);
    let told = lines(&["messages dropped, a subscription was full"]);
    assert!((1..100).contains(&told), "{told} lines of {dropped}");
    // The client's own line for each of them.
    assert_eq!(lines(&["async_nats", "slow consumers"]), 0);
}
