//! What comes all at once: it closes no healthy socket of a large room, and no slow one holds up the others
//! while it is read back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::cable::Cable;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::RawSocket;
use crate::support::{heavy_turn, soon};

/// Publishes `count` numbered events without waiting for one before the next; all are stored.
async fn burst(publisher: &Publisher, count: u64, length: usize) {
    let message = "x".repeat(length);
    let mut acks = Vec::new();
    for number in 0..count {
        let payload = json!({ "title": number.to_string(), "message": message }).to_string();
        let sent = publisher
            .context
            .publish("ws.acme.custom.x", payload.into());
        acks.push(sent.await.expect("it is sent"));
    }
    for ack in acks {
        soon(ack.into_future()).await.expect("it is stored");
    }
}

fn numbered(count: u64) -> Vec<Value> {
    (0..count).map(|number| json!(number.to_string())).collect()
}

fn titles(frames: &[(u8, Vec<u8>)]) -> Vec<Value> {
    let title = |payload: &[u8]| {
        let one: Value = serde_json::from_slice(payload).unwrap_or_default();
        one["title"].clone()
    };
    frames.iter().map(|(_, payload)| title(payload)).collect()
}

/// Bytes a tenth of a second, until the connection ends.
async fn read_slowly(mut stream: TcpStream) {
    let mut bytes = [0; 2400];
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while let Ok(1..) = stream.read(&mut bytes).await {
        tick.tick().await;
    }
}

/// What a socket got up to its `count`th notification, read without a look at it: a client that keeps up.
async fn read_fast(mut socket: RawSocket, count: usize) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while frames.len() < count {
        match socket.next().await {
            Some(frame) => frames.push(frame),
            None => break,
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_closes_no_healthy_socket_of_a_large_room() {
    const SOCKETS: usize = 200;
    const EVENTS: u64 = 1500;
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    // Its own log, at `trace`, would take longer than all the rest.
    let gateway = Gateway::builder(&nats).set("log.level", "info");
    let gateway = gateway.ready().await;
    let publisher = Publisher::on(&nats).await;
    let mut readers = JoinSet::new();
    for number in 0..SOCKETS {
        let socket = RawSocket::join(&gateway, &format!("u{number}"), "acme").await;
        readers.spawn(read_fast(socket, EVENTS as usize));
    }
    burst(&publisher, EVENTS, 500).await;
    while let Some(frames) = readers.join_next().await {
        assert_eq!(titles(&frames.expect("it reads all")), numbered(EVENTS));
    }
    let closed = gateway.metric("herald_connections_closed_total", "4010");
    assert!(closed.await < 1.0, "healthy sockets were closed as slow");
}

/// A cut of the connection to NATS, with much stored meanwhile: all of it is read back at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_do_not_hold_up_a_repair() {
    const EVENTS: u64 = 3000;
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    let (cable, gateway) = {
        let cable = Cable::to(nats.port()).await;
        let gateway = Gateway::without_nats()
            .set("nats.url", cable.url())
            .set("log.level", "info");
        let gateway = gateway.ready().await;
        (cable, gateway)
    };
    let publisher = Publisher::on(&nats).await;
    let mut healthy = JoinSet::new();
    for user in ["ann", "bob", "eve"] {
        let socket = RawSocket::join(&gateway, user, "acme").await;
        healthy.spawn(read_fast(socket, EVENTS as usize));
    }
    let mut slow = JoinSet::new();
    for number in 0..2 {
        let socket = RawSocket::join(&gateway, &format!("slow{number}"), "acme").await;
        slow.spawn(read_slowly(socket.into_stream()));
    }
    cable.cut();
    burst(&publisher, EVENTS, 500).await;
    cable.mend();
    // Each of them would take more than a minute for it.
    while let Some(frames) = healthy.join_next().await {
        assert_eq!(titles(&frames.expect("it reads all")), numbered(EVENTS));
    }
    gateway
        .metric_becomes("herald_connections_closed_total", "4010", 2.0)
        .await;
    slow.shutdown().await;
}
