//! Logs: exported with their trace, a level that changes at run time, and no flood of one warning.

use opentelemetry_proto::tonic::common::v1::any_value;
use serde_json::{Value, json};

use super::Scene;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::otlp::{attribute, hex};
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn exported_log_records_carry_the_trace_and_are_only_heralds_own() {
    let Scene {
        nats: _nats,
        collector,
        gateway: _gateway,
        publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    publisher.event("acme.custom.x", &json!({})).await;
    let id = ann.notification().await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let process = collector
        .span("process", |seen| seen.span.name.starts_with("process"))
        .await;
    let mut record = None;
    let came = eventually(PATIENCE, async || {
        let logs = collector.logs().await;
        record = logs.into_iter().find(|log| {
            let body = log.body.as_ref().and_then(|body| body.value.clone());
            body == Some(any_value::Value::StringValue("event fanned out".to_owned()))
        });
        record.is_some()
    });
    assert!(came.await);
    let record = record.expect("just found");
    assert_eq!(hex(&record.trace_id), process.trace());
    assert_eq!(hex(&record.span_id), process.id());
    assert_eq!(attribute(&record.attributes, "notification"), id);
    assert_eq!(record.severity_text, "DEBUG");
}

#[tokio::test]
async fn the_level_is_changed_at_run_time_and_a_wrong_one_is_refused() {
    const TOKEN: &str = "token-of-the-operator";
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .set(
            "server.admin_token_file",
            file(folder.path(), "token", TOKEN),
        )
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    // An event's line is written after its notification, and before that of the room's next event.
    let mut delivered = async || {
        publisher.event("acme.custom.x", &json!({})).await;
        let notification = ann.notification().await;
        notification["id"].as_str().expect("an id").to_owned()
    };
    let mut event = async || {
        let id = delivered().await;
        delivered().await;
        id
    };
    let is_logged = |id: &str| {
        let output = gateway.output();
        let mut lines = output
            .lines()
            .filter(|line| line.contains("event fanned out"));
        lines.any(|line| line.contains(id))
    };
    let at_info = event().await;
    assert_eq!(
        gateway.admin("GET", "/log-level", "").await,
        (200, "info\n".to_owned())
    );
    let debug = "info,herald::room=debug";
    let set = gateway.admin_as(TOKEN, "PUT", "/log-level", debug).await;
    assert_eq!(set, (200, format!("{debug}\n")));
    let at_debug = event().await;
    for wrong in [
        "",
        "inof",
        "verbose",
        "herald=loud",
        "herald::rom=debug",
        "herald[join]=debug",
        "sqlx=warn",
        &"x".repeat(5000),
    ] {
        let (status, told) = gateway.admin_as(TOKEN, "PUT", "/log-level", wrong).await;
        assert!(matches!(status, 400 | 413), "{wrong}: {status} {told}");
    }
    let still_at_debug = event().await;
    let reset = gateway.admin_as(TOKEN, "DELETE", "/log-level", "").await;
    assert_eq!(reset, (200, "info\n".to_owned()));
    let back_at_info = event().await;
    // With the line of the last event, those of all before it have come.
    gateway.admin_as(TOKEN, "PUT", "/log-level", debug).await;
    let last = event().await;
    gateway.prints(&last).await;
    for (id, expected) in [
        (at_info, false),
        (at_debug, true),
        (still_at_debug, true),
        (back_at_info, false),
    ] {
        assert_eq!(is_logged(&id), expected, "{id}: {}", gateway.output());
    }
}

#[tokio::test]
async fn a_warning_that_repeats_is_counted_and_not_printed() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    // Each is found after a later event of another subject: a warning every time.
    for number in 0..20 {
        let lost = format!("acme.custom.a{number}");
        publisher
            .unheard("EVENTS", async || {
                publisher.event(&lost, &json!({})).await;
            })
            .await;
        publisher.event("acme.custom.b", &json!({})).await;
        publisher.event(&lost, &json!({})).await;
        ann.notifications(3).await;
    }
    gateway
        .metric_becomes("herald_events_late_total", "", 20.0)
        .await;
    let mut suppressed = 0.0;
    let all_there = eventually(PATIENCE, async || {
        suppressed = gateway.metric("herald_log_suppressed_total", "").await;
        let printed = gateway.log_lines("event delivered late");
        (printed as f64 + suppressed - 20.0).abs() < 0.5
    });
    assert!(all_there.await, "{}", gateway.output());
    assert!(suppressed >= 1.0);
    let told = eventually(PATIENCE, async || {
        let counts = gateway.output();
        let counts = counts
            .lines()
            .filter(|line| line.contains("repeated messages suppressed"));
        let sum: f64 = counts
            .map(|line| {
                let line: Value = serde_json::from_str(line).expect("JSON");
                line["count"].as_f64().expect("a number")
            })
            .sum();
        (sum - suppressed).abs() < 0.5
    });
    assert!(told.await, "{}", gateway.output());
}

/// Frames, which hold tokens, and lines for each message that is dropped are a dependency's at `info` and
/// below.
#[tokio::test]
async fn a_dependency_prints_nothing_below_warn_whatever_is_asked() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set(
            "log.level",
            "trace,async_nats=trace,tungstenite=trace,hyper=trace",
        )
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notification().await;
    let printed = gateway.output();
    let lines = printed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    for line in lines {
        let is_ours = line["target"]
            .as_str()
            .is_some_and(|target| target.starts_with("herald"));
        let is_bad_news = matches!(line["level"].as_str(), Some("WARN" | "ERROR"));
        assert!(is_ours || is_bad_news, "{line}");
    }
}
