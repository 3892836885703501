//! Which events are recorded: the parent's decision holds, a root's is the sampler's.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use serde_json::{Value, json};

use super::Scene;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

const EVENTS: usize = 400;

/// The traces of `gateway`'s events that came.
async fn processed(collector: &Collector) -> BTreeSet<String> {
    let spans = collector.spans().await;
    spans
        .iter()
        .filter(|seen| seen.span.name.starts_with("process"))
        .map(crate::support::otlp::Seen::trace)
        .collect()
}

#[tokio::test]
async fn a_ratio_records_the_traces_that_every_other_sampler_of_that_ratio_would() {
    let Scene {
        nats: _nats,
        collector,
        gateway: _gateway,
        publisher,
        mut ann,
    } = Scene::with("http/protobuf", |gateway| {
        gateway
            .variable("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .variable("OTEL_TRACES_SAMPLER_ARG", "0.25")
    })
    .await;
    let publishing = async {
        for _ in 0..EVENTS {
            publisher.event("acme.custom.x", &json!({})).await;
        }
    };
    let (notifications, ()) = tokio::join!(ann.notifications(EVENTS), publishing);
    // OpenTelemetry's probability sampling: 56 random bits at or above the threshold.
    let threshold = (1u64 << 56) / 4 * 3;
    let wanted: BTreeSet<String> = notifications
        .iter()
        .map(|notification| {
            let id = notification["id"].as_str().expect("an id");
            id.trim_start_matches("notif_").replace('-', "")
        })
        .filter(|trace| {
            let trace = u128::from_str_radix(trace, 16).expect("hex");
            trace as u64 & ((1 << 56) - 1) >= threshold
        })
        .collect();
    assert!(
        (50..150).contains(&wanted.len()),
        "{} of {EVENTS}",
        wanted.len()
    );
    let all = eventually(PATIENCE, async || processed(&collector).await == wanted);
    assert!(
        all.await,
        "{} and not {}",
        processed(&collector).await.len(),
        wanted.len()
    );
}

#[tokio::test]
async fn a_publishers_decision_holds_both_ways() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let settings =
        Gateway::builder(&nats).variable("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let gateway = collector.exported(settings, "grpc").ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    for (trace, flags) in [("1", "00"), ("2", "01"), ("3", "00"), ("4", "03")] {
        let mut headers = HeaderMap::new();
        let traceparent = format!("00-{trace:0>32}-00f067aa0ba902b7-{flags}");
        headers.insert("traceparent", traceparent.as_str());
        publisher.raw("acme.custom.x", headers, "{}").await;
    }
    publisher.event("acme.custom.x", &json!({})).await;
    ann.notifications(5).await;
    let wanted: BTreeSet<String> = ["2", "4"]
        .iter()
        .map(|trace| format!("{trace:0>32}"))
        .collect();
    let came = eventually(PATIENCE, async || processed(&collector).await.len() >= 2);
    assert!(came.await);
    assert_eq!(processed(&collector).await, wanted);
    // What is not recorded can be found by the notification's id all the same.
    let all = eventually(PATIENCE, async || {
        gateway.log_lines("event fanned out") == 5
    });
    assert!(all.await);
    let lines = gateway.output();
    let fanned_out = lines
        .lines()
        .filter(|line| line.contains("event fanned out"));
    let untraced: Vec<_> = fanned_out
        .filter(|line| !line.contains("trace_id"))
        .collect();
    assert_eq!(untraced.len(), 3, "{untraced:?}");
    assert!(
        untraced
            .iter()
            .all(|line| line.contains("\"notification\":\"notif_"))
    );
}

/// Events that come together go out together, but each line has the trace of its own event, or none.
#[tokio::test]
async fn in_a_burst_each_line_has_the_trace_of_its_event() {
    const BURST: usize = 200;
    let Scene {
        nats: _nats,
        collector: _collector,
        gateway,
        publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    let mut acknowledged = Vec::new();
    for number in 1..=BURST {
        let mut headers = HeaderMap::new();
        let flags = if number % 7 == 0 { "01" } else { "00" };
        let traceparent = format!("00-{number:0>32x}-00f067aa0ba902b7-{flags}");
        headers.insert("traceparent", traceparent);
        let subject = "ws.acme.custom.x";
        let publish = publisher
            .context
            .publish_with_headers(subject, headers, "{}".into());
        acknowledged.push(publish.await.expect("it is sent"));
    }
    for one in acknowledged {
        one.await.expect("it is stored");
    }
    ann.notifications(BURST).await;
    let all = eventually(PATIENCE, async || {
        gateway.log_lines("event fanned out") == BURST
    });
    assert!(all.await);
    let output = gateway.output();
    let lines = output
        .lines()
        .filter(|line| line.contains("event fanned out"));
    for line in lines {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let number = line["sequence"].as_u64().expect("a number");
        let trace = line["trace_id"].as_str().map(str::to_owned);
        let own = number.is_multiple_of(7).then(|| format!("{number:0>32x}"));
        assert_eq!(trace, own, "{line}");
    }
}
