//! Events that come by HTTP: each goes with a key of its own to one gateway or another until it gets a 2xx. Afterwards
//! the stream has each key once, and what each 2xx said is true.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::auditor::Stored;
use super::load::{Events, next};
use super::world::World;
use crate::support::gateway::{Builder, file};
use crate::support::token::remember;

/// Of so many events one is sent twice at once.
const TWICE_EVERY: usize = 10;
/// Less than a gateway waits for JetStream: a retry may come while the first request is under way.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const BEFORE_RETRY: Duration = Duration::from_millis(50);
/// A key has its 2xx by then, faults or not. A retry after the stream's duplicate window would store it twice.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const STATIC: &str = "faults-Xq7Rk2Vt9Lm4Wd8Zs3Hn6Pb1Yc5";

/// An event and the answers to it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    number: usize,
    /// Its `Nats-Msg-Id`.
    id: String,
    body: String,
    requests: usize,
    answers: Vec<Answer>,
}

/// A 2xx.
#[derive(Debug, Clone, Copy)]
struct Answer {
    status: u16,
    sequence: u64,
    is_duplicate: bool,
}

/// Has the gateway take events by HTTP from [`publish`]. `folder` is there as long as the gateway.
pub(super) fn with_http(gateway: Builder, folder: &Path) -> Builder {
    let token = remember(STATIC.to_owned());
    let tokens = file(folder, "tokens", format!("faults {token} * *\n"));
    gateway
        .set("server.publish_listen", "127.0.0.1:0")
        .set("publish.tokens_file", tokens)
        // While there is no quorum, all requests wait.
        .set("publish.rate", 0)
        .set("publish.concurrency", 0)
}

/// Publishes `per_second` events until `over`, then waits until each has its 2xx.
pub(super) async fn publish(
    world: &World,
    (seed, workspaces, per_second): (u64, usize, u32),
    events: &Events,
    over: &CancellationToken,
) -> Vec<Sent> {
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT);
    let client = client.no_proxy().build().expect("a client");
    let gateways: Vec<String> = world
        .gateways
        .iter()
        .map(|gateway| format!("http://{}", gateway.publish))
        .collect();
    // Not what the others send.
    let mut rng = Rng::with_seed(!seed);
    let mut tick = interval(Duration::from_secs(1) / per_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    for turn in 0usize.. {
        tick.tick().await;
        if over.is_cancelled() {
            break;
        }
        let (subject, body, number) = next(&mut rng, workspaces, events);
        let mut parts = subject.splitn(3, '.').skip(1);
        let (workspace, event) = (parts.next().expect("one"), parts.next().expect("one"));
        let key = format!("{seed}-{number}");
        let sender = Sender {
            client: client.clone(),
            gateways: gateways.clone(),
            path: format!("/v1/workspaces/{workspace}/events/{event}"),
            id: format!("{workspace}:{key}"),
            key,
            number,
            body: body.to_string(),
            events: Events::clone(events),
        };
        let at_once = if turn % TWICE_EVERY == 0 { 2 } else { 1 };
        under_way.spawn(sender.send(at_once, rng.fork()));
    }
    under_way.join_all().await
}

/// The sender of one event.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    gateways: Vec<String>,
    path: String,
    id: String,
    key: String,
    number: usize,
    body: String,
    events: Events,
}

impl Sender {
    async fn send(self, at_once: usize, mut rng: Rng) -> Sent {
        let attempts = (0..at_once).map(|_| self.until_stored(rng.fork()));
        let answered = timeout(ANSWERED_WITHIN, futures_util::future::join_all(attempts)).await;
        let answered = answered.unwrap_or_else(|_| panic!("no 2xx for {}", self.id));
        Sent {
            number: self.number,
            id: self.id,
            body: self.body,
            requests: answered.iter().map(|(_, requests)| requests).sum(),
            answers: answered.iter().map(|(answer, _)| *answer).collect(),
        }
    }

    /// Sends the event to some gateway again and again until there is a 2xx: that, and the number of requests.
    async fn until_stored(&self, mut rng: Rng) -> (Answer, usize) {
        let mut requests = 0;
        loop {
            requests += 1;
            let gateway = &self.gateways[rng.usize(..self.gateways.len())];
            if let Some(answer) = self.request(gateway).await {
                return (answer, requests);
            }
            sleep(BEFORE_RETRY).await;
        }
    }

    /// `None`: send it again.
    async fn request(&self, gateway: &str) -> Option<Answer> {
        let request = self.client.post(format!("{gateway}{}", self.path));
        let request = request
            .bearer_auth(STATIC)
            .header("Idempotency-Key", &self.key)
            .body(self.body.clone());
        let response = request.send().await.ok()?;
        let status = response.status();
        let text = response.text().await.ok()?;
        assert!(
            !status.is_client_error(),
            "{} got {status}: {text}",
            self.id
        );
        if !status.is_success() {
            return None;
        }
        let mut events = self.events.lock().expect("no one panics");
        events[self.number]
            .acknowledged
            .get_or_insert_with(Instant::now);
        drop(events);
        let body: Value = serde_json::from_str(&text).expect("JSON");
        let window = body["deduplicationSeconds"].as_u64().expect("a number");
        assert!(
            Duration::from_secs(window) > ANSWERED_WITHIN + REQUEST_TIMEOUT,
            "a retry may come after the duplicate window: {body}"
        );
        Some(Answer {
            status: status.as_u16(),
            sequence: body["sequence"].as_u64().expect("a number"),
            is_duplicate: body["duplicate"].as_bool().expect("a boolean"),
        })
    }
}

