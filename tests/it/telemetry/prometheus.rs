//! A real Prometheus scrapes the gateway and answers; the ready-made views name what there is.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::prometheus::{Prometheus, command};
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

const VIEWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/observability");

#[tokio::test]
async fn a_prometheus_scrapes_and_answers_with_exemplars() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let gateway = collector
        .exported(Gateway::builder(&nats), "grpc")
        .ready()
        .await;
    let Some(prometheus) = Prometheus::on(&gateway).await else {
        return;
    };
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    for _ in 0..10 {
        publisher.event("acme.custom.x", &json!({})).await;
    }
    ann.notifications(10).await;
    for (query, want) in [
        ("up", 1.0),
        ("herald_deliveries_total", 10.0),
        ("herald_event_latency_seconds_count", 10.0),
        ("sum(herald_events_received_total)", 10.0),
        ("herald_workspace_events_total{workspace=\"acme\"}", 10.0),
        ("herald_connections", 1.0),
        ("herald_nats_connected", 1.0),
    ] {
        let reached = eventually(PATIENCE, async || {
            prometheus.value(query).await == Some(want)
        });
        assert!(
            reached.await,
            "{query}: {:?}",
            prometheus.value(query).await
        );
    }
    let send = collector
        .span("send", |seen| seen.span.name == "send")
        .await;
    let path =
        "/api/v1/query_exemplars?query=herald_event_latency_seconds_bucket&start=0&end=9999999999";
    let traced = eventually(PATIENCE, async || {
        let answer = prometheus.api(path).await.to_string();
        collector
            .spans()
            .await
            .iter()
            .any(|seen| seen.span.name == send.span.name && answer.contains(&seen.id()))
    });
    assert!(traced.await, "{}", prometheus.api(path).await);
    every_query_of_the_dashboard_is_answered(&prometheus).await;
    // What a scrape says of itself: nothing was dropped as a duplicate or out of order.
    let metadata = prometheus.api("/api/v1/targets").await;
    assert_eq!(
        metadata["data"]["activeTargets"][0]["lastError"], "",
        "{metadata}"
    );
}

/// The dashboard's own queries, as Grafana would send them.
async fn every_query_of_the_dashboard_is_answered(prometheus: &Prometheus) {
    let dashboard = Path::new(VIEWS).join("grafana/dashboards/herald.json");
    let dashboard = std::fs::read_to_string(dashboard).expect("it is there");
    let mut queries = String::new();
    expressions(
        &serde_json::from_str(&dashboard).expect("JSON"),
        &mut queries,
    );
    let queries: Vec<String> = queries
        .lines()
        // The variables' own: what they list, and which kind of data source.
        .filter(|query| !query.starts_with("label_values") && *query != "prometheus")
        // This gateway fetches no keys.
        .filter(|query| !query.contains("herald_keys"))
        .map(|query| {
            // What did not happen here is left out of such a panel.
            let query = query.trim_end_matches(" > 0");
            query
                .replace("$__rate_interval", "1m")
                .replace("$__range", "1m")
                .replace("$__interval", "1m")
                .replace("$job", "herald")
                .replace("$instance", ".+")
        })
        .collect();
    assert!(queries.len() > 50, "{} queries", queries.len());
    let mut empty = queries;
    // A rate wants two scrapes.
    let all = eventually(PATIENCE, async || {
        let mut left = Vec::new();
        for query in std::mem::take(&mut empty) {
            let path: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
            let answer = prometheus.api(&format!("/api/v1/query?query={path}")).await;
            assert_eq!(answer["status"], "success", "{query}: {answer}");
            if answer["data"]["result"]
                .as_array()
                .is_none_or(Vec::is_empty)
            {
                left.push(query);
            }
        }
        empty = left;
        empty.is_empty()
    });
    assert!(all.await, "no data for {empty:#?}");
}

async fn promtool(arguments: &[&str]) {
    let Some(command) = command("promtool") else {
        return;
    };
    let mut command = tokio::process::Command::new(command);
    command.args(arguments).current_dir(VIEWS);
    let output = crate::support::command::finish(command).await;
    assert_eq!(output.code, Some(0), "promtool {arguments:?}: {output:?}");
}

#[tokio::test]
async fn promtool_takes_the_rules_their_tests_and_the_configuration() {
    promtool(&["check", "rules", "alerts.yaml"]).await;
    promtool(&["test", "rules", "alerts_test.yaml"]).await;
    promtool(&["check", "config", "prometheus.yaml"]).await;
}

#[tokio::test]
async fn promtool_takes_the_exposition() {
    use tokio::io::AsyncWriteExt;
    let Some(command) = command("promtool") else {
        return;
    };
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let _ann = Client::join(&gateway, "ann", "acme").await;
    let text = gateway.metrics("").await;
    let mut promtool = tokio::process::Command::new(command)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().await.expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
}

/// The names that stand in a text, suffixes of histograms left off.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.split(|char| !is_part(char))
        .filter(|word| {
            ["herald_", "process_", "otel_sdk_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .map(|word| {
            let of_histogram = ["_bucket", "_count", "_sum"];
            let stem = of_histogram
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix));
            let is_histogram = |stem: &&str| stem.ends_with("_seconds");
            stem.filter(is_histogram).unwrap_or(word).to_owned()
        })
        .collect()
}

/// The expressions of a dashboard, wherever they stand.
fn expressions(value: &Value, found: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let (true, Some(text)) = (
                    matches!(key.as_str(), "expr" | "query" | "definition"),
                    value.as_str(),
                ) {
                    found.push_str(text);
                    found.push('\n');
                }
                expressions(value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_that_the_views_name_is_documented_and_so_exists() {
    let known = super::documented();
    let views = Path::new(VIEWS);
    let read = |name: &str| std::fs::read_to_string(views.join(name)).expect("it is there");
    let dashboard: Value =
        serde_json::from_str(&read("grafana/dashboards/herald.json")).expect("JSON");
    let mut queries = String::new();
    expressions(&dashboard, &mut queries);
    let rules = read("alerts.yaml");
    let rules = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let rules: String = rules.collect::<Vec<_>>().join("\n");
    for (view, text) in [("the dashboard", &queries), ("the rules", &rules)] {
        let named = names(text);
        assert!(named.len() > 10, "{view}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{view} names {unknown:?}");
    }
}
