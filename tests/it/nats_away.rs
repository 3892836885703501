//! NATS away: at start, later, cut off from one gateway, or standing still. Sockets stay, joins are
//! put off with an HTTP 503, and nothing that was stored meanwhile is lost.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::{JETSTREAM, Nats};
use crate::support::publisher::Publisher;
use crate::support::token::token;
use crate::support::{PATIENCE, eventually};

/// The longest that a join may wait for NATS, with some time for a busy machine.
const SHORT_WAIT: Duration = Duration::from_secs(6);

fn query(user: &str, workspace: &str) -> String {
    format!("token={}&workspaceSlug={workspace}", token(user, workspace))
}

/// A join is put off: 503 and when to come again, after a short wait.
async fn put_off(gateway: &Gateway, user: &str, workspace: &str) {
    let start = Instant::now();
    let refused = Client::attempt(gateway, &query(user, workspace))
        .await
        .expect_err("NATS is away");
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some_and(|seconds| seconds > 0));
    assert!(start.elapsed() < SHORT_WAIT, "{:?}", start.elapsed());
}

/// Waits until `/readyz` answers `status`.
async fn readyz_becomes(gateway: &Gateway, status: u16, patience: Duration) {
    let is_so = eventually(patience, async || gateway.get("/readyz").await.0 == status);
    assert!(is_so.await, "{:?}", gateway.get("/readyz").await);
}

/// A join and an event of a new workspace go through.
async fn works(gateway: &Gateway, nats: &Nats, workspace: &str) {
    let publisher = Publisher::on(nats).await;
    let mut joined = None;
    let again = eventually(PATIENCE, async || {
        joined = Client::attempt(gateway, &query("new", workspace))
            .await
            .ok();
        joined.is_some()
    });
    assert!(again.await);
    publisher
        .event(
            &format!("{workspace}.custom.x"),
            &json!({ "title": "works" }),
        )
        .await;
    let mut client = joined.expect("just seen");
    assert_eq!(client.notification().await["title"], "works");
}

#[tokio::test]
async fn a_gateway_waits_for_a_nats_that_is_away_at_start_and_says_so() {
    let mut nats = Nats::jetstream().await;
    nats.stop().await;
    let gateway = Gateway::builder(&nats).start().await;
    assert_eq!(gateway.get("/healthz").await.0, 200);
    let (status, why) = gateway.get("/readyz").await;
    assert_eq!((status, why.contains("NATS")), (503, true), "{why}");
    gateway.logged("waiting for nats").await;
    let start = Instant::now();
    put_off(&gateway, "ann", "acme").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{start:?}");
    gateway
        .metric_becomes("herald_connections_refused_total", "nats", 1.0)
        .await;
    // What the contract names needs no NATS.
    let mut nobody = Client::connect(&gateway, "workspaceSlug=acme").await;
    assert_eq!(nobody.closed().await.0, 4001);
    let mut nowhere = Client::connect(&gateway, &query("ann", "*")).await;
    assert_eq!(nowhere.closed().await.0, 4002);
    assert_eq!(gateway.get("/healthz").await.0, 200);

    nats.start_again().await;
    readyz_becomes(&gateway, 200, PATIENCE).await;
    works(&gateway, &nats, "acme").await;
}

#[tokio::test]
async fn a_gateway_can_be_stopped_while_it_waits_for_nats() {
    let mut nats = Nats::jetstream().await;
    nats.stop().await;
    let mut gateway = Gateway::builder(&nats).start().await;
    gateway.terminate();
    let start = Instant::now();
    assert_eq!(gateway.ended().await, Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{start:?}");
}

#[tokio::test]
async fn a_drain_while_nats_is_away_waits_for_no_room_that_waits_for_nats() {
    let mut nats = Nats::jetstream().await;
    let mut gateway = Gateway::builder(&nats)
        .set("server.drain", "0s")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    nats.stop().await;
    gateway
        .metric_becomes("herald_nats_events_total", "\"disconnected\"", 1.0)
        .await;
    put_off(&gateway, "cyd", "initech").await;
    gateway.terminate();
    assert_eq!(ann.closed().await.0, 1012);
    assert_eq!(gateway.ended().await, Some(0));
}

#[tokio::test]
async fn sockets_stay_while_nats_is_away_and_joins_are_put_off() {
    let mut nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("server.unready_after", "6s")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "globex").await;
    let stopped = Instant::now();
    nats.stop().await;
    gateway
        .metric_becomes("herald_nats_events_total", "\"disconnected\"", 1.0)
        .await;
    let noticed = stopped.elapsed();
    assert_eq!(gateway.get("/readyz").await.0, 200, "after {noticed:?}");
    // In a room that is open, and in a new one.
    tokio::join!(
        put_off(&gateway, "cyd", "acme"),
        put_off(&gateway, "cyd", "initech"),
    );
    readyz_becomes(&gateway, 503, PATIENCE).await;
    let unready = stopped.elapsed();
    assert!(unready > Duration::from_secs(6), "{unready:?}");
    assert_eq!(gateway.get("/healthz").await.0, 200);
    assert!(ann.is_open().await && bob.is_open().await);

    nats.start_again().await;
    // At once, before the gateway has come back.
    let publisher = Publisher::on(&nats).await;
    for (subject, title) in [
        ("acme.custom.a", "1"),
        ("acme.custom.b", "2"),
        ("acme.custom.a", "3"),
    ] {
        publisher.event(subject, &json!({ "title": title })).await;
    }
    publisher
        .event("globex.custom.a", &json!({ "title": "globex" }))
        .await;
    for title in ["1", "2", "3"] {
        assert_eq!(ann.notification().await["title"], title);
    }
    assert_eq!(bob.notification().await["title"], "globex");
    readyz_becomes(&gateway, 200, PATIENCE).await;
    works(&gateway, &nats, "initech").await;
    works(&gateway, &nats, "acme").await;
    assert_eq!(ann.notification().await["title"], "works");
    assert!(ann.is_quiet(Duration::from_millis(200)).await);
}

