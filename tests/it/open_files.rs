//! At the limit of open files: clients cannot take those that the gateway needs for itself.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::attempt::{attempt, local};
use crate::support::cable::{Cable, Condition};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, get};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::tls::Certificates;
use crate::support::{PATIENCE, eventually};

/// The line of a gateway that may have fewer sockets than it is to have.
const CAPPED: &str = "fewer sockets than sockets.max_connections, raise the limit of open files";

/// A connection that asks for nothing.
async fn silent(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(&gateway.address).await.expect("a peer");
    // It may have been closed already for its silence.
    let _ = stream.write_all(b"GET /").await;
    stream
}

#[tokio::test]
async fn with_all_files_taken_health_metrics_and_nats_go_on() {
    let nats = Nats::jetstream().await;
    let cable = Cable::to(nats.port()).await;
    let gateway = Gateway::without_nats()
        .set("nats.url", cable.url())
        .open_files(256, 256)
        .ready()
        .await;
    let mut standing = Client::join(&gateway, "standing", "acme").await;
    // As many sockets as there may be; the next one is told, and not left waiting.
    let mut open = Vec::new();
    let refused = loop {
        let user = format!("u{}", open.len());
        let attempt = attempt(&gateway, &user, local(1), &[]).await;
        if attempt.status != 101 {
            break attempt;
        }
        open.push(attempt);
        assert!(open.len() < 256, "more sockets than files");
    };
    assert!(refused.is_later(503, "full"), "{refused:?}");
    assert!(open.len() > 100, "{}", open.len());
    // And more connections that are no sockets than there are files.
    let mut connections = Vec::new();
    for _ in 0..300 {
        connections.push(silent(&gateway).await);
    }
    assert_eq!(get(&gateway.admin, "/healthz").await.0, 200);
    assert_eq!(get(&gateway.admin, "/metrics").await.0, 200);
    // NATS has to be connected anew meanwhile.
    cable.set(Condition::Cut);
    let away = eventually(PATIENCE, async || {
        gateway.metric("herald_nats_connected", "").await < 0.5
    });
    assert!(away.await, "the cut is not noticed");
    for _ in 0..300 {
        connections.push(silent(&gateway).await);
    }
    cable.set(Condition::Whole);
    gateway
        .metric_becomes("herald_nats_connected", "", 1.0)
        .await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "still here" }))
        .await;
    assert_eq!(standing.notification().await["title"], "still here");
    assert!(!gateway.output().contains("connection not accepted"));
    // It was said at the start, once, with both numbers.
    let line = gateway.logged(CAPPED).await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["max_connections"], 100_000, "{line}");
    assert_eq!(line["sockets"], open.len() + 1, "{line}");
    assert_eq!(gateway.output().matches(CAPPED).count(), 1);
}

/// What is not even a request is held to the same bounds.
#[tokio::test]
async fn handshakes_of_tls_that_never_end_keep_nobody_out() {
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    let gateway = Gateway::builder(&nats)
        .tls(&certificates)
        .open_files(256, 256)
        .ready()
        .await;
    // Half of a ClientHello, and then nothing, or a byte now and then.
    let mut handshakes = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(&gateway.address).await.expect("a peer");
        let begun = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat();
        stream.write_all(&begun).await.expect("it is taken");
        handshakes.push(stream);
    }
    let dripping = tokio::spawn(async move {
        loop {
            for stream in &mut handshakes {
                // It may have been closed already.
                let _ = stream.write_all(&[7]).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    assert_eq!(get(&gateway.admin, "/healthz").await.0, 200);
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    let event = json!({ "title": "in spite of them" });
    publisher.event("acme.custom.x", &event).await;
    assert_eq!(ann.notification().await["title"], "in spite of them");
    assert!(!gateway.output().contains("connection not accepted"));
    dripping.abort();
}

#[tokio::test]
async fn a_low_soft_limit_is_raised() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections", 120)
        .open_files(64, 512)
        .ready()
        .await;
    let mut open = Vec::new();
    for number in 0..120 {
        let attempt = attempt(&gateway, &format!("u{number}"), local(1), &[]).await;
        assert_eq!(attempt.status, 101, "{number}: {attempt:?}");
        open.push(attempt);
    }
    assert_eq!(gateway.log_line(CAPPED), None);
}
