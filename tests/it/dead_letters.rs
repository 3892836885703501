//! Verifies that a bad event becomes one dead letter, with its reason, that reporting one never waits for
//! anything, and that whatever one workspace sends, another's dead letter is kept.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use futures_util::future::join_all;
use herald::config::NatsConfig;
use herald::event::{BadEvent, Reason, StoredMessage, WorkspaceSlug};
use herald::nats::{DeadLetters, DropReason};

use crate::support::client::Client;
use crate::support::command::herald;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

/// The largest payload that EVENTS takes with few headers.
const LARGE: usize = 127 * 1024;

fn bad_message(workspace: &str, sequence: u64, payload: &str) -> StoredMessage {
    StoredMessage {
        subject: format!("ws.{workspace}.custom.x").into(),
        sequence,
        time: chrono::DateTime::UNIX_EPOCH,
        last_sequence: None,
        headers: None,
        payload: payload.to_owned().into(),
    }
}

fn reason() -> BadEvent {
    BadEvent::new(Reason::Json, "the payload is not JSON")
}

async fn make_dead(nats: &Nats, max_messages: i64, max_bytes: i64) -> stream::Stream {
    jetstream::new(nats.connect().await)
        .create_stream(stream::Config {
            name: "DEAD".to_owned(),
            subjects: vec!["dead.>".to_owned()],
            max_messages,
            max_bytes,
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            ..Default::default()
        })
        .await
        .unwrap()
}

/// How many letters of `workspace` the stream has.
async fn letters_of(dead: &stream::Stream, workspace: &str) -> usize {
    use futures_util::TryStreamExt as _;
    let filter = format!("dead.{workspace}.>");
    let subjects = dead.info_with_subjects(filter).await.unwrap();
    subjects.try_collect::<Vec<_>>().await.unwrap().len()
}

/// A gateway's reporter.
struct Reporter(DeadLetters);

impl Reporter {
    async fn start(nats: &Nats) -> Self {
        let names = NatsConfig::default().names();
        let (letters, publisher) = DeadLetters::start(nats.connect().await, names);
        tokio::spawn(publisher);
        Self(letters)
    }

    fn report(&self, workspace: &str, sequence: u64, payload: &str) {
        let slug = WorkspaceSlug::parse(workspace).unwrap();
        let message = bad_message(workspace, sequence, payload);
        self.0.report(&slug, &message, &reason());
    }

    /// Published, duplicate, dropped.
    fn counts(&self) -> (u64, u64, u64) {
        let counters = self.0.counters();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let dropped = DropReason::ALL.map(|reason| counters.dropped(reason));
        (
            load(&counters.published),
            load(&counters.duplicate),
            dropped.iter().sum(),
        )
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.0.counters().dropped(reason)
    }

    /// Waits until it is known what became of `count` letters.
    async fn done(&self, count: u64) {
        let done = eventually(PATIENCE, async || {
            let (published, duplicate, dropped) = self.counts();
            published + duplicate + dropped == count
        });
        assert!(done.await, "{:?} of {count}", self.counts());
    }