#[tokio::test]
async fn a_sweep_whose_answer_the_server_cut_short_loses_nothing() {
    // So much the server sends at a time; what it cuts off is the newest.
    let nats = Nats::start(&format!("{JETSTREAM}max_pending: 4MB\n")).await;
    let (cable, gateway) = Gateway::behind_a_cable(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let event = json!({ "title": "large", "message": "x".repeat(32 * 1024) });
    for number in 0..150 {
        let subject = format!("acme.custom.s{number}");
        publisher.event(&subject, &event).await;
        assert_eq!(ann.notification().await["title"], "large");
    }
    cable.cut();
    gateway
        .metric_becomes("herald_nats_events_total", "\"disconnected\"", 1.0)
        .await;
    let missed = json!({ "title": "missed" });
    publisher.event("acme.custom.missed", &missed).await;
    cable.mend();
    assert_eq!(ann.notification().await["title"], "missed");
}

#[tokio::test]
async fn what_others_publish_while_a_gateway_is_cut_off_comes_when_it_is_back() {
    let nats = Nats::jetstream().await;
    let (cable, gateway) = Gateway::behind_a_cable(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "globex").await;
    let title = |number: u32| json!({ "title": number.to_string() });
    publisher.event("acme.custom.a", &title(0)).await;
    assert_eq!(ann.notification().await["title"], "0");
    let mut number = 0;
    for round in 1..=3 {
        cable.cut();
        gateway
            .metric_becomes(
                "herald_nats_events_total",
                "\"disconnected\"",
                f64::from(round),
            )
            .await;
        let first = number + 1;
        for _ in 0..50 {
            number += 1;
            let subject = format!("acme.custom.{}", ["a", "b", "c"][number as usize % 3]);
            publisher.event(&subject, &title(number)).await;
        }
        put_off(&gateway, "cyd", "acme").await;
        cable.mend();
        // Everything once, and in the order of the stream.
        for expected in first..=number {
            assert_eq!(ann.notification().await["title"], expected.to_string());
        }
    }
    publisher
        .event("globex.custom.a", &json!({ "title": "globex" }))
        .await;
    assert_eq!(bob.notification().await["title"], "globex");
    works(&gateway, &nats, "acme").await;
    assert_eq!(ann.notification().await["title"], "works");
    assert!(gateway.metric("herald_events_lost_total", "").await < 0.5);
}

#[tokio::test]
async fn a_nats_that_stands_still_is_as_good_as_away() {
    let mut nats = Nats::jetstream().await;
    nats.pause().await;
    let gateway = Gateway::builder(&nats)
        .set("server.unready_after", "1s")
        .start()
        .await;
    assert_eq!(gateway.get("/readyz").await.0, 503);
    put_off(&gateway, "ann", "acme").await;
    nats.resume().await;
    readyz_becomes(&gateway, 200, PATIENCE).await;

    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    // For a moment, of which nobody notices more than that joins are put off.
    nats.pause().await;
    put_off(&gateway, "bob", "acme").await;
    nats.resume().await;
    publisher
        .event("acme.custom.x", &json!({ "title": "moment" }))
        .await;
    assert_eq!(ann.notification().await["title"], "moment");
    let disconnected = "\"disconnected\"";
    assert!(
        gateway
            .metric("herald_nats_events_total", disconnected)
            .await
            < 0.5
    );

    // For longer than pings stay unanswered.
    nats.pause().await;
    put_off(&gateway, "bob", "acme").await;
    readyz_becomes(&gateway, 503, 2 * PATIENCE).await;
    assert_eq!(gateway.get("/healthz").await.0, 200);
    assert!(ann.is_open().await);
    put_off(&gateway, "bob", "acme").await;
    nats.resume().await;
    publisher
        .event("acme.custom.x", &json!({ "title": "while" }))
        .await;
    assert_eq!(ann.notification().await["title"], "while");
    readyz_becomes(&gateway, 200, PATIENCE).await;
    works(&gateway, &nats, "acme").await;
}
