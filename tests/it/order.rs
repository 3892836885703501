//! Promise 2 through faults of the connection: exactly once and in stream order, also while
//! nats-server is restarted; and nobody waits for a client that has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, HERALD, signal};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::token;

const WORKSPACES: usize = 5;
const SOCKETS_EACH: usize = 10;
const PUBLISHERS: usize = 8;
const EVENTS: usize = 20_000;
const NAMES: [&str; 4] = ["custom.a", "custom.b", "record.created", "function.started"];

/// What one socket saw: (subject, number of the publisher's event, publisher).
type Seen = Vec<(String, u64)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_socket_gets_each_event_once_and_in_order_while_nats_restarts() {
    let mut nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut readers = Vec::new();
    for workspace in 0..WORKSPACES {
        for user in 0..SOCKETS_EACH {
            let workspace = format!("w{workspace}");
            let user = format!("u{user}");
            let client = Client::join(&gateway, &user, &workspace).await;
            readers.push(tokio::spawn(read(client, workspace, user)));
        }
    }
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let nats = Publisher::on(&nats).await;
        publishers.push(tokio::spawn(publish(nats, publisher)));
    }
    for stored in [EVENTS / 4, EVENTS / 2] {
        wait_until_stored(&nats, stored as u64).await;
        nats.restart().await;
    }
    for publisher in publishers {
        publisher.await.expect("it publishes all");
    }
    // One last event in each workspace says that all before it has been told.
    let nats_again = Publisher::on(&nats).await;
    for workspace in 0..WORKSPACES {
        nats_again
            .event(
                &format!("w{workspace}.system.end"),
                &json!({ "title": "end" }),
            )
            .await;
    }
    let expected = stored(&nats_again).await;
    for reader in readers {
        let (workspace, user, seen) = reader.await.expect("it reads to the end");
        let expected: Seen = expected
            .iter()
            .filter(|event| event.workspace == workspace && event.is_for(&user))
            .map(|event| (event.title.clone(), event.sequence))
            .collect();
        judge(&workspace, &user, &expected, &seen);
    }
    assert!(gateway.metric("herald_events_lost_total", "").await < 0.5);
    assert!(gateway.metric("herald_events_late_total", "").await < 0.5);
}

/// Exactly once and in stream order. The sequence is not in a notification; its title is unique.
fn judge(workspace: &str, user: &str, expected: &Seen, seen: &[String]) {
    let wanted: Vec<&String> = expected.iter().map(|(title, _)| title).collect();
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(
        unique.len(),
        seen.len(),
        "{user} in {workspace}: something came twice"
    );
    let missing: Vec<_> = wanted
        .iter()
        .filter(|title| !unique.contains(**title))
        .take(5)
        .collect();
    assert!(
        missing.is_empty(),
        "{user} in {workspace} misses {missing:?}"
    );
    let order = wanted
        .iter()
        .zip(seen)
        .position(|(wanted, seen)| *wanted != seen);
    assert_eq!(
        order, None,
        "{user} in {workspace}: another order or a foreign event"
    );
    assert_eq!(wanted.len(), seen.len());
}

async fn read(
    mut client: Client,
    workspace: String,
    user: String,
) -> (String, String, Vec<String>) {
    let mut seen = Vec::new();
    loop {
        let notification = client.notification().await;
        let title = notification["title"].as_str().expect("a title").to_owned();
        if notification["metadata"]["event"] == "system.end" {
            return (workspace, user, seen);
        }
        seen.push(title);
    }
}