    async fn end(&self) {
        self.0.end(Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn what_waits_when_the_task_has_failed_is_counted() {
    let nats = Nats::jetstream().await;
    let (letters, task) = DeadLetters::start(nats.connect().await, NatsConfig::default().names());
    let reporter = Reporter(letters);
    for sequence in 1..=3 {
        reporter.report("acme", sequence, "{}");
    }
    // As by a panic.
    drop(task);
    reporter.end().await;
    assert_eq!(reporter.dropped(DropReason::Shutdown), 3);
    reporter.report("acme", 4, "{}");
    assert_eq!(reporter.dropped(DropReason::Shutdown), 4);
}

#[tokio::test]
async fn two_gateways_make_one_letter_of_one_bad_event() {
    let nats = Nats::jetstream().await;
    let dead = make_dead(&nats, -1, -1).await;
    let payload = "x".repeat(100_000);
    let mut all = (0, 0, 0);
    for _ in 0..2 {
        let gateway = Reporter::start(&nats).await;
        gateway.report("acme", 7, &payload);
        gateway.end().await;
        let (published, duplicate, dropped) = gateway.counts();
        all = (all.0 + published, all.1 + duplicate, all.2 + dropped);
    }
    assert_eq!(all, (1, 1, 0));
    let letter = dead.get_raw_message(1).await.unwrap();
    assert_eq!(letter.subject.as_str(), "dead.acme.7");
    assert_eq!(letter.payload.len(), payload.len());
    for (name, value) in [
        ("Herald-Reason", "json"),
        ("Herald-Detail", "the payload is not JSON"),
        ("Herald-Subject", "ws.acme.custom.x"),
        ("Herald-Time", "1970-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(letter.headers.get(name).unwrap().as_str(), value);
    }
    assert!(letter.headers.get("Herald-Payload-Bytes").is_none());
}

#[tokio::test]
async fn a_flood_is_paced_and_nobody_waits_for_it() {
    const COUNT: u64 = 3000;
    let nats = Nats::jetstream().await;
    let mut dead = make_dead(&nats, -1, -1).await;
    let gateway = Reporter::start(&nats).await;
    let start = Instant::now();
    for sequence in 1..=COUNT {
        gateway.report("acme", sequence, "x");
    }
    // Paced at 1,000 a second they take three seconds.
    assert!(start.elapsed() < Duration::from_secs(1));
    gateway.report("globex", 1, "x");
    let globex = dead.clone();
    let in_turn = eventually(PATIENCE, async || letters_of(&globex, "globex").await == 1);
    assert!(in_turn.await);
    assert!(gateway.counts().0 < COUNT, "globex waited for all of acme");
    gateway.done(COUNT + 1).await;
    assert!(start.elapsed() > Duration::from_millis(2900));
    assert_eq!(gateway.counts(), (COUNT + 1, 0, 0));
    assert_eq!(dead.info().await.unwrap().state.messages, COUNT + 1);
}

#[tokio::test]
async fn the_queue_is_bounded_and_whose_flood_it_is_loses() {
    const FLOOD: u64 = 100_000;
    let nats = Nats::jetstream().await;
    make_dead(&nats, -1, -1).await;
    let gateway = Reporter::start(&nats).await;
    // On this one thread, nothing is taken out as long as nobody waits.
    gateway.report("globex", 1, "first");
    for sequence in 1..=FLOOD {
        gateway.report("acme", sequence, "x");
    }
    let lost = gateway.dropped(DropReason::QueueFull);
    assert!((1..FLOOD - 10_000).contains(&lost), "{lost}");
    gateway.report("globex", 2, "last");
    gateway.report("acme", FLOOD + 1, "x");
    let more = gateway.dropped(DropReason::QueueFull) - lost;
    assert!((1..4).contains(&more), "{more}");
    gateway.0.end(PATIENCE).await;
    let context = jetstream::new(nats.connect().await);
    let dead = context.get_stream("DEAD").await.unwrap();
    assert_eq!(letters_of(&dead, "globex").await, 2);
    let kept = letters_of(&dead, "acme").await as u64;
    assert_eq!(kept, FLOOD + 1 - gateway.counts().2);
    // Too late.
    gateway.report("acme", FLOOD + 2, "x");
    assert_eq!(gateway.dropped(DropReason::Shutdown), 1);
}

#[tokio::test]
async fn a_burst_of_large_ones_is_kept_and_most_of_it_cut() {
    const BURST: u64 = 1000;
    let nats = Nats::jetstream().await;
    let dead = make_dead(&nats, -1, -1).await;
    let gateway = Reporter::start(&nats).await;
    let large = "x".repeat(LARGE);
    for sequence in 1..=BURST {
        gateway.report("acme", sequence, &large);
    }
    gateway.0.end(PATIENCE).await;
    assert_eq!(gateway.counts(), (BURST, 0, 0));
    let mut whole = 0;
    for sequence in 1..=BURST {
        let subject = format!("dead.acme.{sequence}");
        let letter = dead.get_last_raw_message_by_subject(&subject).await;
        let letter = letter.unwrap();
        let said = letter.headers.get("Herald-Payload-Bytes");
        if letter.payload.len() == LARGE {
            assert!(said.is_none());
            whole += 1;
        } else {
            assert_eq!(letter.payload.len(), 1024);
            assert_eq!(said.unwrap().as_str(), LARGE.to_string());
        }
    }
    assert!((20..100).contains(&whole), "{whole}");
}

#[tokio::test]
async fn a_full_stream_costs_the_letter_and_says_so() {
    let nats = Nats::jetstream().await;
    make_dead(&nats, 1, -1).await;
    let gateway = Reporter::start(&nats).await;
    gateway.report("acme", 1, "x");
    gateway.done(1).await;
    gateway.report("globex", 2, "x");
    gateway.done(2).await;
    assert_eq!(gateway.counts(), (1, 0, 1));
    assert_eq!(gateway.dropped(DropReason::StreamFull), 1);
}

#[tokio::test]
async fn a_share_holds_for_messages_and_over_a_restart() {
    const MAX: u64 = 1000;
    let nats = Nats::jetstream().await;
    let dead = make_dead(&nats, MAX as i64, -1).await;
    let mut sequence = 0;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let gateway = Reporter::start(&nats).await;
        for _ in 0..500 {
            sequence += 1;
            gateway.report("acme", sequence, "x");
        }
        gateway.done(500).await;
        let dropped = gateway.dropped(DropReason::ShareUsedUp);
        assert_eq!(gateway.counts().2, dropped);
        kept.push(letters_of(&dead, "acme").await);
    }
    // The stream's own number counts, and what it held before the second one started. Letters in flight may
    // be missing in what the stream says.
    assert!((268..=284).contains(&kept[0]), "{kept:?}");
    assert_eq!(kept[0], kept[1]);
    let gateway = Reporter::start(&nats).await;
    gateway.report("globex", 1, "x");
    gateway.done(1).await;
    assert_eq!(gateway.counts(), (1, 0, 0));
}

#[tokio::test]
async fn many_workspaces_together_do_not_fill_the_stream() {
    let nats = Nats::jetstream().await;
    let mut dead = make_dead(&nats, -1, 16 * 1024 * 1024).await;
    let gateway = Reporter::start(&nats).await;
    let large = "x".repeat(LARGE);
    let mut reported = 0;
    for hostile in 0..20 {
        for sequence in 1..=200 {
            gateway.report(&format!("hostile-{hostile}"), sequence, &large);
        }
        reported += 200;
        gateway.done(reported).await;
    }
    let state = dead.info().await.unwrap().state.clone();
    assert!(state.bytes < 13 * 1024 * 1024, "{state:?}");
    assert_eq!(gateway.counts().2, 0, "each letter is kept, if cut short");
    gateway.report("globex", 1, &large);
    gateway.done(reported + 1).await;
    assert_eq!(letters_of(&dead, "globex").await, 1);
}

#[tokio::test]
async fn without_nats_the_end_is_still_in_time() {
    let nats = Nats::jetstream().await;
    let gateway = Reporter::start(&nats).await;
    drop(nats);
    for sequence in 1..=10 {
        gateway.report("acme", sequence, "x");
    }
    let start = Instant::now();
    gateway.end().await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(gateway.counts(), (0, 0, 10));
    assert_eq!(gateway.dropped(DropReason::Shutdown), 10);
}

#[tokio::test]
async fn letters_wait_while_nats_is_away() {
    let mut nats = Nats::jetstream().await;
    make_dead(&nats, -1, -1).await;
    let gateway = Reporter::start(&nats).await;
    gateway.report("acme", 1, "x");
    gateway.done(1).await;
    nats.stop().await;
    for sequence in 2..=500 {
        gateway.report("acme", sequence, "x");
    }
    nats.start_again().await;
    gateway.done(500).await;
    let (published, duplicate, dropped) = gateway.counts();
    // What was stored as NATS stopped is there when it is tried again.
    assert_eq!((published + duplicate, dropped), (500, 0));
}

#[tokio::test]
async fn ten_thousand_that_wait_are_sent_at_the_end() {
    let nats = Nats::jetstream().await;
    make_dead(&nats, -1, -1).await;
    let gateway = Reporter::start(&nats).await;
    for sequence in 1..=10_000 {
        gateway.report("acme", sequence, "{");
    }
    gateway.end().await;
    let counts = gateway.counts();
    assert_eq!(counts.0 + counts.2, 10_000);
    // At the usual pace there are 2,000.
    assert!(counts.0 > 2500, "{counts:?}");
}

/// Publishes bad events of `workspace` as fast as the stream takes them.
async fn publish(publisher: &Publisher, workspace: &str, count: usize, payload: &str) {
    for begun in (0..count).step_by(500) {
        let some = (begun..count.min(begun + 500)).map(|_| {
            let subject = format!("{workspace}.custom.x");
            async move {
                publisher
                    .raw(&subject, HeaderMap::new(), payload.to_owned())
                    .await
            }
        });
        join_all(some).await;
    }
}

/// Makes DEAD smaller, as an operator may.
async fn shrink_dead(publisher: &Publisher, max_bytes: i64) {
    let mut dead = publisher.context.get_stream("DEAD").await.unwrap();
    let mut config = dead.info().await.unwrap().config.clone();
    config.max_bytes = max_bytes;
    publisher.context.update_stream(&config).await.unwrap();
}

#[tokio::test]
async fn one_workspace_does_not_keep_anothers_letter_out() {
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let gateway = Gateway::on(&nats).await;
    shrink_dead(&publisher, 4 * 1024 * 1024).await;
    let _ann = Client::join(&gateway, "ann", "acme").await;
    let _bob = Client::join(&gateway, "bob", "globex").await;
    let letters = "herald_dead_letters_total";
    // Eight times as much as there is room for.
    publish(&publisher, "acme", 250, &"x".repeat(LARGE)).await;
    gateway.metric_becomes(letters, "outcome", 250.0).await;
    publish(&publisher, "globex", 1, "{").await;
    gateway.metric_becomes(letters, "outcome", 251.0).await;
    let dead = publisher.context.get_stream("DEAD").await.unwrap();
    assert_eq!(letters_of(&dead, "globex").await, 1);
    assert_eq!(letters_of(&dead, "acme").await, 250);

    // A letter that was cut short says so.
    let listed = herald(&nats, &[], &["dead-letters", "--workspace", "acme"]).await;
    let listed = listed.ok().stdout;
    let cut = format!("(cut short, the payload had {LARGE} bytes)");
    let count = listed.lines().filter(|line| line.ends_with(&cut)).count();
    assert!((200..250).contains(&count), "{count}");
}

#[tokio::test]
async fn what_a_share_does_not_keep_is_counted_and_logged() {
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let gateway = Gateway::on(&nats).await;
    shrink_dead(&publisher, 100_000).await;
    let _ann = Client::join(&gateway, "ann", "acme").await;
    publish(&publisher, "acme", 500, "{").await;
    let letters = "herald_dead_letters_total";
    gateway.metric_becomes(letters, "outcome", 500.0).await;
    let dropped = gateway.metric(letters, "reason=\"share_used_up\"").await;
    assert!(dropped > 100.0, "{dropped}");
    let said = eventually(PATIENCE, async || {
        let line = gateway.log_line("bad events were not stored as dead letters");
        line.is_some_and(|line| line.contains("share_used_up=") && line.contains("acme="))
    });
    assert!(said.await);
}

#[tokio::test]
async fn letters_that_wait_are_sent_before_the_gateway_ends() {
    const COUNT: usize = 2000;
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let mut gateway = Gateway::builder(&nats)
        .set("server.drain", "0s")
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    publish(&publisher, "acme", COUNT, "{").await;
    gateway.terminate();
    let (ended, closed) = tokio::join!(gateway.ended(), ann.closed());
    assert_eq!((ended, closed.0), (Some(0), 1012));
    let dead = publisher.context.get_stream("DEAD").await.unwrap();
    assert_eq!(letters_of(&dead, "acme").await, COUNT);
}

#[tokio::test]
async fn without_nats_the_letters_that_are_lost_at_the_end_are_told() {
    const COUNT: usize = 5000;
    let mut nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let mut gateway = Gateway::builder(&nats)
        .set("server.drain", "0s")
        .ready()
        .await;
    let ann = Client::join(&gateway, "ann", "acme").await;
    publish(&publisher, "acme", COUNT, "{").await;
    let bad = "herald_events_bad_total";
    gateway.metric_becomes(bad, "json", COUNT as f64).await;
    nats.pause().await;
    drop(ann);
    let start = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.ended().await, Some(0));
    // Five for the read of what was stored, two for the letters.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    let line = gateway.log_line("bad events were not stored as dead letters");
    let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert!(line["dropped"].as_u64().unwrap() > 500, "{line}");
    assert!(line["reasons"].as_str().unwrap().contains("shutdown="));
    assert!(line["workspaces"].as_str().unwrap().starts_with("acme="));
}
