//! A collector that is dead stops no event and takes no memory: for a minute a gateway delivers 1,000 events a second,
//! which a build for tests can record on two cores. It exports to a collector that takes what it is sent and never answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::heavy_turn;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

const SECONDS: usize = 60;
/// Events in each tick of 10 ms.
const IN_A_TICK: usize = 10;

/// What came of the exports that the gateway gave up, and what was delivered meanwhile.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicUsize,
    /// Exports without an answer during which events were delivered.
    passed: AtomicUsize,
    /// Those during which none was.
    waited_for: AtomicUsize,
}

/// Takes connections and what comes on them, and says nothing.
async fn dead(counts: Arc<Counts>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hold(stream, Arc::clone(&counts)));
        }
    });
    port
}

/// Reads an export until the gateway gives it up.
async fn hold(mut stream: TcpStream, counts: Arc<Counts>) {
    let mut sink = vec![0; 64 * 1024];
    let Ok(1..) = stream.read(&mut sink).await else {
        return;
    };
    let before = counts.delivered.load(Ordering::Relaxed);
    while let Ok(1..) = stream.read(&mut sink).await {}
    let outcome = if counts.delivered.load(Ordering::Relaxed) > before {
        &counts.passed
    } else {
        &counts.waited_for
    };
    outcome.fetch_add(1, Ordering::Relaxed);
}

/// Reads until the last event.
async fn drain(mut client: Client, counts: Arc<Counts>) {
    while client.notification().await["metadata"]["event"] != "system.end" {
        counts.delivered.fetch_add(1, Ordering::Relaxed);
    }
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

async fn memory(gateway: &Gateway) -> f64 {
    gateway.metric("process_memory_usage_bytes", "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_stops_no_event_and_takes_no_memory() {
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    let counts = Arc::new(Counts::default());
    let port = dead(Arc::clone(&counts)).await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .set("telemetry.shutdown", "0s")
        .variable(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{port}"),
        )
        .variable("OTEL_BSP_SCHEDULE_DELAY", 200)
        .ready()
        .await;
    let ann = Client::join(&gateway, "ann", "acme").await;
    let reader = tokio::spawn(drain(ann, Arc::clone(&counts)));
    let publisher = Publisher::on(&nats).await;
    let mut memory_early = 0.0;
    for quarter in 0..4 {
        publish(&publisher, SECONDS * 100 / 4).await;
        // Queues are full and buffers have grown by then.
        if quarter == 0 {
            memory_early = memory(&gateway).await;
        }
    }
    let given_up = counts.passed.load(Ordering::Relaxed);
    assert!(given_up > 0, "no export was given up");
    assert_eq!(counts.waited_for.load(Ordering::Relaxed), 0, "{given_up}");
    publisher.event("acme.system.end", &json!({})).await;
    reader.await.expect("it reads to the end");
    let events = (SECONDS * 100 * IN_A_TICK) as f64 + 1.0;
    gateway
        .metric_becomes("herald_deliveries_total", "", events)
        .await;
    assert!(gateway.metric("herald_events_lost_total", "").await < 0.5);
    let dropped = gateway
        .metric("otel_sdk_processor_span_processed_total", "queue_full")
        .await;
    assert!(
        dropped > events,
        "most spans find the queue full: {dropped}"
    );
    const MIB: f64 = 1024.0 * 1024.0;
    let memory = memory(&gateway).await;
    println!(
        "{given_up} exports given up; memory: {:.1} MiB after a quarter, {:.1} MiB at the end",
        memory_early / MIB,
        memory / MIB
    );
    assert!(
        memory < memory_early * 1.1 + 4.0 * MIB,
        "{memory} and {memory_early}"
    );
}
