//! Overload that faults bring: how many connections there may be and how fast they may come, in all and
//! from one address, also behind proxies, or with a token that is expired; and how much may wait in
//! memory for all of them.
//!
//! Clients come from addresses of their own: all of 127.0.0.0/8 is this machine.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::attempt::{attempt, connect, local, send};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::{handshake, handshake_with};
use crate::support::token::expiring;
use crate::support::{PATIENCE, eventually, soon};

/// The refusals of [`Gateway::metric`].
const REFUSED: &str = "herald_connections_refused_total";

#[tokio::test]
async fn over_the_rate_in_all_a_connection_is_told_to_come_later() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.connect_rate", 3)
        .ready()
        .await;
    let began = Instant::now();
    let mut open = Vec::new();
    let mut refused = Vec::new();
    // Each from an address of its own: the rate is everybody's.
    for number in 0..40 {
        let attempt = attempt(&gateway, &format!("u{number}"), local(2 + number), &[]).await;
        match attempt.status {
            101 => open.push(attempt),
            _ => refused.push(attempt),
        }
    }
    let earned = began.elapsed().as_secs_f64() * 3.0 + 3.0;
    assert!(
        open.len() >= 3 && open.len() as f64 <= earned + 1.0,
        "{} open, {earned}",
        open.len()
    );
    assert!(!refused.is_empty());
    for attempt in &refused {
        assert!(
            attempt.is_later(429, "too many new connections"),
            "{attempt:?}"
        );
    }
    assert_eq!(
        gateway.metric(REFUSED, "\"rate\"").await,
        refused.len() as f64
    );
    // No token was looked at for those.
    assert_eq!(
        gateway.metric("herald_token_checks_total", "join").await,
        open.len() as f64
    );
    // And it is a rate: there is room again.
    let again = eventually(PATIENCE, async || {
        attempt(&gateway, "late", local(99), &[]).await.status == 101
    });
    assert!(again.await, "nobody gets in any more");
}

#[tokio::test]
async fn an_address_over_its_rate_is_refused_alone_and_before_its_token_is_looked_at() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.connect_rate_per_address", 2)
        .ready()
        .await;
    // Bad tokens: a flood of them costs no signature checks beyond the rate.
    let began = Instant::now();
    let bad = handshake("eve", "acme").replace("token=ey", "token=xx");
    let mut closed = 0;
    for _ in 0..40 {
        let attempt = send(connect(&gateway, local(2)).await, &bad, &[]).await;
        if attempt.status == 101 {
            closed += 1;
        } else {
            assert!(attempt.is_later(429, "from this address"), "{attempt:?}");
        }
    }
    let earned = began.elapsed().as_secs_f64() * 2.0 + 2.0;
    assert!(closed >= 2 && f64::from(closed) <= earned + 1.0, "{closed}");
    let checks = gateway.metric("herald_token_checks_total", "join").await;
    assert_eq!(checks, f64::from(closed));
    for number in 3..20 {
        let other = attempt(&gateway, &format!("u{number}"), local(number), &[]).await;
        assert_eq!(other.status, 101, "{other:?}");
    }
    assert_eq!(
        gateway.metric(REFUSED, "address_rate").await,
        f64::from(40 - closed)
    );
}

