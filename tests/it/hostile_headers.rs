//! Promise 7 on the wire's own level: nats-server stores and passes on whatever header block a
//! publisher sends. None of it may end a gateway, delay its room or lose another's event.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

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
];

async fn publish(nats: &Nats, subject: &str, block: &[u8], body: &[u8]) {
    let stream = TcpStream::connect(("127.0.0.1", nats.port()))
        .await
        .unwrap();
    let mut stream = BufReader::new(stream);
    let total = block.len() + body.len();
    let mut sent = b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n".to_vec();
    sent.extend_from_slice(format!("HPUB {subject} {} {total}\r\n", block.len()).as_bytes());
    sent.extend_from_slice(block);
    sent.extend_from_slice(body);
    sent.extend_from_slice(b"\r\nPING\r\n");
    stream.write_all(&sent).await.unwrap();
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        assert!(
            stream.read_line(&mut line).await.unwrap() > 0,
            "the server hung up"
        );
    }
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
