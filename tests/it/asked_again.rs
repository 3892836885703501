//! Verifies that a read of a stream is sent again while nobody answers: what was asked during an election,
//! or was lost with a connection or a replica, does not wait for its time-out. While there is no connection
//! nothing is sent at all.
//!
//! The servers are real and without JetStream; the test answers in its place.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Subject, Subscriber};
use futures_util::StreamExt;
use herald::config::NatsConfig;
use herald::nats::{DirectGet, DirectGetError, Leader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::cable::Cable;
use crate::support::nats::Nats;
use crate::support::{PATIENCE, eventually};

const LEADER: &str = "$JS.API.STREAM.MSG.GET.EVENTS";
const DIRECT: &str = "$JS.API.DIRECT.GET.EVENTS";
/// A stored message, as the leader tells it.
const MESSAGE: &str = r#"{ "message": { "subject": "ws.acme.custom.x", "seq": 7,
    "time": "2026-01-02T03:04:05Z" } }"#;

/// The same message, as a replica tells it.
const STORED: [(&str, &str); 4] = [
    ("Nats-Subject", "ws.acme.custom.x"),
    ("Nats-Sequence", "7"),
    ("Nats-Time-Stamp", "2026-01-02T03:04:05Z"),
    ("Nats-Last-Sequence", "0"),
];

/// Subscribes, and waits until the server knows.
async fn subscribed(client: &Client, subject: &'static str) -> Subscriber {
    let subscriber = client.subscribe(subject).await.unwrap();
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    echo.next().await.expect("an echo");
    subscriber
}

/// Answers on `subject` from the `after`th question on, and returns where each was to be answered.
async fn answering(
    client: &Client,
    subject: &'static str,
    after: usize,
) -> JoinHandle<Vec<Subject>> {
    let mut asked = subscribed(client, subject).await;
    let client = client.clone();
    tokio::spawn(async move {
        let mut inboxes = Vec::new();
        while let Some(question) = asked.next().await {
            let inbox = question.reply.expect("a question");
            inboxes.push(inbox.clone());
            if inboxes.len() < after {
                continue;
            }
            answer(&client, inbox).await;
            break;
        }
        client.flush().await.unwrap();
        inboxes
    })
}

async fn answer(client: &Client, inbox: Subject) {
    let mut headers = HeaderMap::new();
    for (name, value) in STORED {
        headers.insert(name, value);
    }
    let answered = client.publish_with_headers(inbox, headers, MESSAGE.into());
    answered.await.unwrap();
}

/// Cuts the cable, and waits until its client has noticed.
async fn cut(cable: &Cable, client: &Client) {
    cable.cut();
    let is_cut = eventually(PATIENCE, async || {
        client.connection_state() != State::Connected
    });
    assert!(is_cut.await);
}

#[tokio::test]
async fn a_leaders_read_is_sent_again_until_somebody_leads() {
    let nats = Nats::start("").await;
    let client = nats.connect().await;
    let asked = answering(&client, LEADER, 3).await;
    let leader = Leader::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
        "ws.>",
    );
    let tail = leader.end().await.unwrap();
    assert_eq!(tail.position.sequence, 7);
    assert_eq!(asked.await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_leaders_read_is_sent_again_when_there_was_an_election() {
    let nats = Nats::start("").await;
    let client = nats.connect().await;
    let leader = Leader::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
        "ws.>",
    );
    let mut questions = subscribed(&client, LEADER).await;
    let elections = async {
        // More often than time alone would have it.
        for _ in 1..10 {
            questions.next().await.expect("a question");
            leader.elected();
        }
        let last = questions.next().await.expect("a question");
        answer(&client, last.reply.expect("a question")).await;
    };
    let asking = async { assert_eq!(leader.end().await.unwrap().position.sequence, 7) };
    tokio::join!(asking, elections);
}

#[tokio::test]
async fn a_leader_that_never_answers_is_an_error_and_one_that_is_not_there_is_another() {
    let nats = Nats::start("").await;
    let client = nats.connect().await;
    let leader = Leader::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
        "ws.>",
    );
    let error = leader.end().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream EVENTS cannot be read: no responders"
    );
    let asked = answering(&client, LEADER, usize::MAX).await;
    let error = leader.end().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream EVENTS cannot be read: no answer in time"
    );
    asked.abort();
}

