//! The end of a socket: the peer's close frame is waited for before the connection ends (RFC 6455 5.5.1
//! and 7.1.1), for a while, and without keeping more than a place.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::cable::{Cable, Condition};
use crate::support::client::Client;
use crate::support::clients::script::Script;
use crate::support::clients::{CLIENTS, node, python};
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::{
    BINARY, CLOSE, FIN, PONG, RawSocket, TEXT, close_payload, frame, handshake_with, header,
    unmasked,
};
use crate::support::stage::Stage;
use crate::support::token::{expiring, token};
use crate::support::{PATIENCE, eventually};

/// A peer may take 5 s for its close frame, and a busy machine a little more.
const LATEST: Duration = Duration::from_secs(10);
/// The end of a connection whose closing handshake is done comes within this, and a reset does not.
const SOON: Duration = Duration::from_secs(3);
/// What is not to come does not come in this time.
const A_WHILE: Duration = Duration::from_millis(400);
/// Attempts of each client.
const TIMES: usize = 20;

/// The gateway closes with `code`, waits for the answer, and then ends the connection in good order.
async fn waits_for_the_answer(socket: &mut RawSocket, code: u16) {
    let payload = socket.close_frame().await.expect("a close frame");
    assert_eq!(payload.get(..2), Some(&code.to_be_bytes()[..]));
    let early = socket.ended(A_WHILE).await;
    assert!(early.is_none(), "{code}: {early:?} before the answer");
    socket.answer(&payload).await;
    let end = socket.ended(SOON).await;
    assert!(matches!(end, Some(Ok(()))), "{code}: {end:?} after it");
}

#[tokio::test]
async fn a_refused_handshake_ends_after_the_peers_close_frame() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let good = token("ann", "acme");
    let expired = expiring("ann", "acme", -1);
    for (query, code) in [
        ("workspaceSlug=acme".to_owned(), 4001),
        (format!("token={good}"), 4002),
        (format!("token={expired}&workspaceSlug=acme"), 4003),
    ] {
        let mut socket = RawSocket::connect(&gateway, &query).await;
        waits_for_the_answer(&mut socket, code).await;
    }
}

#[tokio::test]
async fn a_socket_that_is_closed_ends_after_the_peers_close_frame() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.inactivity", "1s")
        .set("server.drain", "1s")
        .ready()
        .await;
    for (bytes, code) in [
        (unmasked(FIN | TEXT, b"x"), 1002),
        (frame(FIN | BINARY, b"x"), 1003),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | TEXT, &[b'x'; 70_000]), 1009),
        (
            [header(FIN | TEXT, 1 << 62, true), vec![0; 4]].concat(),
            1009,
        ),
        (frame(FIN | TEXT, b"{}").repeat(300), 4029),
        (Vec::new(), 4008),
    ] {
        let mut socket = RawSocket::join(&gateway, "ann", "acme").await;
        socket.send(&bytes).await;
        waits_for_the_answer(&mut socket, code).await;
    }
    let query = format!("token={}&workspaceSlug=acme", expiring("bob", "acme", 1));
    let mut bob = RawSocket::connect(&gateway, &query).await;
    waits_for_the_answer(&mut bob, 4003).await;
    let mut older = RawSocket::join(&gateway, "cyd", "acme").await;
    let mut newer = RawSocket::join(&gateway, "cyd", "acme").await;
    waits_for_the_answer(&mut older, 4009).await;
    gateway.terminate();
    waits_for_the_answer(&mut newer, 1012).await;
}

#[tokio::test]
async fn clients_that_read_on_are_told_the_code() {
    let stage = Stage::new().await;
    let nats = Nats::jetstream().await;
    let plain = Gateway::on(&nats).await;
    let authority = stage.certificates.authority();
    for (gateway, authority) in [(&plain, None), (&stage.gateway, Some(&authority))] {
        let url = format!("{}/?workspaceSlug=acme&token=garbage", gateway.url());
        for (mut command, script) in [(python(), "closing.py"), (node(), "closing.mjs")] {
            command
                .arg(Path::new(CLIENTS).join(script))
                .arg(TIMES.to_string())
                .arg(&url);
            if let Some(authority) = authority {
                command.env("NODE_EXTRA_CA_CERTS", authority).arg(authority);
            }
            let mut client = Script::start(command);
            assert!(client.ended().await, "{}", client.told());
            let told = client.count_where(|line| line["code"] == 4001);
            assert_eq!(told, TIMES, "{script} at {url}:\n{}", client.told());
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_first_is_answered_and_the_connection_ends_at_once() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = RawSocket::join(&gateway, "ann", "acme").await;
    let payload = close_payload(1000, b"bye");
    ann.send(&frame(FIN | CLOSE, &payload)).await;
    assert_eq!(ann.close_frame().await, Some(payload));
    assert!(matches!(ann.ended(SOON).await, Some(Ok(()))));
}

#[tokio::test]
async fn a_large_message_is_answered_with_1009_also_to_who_writes_before_it_reads() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = RawSocket::join(&gateway, "ann", "acme").await;
    ann.send(&frame(FIN | TEXT, &vec![b'x'; 3_000_000])).await;
    waits_for_the_answer(&mut ann, 1009).await;
}

#[tokio::test]
async fn who_never_answers_is_given_up_and_keeps_its_place_until_then() {
    const PLACES: usize = 50;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections", PLACES)
        .ready()
        .await;
    let mut silent = Vec::new();
    for number in 0..PLACES {
        let mut socket = RawSocket::join(&gateway, &format!("u{number}"), "acme").await;
        socket.send(&frame(FIN | BINARY, b"x")).await;
        silent.push(socket);
    }
    let began = Instant::now();
    for socket in &mut silent {
        let payload = socket.close_frame().await.expect("a close frame");
        assert_eq!(payload.get(..2), Some(&1003u16.to_be_bytes()[..]));
    }
    let query = format!("token={}&workspaceSlug=acme", token("ann", "acme"));
    let refused = Client::attempt(&gateway, &query).await.expect_err("full");
    assert_eq!(refused.status, 503);
    // Who answers makes room.
    let mut first = silent.swap_remove(0);
    first.answer(&close_payload(1003, b"")).await;
    assert!(matches!(first.ended(SOON).await, Some(Ok(()))));
    drop(first);
    let joined = eventually(PATIENCE, async || {
        Client::attempt(&gateway, &query).await.is_ok()
    });
    assert!(joined.await);
    for socket in &mut silent {
        let end = socket.ended(LATEST).await.expect("it is given up");
        assert!(end.is_err(), "it is reset");
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4), "{took:?}");
    assert!(took < LATEST, "{took:?}");
}

