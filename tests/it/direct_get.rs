//! Verifies that a batched direct get gives every message once, in order, with the server's own
//! facts, and that each way it can fail is told apart.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context, stream};
use herald::config::NatsConfig;
use herald::event::StoredMessage;
use herald::nats::{Batch, BatchEnd, DirectGet, DirectGetError};

use crate::support::nats::{JETSTREAM, Nats};

const ALL: usize = usize::MAX >> 1;

/// EVENTS as the migrations make it, in what matters here.
async fn events(nats: &Nats) -> Context {
    let context = jetstream::new(nats.connect().await);
    let config = stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["ws.>".to_owned()],
        allow_direct: true,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    context
}

async fn publish(context: &Context, subject: &str, body: &str) -> u64 {
    let ack = context.publish(subject.to_owned(), body.to_owned().into());
    ack.await.unwrap().await.unwrap().sequence
}

async fn read(batch: &mut Batch) -> Vec<StoredMessage> {
    let mut all = Vec::new();
    while let Some(raw) = batch.next().await.unwrap() {
        all.push(raw);
    }
    all
}

fn sequences(raws: &[StoredMessage]) -> Vec<u64> {
    raws.iter().map(|raw| raw.sequence).collect()
}

#[tokio::test]
async fn a_batch_goes_on_where_the_one_before_ended() {
    let nats = Nats::jetstream().await;
    let context = events(&nats).await;
    for n in 0..10 {
        let workspace = if n % 2 == 0 { "acme" } else { "globex" };
        publish(&context, &format!("ws.{workspace}.custom.x"), "{}").await;
    }
    let get = DirectGet::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
    );

    let mut batch = get.next_by_subject(0, 3, ALL, "ws.acme.>").await.unwrap();
    assert_eq!(sequences(&read(&mut batch).await), [1, 3, 5]);
    assert_eq!((batch.end().pending, batch.end().not_found), (2, false));
    assert!(batch.next().await.unwrap().is_none());

    let mut batch = get.next_by_subject(6, 3, ALL, "ws.acme.>").await.unwrap();
    assert_eq!(sequences(&read(&mut batch).await), [7, 9]);
    assert_eq!(batch.end(), BatchEnd::default());

    let mut batch = get.next_by_subject(10, 3, ALL, "ws.acme.>").await.unwrap();
    assert!(read(&mut batch).await.is_empty());
    assert!(batch.end().not_found);

    // The byte limit ends an answer behind the message that reaches it.
    let mut batch = get.next_by_subject(1, 100, 1, "ws.acme.>").await.unwrap();
    assert_eq!(sequences(&read(&mut batch).await), [1]);
    assert_eq!(batch.end().pending, 4);
}

#[tokio::test]
async fn the_servers_facts_win_over_what_a_publisher_forges() {
    let nats = Nats::jetstream().await;
    let context = events(&nats).await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Nats-Subject", "ws.globex.custom.x"),
        ("Nats-Sequence", "99"),
        ("Nats-Time-Stamp", "1999-01-01T00:00:00Z"),
        ("Nats-Num-Pending", "77"),
        ("Nats-Last-Sequence", "98"),
        ("Nats-UpTo-Sequence", "98"),
        ("traceparent", "mine"),
    ] {
        headers.insert(name, value);
    }
    let ack = context.publish_with_headers("ws.acme.custom.x", headers, "{}".into());
    ack.await.unwrap().await.unwrap();
    let get = DirectGet::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
    );
    let mut batch = get.next_by_subject(1, 10, ALL, "ws.>").await.unwrap();
    let raws = read(&mut batch).await;
    assert_eq!(raws[0].subject.as_str(), "ws.acme.custom.x");
    assert_eq!(raws[0].sequence, 1);
    assert!(raws[0].time.timestamp() > 1_700_000_000);
    let kept = raws[0].headers.as_ref().unwrap();
    assert_eq!(kept.get("traceparent").unwrap().as_str(), "mine");
    assert_eq!(batch.end(), BatchEnd::default());
}

