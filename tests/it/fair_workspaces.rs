//! Limits of each workspace: sockets, joins a second, events a second. Who is over one is refused or slowed, and
//! nobody else is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::cable::Cable;
use crate::support::client::{Client, Refused};
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw_nats::RawNats;
use crate::support::token::token;
use crate::support::{PATIENCE, eventually};

const REFUSED: &str = "herald_connections_refused_total";
const LIMITS: &str = "herald_workspace_limits_total";
const LOST: &str = "herald_events_lost_total";
const SLOWED: &str = "herald_workspaces_slowed";
const DROPPED: &str = "workspace over its event rate, events over 60 s late dropped, possibly lost";

async fn attempt(gateway: &Gateway, user: &str, workspace: &str) -> Result<Client, Refused> {
    let token = token(user, workspace);
    let query = format!("token={token}&workspaceSlug={workspace}");
    Client::attempt(gateway, &query).await
}

/// The status, when to try again and the body of a refusal.
async fn refused(gateway: &Gateway, user: &str, workspace: &str) -> (u16, Option<u64>, String) {
    let refused = attempt(gateway, user, workspace).await;
    let refused = refused.expect_err("a refusal");
    (refused.status, refused.retry_after, refused.body)
}

#[tokio::test]
async fn a_full_workspace_takes_nobody_more_and_others_are_not_concerned() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |most: usize| {
        let content = format!("[workspaces]\nmax_connections = {most}\n");
        file(folder.path(), "herald.toml", content)
    };
    let path = settings(2);
    let gateway = Gateway::builder(&nats).file(path.as_ref()).ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let bob = Client::join(&gateway, "bob", "acme").await;
    for _ in 0..3 {
        let full = "too many connections to this workspace\n".to_owned();
        assert_eq!(
            refused(&gateway, "eve", "acme").await,
            (503, Some(10), full)
        );
    }
    // Who has no access learns that, and not that it is full.
    let query = format!("token={}&workspaceSlug=acme", token("eve", "globex"));
    let (code, _) = Client::connect(&gateway, &query).await.closed().await;
    assert_eq!(code, 4001);
    let _other = Client::join(&gateway, "eve", "globex").await;
    assert_eq!(gateway.metric(REFUSED, "workspace_full").await, 3.0);
    assert_eq!(gateway.metric(LIMITS, "connections").await, 3.0);
    // Who leaves makes room.
    drop(bob);
    let mut eve = None;
    let joins = eventually(PATIENCE, async || {
        eve = attempt(&gateway, "eve", "acme").await.ok();
        eve.is_some()
    });
    assert!(joins.await, "the workspace stays full");
    // Another limit is in force at once, and closes nobody.
    settings(1);
    gateway.signal("HUP");
    gateway.logged("configuration reloaded").await;
    assert_eq!(refused(&gateway, "bob", "acme").await.0, 503);
    assert!(ann.is_open().await);
}

#[tokio::test]
async fn joins_of_a_workspace_over_its_rate_are_refused_and_those_without_access_use_up_none() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("workspaces.join_rate", 3)
        .ready()
        .await;
    let foreign = format!("token={}&workspaceSlug=acme", token("eve", "globex"));
    for _ in 0..20 {
        let (code, _) = Client::connect(&gateway, &foreign).await.closed().await;
        assert_eq!(code, 4001);
    }
    let began = Instant::now();
    let mut open = Vec::new();
    let mut over = 0;
    for number in 0..30 {
        match attempt(&gateway, &format!("u{number}"), "acme").await {
            Ok(client) => open.push(client),
            Err(refused) => {
                assert_eq!((refused.status, refused.retry_after), (429, Some(2)));
                assert_eq!(
                    refused.body,
                    "too many new connections to this workspace, try again later\n"
                );
                over += 1;
            }
        }
        if number % 10 == 0 {
            open.push(Client::join(&gateway, "ann", &format!("other{number}")).await);
        }
    }
    let earned = began.elapsed().as_secs_f64() * 3.0 + 3.0;
    let joined = 30 - over;
    assert!(joined >= 3 && f64::from(joined) <= earned + 1.0, "{joined}");
    assert!(over > 0, "{earned}");
    for (metric, label) in [(REFUSED, "workspace_rate"), (LIMITS, "joins")] {
        assert_eq!(gateway.metric(metric, label).await, f64::from(over));
    }
}

/// The numbers that came of each subject, in their order.
type Received = BTreeMap<String, Vec<u64>>;

/// Takes what comes until the event named `last`.
async fn receive(mut client: Client) -> (Client, Received, Duration) {
    let mut received = Received::new();
    let mut oldest = Duration::ZERO;
    loop {
        let one = client.notification().await;
        let title = one["title"].as_str().expect("a title").to_owned();
        if title == "last" {
            return (client, received, oldest);
        }
        let stored = one["timestamp"].as_str().expect("a time");
        let stored = chrono::DateTime::parse_from_rfc3339(stored).expect("RFC 3339");
        let age = chrono::Utc::now().signed_duration_since(stored);
        oldest = oldest.max(age.to_std().unwrap_or_default());
        let (subject, number) = title.split_once(' ').expect("a subject and a number");
        let number = number.parse().expect("a number");
        received.entry(subject.to_owned()).or_default().push(number);
    }
}

fn event(subject: &str, number: u64) -> Value {
    json!({ "title": format!("{subject} {number}") })
}

