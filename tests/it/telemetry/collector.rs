//! A collector that is absent, refuses, answers slowly or comes back, and settings that are wrong:
//! nothing on the way of an event waits, what is lost is counted, and the end is in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

const PROCESSED: &str = "otel_sdk_processor_span_processed_total";

/// A server that answers each request with `answer` after `delay`, or with nothing.
async fn server(answer: Option<&'static str>, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if let Some(answer) = answer {
                        tokio::time::sleep(delay).await;
                        // Whoever hung up hears nothing.
                        let _ = stream.write_all(answer.as_bytes()).await;
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}

fn exporting(nats: &Nats, port: u16, protocol: &str) -> Builder {
    Gateway::builder(nats)
        .variable(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{port}"),
        )
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .variable("OTEL_EXPORTER_OTLP_TIMEOUT", 500)
        .variable("OTEL_BSP_SCHEDULE_DELAY", 50)
        .variable("OTEL_BSP_MAX_QUEUE_SIZE", 64)
        .variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 64)
        .set("telemetry.shutdown", "1s")
        .set("server.drain", "0s")
}

#[tokio::test]
async fn a_second_signal_ends_at_once_also_where_the_collector_hangs() {
    let nats = Nats::jetstream().await;
    let hangs = server(None, Duration::ZERO).await;
    let mut gateway = exporting(&nats, hangs, "http/protobuf")
        .variable("OTEL_EXPORTER_OTLP_TIMEOUT", 60_000)
        .set("telemetry.shutdown", "60s")
        .set("server.drain_delay", "60s")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notification().await;
    gateway.terminate();
    gateway.logged("draining").await;
    gateway.terminate();
    // Either of the two would take a minute.
    assert_eq!(gateway.ended().await, Some(0));
}

