//! The gateway's own work has spans, too: each is a trace of its own, and what is read for it is below it.

use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;

use super::Scene;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::otlp::{Collector, Seen};
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

async fn named(collector: &Collector, name: &str) -> Seen {
    collector.span(name, |seen| seen.span.name == name).await
}

/// The read at the leader that belongs to `seen`.
async fn read_within(collector: &Collector, seen: &Seen) -> Seen {
    let is_its = |read: &Seen| read.span.name == "read_leader" && read.parent() == seen.id();
    let what = format!("a read of {}", seen.span.name);
    collector.span(&what, is_its).await
}

#[tokio::test]
async fn a_start_a_room_and_a_drain_have_spans() {
    let Scene {
        nats: _nats,
        collector,
        mut gateway,
        publisher: _publisher,
        mut ann,
    } = Scene::with("http/protobuf", |gateway| gateway.set("server.drain", "0s")).await;
    let migrate = named(&collector, "migrate").await;
    assert_eq!(migrate.parent(), "");
    let activate = named(&collector, "activate_room").await;
    assert_eq!(activate.parent(), "");
    assert_eq!(activate.attribute("herald.workspace"), "acme");
    let is_of_events = |read: &Seen| {
        read.span.name == "read_leader" && read.attribute("messaging.nats.stream.name") == "EVENTS"
    };
    let read = collector.span("a read of EVENTS", is_of_events).await;
    assert_eq!(read.attribute("messaging.system"), "nats");
    assert!(["MSG.GET", "INFO"].contains(&read.attribute("herald.leader.api").as_str()));
    // What is read for one join alone is a part of it.
    let step = named(&collector, "activate").await;
    let read = read_within(&collector, &step).await;
    assert_eq!(read.attribute("messaging.nats.stream.name"), "SESSIONS");
    gateway.terminate();
    ann.closed().await;
    assert_eq!(gateway.ended().await, Some(0));
    let drain = named(&collector, "drain").await;
    assert_eq!(drain.attribute("herald.drain.sockets"), "1");
}

#[tokio::test]
async fn what_is_looked_for_after_a_reconnect_has_spans() {
    let Scene {
        mut nats,
        collector,
        gateway,
        publisher: _publisher,
        ann: _ann,
    } = Scene::exporting("grpc").await;
    nats.restart().await;
    gateway
        .metric_becomes("herald_nats_reconnects_total", "", 1.0)
        .await;
    let reconnect = named(&collector, "reconnect").await;
    assert_eq!(reconnect.parent(), "");
    assert!(reconnect.took().as_millis() > 0);
    let check = named(&collector, "check_claims").await;
    assert_eq!(check.attribute("herald.claims"), "1");
    let read = read_within(&collector, &check).await;
    assert_eq!(read.attribute("messaging.nats.stream.name"), "SESSIONS");
    let ended_well = |seen: &Seen| {
        let status = seen.span.status.as_ref().map(|status| status.code);
        status.is_none_or(|code| code == StatusCode::Unset as i32)
    };
    let sweep = collector
        .span("sweep", |seen| {
            seen.span.name == "sweep" && ended_well(seen)
        })
        .await;
    assert_eq!(sweep.attribute("herald.sweep.rooms"), "1");
    read_within(&collector, &sweep).await;
}

#[tokio::test]
async fn a_repair_has_a_span_and_one_for_each_batch() {
    let Scene {
        nats: _nats,
        collector,
        gateway: _gateway,
        publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    publisher
        .unheard("EVENTS", async || {
            publisher.event("acme.custom.a", &json!({})).await
        })
        .await;
    publisher.event("acme.custom.a", &json!({})).await;
    ann.notifications(2).await;
    let repair = named(&collector, "repair").await;
    assert_eq!(repair.attribute("herald.workspace"), "acme");
    assert_eq!(repair.attribute("herald.repair.reason"), "gap");
    let batch = named(&collector, "repair_batch").await;
    assert_eq!(batch.parent(), repair.id());
    assert_eq!(batch.attribute("herald.repair.messages"), "2");
    read_within(&collector, &batch).await;
}

/// A leader that does not answer is the status of what asked it.
#[tokio::test]
async fn a_read_that_fails_says_why() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let gateway = collector
        .exported(Gateway::builder(&nats), "http/protobuf")
        .ready()
        .await;
    let _ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .context
        .delete_stream("EVENTS")
        .await
        .expect("it is deleted");
    let failed = collector
        .span("a read that failed", |seen| {
            let status = seen.span.status.as_ref();
            seen.span.name == "read_leader"
                && status.is_some_and(|status| {
                    status.code == StatusCode::Error as i32 && status.message.contains("EVENTS")
                })
        })
        .await;
    assert_eq!(failed.attribute("messaging.nats.stream.name"), "EVENTS");
}

/// The log's level is the log's alone, and spans of dependencies are nobody's.
#[tokio::test]
async fn no_log_level_switches_spans_off_and_no_dependency_adds_some() {
    let nats = Nats::jetstream().await;
    // The start waits for the line that says where it listens.
    for level in ["off,herald::ops=info", "warn,herald::ops=info", "trace"] {
        let collector = Collector::start().await;
        let settings = Gateway::builder(&nats).set("log.level", level);
        let gateway = collector.exported(settings, "grpc").ready().await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        let publisher = Publisher::on(&nats).await;
        publisher.event("acme.custom.x", &json!({})).await;
        ann.notification().await;
        for name in ["connection", "decode", "project", "fan_out", "send"] {
            named(&collector, name).await;
        }
        let spans = collector.spans().await;
        let names: Vec<_> = spans.iter().map(|seen| seen.span.name.as_str()).collect();
        let ours = include_str!("../../../docs/observability.md");
        for name in names {
            assert!(ours.contains(&format!("`{name}`")), "{level}: {name}");
        }
    }
}

/// Of a trace that is not recorded nothing is, nor of what belongs to it.
#[tokio::test]
async fn without_a_sample_there_is_no_span_at_all() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let settings = Gateway::builder(&nats).variable("OTEL_TRACES_SAMPLER", "always_off");
    let mut gateway = collector.exported(settings, "http/protobuf").ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .unheard("EVENTS", async || {
            publisher.event("acme.custom.a", &json!({})).await
        })
        .await;
    publisher.event("acme.custom.a", &json!({})).await;
    ann.notifications(2).await;
    drop(ann);
    gateway.terminate();
    assert_eq!(gateway.ended().await, Some(0));
    // What came with the same end of the gateway.
    let logged = eventually(PATIENCE, async || !collector.logs().await.is_empty());
    assert!(logged.await);
    assert!(collector.spans().await.is_empty());
}
