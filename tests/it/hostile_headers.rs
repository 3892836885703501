//! Promise 7 on the wire's own level: nats-server stores and passes on whatever header block a
//! publisher sends. None of it may end a gateway, delay its room or lose another's event.

use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw_nats::RawNats;

/// Header blocks that no client library would send. Each is followed by a body.
const BLOCKS: &[&[u8]] = &[
    b"NATS/1.0\r\nA: a\rb\r\n\r\n",
    b"NATS/1.0\r\nA: a\nb\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nbad name: b\r\n\r\n",
    b"NATS/1.0\r\n: b\r\n\r\n",
    b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"garbage\r\nA: b\r\n\r\n",
    b"NATS/1.0\r\nA: b",
    b"\r\n\r\n",
    "NATS/1.0\r\nA: b\r\n\u{a0}c\r\n\r\n".as_bytes(),
];

async fn publish(nats: &Nats, subject: &str, block: &[u8], body: &[u8]) {
    let mut raw = RawNats::on(nats).await;
    raw.publish_with_block(subject.as_bytes(), block, body)
        .await;
    raw.flush().await;
}

#[tokio::test]
async fn header_blocks_that_are_none_end_nothing() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    for (number, block) in BLOCKS.iter().enumerate() {
        publish(
            &nats,
            "ws.acme.custom.hostile",
            block,
            b"{\"title\":\"hostile\"}",
        )
        .await;
        // While it is the stream's last message, another workspace is joined.
        let mut bob = Client::join(&gateway, "bob", &format!("w{number}")).await;
        let good = json!({ "title": format!("good {number}") });
        publisher.event("acme.custom.good", &good).await;
        publisher
            .event(&format!("w{number}.custom.good"), &good)
            .await;
        assert_eq!(bob.notification().await["title"], good["title"]);
        loop {
            let title = ann.notification().await["title"].clone();
            if title == good["title"] {
                break;
            }
            assert_eq!(title, "hostile");
        }
    }
    assert!(
        gateway
            .metric("herald_nats_events_total", "\"disconnected\"")
            .await
            < 0.5
    );
}

#[tokio::test]
async fn header_blocks_that_are_none_are_repaired_past() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    // So that each can come by a repair only.
    publisher
        .unheard("EVENTS", async || {
            for block in BLOCKS {
                let body = b"{\"title\":\"hostile\"}";
                publish(&nats, "ws.acme.custom.x", block, body).await;
            }
            let lost = json!({ "title": "lost" });
            publisher.event("acme.custom.x", &lost).await;
        })
        .await;
    publisher
        .event("acme.custom.x", &json!({ "title": "next" }))
        .await;
    for _ in BLOCKS {
        assert_eq!(ann.notification().await["title"], "hostile");
    }
    assert_eq!(ann.notification().await["title"], "lost");
    assert_eq!(ann.notification().await["title"], "next");
}