/// What is wrong with what came by HTTP, a sentence for each. Pure.
pub(super) fn audit(sent: &[Sent], stored: &[Stored]) -> Vec<String> {
    let mut by_number: HashMap<usize, Vec<&Stored>> = HashMap::new();
    let mut ids: HashMap<&str, usize> = HashMap::new();
    for event in stored {
        by_number.entry(event.number).or_default().push(event);
        *ids.entry(&event.id).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for event in sent {
        let id = &event.id;
        let copies = by_number.get(&event.number).map_or(&[][..], Vec::as_slice);
        let of_id = ids.get(id.as_str()).copied().unwrap_or_default();
        let [copy] = copies else {
            wrong.push(format!("{id} is stored {} times", copies.len()));
            continue;
        };
        if of_id != 1 {
            wrong.push(format!("{of_id} events have the id {id}"));
        }
        if copy.payload != event.body {
            wrong.push(format!("{id} has the payload {:?}", copy.payload));
        }
        for answer in &event.answers {
            let is_first = answer.status == 201;
            if answer.sequence != copy.sequence
                || is_first == answer.is_duplicate
                || !is_first && answer.status != 200
            {
                wrong.push(format!("{id} is at {}, and got {answer:?}", copy.sequence));
            }
        }
        let first = event.answers.iter().filter(|answer| answer.status == 201);
        let first = first.count();
        // The first one's answer may have been lost where there was a retry.
        if first > 1 || first == 0 && event.requests == event.answers.len() {
            wrong.push(format!("{id} got {first} times 201"));
        }
    }
    wrong
}

/// A line of what was sent and answered.
pub(super) fn summary(sent: &[Sent]) -> String {
    let answers = || sent.iter().flat_map(|event| &event.answers);
    let requests: usize = sent.iter().map(|event| event.requests).sum();
    let first = answers().filter(|answer| answer.status == 201).count();
    let all = answers().count();
    let events = sent.len();
    format!(
        "by HTTP: {events} events, {requests} requests, {first} times 201, {} times 200, {} times no answer or 5xx",
        all - first,
        requests - all
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event that was sent twice, and what is stored of it.
    fn case() -> (Sent, Vec<Stored>) {
        let answer = |status| Answer {
            status,
            sequence: 7,
            is_duplicate: status == 200,
        };
        let sent = Sent {
            number: 3,
            id: "w1:1-3".to_owned(),
            body: "{}".to_owned(),
            requests: 2,
            answers: vec![answer(201), answer(200)],
        };
        let stored = Stored {
            number: 3,
            subject: "ws.w1.custom.a".to_owned(),
            sequence: 7,
            at: Instant::now(),
            id: "w1:1-3".to_owned(),
            payload: "{}".into(),
        };
        (sent, vec![stored])
    }

    #[test]
    fn each_kind_of_wrong_is_seen() {
        type Change = fn(&mut Sent, &mut Vec<Stored>);
        let changes: [(&str, Change); 10] = [
            ("stored 0 times", |_, stored| stored.clear()),
            ("stored 2 times", |_, stored| {
                stored.push(stored[0].clone());
            }),
            ("0 events have the id", |_, stored| stored[0].id.clear()),
            ("2 events have the id", |_, stored| {
                let mut other = stored[0].clone();
                other.number = 4;
                stored.push(other);
            }),
            ("has the payload", |_, stored| {
                stored[0].payload = "[]".into();
            }),
            ("is at 8, and got", |_, stored| stored[0].sequence = 8),
            ("is at 7, and got", |sent, _| {
                sent.answers[1].is_duplicate = false;
            }),
            ("is at 7, and got", |sent, _| sent.answers[1].status = 202),
            ("got 2 times 201", |sent, _| {
                sent.answers[1] = sent.answers[0];
            }),
            ("got 0 times 201", |sent, _| {
                sent.answers[0] = sent.answers[1];
            }),
        ];
        for (expected, change) in changes {
            let (mut sent, mut stored) = case();
            change(&mut sent, &mut stored);
            let wrong = audit(&[sent], &stored);
            assert!(
                wrong.iter().any(|text| text.contains(expected)),
                "{expected}: {wrong:?}"
            );
        }
        let (mut sent, stored) = case();
        assert_eq!(audit(&[sent.clone()], &stored), [""; 0]);
        // The 201 was lost, and the retries got 200.
        sent.answers[0] = sent.answers[1];
        sent.requests = 3;
        assert_eq!(audit(&[sent], &stored), [""; 0]);
    }
}