#[tokio::test]
async fn a_collector_that_is_absent_refuses_or_hangs_costs_only_its_spans() {
    let refuses =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let takes = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let at_once = Duration::ZERO;
    let slowly = Duration::from_millis(300);
    let nats = Nats::jetstream().await;
    for (port, protocol) in [
        (server(Some(takes), slowly).await, "http/protobuf"),
        (closed_port().await, "http/protobuf"),
        (closed_port().await, "grpc"),
        (server(Some(refuses), at_once).await, "http/protobuf"),
        (
            server(Some("not even HTTP\r\n\r\n"), at_once).await,
            "http/protobuf",
        ),
        (server(None, at_once).await, "http/protobuf"),
        (server(None, at_once).await, "grpc"),
    ] {
        let mut gateway = exporting(&nats, port, protocol).ready().await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        let publisher = Publisher::on(&nats).await;
        for _ in 0..100 {
            publisher.event("acme.custom.x", &json!({})).await;
        }
        ann.notifications(100).await;
        // 100 events of five spans each, and the connection's six: 64 may wait.
        let accounted = eventually(PATIENCE, async || {
            let dropped = gateway.metric(PROCESSED, "queue_full").await;
            let processed = gateway.metric(PROCESSED, "").await;
            dropped > 0.0 && processed + 64.0 >= 506.0
        });
        assert!(
            accounted.await,
            "{port} {protocol}: {}",
            gateway.metrics("").await
        );
        let start = Instant::now();
        gateway.terminate();
        assert_eq!(gateway.ended().await, Some(0));
        // One second is its time; a machine under load may take some more to end a process.
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_collector_that_is_killed_and_returns_gets_what_comes_then() {
    let nats = Nats::jetstream().await;
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start().await;
        let (grpc, http) = collector.ports();
        let gateway = collector
            .exported(Gateway::builder(&nats), protocol)
            .ready()
            .await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        let publisher = Publisher::on(&nats).await;
        let mut event = async || {
            let sequence = publisher.event("acme.custom.x", &json!({})).await;
            ann.notification().await;
            sequence.to_string()
        };
        let arrives = async |collector: &Collector, sequence: &str| {
            let what = format!("event {sequence}");
            let is_it = |seen: &crate::support::otlp::Seen| {
                seen.attribute("messaging.nats.stream.sequence") == sequence
            };
            collector.span(&what, is_it).await;
        };
        let first = event().await;
        arrives(&collector, &first).await;
        collector.stop().await;
        event().await;
        gateway.prints("BatchSpanProcessor.ExportError").await;
        let collector = Collector::on(grpc, http).await;
        let last = event().await;
        arrives(&collector, &last).await;
        // Its metrics come again, too.
        let came = eventually(PATIENCE, async || {
            collector.sum("herald.deliveries").await >= 3.0
        });
        assert!(came.await, "{protocol}");
    }
}

/// OTLP/HTTP: what a 400 is the answer to must not be sent again, what a 503 is may be.
#[tokio::test]
async fn what_the_collector_calls_bad_is_not_sent_again() {
    let nats = Nats::jetstream().await;
    for (status, is_sent_again) in [(400, false), (503, true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard: Arc<Mutex<HashMap<Vec<u8>, usize>>> = Arc::default();
        let hears = Arc::clone(&heard);
        let refuses = axum::Router::new().fallback(async move |body: axum::body::Bytes| {
            *hears.lock().await.entry(body.to_vec()).or_default() += 1;
            axum::http::StatusCode::from_u16(status).expect("a status")
        });
        tokio::spawn(async move { axum::serve(listener, refuses).await });
        let gateway = exporting(&nats, port, "http/protobuf")
            .variable("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)
            .variable("OTEL_BLRP_SCHEDULE_DELAY", 50)
            .variable("OTEL_METRIC_EXPORT_INTERVAL", 200)
            .ready()
            .await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        let publisher = Publisher::on(&nats).await;
        publisher.event("acme.custom.x", &json!({})).await;
        ann.notification().await;
        // Each signal has given up on one, and goes on with the next.
        for failed in [
            "BatchSpanProcessor.ExportError",
            "BatchLogProcessor.Export",
            "PeriodicReader",
        ] {
            let given_up = eventually(PATIENCE, async || gateway.output().contains(failed));
            assert!(given_up.await, "{status} {failed}: {}", gateway.output());
        }
        let most = heard.lock().await.values().copied().max();
        assert_eq!(most > Some(1), is_sent_again, "{status}: {most:?} times");
    }
}

#[tokio::test]
async fn wrong_variables_are_warned_of_and_the_gateway_runs() {
    let nats = Nats::jetstream().await;
    let secret = "pa55w0rd-of-a-collector";
    let gateway = Gateway::builder(&nats)
        .variable("OTEL_TRACES_SAMPLER", "sometimes")
        .variable("OTEL_METRICS_EXPORTER", "carrier pigeon")
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", format!("nonsense {secret}"))
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon")
        .variable("OTEL_EXPORTER_OTLP_HEADERS", secret)
        .variable("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
        .variable("OTEL_METRIC_EXPORT_INTERVAL", "soon")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notification().await;
    for name in [
        "OTEL_TRACES_SAMPLER",
        "OTEL_METRICS_EXPORTER",
        "traces are not exported: invalid exporter configuration: OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        gateway
            .prints_line(&["telemetry setting not taken", name])
            .await;
    }
    let output = gateway.output();
    assert!(!output.contains(secret), "{output}");
}

#[tokio::test]
async fn a_disabled_sdk_exports_nothing_and_metrics_are_there() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let settings = Gateway::builder(&nats).variable("OTEL_SDK_DISABLED", "true");
    let mut gateway = collector.exported(settings, "http/protobuf").ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notification().await;
    gateway
        .metric_becomes("herald_deliveries_total", "", 1.0)
        .await;
    drop(ann);
    gateway.terminate();
    assert_eq!(gateway.ended().await, Some(0));
    assert!(collector.spans().await.is_empty());
    assert!(collector.logs().await.is_empty());
    assert!(collector.metric("herald.deliveries").await.is_none());
}

#[tokio::test]
async fn headers_compression_and_a_last_export_at_the_end() {
    let nats = Nats::jetstream().await;
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start().await;
        let settings = Gateway::builder(&nats)
            .variable("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .variable("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc%20def")
            .set("server.drain", "0s");
        let gateway = collector
            .exported(settings, protocol)
            // Nothing but the end would export.
            .variable("OTEL_BSP_SCHEDULE_DELAY", 600_000)
            .variable("OTEL_METRIC_EXPORT_INTERVAL", 600_000);
        let mut gateway = gateway.ready().await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        let publisher = Publisher::on(&nats).await;
        publisher.event("acme.custom.x", &json!({})).await;
        ann.notification().await;
        gateway.terminate();
        // The close handshake of the socket ends the drain.
        assert_eq!(ann.closed().await.0, 1012);
        drop(ann);
        assert_eq!(gateway.ended().await, Some(0));
        let names: Vec<_> = collector
            .spans()
            .await
            .into_iter()
            .map(|seen| seen.span.name)
            .collect();
        for name in ["send", "close", "connection"] {
            assert!(
                names.iter().any(|found| found == name),
                "{protocol}: {names:?}"
            );
        }
        assert!((collector.sum("herald.deliveries").await - 1.0).abs() < 0.5);
    }
}
