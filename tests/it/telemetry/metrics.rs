//! The metrics' sums are what clients counted, their formats are what scrapers read, and their number
//! does not grow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::Scene;
use crate::support::client::Client;
use crate::support::gateway::{self, Gateway};
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;
use crate::support::token::{expiring, token};
use crate::support::{PATIENCE, eventually};

const EVENTS: usize = 20_000;
const WORKSPACES: usize = 4;
const SOCKETS: usize = 5;

/// What a client got until the last event: notifications and bytes.
async fn count(mut client: Client) -> (u64, u64, Client) {
    let (mut notifications, mut bytes) = (0, 0);
    loop {
        let text = client.text().await;
        notifications += 1;
        bytes += text.len() as u64;
        if text.contains("\"system.end\"") {
            return (notifications, bytes, client);
        }
    }
}

/// Publishes this publisher's share, each until it is stored, some of it bad.
async fn publish(nats: Publisher, first: usize) -> usize {
    let mut bad = 0;
    for number in (first..EVENTS).step_by(4) {
        let is_bad = number % 100 == 99;
        bad += usize::from(is_bad);
        let payload = if is_bad { "[]" } else { "{}" };
        let subject = format!("ws.w{}.custom.n{}", number % WORKSPACES, number % 7);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{number}"));
        loop {
            let sent = nats
                .context
                .publish_with_headers(subject.clone(), headers.clone(), payload.into())
                .await;
            // While the server is away nothing is acknowledged; the id makes the retry harmless.
            let is_stored = match sent {
                Ok(acknowledged) => acknowledged.await.is_ok(),
                Err(_) => false,
            };
            if is_stored {
                break;
            }
        }
    }
    bad
}

/// What all clients together counted, and what was published.
struct Counted {
    notifications: u64,
    bytes: u64,
    stored: u64,
    bad: u64,
}

