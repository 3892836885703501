//! What ends or silences a line: networks, gateways, NATS, sleep, quiet, and a flood.

use std::time::Duration;

use rustix::process::Signal;

use super::*;
use crate::support::cable::Condition;

/// A page that is open; what was published last before the fault.
async fn before(scene: &Scene) -> Tab {
    let tab = scene.tab("").await;
    scene.event("before").await;
    has(&tab, &["before".to_owned()]).await;
    tab
}

/// The page is open, within five seconds or at its next try, and its one gap covers what it has not seen.
async fn comes_back(scene: &Scene, tab: &Tab, lost: &[(String, f64)]) {
    tab.becomes(OPEN).await;
    scene.event("after").await;
    tab.becomes("titles.at(-1) === 'after'").await;
    let seen = titles(tab).await;
    let (from, to) = gap(tab).await;
    for (title, at) in lost {
        let covered = from <= *at && *at <= to;
        assert!(
            seen.contains(title) || covered,
            "{title} at {at}: {from} to {to}"
        );
    }
    assert_eq!(
        tab.eval("new Set(titles).size === titles.length").await,
        true
    );
    is_clean(tab).await;
}

/// Publishes for a while.
async fn meanwhile(scene: &Scene, for_how_long: Duration) -> Vec<(String, f64)> {
    let end = tokio::time::Instant::now() + for_how_long;
    let mut published = Vec::new();
    while tokio::time::Instant::now() < end {
        let title = format!("lost {}", published.len());
        published.push((title.clone(), now()));
        scene.event(&title).await;
        tokio::time::sleep(LOOK).await;
    }
    published
}

#[tokio::test]
async fn without_a_network_it_comes_back_when_there_is_one() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = before(&scene).await;
    tab.set_online(false).await;
    scene.cable.cut();
    let lost = meanwhile(&scene, Duration::from_secs(6)).await;
    scene.cable.mend();
    let since = now();
    tab.set_online(true).await;
    tab.becomes(OPEN).await;
    let took = tab.eval("openedAt").await.as_f64().unwrap() - since;
    timely(took, 5000.0);
    comes_back(&scene, &tab, &lost).await;
}

/// No FIN, no reset: only a heartbeat without an answer tells.
#[tokio::test]
async fn a_network_that_falls_silent_is_noticed() {
    let quick = |builder: Builder| builder.set("sockets.ping", "1s");
    let Some(scene) = Scene::with(quick).await else {
        return;
    };
    let tab = before(&scene).await;
    scene.cable.set(Condition::Silent);
    let silent = meanwhile(&scene, Duration::from_secs(2));
    let noticed = tab.becomes("client.getSnapshot().status.state !== 'open'");
    let (lost, ()) = tokio::join!(silent, noticed);
    let reason = tab
        .eval("states.find(({ state }) => state === 'waiting').reason")
        .await;
    assert_eq!(reason, "the gateway does not answer");
    scene.cable.cut();
    scene
        .gateway
        .metric_becomes("herald_connections", "", 0.0)
        .await;
    scene.cable.mend();
    comes_back(&scene, &tab, &lost).await;
}

/// The whole browser stands still, and the line is cut meanwhile, which nobody tells it.
#[tokio::test]
async fn after_a_sleep_it_is_open_within_five_seconds() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = before(&scene).await;
    scene.devtools.browser.signal(Signal::STOP);
    scene.cable.set(Condition::Silent);
    let lost = meanwhile(&scene, Duration::from_secs(4)).await;
    scene.cable.cut();
    scene
        .gateway
        .metric_becomes("herald_connections", "", 0.0)
        .await;
    scene.cable.mend();
    let since = now();
    scene.devtools.browser.signal(Signal::CONT);
    tab.becomes("states.filter(({ state }) => state === 'open').length > 1")
        .await;
    let took = tab.eval("openedAt").await.as_f64().unwrap() - since;
    timely(took, 5000.0);
    comes_back(&scene, &tab, &lost).await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_or_drained_is_found_again() {
    for signal in ["KILL", "TERM"] {
        let drain = |builder: Builder| builder.set("server.drain", "1s");
        let Some(mut scene) = Scene::with(drain).await else {
            return;
        };
        let tab = before(&scene).await;
        let port = scene.gateway.port();
        scene.gateway.signal(signal);
        let lost = meanwhile(&scene, Duration::from_secs(2)).await;
        scene.gateway.ended().await;
        scene.gateway = Gateway::builder(&scene.nats)
            .set("server.listen", format!("127.0.0.1:{port}"))
            .ready()
            .await;
        comes_back(&scene, &tab, &lost).await;
    }
}

/// The sockets stay, and so does everything that is stored.
#[tokio::test]
async fn a_restart_of_nats_costs_nothing() {
    let Some(mut scene) = Scene::new().await else {
        return;
    };
    let tab = before(&scene).await;
    scene.nats.restart().await;
    scene.publisher = Publisher::on(&scene.nats).await;
    scene.event("after").await;
    has(&tab, &["before".to_owned(), "after".to_owned()]).await;
    assert_eq!(tab.eval("gaps").await, json!([]));
    assert_eq!(scene.opened().await, 1.0);
}

#[tokio::test]
async fn a_quiet_page_stays_open() {
    let quick = |builder: Builder| {
        builder
            .set("sockets.inactivity", "1s")
            .set("sockets.ping", "25s")
    };
    let Some(scene) = Scene::with(quick).await else {
        return;
    };
    let tab = scene.tab("").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.event("after").await;
    has(&tab, &["after".to_owned()]).await;
    assert_eq!(scene.opened().await, 1.0);
}

#[tokio::test]
async fn a_thousand_notifications_a_second_leave_the_page_responsive() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = scene.tab("").await;
    // A machine that is busy with other tests makes a task long now and then; a slow page makes some in each round.
    let mut longest = f64::MAX;
    for round in 0..4 {
        tab.eval("longTasks.length = 0").await;
        flood(&scene, round * 2000..(round + 1) * 2000).await;
        has(&tab, &numbers(0..(round + 1) * 2000)).await;
        let long = tab.eval("Math.max(0, ...longTasks)").await;
        longest = longest.min(long.as_f64().expect("milliseconds"));
        if longest < 1.0 {
            return;
        }
    }
    timely(longest, 50.0);
}

/// Publishes one number each millisecond.
async fn flood(scene: &Scene, range: std::ops::Range<usize>) {
    let mut acks = Vec::new();
    let mut due = tokio::time::interval(Duration::from_millis(1));
    for number in range {
        due.tick().await;
        let payload = json!({ "title": number.to_string() }).to_string();
        let context = &scene.publisher.context;
        let sent = context.publish("ws.acme.custom.x", payload.into()).await;
        acks.push(sent.expect("it is sent"));
    }
    for ack in acks {
        ack.await.expect("it is stored");
    }
}
