//! A collector that is dead changes neither latency nor memory: three gateways hear the same 1,000
//! events a second for a minute, which a build for tests can record on two cores. One exports nothing, one
//! to a collector that lives, and one to a collector that takes what it is sent and never answers.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

const SECONDS: usize = 60;
/// Events in each tick of 10 ms.
const IN_A_TICK: usize = 10;

/// Takes every export.
async fn alive() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let takes = axum::Router::new().fallback(async |body: axum::body::Bytes| drop(body));
    tokio::spawn(async move { axum::serve(listener, takes).await });
    port
}

/// Takes connections and what comes on them, and says nothing.
async fn dead() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut sink = vec![0; 64 * 1024];
                while let Ok(1..) = stream.read(&mut sink).await {}
            });
        }
    });
    port
}

/// Reads until the last event; a socket's own pace is not of interest here.
async fn drain(mut client: Client) {
    while client.notification().await["metadata"]["event"] != "system.end" {}
}

/// Mean latency in seconds and resident memory in bytes.
async fn figures(gateway: &Gateway) -> (f64, f64) {
    let latency = "herald_event_latency_seconds";
    let sum = gateway.metric(&format!("{latency}_sum"), "").await;
    let count = gateway.metric(&format!("{latency}_count"), "").await;
    (
        sum / count.max(1.0),
        gateway.metric("process_memory_usage_bytes", "").await,
    )
}

/// Publishes for so many ticks, each event until it is stored.
async fn publish(publisher: &Publisher, ticks: usize) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..ticks {
        tick.tick().await;
        let mut sent = Vec::with_capacity(IN_A_TICK);
        for _ in 0..IN_A_TICK {
            let publish = publisher.context.publish("ws.acme.custom.x", "{}".into());
            sent.push(publish.await.expect("it is sent"));
        }
        for acknowledged in sent {
            acknowledged.await.expect("it is stored");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_changes_neither_latency_nor_memory() {
    let nats = Nats::jetstream().await;
    let settings = || {
        Gateway::builder(&nats)
            .set("log.level", "info")
            .set("telemetry.shutdown", "0s")
    };
    let exporting = |port: u16| {
        settings()
            .variable(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{port}"),
            )
            .variable("OTEL_BSP_SCHEDULE_DELAY", 200)
    };
    let off = settings().ready().await;
    let to_alive = exporting(alive().await).ready().await;
    let to_dead = exporting(dead().await).ready().await;
    let gateways = [&off, &to_alive, &to_dead];
    let mut readers = Vec::new();
    for (gateway, user) in gateways.into_iter().zip(["ann", "bob", "cid"]) {
        readers.push(tokio::spawn(drain(
            Client::join(gateway, user, "acme").await,
        )));
    }
    let publisher = Publisher::on(&nats).await;
    let mut memory_early = 0.0;
    for quarter in 0..4 {
        publish(&publisher, SECONDS * 100 / 4).await;
        // Queues are full and buffers have grown by then.
        if quarter == 0 {
            memory_early = figures(&to_dead).await.1;
        }
    }
    publisher.event("acme.system.end", &json!({})).await;
    for reader in readers {
        reader.await.expect("it reads to the end");
    }
    let events = (SECONDS * 100 * IN_A_TICK) as f64 + 1.0;
    for gateway in gateways {
        gateway
            .metric_becomes("herald_deliveries_total", "", events)
            .await;
        assert!(gateway.metric("herald_events_lost_total", "").await < 0.5);
    }
    let dropped = to_dead
        .metric("otel_sdk_processor_span_processed_total", "queue_full")
        .await;
    assert!(
        dropped > events,
        "most spans find the queue full: {dropped}"
    );
    let (mean_off, _) = figures(&off).await;
    let (mean_alive, _) = figures(&to_alive).await;
    let (mean, memory) = figures(&to_dead).await;
    const MIB: f64 = 1024.0 * 1024.0;
    println!(
        "mean latency: dead {:.3} ms, alive {:.3} ms, off {:.3} ms; memory: {:.1} MiB after a quarter, {:.1} MiB at the end",
        mean * 1e3,
        mean_alive * 1e3,
        mean_off * 1e3,
        memory_early / MIB,
        memory / MIB
    );
    // All hear the same events on the same machine: only the collector differs. An export that the way
    // of an event waited for would take ten seconds.
    assert!(mean < mean_alive * 1.5 + 0.002, "{mean} and {mean_alive}");
    // To record takes time of its own, in a build for tests many times that of a release.
    assert!(mean < mean_off + 0.1, "{mean} and {mean_off}");
    assert!(
        memory < memory_early * 1.1 + 4.0 * MIB,
        "{memory} and {memory_early}"
    );
}
