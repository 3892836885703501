//! A room of so many sockets that several tasks write to them: each socket gets what it would in a small one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::heavy_turn;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::{CLOSE, FIN, RawSocket};

/// Enough for a large room.
const SOCKETS: usize = 300;
/// So many stay: a room of these is small.
const STAY: usize = 100;
/// Every seventh event is for these alone.
const NAMED: [&str; 2] = ["u50", "u51"];

async fn gateway(nats: &Nats) -> Gateway {
    // Its own log, at `trace`, would take longer than all the rest.
    let gateway = Gateway::builder(nats).set("log.level", "info");
    gateway.set("server.drain", "1s").ready().await
}

async fn publish(publisher: &Publisher, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut event = json!({ "title": number.to_string() });
        if number % 7 == 3 {
            event["recipients"] = json!(NAMED);
        }
        publisher.event("acme.custom.x", &event).await;
    }
}

fn is_for(user: &str, number: u64) -> bool {
    number % 7 != 3 || NAMED.contains(&user)
}

fn expected(user: &str, numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.filter(|number| is_for(user, *number)).collect()
}

/// What a socket got, until the event `last` or its close, and the close code.
async fn read(mut socket: RawSocket, last: u64) -> (Vec<u64>, Option<u16>) {
    let mut got = Vec::new();
    while got.last() != Some(&last) {
        let Some((first, payload)) = socket.next().await else {
            return (got, Some(1006));
        };
        if first == FIN | CLOSE {
            socket.answer(&payload).await;
            let code = payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code));
            return (got, Some(code));
        }
        let notification: Value = serde_json::from_slice(&payload).expect("JSON");
        let title = notification["title"].as_str().expect("a title");
        got.push(title.parse().expect("a number"));
    }
    (got, None)
}

async fn join(
    gateway: &Gateway,
    users: std::ops::Range<usize>,
    last: u64,
) -> Vec<(String, JoinHandle<(Vec<u64>, Option<u16>)>)> {
    let mut readers = Vec::new();
    for user in users {
        let user = format!("u{user}");
        let socket = RawSocket::join(gateway, &user, "acme").await;
        readers.push((user, tokio::spawn(read(socket, last))));
    }
    readers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_socket_gets_its_own_in_order_while_its_room_grows_and_shrinks() {
    const LAST: u64 = 800;
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    let gateway = gateway(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut standing = join(&gateway, 0..SOCKETS, LAST).await;
    let leaving = standing.split_off(STAY);
    let replaced: Vec<_> = standing.drain(..20).collect();
    let events = {
        let publisher = publisher.clone();
        tokio::spawn(async move { publish(&publisher, 0..LAST).await })
    };
    let mut joined = Vec::new();
    let mut next = SOCKETS;
    // Some come in place of others, and the room is small, then large again, several times.
    let mut leaving = Some(leaving);
    for newer in 0..4 {
        for (_, reader) in leaving.take().into_iter().flatten() {
            reader.abort();
        }
        joined.extend(join(&gateway, newer * 5..newer * 5 + 5, LAST).await);
        let passing = join(&gateway, next..next + SOCKETS / 2, LAST).await;
        next += SOCKETS / 2;
        if newer < 3 {
            leaving = Some(passing);
        } else {
            joined.extend(passing);
        }
    }
    events.await.expect("all are stored");
    publish(&publisher, LAST..LAST + 1).await;
    for (user, reader) in standing {
        let got = reader.await.expect("it reads");
        assert_eq!(got, (expected(&user, 0..LAST + 1), None), "{user}");
    }
    for (user, reader) in replaced {
        let (got, code) = reader.await.expect("it reads");
        assert_eq!(code, Some(4009), "{user}");
        let end = got.last().map_or(0, |last| last + 1);
        assert_eq!(got, expected(&user, 0..end), "{user}");
    }
    for (user, reader) in joined {
        let (got, code) = reader.await.expect("it reads");
        assert_eq!(code, None, "{user}");
        let begin = got.first().copied().expect("the last one at least");
        assert_eq!(got, expected(&user, begin..LAST + 1), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_goes_to_other_threads_and_back_between_two_events() {
    const MANY: usize = 150;
    const FEW: usize = 10;
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats).set("log.level", "info,herald::room::opening=debug");
    let gateway = gateway.ready().await;
    let publisher = Publisher::on(&nats).await;
    let stop = Arc::new(AtomicBool::new(false));
    let events = {
        let (publisher, stop) = (publisher.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut number = 0;
            // A room with much to do would stay where it is.
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                publish(&publisher, number..number + 1).await;
                number += 1;
            }
            let last = json!({ "title": u64::MAX.to_string() });
            publisher.event("acme.custom.x", &last).await;
            number
        })
    };
    let moved = async |to: &str| {
        // It stays on the workers for 10 to 20 s.
        let has_moved = eventually(Duration::from_secs(40), async || {
            let output = gateway.output();
            let mut moves = output
                .lines()
                .filter(|line| line.contains("room moved to other threads"));
            moves.any(|line| line.contains(to))
        });
        assert!(has_moved.await, "{to}");
    };
    let mut standing = join(&gateway, 0..MANY, u64::MAX).await;
    moved("Workers").await;
    for (_, reader) in standing.split_off(FEW) {
        reader.abort();
    }
    moved("Intake").await;
    stop.store(true, Ordering::Relaxed);
    let last = events.await.expect("all are stored");
    for (user, reader) in standing {
        let (mut got, code) = reader.await.expect("it reads");
        assert_eq!(code, None, "{user}");
        assert_eq!(got.pop(), Some(u64::MAX), "{user}");
        let begin = got.first().copied().expect("the first events");
        assert_eq!(got, expected(&user, begin..last), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_room_gets_all_that_was_stored_before_a_drain() {
    const EVENTS: u64 = 400;
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    let mut gateway = gateway(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut readers = JoinSet::new();
    for (user, reader) in join(&gateway, 0..SOCKETS, u64::MAX).await {
        readers.spawn(async move { (user, reader.await.expect("it reads")) });
    }
    publish(&publisher, 0..EVENTS).await;
    gateway.terminate();
    while let Some(read) = readers.join_next().await {
        let (user, got) = read.expect("it reads");
        assert_eq!(got, (expected(&user, 0..EVENTS), Some(1012)), "{user}");
    }
    assert_eq!(gateway.ended().await, Some(0));
}