/// The contract's client takes each 4003 for a success, and would come once a second for ever.
#[tokio::test]
async fn the_fourth_try_of_an_expired_token_is_told_to_come_later_and_costs_no_check() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("server.trusted_proxies", "127.0.0.2")
        .ready()
        .await;
    let cached = handshake_with(&expiring("ann", "acme", -60), "acme");
    let attempt_of = async |request: &str, from: Ipv4Addr, headers: &[(&str, &str)]| {
        send(connect(&gateway, from).await, request, headers).await
    };
    // The address that counts is the client's, also behind a proxy.
    let proxied = [("X-Forwarded-For", "203.0.113.1")];
    for _ in 0..3 {
        assert_eq!(attempt_of(&cached, local(2), &proxied).await.status, 101);
    }
    for _ in 0..20 {
        let refused = attempt_of(&cached, local(2), &proxied).await;
        assert!(refused.is_later(429, "token is expired"), "{refused:?}");
        assert!(refused.retry_after() <= Some(30), "{refused:?}");
    }
    // Nobody else is concerned: another client with the same token, the same with another one, a good one.
    let others = [
        (&cached, "203.0.113.2", 101),
        (
            &handshake_with(&expiring("ann", "acme", -90), "acme"),
            "203.0.113.1",
            101,
        ),
        (&handshake("bob", "acme"), "203.0.113.1", 101),
        (&cached, "203.0.113.1", 429),
    ];
    for (request, client, status) in others {
        let headers = [("X-Forwarded-For", client)];
        let attempt = attempt_of(request, local(2), &headers).await;
        assert_eq!(attempt.status, status, "{client}");
    }
    gateway
        .metric_becomes("herald_connections_closed_total", "4003", 5.0)
        .await;
    let looked_at = gateway.metric("herald_token_checks_total", "expired").await;
    assert_eq!(looked_at, 5.0);
    assert_eq!(gateway.metric(REFUSED, "\"token_expired\"").await, 21.0);
    let mut fresh = Client::join(&gateway, "ann", "acme").await;
    assert!(fresh.is_open().await);
}

#[tokio::test]
async fn an_address_has_so_many_sockets_and_gets_them_back() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections_per_address", 2)
        .ready()
        .await;
    let ann = attempt(&gateway, "ann", local(2), &[]).await;
    let bob = attempt(&gateway, "bob", local(2), &[]).await;
    assert_eq!((ann.status, bob.status), (101, 101));
    let third = attempt(&gateway, "cat", local(2), &[]).await;
    assert!(
        third.is_later(429, "too many connections from this address"),
        "{third:?}"
    );
    // Its header is nobody's that is trusted.
    let spoofed = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("Forwarded", "for=198.51.100.1"),
    ];
    let third = attempt(&gateway, "cat", local(2), &spoofed[..1]).await;
    assert_eq!(third.status, 429);
    let third = attempt(&gateway, "cat", local(2), &spoofed[1..]).await;
    assert_eq!(third.status, 429);
    assert_eq!(gateway.metric(REFUSED, "address_connections").await, 3.0);
    let other = attempt(&gateway, "dan", local(3), &[]).await;
    assert_eq!(other.status, 101);
    // The contract's own refusals stay what they are: upgraded, and closed with their code.
    let bad = handshake("eve", "acme").replace("workspaceSlug=acme", "workspaceSlug=a.b");
    let bad = send(connect(&gateway, local(2)).await, &bad, &[]).await;
    assert_eq!(bad.status, 101);
    gateway
        .metric_becomes("herald_connections_closed_total", "4002", 1.0)
        .await;
    drop((ann, bad));
    let back = eventually(PATIENCE, async || {
        attempt(&gateway, "cat", local(2), &[]).await.status == 101
    });
    assert!(back.await, "the place is not given back");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_who_the_proxy_says() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("server.trusted_proxies", "127.0.0.2, 10.0.0.0/8")
        .set("sockets.max_connections_per_address", 1)
        .ready()
        .await;
    let mut open = BTreeMap::new();
    for (number, (name, value, expected)) in [
        ("X-Forwarded-For", "203.0.113.1", 101),
        ("X-Forwarded-For", "203.0.113.1:4711", 429),
        // What a client sent itself stands to the left.
        (
            "X-Forwarded-For",
            "198.51.100.1, 203.0.113.1, 10.0.0.7",
            429,
        ),
        ("X-Forwarded-For", "203.0.113.1, 203.0.113.2", 101),
        ("Forwarded", "for=203.0.113.2;proto=https", 429),
        ("Forwarded", "for=\"[2001:db8:0:1::1]:4711\"", 101),
        ("X-Forwarded-For", "2001:db8:0:1:ffff::2", 429),
        ("X-Forwarded-For", "2001:db8:0:2::1", 101),
        // Who is not known counts as the proxy.
        ("Forwarded", "for=unknown", 101),
        ("X-Forwarded-For", "203.0.113.77, nonsense", 429),
        ("Via", "1.1 proxy", 429),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("u{number}");
        let attempt = attempt(&gateway, &user, local(2), &[(name, value)]).await;
        assert_eq!(attempt.status, expected, "{name}: {value}");
        open.insert(number, attempt);
    }
    // Two headers that differ: one of them is the client's own.
    let both = [
        ("X-Forwarded-For", "203.0.113.80"),
        ("Forwarded", "for=203.0.113.81"),
    ];
    assert_eq!(attempt(&gateway, "x", local(2), &both).await.status, 429);
    // Somebody else who says that he is behind a proxy is not.
    let spoofed = [("X-Forwarded-For", "203.0.113.90")];
    let first = attempt(&gateway, "y", local(3), &spoofed).await;
    assert_eq!(first.status, 101);
    let spoofed = [("X-Forwarded-For", "203.0.113.91")];
    assert_eq!(attempt(&gateway, "z", local(3), &spoofed).await.status, 429);
}

