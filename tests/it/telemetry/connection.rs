//! A connection's spans: from its accept to its open, and its close; none in between.

use std::time::Instant;

use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::Scene;
use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;
use crate::support::token::{assert_no_part_of_a_token, token};

#[tokio::test]
async fn a_connection_has_spans_from_accept_to_close() {
    let Scene {
        nats: _nats,
        collector,
        gateway,
        publisher: _publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    let connection = collector
        .span("connection", |seen| seen.span.name == "connection")
        .await;
    assert_eq!(connection.parent(), "");
    for (key, want) in [
        ("http.response.status_code", "101"),
        ("http.request.method", "GET"),
        ("herald.workspace", "acme"),
        ("herald.close.code", ""),
    ] {
        assert_eq!(connection.attribute(key), want, "{key}");
    }
    let mut before = connection.span.start_time_unix_nano;
    for step in ["accept", "authenticate", "activate", "claim", "open"] {
        let seen = collector.span(step, |seen| seen.span.name == step).await;
        assert_eq!(seen.parent(), connection.id(), "{step}");
        assert_eq!(seen.trace(), connection.trace());
        // They follow each other, but for what it takes to note it; the first began with the connection.
        let start = seen.span.start_time_unix_nano;
        let is_next = (before..before + 5_000_000).contains(&start);
        assert!(is_next, "{step} begins {start}, not soon after {before}");
        before = seen.span.end_time_unix_nano;
    }
    assert!(before <= connection.span.end_time_unix_nano);

    // A newer connection of the same user replaces it.
    let _newer = Client::join(&gateway, "ann", "acme").await;
    assert_eq!(ann.closed().await.0, 4009);
    drop(ann);
    let close = collector
        .span("close", |seen| seen.span.name == "close")
        .await;
    assert_eq!(close.parent(), connection.id());
    assert_eq!(close.trace(), connection.trace());
    assert_eq!(close.links(), [connection.id()]);
    assert_eq!(close.attribute("herald.close.code"), "4009");
    assert_eq!(
        close.attribute("herald.close.reason"),
        "replaced by a newer connection"
    );
    assert_eq!(
        close.attribute("herald.session.id"),
        connection.attribute("herald.session.id")
    );
    assert!(close.number("herald.connection.duration") > 0.0);
}

#[tokio::test]
async fn a_refusal_is_a_connection_with_its_code_or_status() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let settings = Gateway::builder(&nats).set("sockets.max_connections", 1);
    let gateway = collector.exported(settings, "grpc").ready().await;
    let mut bad = Client::connect(&gateway, "token=x&workspaceSlug=acme").await;
    assert_eq!(bad.closed().await.0, 4001);
    let closed = collector
        .span("the close", |seen| {
            seen.attribute("herald.close.code") == "4001"
        })
        .await;
    assert_eq!(closed.span.name, "connection");
    assert_eq!(closed.attribute("herald.close.reason"), "invalid token");
    let _first = Client::join(&gateway, "ann", "acme").await;
    let query = format!("token={}&workspaceSlug=acme", token("bob", "acme"));
    let refused = Client::attempt(&gateway, &query)
        .await
        .expect_err("it is full");
    assert_eq!(refused.status, 503);
    let refused = collector
        .span("the refusal", |seen| {
            seen.attribute("http.response.status_code") == "503"
        })
        .await;
    assert_eq!(refused.attribute("herald.refused.reason"), "capacity");
    // Nothing of a request's query is an attribute of any span, and no part of a token is anywhere.
    let mut exported = gateway.metrics("").await;
    for seen in collector.spans().await {
        exported += &format!("{:?}", seen.span);
    }
    for log in collector.logs().await {
        exported += &format!("{log:?}");
    }
    assert!(!exported.contains("token=") && !exported.contains("url.query"));
    assert_no_part_of_a_token(&exported);
}

/// What anybody can bring about without a token is not to push what matters out of the queue; and it does not
/// keep others from being seen for longer than it lasts.
#[tokio::test]
async fn of_many_refusals_in_a_second_few_are_recorded() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let gateway = collector
        .exported(Gateway::builder(&nats), "http/protobuf")
        .ready()
        .await;
    let begun = Instant::now();
    for _ in 0..100 {
        let mut bad = Client::connect(&gateway, "token=x&workspaceSlug=acme").await;
        assert_eq!(bad.closed().await.0, 4001);
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let is_seen = eventually(PATIENCE, async || {
        let _ann = Client::join(&gateway, "ann", "acme").await;
        let spans = collector.spans().await;
        spans.iter().any(|seen| {
            seen.attribute("http.response.status_code") == "101"
                && seen.attribute("herald.close.code").is_empty()
        })
    });
    assert!(is_seen.await);
    let spans = collector.spans().await;
    let refused = spans
        .iter()
        .filter(|seen| seen.attribute("herald.close.code") == "4001");
    let refused = refused.count() as u64;
    assert!(
        (10..=seconds * 10 + 10).contains(&refused),
        "{refused} in {seconds} s"
    );
}

/// Whoever connects would else decide what is recorded, and so what it costs.
#[tokio::test]
async fn a_clients_span_is_linked_and_does_not_decide() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let mut gateways = Vec::new();
    for sampler in ["parentbased_always_on", "parentbased_always_off"] {
        let settings = Gateway::builder(&nats)
            .variable("OTEL_TRACES_SAMPLER", sampler)
            .variable("OTEL_SERVICE_NAME", sampler);
        gateways.push(collector.exported(settings, "grpc").ready().await);
    }
    let span = "00f067aa0ba902b7";
    let mut clients = Vec::new();
    for gateway in &gateways {
        let query = format!("token={}&workspaceSlug=acme", token("ann", "acme"));
        let mut request = format!("{}/?{query}", gateway.url())
            .into_client_request()
            .expect("a URL");
        let traceparent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01");
        let headers = request.headers_mut();
        headers.insert("traceparent", traceparent.parse().expect("a header"));
        clients.push(Client::attempt_with(request).await.expect("it opens"));
    }
    let publisher = Publisher::on(&nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    let connection = collector
        .span("connection", |seen| seen.span.name == "connection")
        .await;
    assert_eq!(connection.links(), [span]);
    assert_eq!(connection.parent(), "");
    let off = |seen: &crate::support::otlp::Seen| seen.service == "parentbased_always_off";
    assert_eq!(
        collector
            .spans()
            .await
            .iter()
            .filter(|seen| off(seen))
            .count(),
        0
    );
}