#[tokio::test]
async fn multi_last_gives_the_last_of_each_subject_and_how_far_it_looked() {
    let nats = Nats::jetstream().await;
    let context = events(&nats).await;
    for subject in ["ws.a.custom.x", "ws.b.custom.x", "ws.a.custom.x"] {
        publish(&context, subject, "{}").await;
    }
    publish(&context, "ws.a.custom.y", "{}").await;
    publish(&context, "ws.c.custom.x", "{}").await;
    let get = DirectGet::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
    );
    let subjects = ["ws.a.>".to_owned(), "ws.b.>".to_owned()];
    let (lasts, end) = get.multi_last(&subjects).await.unwrap();
    let got: Vec<_> = lasts
        .iter()
        .map(|last| (last.subject.as_str(), last.sequence))
        .collect();
    let want = [
        ("ws.b.custom.x", 2),
        ("ws.a.custom.x", 3),
        ("ws.a.custom.y", 4),
    ];
    assert_eq!(got, want);
    assert_eq!(end.up_to_sequence, Some(5));
    assert_eq!((end.pending, end.not_found), (0, false));

    let (lasts, end) = get.multi_last(&["ws.nobody.>".to_owned()]).await.unwrap();
    assert!(lasts.is_empty() && end.not_found && end.up_to_sequence.is_none());
}

#[tokio::test]
async fn reading_since_a_time_starts_with_the_first_message_of_that_time() {
    let nats = Nats::jetstream().await;
    let context = events(&nats).await;
    for _ in 0..3 {
        publish(&context, "ws.acme.custom.x", "{}").await;
    }
    let get = DirectGet::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
    );
    let mut batch = get.next_by_subject(1, 10, ALL, "ws.>").await.unwrap();
    let raws = read(&mut batch).await;
    let nanosecond = chrono::Duration::nanoseconds(1);
    for (time, want) in [
        (raws[0].time - chrono::Duration::hours(1), vec![1, 2, 3]),
        (raws[1].time, vec![2, 3]),
        (raws[1].time + nanosecond, vec![3]),
        (raws[2].time + nanosecond, vec![]),
        (raws[2].time + chrono::Duration::hours(1), vec![]),
    ] {
        let mut batch = get.next_since(time, 10, ALL, "ws.acme.>").await.unwrap();
        assert_eq!(sequences(&read(&mut batch).await), want, "{time}");
        assert_eq!(batch.end().not_found, want.is_empty());
    }
}

#[tokio::test]
async fn each_failure_is_told_apart() {
    let nats = Nats::jetstream().await;
    let context = events(&nats).await;
    let client = nats.connect().await;

    let mut batch = DirectGet::new(client.clone(), &NatsConfig::default().names(), "NOSUCH")
        .next_by_subject(1, 1, ALL, "ws.>")
        .await
        .unwrap();
    let error = batch.next().await.unwrap_err();
    assert!(matches!(error, DirectGetError::NoResponders), "{error:?}");

    let get = DirectGet::new(client.clone(), &NatsConfig::default().names(), "EVENTS");
    let mut acks = Vec::new();
    let error = get.multi_last(&[]).await.unwrap_err();
    assert!(matches!(error, DirectGetError::BadRequest(_)), "{error:?}");

    for n in 0..1025 {
        let ack = context.publish(format!("ws.acme.custom.x{n}"), "{}".into());
        acks.push(ack.await.unwrap());
    }
    for ack in acks {
        ack.await.unwrap();
    }
    let error = get.multi_last(&["ws.acme.>".to_owned()]).await.unwrap_err();
    assert!(matches!(error, DirectGetError::TooManyResults), "{error:?}");
}

#[tokio::test]
async fn a_denied_question_ends_with_a_timeout() {
    let only_x = "authorization { users: [\
        { user: u, password: p, permissions: { publish: \"x\" } } ] }";
    let nats = Nats::start(&format!("{JETSTREAM}{only_x}")).await;
    let client = nats.connect_as("u", "p", "_INBOX").await.unwrap();
    let get = DirectGet::new(client, &NatsConfig::default().names(), "EVENTS")
        .with_timeout(Duration::from_millis(300));
    let mut batch = get.next_by_subject(1, 1, ALL, "ws.>").await.unwrap();
    let error = batch.next().await.unwrap_err();
    assert!(matches!(error, DirectGetError::Timeout(_)), "{error:?}");
}