#[tokio::test]
async fn one_address_holds_only_so_many_connections_that_say_nothing() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections_per_address", 3)
        .ready()
        .await;
    let mut silent = Vec::new();
    // As many as sockets, and 16 at least.
    for _ in 0..16 {
        let mut stream = connect(&gateway, local(2)).await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
        silent.push(stream);
    }
    let closed = eventually(PATIENCE, async || {
        let mut stream = connect(&gateway, local(2)).await;
        let mut byte = [0];
        let read = timeout(Duration::from_secs(1), stream.read(&mut byte)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    });
    assert!(closed.await, "one more is kept");
    assert_eq!(attempt(&gateway, "ann", local(3), &[]).await.status, 101);
    drop(silent);
    let back = eventually(PATIENCE, async || {
        attempt(&gateway, "bob", local(2), &[]).await.status == 101
    });
    assert!(back.await, "the places are not given back");
}

/// More at once than may join at a time, and none of them can: each is told to come later, and soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_that_cannot_join_is_told_to_come_later_and_leaves_nothing_behind() {
    let mut nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    nats.pause().await;
    let began = Instant::now();
    let users: Vec<String> = (0..400).map(|number| format!("u{number}")).collect();
    let all = users
        .iter()
        .map(|user| attempt(&gateway, user, local(2), &[]));
    for refused in join_all(all).await {
        assert!(refused.is_later(503, ""), "{refused:?}");
    }
    // A turn is 3 s away at most, and a join has 3 s.
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    nats.resume().await;
    let back = eventually(PATIENCE, async || {
        attempt(&gateway, "ann", local(2), &[]).await.status == 101
    });
    assert!(back.await, "nobody gets in any more");
}

/// More than the gateway has places for, from one machine: a slow loris.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_keep_nobody_out() {
    const SILENT: usize = 4500;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    let mut standing = Client::join(&gateway, "standing", "acme").await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let connecting = TcpStream::connect(&gateway.address);
        // The kernel's queue is full too once the gateway takes no more.
        let Ok(Ok(mut stream)) = timeout(Duration::from_secs(5), connecting).await else {
            break;
        };
        let _ = stream.write_all(b"GET /").await;
        silent.push(stream);
    }
    assert!(silent.len() > 4096, "{}", silent.len());
    let began = Instant::now();
    let ann = Client::join(&gateway, "ann", "acme").await;
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    assert!(gateway.metric(REFUSED, "silent").await > 0.0);
    // Those that are there have not noticed.
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "hello" }))
        .await;
    assert_eq!(standing.notification().await["title"], "hello");
    drop((ann, silent));
}

