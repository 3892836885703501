//! What is stored, and how often.

use std::collections::HashSet;

use async_nats::jetstream;
use futures_util::future::join_all;
use serde_json::json;

use super::{Answer, Sender, count, on, ready};
use crate::support::PATIENCE;
use crate::support::cable::Cable;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::nats::cluster::Cluster;
use crate::support::otlp::Collector;

#[tokio::test]
async fn an_event_is_stored_before_the_answer_and_a_retry_stores_nothing() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let key = [("Idempotency-Key", "\"order-1\"")];
    let body = r#"{"collection":"orders","recordId":"r1"}"#;
    let first = sender.post("acme/record.created", &key, body).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(
        first.body,
        json!({"stream": "EVENTS", "sequence": 1, "duplicate": false, "deduplicationSeconds": 120})
    );
    assert_eq!(
        ann.notification().await["message"],
        "Record r1 was created in orders."
    );
    let again = sender.post("acme/record.created", &key, body).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(
        again.body,
        json!({"stream": "EVENTS", "sequence": 1, "duplicate": true, "deduplicationSeconds": 120})
    );
    // A key is one of its workspace, and of `herald publish` with the same id.
    let other = sender.post("globex/record.created", &key, body).await;
    assert_eq!(
        (other.status, &other.body["sequence"]),
        (201, &json!(2)),
        "{other:?}"
    );
    let context = jetstream::new(nats.connect().await);
    let stream = context.get_stream("EVENTS").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(&message.payload[..], body.as_bytes());
    assert_eq!(
        message.headers.get("Nats-Msg-Id").unwrap().as_str(),
        "acme:\"order-1\""
    );
    assert_eq!(message.headers.iter().count(), 1, "{:?}", message.headers);
    // Without a key each is an event.
    assert_eq!(sender.event(&[]).await.status, 201);
    assert_eq!(sender.event(&[]).await.status, 201);
    assert_eq!(count(&nats).await, 4);
    assert_eq!(
        gateway
            .metric("herald_publish_events_total", "stored")
            .await as u64,
        4
    );
    assert_eq!(
        gateway
            .metric("herald_publish_events_total", "duplicate")
            .await as u64,
        1
    );
}

/// With three replicas JetStream answers some of them that another copy is in process.
#[tokio::test]
async fn the_same_key_many_times_at_once_stores_one_event() {
    let cluster = Cluster::start().await;
    let builder = Gateway::without_nats()
        .set("nats.url", cluster.url())
        .set("nats.replicas", 3);
    let (_gateway, sender) = ready(builder).await;
    for round in 0..5 {
        let key = format!("k{round}");
        let headers = [("Idempotency-Key", key.as_str())];
        let answers: Vec<Answer> = join_all((0..60).map(|_| sender.event(&headers))).await;
        let mut sequences = HashSet::new();
        for answer in &answers {
            match answer.status {
                200 | 201 => drop(sequences.insert(answer.body["sequence"].as_u64())),
                _ => answer.assert_is(503, "in-process", "unknown"),
            }
        }
        assert_eq!(sequences.len(), 1, "{answers:?}");
        let news = answers.iter().filter(|answer| answer.status == 201);
        assert!(news.count() <= 1, "{answers:?}");
    }
}

#[tokio::test]
async fn without_nats_nothing_is_queued_and_what_was_sent_is_not_called_lost() {
    let nats = Nats::jetstream().await;
    let cable = Cable::to(nats.port()).await;
    let builder = Gateway::without_nats().set("nats.url", cable.url());
    let (gateway, sender) = ready(builder).await;
    let key = [("Idempotency-Key", "k")];
    cable.cut();
    // Until the client has noticed, it is sent, and nobody knows.
    let unsure = sender.event(&key).await;
    if unsure.problem() == "not-acknowledged" {
        unsure.assert_is(503, "not-acknowledged", "unknown");
        let detail = unsure.body["detail"].as_str().unwrap();
        assert!(
            detail.contains("it may be stored") && detail.contains("within 120 s"),
            "{detail}"
        );
    }
    let away = eventually(PATIENCE, async || {
        sender.event(&key).await.problem() == "starting"
    })
    .await;
    assert!(away);
    sender.event(&key).await.assert_is(503, "starting", "no");
    let (status, why) = crate::support::gateway::get(&gateway.publish, "/readyz").await;
    assert_eq!(status, 503, "{why}");
    cable.mend();
    let stored = eventually(PATIENCE, async || {
        sender.event(&key).await.status / 100 == 2
    })
    .await;
    assert!(stored);
    assert_eq!(sender.event(&key).await.status, 200);
    assert_eq!(count(&nats).await, 1);
}

#[tokio::test]
async fn a_full_stream_stores_nothing_and_says_so() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).set("nats.max_bytes", 131_072);
    let (_gateway, sender) = ready(builder).await;
    let body = format!(r#"{{"title":"{}"}}"#, "x".repeat(60_000));
    let full = eventually(PATIENCE, async || {
        let answer = sender.post("acme/custom.x", &[], &body).await;
        answer.status != 201
    });
    assert!(full.await);
    let full = sender.post("acme/custom.x", &[], &body).await;
    full.assert_is(503, "full", "no");
    assert_eq!(full.headers["retry-after"], "30");
    assert!(
        full.body["detail"]
            .as_str()
            .unwrap()
            .ends_with("Nothing is stored"),
        "{full:?}"
    );
}

#[tokio::test]
async fn a_trace_goes_on_with_the_event() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let builder = collector.exported(Gateway::builder(&nats), "grpc");
    let (gateway, sender) = ready(builder).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let headers = [
        ("traceparent", traceparent.as_str()),
        ("tracestate", "vendor=1"),
    ];
    assert_eq!(sender.event(&headers).await.status, 201);
    ann.notification().await;
    let request = collector
        .span("a request", |span| span.span.name.starts_with("POST /v1/"))
        .await;
    assert_eq!(
        (request.trace(), request.parent()),
        (TRACE.to_owned(), "b7ad6b7169203331".to_owned())
    );
    let publish = collector
        .span("a publication", |span| {
            span.span.name.starts_with("publish ws.")
        })
        .await;
    assert_eq!(
        (publish.trace(), publish.parent()),
        (TRACE.to_owned(), request.id())
    );
    let context = jetstream::new(nats.connect().await);
    let stream = context.get_stream("EVENTS").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    let stored = message
        .headers
        .get("traceparent")
        .unwrap()
        .as_str()
        .to_owned();
    assert_eq!(stored, format!("00-{TRACE}-{}-01", publish.id()));
    assert_eq!(
        message.headers.get("tracestate").unwrap().as_str(),
        "vendor=1"
    );

    // Where nothing is exported, it goes on as it came.
    let (_gateway, sender): (Gateway, Sender) = on(&nats).await;
    assert_eq!(sender.event(&headers).await.status, 201);
    let message = stream.get_raw_message(2).await.unwrap();
    assert_eq!(
        message.headers.get("traceparent").unwrap().as_str(),
        traceparent
    );
}
