//! A stream that is there no more, or that cannot be read, while a gateway serves: it is noticed and said,
//! nobody joins, and what Herald closes meanwhile is counted.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use serde_json::json;

use crate::support::cable::{Cable, Condition};
use crate::support::client::{Client, Refused};
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::{expiring, token};
use crate::support::{PATIENCE, eventually};

async fn join(gateway: &Gateway, user: &str) -> Result<Client, Refused> {
    let query = format!("token={}&workspaceSlug=acme", token(user, "acme"));
    Client::attempt(gateway, &query).await
}

/// `/readyz` and joins come to say 503 with all of `words`; the log, too.
async fn is_unready(gateway: &Gateway, words: &[&str]) {
    let has = |text: &str| words.iter().all(|word| text.contains(word));
    let unready = eventually(PATIENCE, async || {
        let (status, why) = gateway.get("/readyz").await;
        status == 503 && has(&why)
    });
    assert!(unready.await, "{:?}", gateway.get("/readyz").await);
    let refused = join(gateway, "newcomer").await.expect_err("nobody joins");
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    assert!(has(&refused.body), "{refused:?}");
    let line = [&["\"WARN\"", "stream cannot be read"], words].concat();
    gateway.prints_line(&line).await;
}

async fn is_ready(gateway: &Gateway) {
    let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
    assert!(ready.await, "{:?}", gateway.get("/readyz").await);
}

async fn readable(gateway: &Gateway, stream: &str, read: &str, value: f64) {
    let label = format!("read=\"{read}\",stream=\"{stream}\"");
    let is_so = eventually(PATIENCE, async || {
        let shown = gateway.metric("herald_stream_readable", &label).await;
        (shown - value).abs() < 0.5
    });
    assert!(is_so.await, "{label}: not {value}");
}

#[tokio::test]
async fn direct_gets_that_are_switched_off_are_noticed() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("server.unready_after", "1s")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = join(&gateway, "ann").await.expect("a socket");
    for stream in ["EVENTS", "SESSIONS"] {
        readable(&gateway, stream, "direct", 1.0).await;
        let config = config(&publisher, stream).await;
        let without = Config {
            allow_direct: false,
            ..config.clone()
        };
        let context = &publisher.context;
        context.update_stream(&without).await.expect("updated");
        is_unready(&gateway, &[stream, "direct get"]).await;
        readable(&gateway, stream, "direct", 0.0).await;
        readable(&gateway, stream, "leader", 1.0).await;
        context.update_stream(&config).await.expect("updated");
        is_ready(&gateway).await;
        assert!(join(&gateway, "bob").await.is_ok());
    }
    let title = json!({ "title": "still here" });
    publisher.event("acme.custom.x", &title).await;
    assert_eq!(ann.notification().await["title"], "still here");
}

#[tokio::test]
async fn rooms_that_could_not_be_read_after_a_reconnect_go_on_by_themselves() {
    let nats = Nats::jetstream().await;
    let cable = Cable::to(nats.port()).await;
    let gateway = Gateway::without_nats()
        .set("nats.url", cable.url())
        .set("server.unready_after", "1s")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = join(&gateway, "ann").await.expect("a socket");
    let whole = config(&publisher, "EVENTS").await;
    let without = Config {
        allow_direct: false,
        ..whole.clone()
    };
    let context = &publisher.context;
    context.update_stream(&without).await.expect("updated");
    cable.cut();
    gateway
        .metric_becomes("herald_nats_events_total", "\"disconnected\"", 1.0)
        .await;
    let event = async |title: &str| {
        publisher
            .event("acme.custom.x", &json!({ "title": title }))
            .await
    };
    event("while away").await;
    cable.mend();
    gateway
        .metric_becomes("herald_nats_events_total", "\"connected\"", 2.0)
        .await;
    event("after the reconnect").await;
    is_unready(&gateway, &["EVENTS", "direct get"]).await;
    context.update_stream(&whole).await.expect("updated");
    assert_eq!(ann.notification().await["title"], "while away");
    assert_eq!(ann.notification().await["title"], "after the reconnect");
    is_ready(&gateway).await;
}

#[tokio::test]
async fn events_that_are_republished_without_their_bodies_are_read_from_the_stream() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = join(&gateway, "ann").await.expect("a socket");
    let mut edited = config(&publisher, "EVENTS").await;
    edited.republish.as_mut().expect("it has one").headers_only = true;
    let updated = publisher.context.update_stream(&edited).await;
    updated.expect("updated");
    for title in ["first", "second"] {
        publisher
            .event("acme.custom.x", &json!({ "title": title }))
            .await;
        assert_eq!(ann.notification().await["title"], title);
    }
    assert!(gateway.metric("herald_events_bad_total", "").await < 0.5);
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_named_with_the_servers_reason() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("server.unready_after", "1s")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    for stream in ["EVENTS", "SESSIONS"] {
        let config = config(&publisher, stream).await;
        let context = &publisher.context;
        context.delete_stream(stream).await.expect("deleted");
        let refused = join(&gateway, "ann").await.expect_err("nobody joins");
        let reason = format!("stream {stream} cannot be read: stream not found (10059)");
        assert!(refused.body.contains(&reason), "{refused:?}");
        is_unready(&gateway, &[stream, "stream not found"]).await;
        context.create_stream(config).await.expect("created");
        is_ready(&gateway).await;
    }
    assert!(join(&gateway, "ann").await.is_ok());
}

async fn config(publisher: &Publisher, stream: &str) -> Config {
    let mut stream: jetstream::stream::Stream = publisher
        .context
        .get_stream(stream)
        .await
        .expect("it exists");
    stream.info().await.expect("info").config.clone()
}

#[tokio::test]
async fn a_close_while_nats_is_silent_is_counted_and_logged() {
    let nats = Nats::jetstream().await;
    let (cable, mut gateway) = Gateway::behind_a_cable(&nats).await;
    let query = format!("token={}&workspaceSlug=acme", expiring("ann", "acme", 4));
    let mut ann = Client::connect(&gateway, &query).await;
    let mut bob = join(&gateway, "bob").await.expect("a socket");
    let mut cyd = join(&gateway, "cyd").await.expect("a socket");
    cable.set(Condition::Silent);
    assert_eq!(ann.closed().await.0, 4003);
    gateway
        .metric_becomes("herald_events_lost_total", "reason=\"closed\"", 1.0)
        .await;
    let told = async |message: &str| {
        let line = gateway.logged(message).await;
        assert!(line.contains("\"WARN\""), "{line}");
        line
    };
    let line = told("socket closed without the last stored events, nats does not answer").await;
    assert!(line.contains("4003") && line.contains("acme"), "{line}");
    gateway.terminate();
    assert_eq!(bob.closed().await.0, 1012);
    assert_eq!(cyd.closed().await.0, 1012);
    let line = told("draining without the last stored events, nats does not answer").await;
    assert!(line.contains("\"sockets\":2"), "{line}");
    tokio::time::timeout(Duration::from_secs(40), gateway.ended())
        .await
        .expect("it ends");
}