#[tokio::test]
async fn a_refused_handshake_keeps_its_place_until_it_is_answered() {
    // An address has 16 places for what is no socket yet, at least.
    const PLACES: usize = 16;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections_per_address", 1)
        .ready()
        .await;
    let mut refused = Vec::new();
    for _ in 0..PLACES {
        refused.push(RawSocket::connect(&gateway, "workspaceSlug=acme").await);
    }
    let (status, _) = gateway.get("/healthz").await;
    assert_eq!(status, 0, "there is another place");
    let mut first = refused.swap_remove(0);
    waits_for_the_answer(&mut first, 4001).await;
    let again = eventually(PATIENCE, async || gateway.get("/healthz").await.0 == 200);
    assert!(again.await);
}

#[tokio::test]
async fn who_floods_instead_of_answering_is_given_up() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut witness = Client::join(&gateway, "witness", "acme").await;
    for kind in [frame(FIN | PONG, b""), vec![0xff; 4096]] {
        let mut ann = RawSocket::join(&gateway, "ann", "acme").await;
        ann.send(&frame(FIN | BINARY, b"x")).await;
        let began = Instant::now();
        let flood = kind.repeat(1 + 65_536 / kind.len());
        while ann.tries(&flood, LATEST).await {
            assert!(began.elapsed() < LATEST, "the gateway goes on reading");
        }
        let took = began.elapsed();
        assert!(took > Duration::from_secs(4), "{took:?}");
        assert!(took < LATEST, "{took:?}");
    }
    let event = json!({ "title": "still here" });
    publisher.event("acme.custom.x", &event).await;
    assert_eq!(witness.notification().await["title"], "still here");
}

/// The peer's 5 s used to end in a reset, and with it what the kernel had still to send.
#[tokio::test]
async fn a_slow_client_gets_all_that_was_stored_before_a_token_ends_or_a_drain() {
    let nats = Nats::jetstream().await;
    // The end of a drain waits for nobody so slow; all of it has to be the kernel's by then.
    let drain = slow_end(&nats, 1012, 256 * 1024);
    let token = slow_end(&nats, 4003, 64 * 1024);
    tokio::join!(drain, token);
}

/// A client that reads slowly is closed with `code`, behind 100 KiB of events.
async fn slow_end(nats: &Nats, code: u16, send_buffer: usize) {
    const EVENTS: usize = 100;
    const BYTES_PER_SECOND: u32 = 8 * 1024;
    let workspace = format!("w{code}");
    let gateway = Gateway::builder(nats)
        .set("server.drain", "1s")
        .set("sockets.send_buffer", send_buffer)
        .ready()
        .await;
    let cable = Cable::to(gateway.port()).await;
    cable.set(Condition::Thin(BYTES_PER_SECOND));
    let lasts = if code == 4003 { 3 } else { 600 };
    let token = expiring("ann", &workspace, lasts);
    let connected = TcpStream::connect(cable.address()).await;
    let request = handshake_with(&token, &workspace);
    let mut ann = RawSocket::over(connected, request.as_bytes()).await;
    let publisher = Publisher::on(nats).await;
    let subject = format!("{workspace}.custom.x");
    for number in 0..EVENTS {
        let event = json!({ "title": number.to_string(), "message": "x".repeat(1024) });
        publisher.event(&subject, &event).await;
    }
    if code == 1012 {
        gateway.terminate();
    }
    let began = Instant::now();
    for number in 0..EVENTS {
        let (_, text) = ann.next().await.expect("an event");
        let notification: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(notification["title"], number.to_string(), "{code}");
        // What a client says meanwhile must not cost it the rest, while there is a gateway to hear it.
        if code == 4003 {
            ann.send(&frame(FIN | PONG, b"")).await;
        }
    }
    let payload = ann.close_frame().await.expect("a close frame");
    assert_eq!(payload.get(..2), Some(&code.to_be_bytes()[..]));
    let took = began.elapsed();
    assert!(took > LATEST, "it was not slow: {took:?}");
}