/// Publishes this publisher's share, one after the other, each until it is stored.
async fn publish(nats: Publisher, publisher: usize) {
    for number in 0..EVENTS / PUBLISHERS {
        let workspace = number % WORKSPACES;
        let name = NAMES[(number / WORKSPACES + publisher) % NAMES.len()];
        let id = format!("{publisher}-{number}");
        let mut payload = json!({ "title": id });
        if number % 7 == 0 {
            payload["recipients"] = json!(["u0", "u3"]);
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.as_str());
        loop {
            let sent = nats
                .context
                .publish_with_headers(
                    format!("ws.w{workspace}.{name}"),
                    headers.clone(),
                    payload.to_string().into(),
                )
                .await;
            // While the server is away nothing is acknowledged; the id makes the retry harmless.
            let stored = match sent {
                Ok(acknowledged) => acknowledged.await.is_ok(),
                Err(_) => false,
            };
            if stored {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

struct Stored {
    workspace: String,
    title: String,
    sequence: u64,
    recipients: Option<Vec<String>>,
}

impl Stored {
    fn is_for(&self, user: &str) -> bool {
        self.recipients
            .as_ref()
            .is_none_or(|users| users.iter().any(|known| known == user))
    }
}

/// The stream as the server has it, without the ends.
async fn stored(nats: &Publisher) -> Vec<Stored> {
    use futures_util::StreamExt;
    let stream = nats.context.get_stream("EVENTS").await.expect("it exists");
    let consumer = stream
        .create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default())
        .await
        .expect("a consumer");
    let last = stream.get_info().await.expect("info").state.last_sequence;
    let mut messages = consumer.messages().await.expect("messages");
    let mut all = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message.expect("a message");
        let sequence = message.info().expect("info").stream_sequence;
        let payload: Value = serde_json::from_slice(&message.payload).expect("JSON");
        if !message.subject.ends_with("system.end") {
            all.push(Stored {
                workspace: message
                    .subject
                    .split('.')
                    .nth(1)
                    .expect("a workspace")
                    .to_owned(),
                title: payload["title"].as_str().expect("a title").to_owned(),
                sequence,
                recipients: payload["recipients"].as_array().map(|users| {
                    users
                        .iter()
                        .filter_map(|user| Some(user.as_str()?.to_owned()))
                        .collect()
                }),
            });
        }
        if sequence >= last {
            break;
        }
    }
    all
}

async fn wait_until_stored(nats: &Nats, count: u64) {
    let publisher = Publisher::on(nats).await;
    let reached = crate::support::eventually(crate::support::PATIENCE, async || {
        let stream = publisher.context.get_stream("EVENTS").await;
        match stream {
            Ok(stream) => stream.cached_info().state.last_sequence >= count,
            Err(_) => false,
        }
    });
    assert!(reached.await, "the publishers do not get on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_client_is_closed_with_4010_and_delays_nobody() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        // Whether a client of this busy process keeps up at each moment is not looked at.
        .set("sockets.queue_bytes", 4 * 1024 * 1024)
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut stopped = Listener::start(&gateway, "stopped").await;
    let mut others = BTreeMap::new();
    for user in ["ann", "bob"] {
        others.insert(user, Client::join(&gateway, user, "acme").await);
    }
    gateway.metric_becomes("herald_connections", "", 3.0).await;
    signal(stopped.child.id(), "-STOP");
    let message = "x".repeat(32 * 1024);
    let reading: Vec<_> = others
        .into_values()
        .map(|mut client| {
            tokio::spawn(async move {
                let got = client.notifications(300).await;
                let numbers: Vec<_> = got.iter().map(|one| one["title"].clone()).collect();
                (client, numbers)
            })
        })
        .collect();
    for number in 0..300 {
        publisher
            .event(
                "acme.custom.x",
                &json!({ "title": number.to_string(), "message": message }),
            )
            .await;
    }
    let expected: Vec<Value> = (0..300).map(|number| json!(number.to_string())).collect();
    for reader in reading {
        let (_client, numbers) = reader.await.expect("it reads all");
        assert_eq!(numbers, expected);
    }
    gateway
        .metric_becomes("herald_connections_closed_total", "4010", 1.0)
        .await;
    signal(stopped.child.id(), "-CONT");
    let said = stopped.says("4010", "1006").await;
    assert!(said, "the stopped client saw neither 4010 nor 1006");
}

/// `herald listen` as a process of its own, so that it can be stopped.
struct Listener {
    child: std::process::Child,
    log: tempfile::NamedTempFile,
}

impl Listener {
    async fn start(gateway: &Gateway, user: &str) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let child = Command::new(HERALD)
            .args([
                "listen",
                "--url",
                &format!("ws://{}/", gateway.address),
                "--workspace",
                "acme",
            ])
            .env("HERALD_TOKEN", token(user, "acme"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().expect("it is ours"))
            .spawn()
            .expect("herald listen starts");
        let listener = Self { child, log };
        gateway.metric_becomes("herald_connections", "", 1.0).await;
        listener
    }

    async fn says(&mut self, one: &str, other: &str) -> bool {
        crate::support::eventually(crate::support::PATIENCE, async || {
            let text = std::fs::read_to_string(self.log.path()).unwrap_or_default();
            text.contains(one) || text.contains(other)
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
