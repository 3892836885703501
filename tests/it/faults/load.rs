//! The events: each is published until it is acknowledged, under one id, straight to the cluster.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::sockets::{USERS_EACH, user_name, workspace_name};
use crate::support::nats::cluster::{Cluster, NODES};

/// Subjects of each workspace.
const NAMES: [&str; 12] = [
    "record.created",
    "record.updated",
    "record.deleted",
    "function.started",
    "function.completed",
    "function.failed",
    "system.a",
    "system.b",
    "custom.a",
    "custom.b",
    "custom.c",
    "custom.d",
];
/// Publishes that wait for an acknowledgement, at most: some ten seconds without a quorum.
const IN_FLIGHT: usize = 20_000;
/// Events are sent in this rhythm.
const TICK: Duration = Duration::from_millis(10);
/// After this a publish is tried again, under the same id.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// An event as its publisher knows it. Its number is its place in the list.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) workspace: usize,
    /// Users it is for; `None`: everyone.
    pub(super) recipients: Option<Vec<usize>>,
    /// When its first attempt began.
    pub(super) sent: Instant,
    pub(super) acknowledged: Option<Instant>,
}

/// All events published so far.
pub(super) type Events = Arc<Mutex<Vec<Published>>>;

/// Publishes `per_second` events until `over`, then waits until all are acknowledged.
pub(super) async fn publish(
    cluster: &Cluster,
    seed: u64,
    workspaces: usize,
    per_second: u32,
    events: &Events,
    over: &CancellationToken,
) {
    let mut clients = Vec::new();
    for node in 0..NODES {
        clients.push(cluster.client(node).await);
    }
    let mut rng = Rng::with_seed(seed);
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tick = interval(TICK);
    let start = Instant::now();
    let mut sent = 0u32;
    while !over.is_cancelled() {
        tick.tick().await;
        let due = start.elapsed().as_secs_f64() * f64::from(per_second);
        while f64::from(sent) < due {
            sent += 1;
            let permit = Arc::clone(&permits).acquire_owned().await.expect("open");
            let (subject, body, number) = next(&mut rng, workspaces, events);
            let client = clients[rng.usize(..NODES)].clone();
            let events = Arc::clone(events);
            tokio::spawn(async move {
                store(&client, &subject, &format!("{seed}-{number}"), &body).await;
                events.lock().expect("no one panics")[number].acknowledged = Some(Instant::now());
                drop(permit);
            });
        }
    }
    let all = u32::try_from(IN_FLIGHT).expect("it fits");
    let acknowledged = timeout(Duration::from_secs(60), permits.acquire_many(all)).await;
    let _all = acknowledged
        .expect("the cluster acknowledges all")
        .expect("open");
}

pub(super) fn next(rng: &mut Rng, workspaces: usize, events: &Events) -> (String, Value, usize) {
    let workspace = rng.usize(..workspaces);
    let name = NAMES[rng.usize(..NAMES.len())];
    let recipients =
        (rng.u8(..10) == 0).then(|| vec![rng.usize(..USERS_EACH), rng.usize(..USERS_EACH)]);
    let mut events = events.lock().expect("no one panics");
    let number = events.len();
    let mut body = json!({
        "title": number.to_string(),
        "message": "x".repeat(rng.usize(20..600)),
    });
    if let Some(recipients) = &recipients {
        body["recipients"] = recipients.iter().map(|user| user_name(*user)).collect();
    }
    events.push(Published {
        workspace,
        recipients,
        sent: Instant::now(),
        acknowledged: None,
    });
    (
        format!("ws.{}.{name}", workspace_name(workspace)),
        body,
        number,
    )
}

/// Publishes until an acknowledgement comes.
pub(super) async fn store(client: &Client, subject: &str, id: &str, body: &Value) {
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let asked =
            client.request_with_headers(subject.to_owned(), headers, body.to_string().into());
        if let Ok(Ok(answer)) = timeout(ACK_TIMEOUT, asked).await {
            // A refusal, such as for an id whose first attempt waits for a quorum, has `"seq": 0` too.
            let ack: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            if ack["error"].is_null() && ack["seq"].as_u64().is_some_and(|sequence| sequence > 0) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