/// What was dropped is counted, and logged in a few lines.
async fn assert_reported(gateway: &Gateway, dropped: u64) {
    let lost = gateway.metric(LOST, "over_rate").await;
    assert_eq!(lost, dropped as f64);
    assert_eq!(gateway.metric(LOST, "").await, lost);
    // The last event may be slowed once more: it may come before there is a token for it.
    let slowed = gateway.metric(LIMITS, "events").await;
    assert!((1.0..=2.0).contains(&slowed), "{slowed}");
    let line = gateway.logged(DROPPED).await;
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["workspace"], "flooded");
    let lines = gateway.output();
    let lines = |words: &str| lines.lines().filter(|line| line.contains(words)).count();
    assert!((1..=7).contains(&lines(DROPPED)));
    assert_eq!(lines("event delivered late"), 0);
    assert!(lines("messages dropped, a subscription was full") <= 2);
}

/// A flood of 100 times the rate: the workspace gets its rate for a minute, the rest is dropped, counted and logged. Then
/// it is live again. Others get all of theirs in time meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_workspace_gets_its_rate_then_drops_and_is_live_again_and_nobody_else_is_slowed()
{
    const RATE: u64 = 50;
    const FLOOD: u64 = 10_000;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("workspaces.event_rate", RATE)
        .set("log.level", "info");
    let gateway = gateway.ready().await;
    let publisher = Publisher::on(&nats).await;
    let flooded = tokio::spawn(receive(Client::join(&gateway, "ann", "flooded").await));
    let others: Vec<String> = (0..5).map(|number| format!("calm{number}")).collect();
    let mut calm = JoinSet::new();
    for workspace in &others {
        calm.spawn(receive(Client::join(&gateway, "ann", workspace).await));
    }
    let began = Instant::now();
    let mut flood = RawNats::on(&nats).await;
    for number in 0..FLOOD {
        let subject = ["a", "b"][(number % 2) as usize];
        let body = event(subject, number).to_string();
        let subject = format!("ws.flooded.custom.{subject}");
        flood.publish(subject.as_bytes(), body.as_bytes()).await;
    }
    flood.flush().await;
    gateway.metric_becomes(SLOWED, "", 1.0).await;
    // Others have what they have, for as long as the flood lasts and after it.
    let mut number = 0;
    while gateway.metric(SLOWED, "").await > 0.5 {
        assert!(began.elapsed() < Duration::from_secs(100), "still slowed");
        for workspace in &others {
            let subject = format!("{workspace}.custom.x");
            publisher.event(&subject, &event("x", number)).await;
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(59), "{took:?}");
    for workspace in others.iter().map(String::as_str).chain(["flooded"]) {
        let subject = format!("{workspace}.custom.a");
        publisher.event(&subject, &json!({ "title": "last" })).await;
    }
    while let Some(received) = calm.join_next().await {
        let (_, received, oldest) = received.expect("it gets all");
        let all: Vec<u64> = (0..number).collect();
        assert_eq!(received, Received::from([("x".to_owned(), all)]));
        assert!(oldest < Duration::from_secs(5), "{oldest:?}");
    }
    let (mut ann, received, oldest) = flooded.await.expect("it ends");
    let delivered: u64 = received.values().map(|numbers| numbers.len() as u64).sum();
    // A second's worth at once, and then the rate for a minute.
    assert!((55 * RATE..=63 * RATE).contains(&delivered), "{delivered}");
    assert!(oldest < Duration::from_secs(65), "{oldest:?}");
    for (subject, numbers) in &received {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{subject}: {numbers:?}");
    }
    assert_reported(&gateway, FLOOD - delivered).await;
    // It is live again.
    let sent = Instant::now();
    publisher
        .event("flooded.custom.a", &event("a", FLOOD))
        .await;
    assert_eq!(ann.notification().await["title"], format!("a {FLOOD}"));
    assert!(
        sent.elapsed() < Duration::from_secs(2),
        "{:?}",
        sent.elapsed()
    );
}

/// Slowed workspaces read back what they missed, which takes as long as their rate says. Others need not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repairs_of_slowed_workspaces_hold_up_no_other_repair() {
    // More than there are slots for batches. What each missed is more than one batch.
    const SLOW: usize = 40;
    let long = "x".repeat(4000);
    let nats = Nats::jetstream().await;
    let cable = Cable::to(nats.port()).await;
    let gateway = Gateway::without_nats()
        .set("nats.url", cable.url())
        .set("workspaces.event_rate", 2)
        .set("log.level", "info");
    let gateway = gateway.ready().await;
    let publisher = Publisher::on(&nats).await;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        slow.push(Client::join(&gateway, "ann", &format!("slow{number}")).await);
    }
    let mut calm = Client::join(&gateway, "ann", "calm").await;
    let mut flood = RawNats::on(&nats).await;
    cable.cut();
    for number in 0..100 * SLOW as u64 {
        let subject = format!("ws.slow{}.custom.x", number % SLOW as u64);
        let body = json!({ "title": number.to_string(), "message": long }).to_string();
        flood.publish(subject.as_bytes(), body.as_bytes()).await;
    }
    flood.flush().await;
    cable.mend();
    gateway.metric_becomes(SLOWED, "", SLOW as f64).await;
    let lost = json!({ "title": "lost" });
    let lost = async || publisher.event("calm.custom.x", &lost).await;
    publisher.unheard("EVENTS", lost).await;
    let sent = Instant::now();
    publisher
        .event("calm.custom.x", &json!({ "title": "next" }))
        .await;
    for title in ["lost", "next"] {
        assert_eq!(calm.notification().await["title"], title);
    }
    assert!(
        sent.elapsed() < Duration::from_secs(5),
        "{:?}",
        sent.elapsed()
    );
    assert_eq!(gateway.metric(SLOWED, "").await, SLOW as f64);
}