/// Publishes through a restart of NATS to sockets in several workspaces, and counts at both ends.
async fn run_through_a_restart(nats: &mut Nats, gateway: &Gateway) -> Counted {
    let mut readers = Vec::new();
    for workspace in 0..WORKSPACES {
        for user in 0..SOCKETS {
            let workspace = format!("w{workspace}");
            let client = Client::join(gateway, &format!("u{user}"), &workspace).await;
            readers.push(tokio::spawn(count(client)));
        }
    }
    let mut publishers = Vec::new();
    for first in 0..4 {
        let nats = Publisher::on(nats).await;
        publishers.push(tokio::spawn(publish(nats, first)));
    }
    gateway_received(gateway, EVENTS / 2).await;
    nats.restart().await;
    let mut bad = 0;
    for publisher in publishers {
        bad += publisher.await.expect("it publishes all") as u64;
    }
    let publisher = Publisher::on(nats).await;
    // One that only a repair can find, and the last of each workspace.
    publisher
        .unheard("EVENTS", async || {
            publisher.event("w0.custom.n0", &json!({})).await;
        })
        .await;
    publisher.event("w0.custom.n0", &json!({})).await;
    for workspace in 0..WORKSPACES {
        publisher
            .event(&format!("w{workspace}.system.end"), &json!({}))
            .await;
    }
    let (mut notifications, mut bytes, mut clients) = (0, 0, Vec::new());
    for reader in readers {
        let (seen, size, client) = reader.await.expect("it reads to the end");
        notifications += seen;
        bytes += size;
        // None closes before all have read.
        clients.push(client);
    }
    for client in &mut clients {
        client.stream.close(None).await.expect("it is open");
        client.closed().await;
    }
    let stored = (EVENTS + 2 + WORKSPACES) as u64;
    assert_eq!(notifications, SOCKETS as u64 * (stored - bad));
    Counted {
        notifications,
        bytes,
        stored,
        bad,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sums_are_what_clients_counted_also_across_a_restart_of_nats() {
    let mut nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    // Traces are not looked at here, and at such a rate would only be dropped.
    let settings = Gateway::builder(&nats)
        .set("log.level", "info")
        // Whether a client of this busy process keeps up with the burst is not looked at either.
        .set("sockets.queue_bytes", 16 * 1024 * 1024)
        .variable("OTEL_TRACES_EXPORTER", "none");
    let gateway = collector.exported(settings, "grpc").ready().await;
    let counted = run_through_a_restart(&mut nats, &gateway).await;
    let (stored, bad) = (counted.stored, counted.bad);
    let (good, notifications) = (stored - bad, counted.notifications);
    let stage = "herald_stage_duration_seconds_count";
    let opened = (WORKSPACES * SOCKETS) as u64;
    for (name, label, want) in [
        ("herald_events_received_total", "", stored),
        ("herald_events_projected_total", "", good),
        ("herald_events_bad_total", "not_an_object", bad),
        ("herald_events_lost_total", "", 0),
        ("herald_deliveries_queued_total", "", notifications),
        ("herald_deliveries_total", "", notifications),
        ("herald_delivery_bytes_total", "", counted.bytes),
        ("herald_deliveries_dropped_total", "", 0),
        ("herald_queue_notifications", "", 0),
        ("herald_event_latency_seconds_count", "", good),
        (stage, "stage=\"receive\"", stored),
        (stage, "stage=\"decode\"", stored),
        (stage, "stage=\"project\"", good),
        (stage, "stage=\"fan_out\"", good),
        ("herald_workspace_events_total", "", stored),
        ("herald_workspace_deliveries_total", "", notifications),
        ("herald_dead_letters_total", "", bad),
        ("herald_connections_opened_total", "", opened),
        ("herald_connections_closed_total", "code=\"1005\"", opened),
        ("herald_connections_closed_total", "", opened),
        ("herald_connections", "", 0),
        ("herald_nats_reconnects_total", "", 1),
    ] {
        gateway.metric_becomes(name, label, want as f64).await;
    }
    // Those that were read back are counted as such, and only once.
    let repaired = gateway.metric("herald_events_repaired_total", "").await;
    let by_repair = gateway
        .metric("herald_events_received_total", "repair")
        .await;
    assert!(
        repaired >= 2.0 && (repaired - by_repair).abs() < 0.5,
        "{repaired}, {by_repair}"
    );
    // What is exported is the same.
    for (name, want) in [
        ("herald.deliveries", notifications as f64),
        ("herald.delivery.bytes", counted.bytes as f64),
        ("herald.events.received", stored as f64),
        ("herald.events.repaired", repaired),
    ] {
        let came = eventually(PATIENCE, async || {
            (collector.sum(name).await - want).abs() < 0.5
        });
        assert!(
            came.await,
            "{name}: {} and not {want}",
            collector.sum(name).await
        );
    }
}

async fn gateway_received(gateway: &Gateway, events: usize) {
    let received = eventually(PATIENCE, async || {
        gateway.metric("herald_events_received_total", "").await >= events as f64
    });
    assert!(received.await, "events come");
}

#[tokio::test]
async fn closes_and_refusals_are_counted_as_clients_see_them() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections", 3)
        .set("sockets.inactivity", "1s")
        .ready()
        .await;
    let mut codes: BTreeMap<u16, u32> = BTreeMap::new();
    let mut closed = async |mut client: Client| {
        *codes.entry(client.closed().await.0).or_default() += 1;
    };
    for query in [
        "workspaceSlug=acme".to_owned(),
        "token=bad&workspaceSlug=acme".to_owned(),
        format!("token={}", token("ann", "acme")),
        format!("token={}&workspaceSlug=globex", token("ann", "acme")),
        format!("token={}&workspaceSlug=acme", expiring("ann", "acme", -5)),
    ] {
        closed(Client::connect(&gateway, &query).await).await;
    }
    let first = Client::join(&gateway, "ann", "acme").await;
    let second = Client::join(&gateway, "ann", "acme").await;
    closed(first).await;
    closed(second).await;
    assert_eq!(
        codes,
        BTreeMap::from([(4001, 3), (4002, 1), (4003, 1), (4008, 1), (4009, 1)])
    );
    for (code, count) in &codes {
        let label = format!("code=\"{code}\"");
        let name = "herald_connections_closed_total";
        gateway
            .metric_becomes(name, &label, f64::from(*count))
            .await;
    }
    let mut all = Vec::new();
    for user in ["a", "b", "c"] {
        all.push(Client::join(&gateway, user, "acme").await);
    }
    let query = format!("token={}&workspaceSlug=acme", token("d", "acme"));
    let refused = Client::attempt(&gateway, &query)
        .await
        .expect_err("it is full");
    assert_eq!(refused.status, 503);
    for (name, label, want) in [
        ("herald_connections_refused_total", "capacity", 1.0),
        ("herald_token_checks_total", "result=\"ok\"", 7.0),
        ("herald_token_checks_total", "result=\"missing\"", 1.0),
        ("herald_token_checks_total", "result=\"invalid\"", 1.0),
        ("herald_token_checks_total", "result=\"no_access\"", 1.0),
        ("herald_token_checks_total", "result=\"expired\"", 1.0),
        ("herald_join_duration_seconds_count", "step=\"claim\"", 5.0),
        ("herald_join_duration_seconds_count", "step=\"total\"", 5.0),
    ] {
        gateway.metric_becomes(name, label, want).await;
    }
}

#[tokio::test]
async fn openmetrics_has_exemplars_that_lead_to_the_trace_and_plain_text_has_none() {
    let Scene {
        nats: _nats,
        collector,
        gateway,
        publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notification().await;
    let send = collector
        .span("send", |seen| seen.span.name == "send")
        .await;
    let text = gateway.metrics("application/openmetrics-text").await;
    let exemplar = format!(
        "# {{trace_id=\"{}\",span_id=\"{}\"}} ",
        send.trace(),
        send.id()
    );
    let line = text.lines().find(|line| line.contains(&exemplar));
    let line = line.unwrap_or_else(|| panic!("no exemplar:\n{text}"));
    assert!(
        line.starts_with("herald_event_latency_seconds_bucket{le="),
        "{line}"
    );
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE herald_deliveries counter\n"));
    assert!(text.contains("# UNIT herald_event_latency_seconds seconds\n"));
    assert!(text.contains("target_info{"));
    let plain = gateway.metrics("text/plain").await;
    assert!(!plain.contains("# {") && !plain.contains("# EOF"));
    assert!(plain.contains("# TYPE herald_deliveries_total counter\n"));
}

/// Every metric that there is stands in the documentation, and the other way round.
#[tokio::test]
async fn the_documentation_and_the_metrics_agree() {
    let Scene {
        nats: _nats,
        collector: _collector,
        gateway,
        publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notification().await;
    let mut bad = Client::connect(&gateway, "token=x&workspaceSlug=acme").await;
    bad.closed().await;
    gateway
        .metric_becomes("herald_deliveries_total", "", 1.0)
        .await;
    let exported = eventually(PATIENCE, async || {
        let mut counts = 0.0;
        for signal in ["span", "log"] {
            let name = format!("otel_sdk_processor_{signal}_processed_total");
            counts += gateway.metric(&name, "").await.min(1.0);
        }
        counts > 1.5
    });
    assert!(exported.await, "{}", gateway.metrics("").await);
    let told: BTreeSet<String> = families(&gateway.metrics("").await);
    let written = super::documented();
    // These come with what does not happen here.
    let seldom: BTreeSet<String> = [
        "herald_connections_refused_total",
        "herald_delivery_wait_seconds",
        "herald_live_dropped_total",
        "herald_keys",
        "herald_keys_age_seconds",
        "herald_keys_fetches_total",
        "herald_keys_withdrawn_total",
        "herald_publish_duration_seconds",
    ]
    .map(str::to_owned)
    .into();
    let missing: Vec<_> = told.difference(&written).collect();
    assert!(missing.is_empty(), "not in the documentation: {missing:?}");
    let unknown: Vec<_> = written
        .difference(&told)
        .filter(|name| !seldom.contains(*name))
        .collect();
    assert!(unknown.is_empty(), "no such metric: {unknown:?}");
}

fn families(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// A hostile or merely large number of workspaces leaves the number of series where it was.
#[tokio::test]
async fn many_workspaces_make_no_more_series() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .set("telemetry.workspaces", 3)
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let any = crate::support::token::signed(&json!({
        "sub": "ann", "workspaces": "*", "exp": crate::support::token::at(600)
    }));
    let mut series = Vec::new();
    for number in 0..200 {
        let query = format!("token={any}&workspaceSlug=w{number}");
        let mut client = Client::connect(&gateway, &query).await;
        publisher
            .event(&format!("w{number}.custom.x"), &json!({}))
            .await;
        client.notification().await;
        if number % 20 == 19 {
            let text = gateway.metrics("").await;
            let lines = text
                .lines()
                .filter(|line| line.starts_with("herald_workspace_events_total"));
            series.push(lines.count());
        }
    }
    assert!(series.iter().all(|count| *count == 4), "{series:?}");
    let sum = gateway.metric("herald_workspace_events_total", "").await;
    assert!(sum <= 200.0, "{sum}");
}

/// A client that goes through workspace after workspace leaves no room for each: memory stays where it
/// was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_without_sockets_do_not_pile_up() {
    const ROOMS_MAX: f64 = 1000.0;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    let any = crate::support::token::signed(&json!({
        "sub": "ann", "workspaces": "*", "exp": crate::support::token::at(600)
    }));
    for number in 0..1200 {
        let query = format!("token={any}&workspaceSlug=w{number}");
        drop(Client::connect(&gateway, &query).await);
    }
    let few = eventually(PATIENCE, async || {
        gateway.metric("herald_rooms", "").await <= ROOMS_MAX
    });
    assert!(
        few.await,
        "{} rooms",
        gateway.metric("herald_rooms", "").await
    );
    // The latest is still there, for who reloads.
    assert!(gateway.metric("herald_rooms", "").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_scrapes_is_answered_and_delays_no_event() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    let admin = gateway.admin.clone();
    let scrapes: Vec<_> = (0..300)
        .map(|_| {
            let admin = admin.clone();
            tokio::spawn(async move { gateway::get(&admin, "/metrics").await })
        })
        .collect();
    for _ in 0..50 {
        publisher.event("acme.custom.x", &json!({})).await;
        ann.notification().await;
    }
    for scrape in scrapes {
        let (status, text) = scrape.await.expect("it ends");
        assert_eq!(status, 200);
        assert!(text.contains("herald_deliveries_total"));
    }
}