/// A client that reads nothing, with the smallest buffers there are.
async fn stopped(gateway: &Gateway, workspace: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small one");
    let address = gateway.address.parse().expect("an address");
    let stream = socket.connect(address).await.expect("a peer");
    let joined = send(stream, &handshake("stopped", workspace), &[]).await;
    assert_eq!(joined.status, 101);
    joined.stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_ceiling_of_memory_stopped_clients_are_closed_and_the_others_get_everything() {
    const WORKSPACES: usize = 8;
    const EVENTS: usize = 60;
    const CEILING: usize = 6 * 1024 * 1024;
    let nats = Nats::jetstream().await;
    // No queue comes near its own limit: 60 events of 32 KiB are less than 2 MiB of its 6. All together
    // want 16 MiB.
    let gateway = Gateway::builder(&nats)
        .set("sockets.queue_bytes", CEILING)
        .set("sockets.queue_bytes_total", CEILING)
        .set("log.level", "info")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut silent = Vec::new();
    let mut reading = Vec::new();
    let mut has_read = Vec::new();
    for number in 0..WORKSPACES {
        let workspace = format!("w{number}");
        silent.push(stopped(&gateway, &workspace).await);
        let mut client = Client::join(&gateway, "ann", &workspace).await;
        let read = Arc::new(AtomicUsize::new(0));
        has_read.push(Arc::clone(&read));
        reading.push(tokio::spawn(async move {
            let mut titles = Vec::new();
            while titles.len() < EVENTS {
                titles.push(client.notification().await["title"].clone());
                read.store(titles.len(), Ordering::Relaxed);
            }
            (client, titles)
        }));
    }
    let message = "x".repeat(32 * 1024);
    let mut highest: f64 = 0.0;
    for number in 0..EVENTS {
        // On a busy machine these would not keep up either.
        let keep_up = eventually(PATIENCE, async || {
            let mut all = has_read.iter();
            all.all(|read| read.load(Ordering::Relaxed) + 5 > number)
        });
        assert!(keep_up.await, "a client that reads gets nothing");
        for workspace in 0..WORKSPACES {
            let event = json!({ "title": number.to_string(), "message": message });
            publisher
                .event(&format!("w{workspace}.custom.x"), &event)
                .await;
        }
        highest = highest.max(gateway.metric("herald_queue_memory_bytes", "").await);
    }
    let expected: Vec<_> = (0..EVENTS)
        .map(|number| json!(number.to_string()))
        .collect();
    let mut healthy = Vec::new();
    for reader in reading {
        let (client, titles) = timeout(PATIENCE, reader).await.expect("soon").expect("all");
        assert_eq!(titles, expected);
        healthy.push(client);
    }
    let closed = gateway
        .metric("herald_connections_closed_total", "4010")
        .await;
    assert!(closed >= 1.0, "nobody was closed");
    assert!(
        highest > CEILING as f64 / 3.0 && highest <= CEILING as f64 * 1.1,
        "{highest}"
    );
    for client in &mut healthy {
        assert!(client.is_open().await);
    }
    // What the stopped ones held comes back when they are gone.
    drop(silent);
    gateway
        .metric_becomes("herald_queue_memory_bytes", "", 0.0)
        .await;
}

/// Requests that are no handshake have no other limit.
#[tokio::test]
async fn a_connection_of_the_public_listener_has_one_request() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    for path in ["/", "/?token=x", "/healthz", "/readyz", "/nothing"] {
        let mut stream = TcpStream::connect(&gateway.address)
            .await
            .expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(20);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answers = Vec::new();
        // It may end with a reset, since there is more to read.
        let _ = soon(stream.read_to_end(&mut answers)).await;
        let answers = String::from_utf8_lossy(&answers);
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{path}: {answers}");
        let is_endpoint = answers.starts_with("HTTP/1.1 426 ");
        let names_upgrade = answers.to_lowercase().contains("connection: upgrade");
        assert_eq!(is_endpoint, names_upgrade, "{path}: {answers}");
        assert_eq!(is_endpoint, path.starts_with("/?") || path == "/", "{path}");
    }
}
