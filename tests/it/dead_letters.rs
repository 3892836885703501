//! Verifies that a bad event becomes one dead letter, whole and with its reason, and that reporting
//! one never waits for anything.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use herald::event::{BadEvent, Reason, StoredMessage, WorkspaceSlug};
use herald::ingest::DeadLetters;
use tokio_util::sync::CancellationToken;

use crate::support::nats::Nats;
use crate::support::{PATIENCE, eventually};

fn bad_message(sequence: u64, payload: &str) -> StoredMessage {
    StoredMessage {
        workspace: WorkspaceSlug::parse("acme").unwrap(),
        subject: "ws.acme.custom.x".into(),
        sequence,
        time: chrono::DateTime::UNIX_EPOCH,
        headers: None,
        payload: payload.to_owned().into(),
    }
}

fn reason() -> BadEvent {
    BadEvent::new(Reason::Json, "the payload is not JSON")
}

async fn make_dead(nats: &Nats, max_messages: i64) -> stream::Stream {
    jetstream::new(nats.connect().await)
        .create_stream(stream::Config {
            name: "DEAD".to_owned(),
            subjects: vec!["dead.>".to_owned()],
            max_messages,
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            ..Default::default()
        })
        .await
        .unwrap()
}

/// A gateway's reporter, and how to end it.
struct Reporter {
    letters: DeadLetters,
    shutdown: CancellationToken,
}

impl Reporter {
    async fn start(nats: &Nats) -> Self {
        let shutdown = CancellationToken::new();
        let letters = DeadLetters::start(nats.connect().await, shutdown.clone());
        Self { letters, shutdown }
    }

    /// Published, duplicate, dropped.
    fn counts(&self) -> (u64, u64, u64) {
        let counters = self.letters.counters();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        (
            load(&counters.published),
            load(&counters.duplicate),
            load(&counters.dropped),
        )
    }

    async fn end(&self) {
        self.shutdown.cancel();
        self.letters.ended().await;
    }
}

#[tokio::test]
async fn two_gateways_make_one_letter_of_one_bad_event() {
    let nats = Nats::jetstream().await;
    let dead = make_dead(&nats, -1).await;
    let payload = "x".repeat(100_000);
    let mut all = (0, 0, 0);
    for _ in 0..2 {
        let gateway = Reporter::start(&nats).await;
        gateway.letters.report(&bad_message(7, &payload), &reason());
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
}

#[tokio::test]
async fn a_flood_is_paced_and_counted_and_nobody_waits_for_it() {
    let nats = Nats::jetstream().await;
    let mut dead = make_dead(&nats, -1).await;
    let gateway = Reporter::start(&nats).await;
    let start = Instant::now();
    for sequence in 1..=5000 {
        gateway
            .letters
            .report(&bad_message(sequence, "x"), &reason());
    }
    // Paced at 1,000 a second, 5,000 letters would take five seconds.
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    gateway.end().await;
    let (published, duplicate, dropped) = gateway.counts();
    assert_eq!((published + dropped, duplicate), (5000, 0));
    assert!(dropped > 2000, "{dropped}");
    assert_eq!(dead.info().await.unwrap().state.messages, published);
    let at_least = Duration::from_millis(published.saturating_sub(1));
    assert!(
        start.elapsed() >= at_least,
        "{published} in {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_too() {
    let nats = Nats::jetstream().await;
    make_dead(&nats, -1).await;
    let gateway = Reporter::start(&nats).await;
    // On this one thread, nothing is taken out as long as nobody waits.
    let large = "x".repeat(128 * 1024);
    for sequence in 1..=100 {
        gateway
            .letters
            .report(&bad_message(sequence, &large), &reason());
    }
    assert_eq!(gateway.counts(), (0, 0, 36));
    gateway.end().await;
    assert_eq!(gateway.counts(), (64, 0, 36));
    gateway.letters.report(&bad_message(101, "late"), &reason());
    assert_eq!(gateway.counts(), (64, 0, 37));
}

#[tokio::test]
async fn a_full_stream_costs_a_few_tries_and_then_the_letter() {
    let nats = Nats::jetstream().await;
    make_dead(&nats, 1).await;
    let gateway = Reporter::start(&nats).await;
    gateway.letters.report(&bad_message(1, "x"), &reason());
    gateway.letters.report(&bad_message(2, "x"), &reason());
    let is_over = eventually(PATIENCE, async || gateway.counts() == (1, 0, 1)).await;
    assert!(is_over, "{:?}", gateway.counts());
}

#[tokio::test]
async fn without_nats_the_end_is_still_in_time() {
    let nats = Nats::jetstream().await;
    let gateway = Reporter::start(&nats).await;
    drop(nats);
    for sequence in 1..=10 {
        gateway
            .letters
            .report(&bad_message(sequence, "x"), &reason());
    }
    let start = Instant::now();
    gateway.end().await;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(gateway.counts(), (0, 0, 10));
}