#[tokio::test]
async fn a_direct_get_is_asked_again_elsewhere_until_its_answer_begins() {
    let nats = Nats::start("").await;
    let client = nats.connect().await;
    let asked = answering(&client, DIRECT, 2).await;
    let get = DirectGet::new(
        nats.connect().await,
        &NatsConfig::default().names(),
        "EVENTS",
    )
    .with_timeout(Duration::from_secs(2));
    let mut batch = get.next_by_subject(1, 10, 1024, "ws.>").await.unwrap();
    let message = batch.next().await.unwrap().expect("a message");
    assert_eq!(message.sequence, 7);
    let inboxes = asked.await.unwrap();
    // A late answer to the first would mix with the second.
    assert_ne!(inboxes[0], inboxes[1]);
    // What has begun is not begun anew: there is nobody to end it.
    let error = batch.next().await.unwrap_err();
    assert!(matches!(error, DirectGetError::Timeout(_)), "{error:?}");
}

#[tokio::test]
async fn a_direct_get_is_asked_again_at_once_when_its_connection_was_broken() {
    let nats = Nats::start("").await;
    let mut asked = subscribed(&nats.connect().await, DIRECT).await;
    let answering = nats.connect().await;
    let cable = Cable::to(nats.port()).await;
    let client = async_nats::connect(cable.url()).await.unwrap();
    // Left to time, the second question would come after 75 s.
    let get = DirectGet::new(client.clone(), &NatsConfig::default().names(), "EVENTS")
        .with_timeout(Duration::from_secs(600));
    let mut batch = get.next_by_subject(1, 10, 1024, "ws.>").await.unwrap();
    asked.next().await.expect("asked");
    let again = async {
        cut(&cable, &client).await;
        cable.mend();
        let again = timeout(PATIENCE, asked.next()).await.expect("in time");
        answer(&answering, again.expect("open").reply.expect("a question")).await;
        // The rest is lost with the connection, after the beginning of it has come.
        answering.flush().await.unwrap();
    };
    let (message, ()) = tokio::join!(batch.next(), again);
    assert_eq!(message.unwrap().expect("a message").sequence, 7);
    cut(&cable, &client).await;
    cable.mend();
    let rest = timeout(PATIENCE, batch.next()).await.expect("in time");
    assert!(matches!(rest, Err(DirectGetError::Incomplete)), "{rest:?}");
}

#[tokio::test]
async fn what_is_asked_without_a_connection_is_not_asked_when_there_is_one_again() {
    let nats = Nats::start("").await;
    let mut asked = subscribed(&nats.connect().await, "$JS.API.>").await;
    let cable = Cable::to(nats.port()).await;
    let client = async_nats::connect(cable.url()).await.unwrap();
    let leader = Leader::new(
        client.clone(),
        &NatsConfig::default().names(),
        "EVENTS",
        "ws.>",
    );
    let patience = Duration::from_millis(100);
    let get = DirectGet::new(client.clone(), &NatsConfig::default().names(), "EVENTS")
        .with_timeout(patience);
    let without_a_connection = async {
        // What is under way when the connection breaks is not sent again either.
        asked.next().await.expect("asked");
        cut(&cable, &client).await;
    };
    let (under_way, ()) = tokio::join!(leader.end(), without_a_connection);
    under_way.unwrap_err();
    leader.end().await.unwrap_err();
    let error = get.next_by_subject(1, 10, 1024, "ws.>").await.unwrap_err();
    assert!(matches!(error, DirectGetError::Timeout(_)), "{error:?}");
    cable.mend();
    // What waited in the client is with the server when this is, and this comes to us after it.
    let last = "$JS.API.STREAM.NAMES";
    client.publish(last, "".into()).await.unwrap();
    let first = timeout(PATIENCE, asked.next()).await.unwrap();
    assert_eq!(first.expect("open").subject.as_str(), last);
}
