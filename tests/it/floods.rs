//! Clients that send more than anybody has to say: of whatever kind it is, it ends their own socket with 4029,
//! and others are served while it lasts. And a socket that gets much is heard all the same.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::support::attempt::{attempt, local};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::{
    CLOSE, CONTINUATION, FIN, PING, PONG, RawSocket, TEXT, frame, handshake, header,
};
use crate::support::tls::{self, Certificates};
use crate::support::{PATIENCE, eventually, soon};

/// The contract's largest message.
const LARGEST: usize = 64 * 1024;

const MESSAGES: (u16, &str) = (4029, "too many messages");
const BYTES: (u16, &str) = (4029, "too many bytes");

/// What a client sends, and how its socket is closed.
fn floods() -> Vec<(&'static str, Vec<u8>, (u16, &'static str))> {
    let heartbeat = frame(FIN | TEXT, b"{\"type\":\"heartbeat\"}");
    let empty = frame(CONTINUATION, b"");
    let between = [
        frame(FIN | PING, b""),
        frame(CONTINUATION, b"x"),
        frame(FIN | PONG, b""),
    ];
    let message = [
        frame(TEXT, b"x"),
        frame(CONTINUATION, b""),
        frame(FIN | CONTINUATION, b"y"),
    ];
    vec![
        ("heartbeats", heartbeat.repeat(300), MESSAGES),
        ("empty texts", frame(FIN | TEXT, b"").repeat(300), MESSAGES),
        ("empty pongs", frame(FIN | PONG, b"").repeat(5000), MESSAGES),
        (
            "full pongs",
            frame(FIN | PONG, &[0; 125]).repeat(300),
            MESSAGES,
        ),
        ("empty pings", frame(FIN | PING, b"").repeat(300), MESSAGES),
        (
            "empty fragments without an end",
            [frame(TEXT, b"x"), empty.repeat(5000)].concat(),
            MESSAGES,
        ),
        (
            "fragments of one byte without an end",
            [frame(TEXT, b"x"), frame(CONTINUATION, b"x").repeat(300)].concat(),
            MESSAGES,
        ),
        (
            "control frames between fragments",
            [frame(TEXT, b"x"), between.concat().repeat(100)].concat(),
            MESSAGES,
        ),
        (
            "messages of fragments",
            message.concat().repeat(100),
            MESSAGES,
        ),
        (
            "the largest messages",
            frame(FIN | TEXT, &vec![b'x'; LARGEST]).repeat(6),
            BYTES,
        ),
        (
            "the largest messages in fragments",
            [
                frame(TEXT, &vec![b'x'; LARGEST / 2]),
                frame(FIN | CONTINUATION, &vec![b'x'; LARGEST / 2]),
            ]
            .concat()
            .repeat(6),
            BYTES,
        ),
    ]
}

#[tokio::test]
async fn a_flood_of_any_kind_closes_its_socket_with_4029_and_no_other() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut witness = Client::join(&gateway, "witness", "acme").await;
    let floods = floods();
    for (index, (name, bytes, (code, reason))) in floods.iter().enumerate() {
        // After the open, and as soon as the request.
        let mut late = RawSocket::join(&gateway, &format!("late-{index}"), "acme").await;
        late.send(bytes).await;
        let early = format!("early-{index}");
        let mut early = RawSocket::join_with(&gateway, &early, "acme", bytes).await;
        for socket in [&mut late, &mut early] {
            assert_eq!(
                socket.closed().await,
                (*code, (*reason).to_owned()),
                "{name}"
            );
        }
        publisher
            .event("acme.custom.x", &json!({ "title": name }))
            .await;
        assert_eq!(witness.notification().await["title"], *name);
    }
    let count = 2.0 * floods.len() as f64;
    gateway
        .metric_becomes("herald_connections_closed_total", "4029", count)
        .await;
}

#[tokio::test]
async fn what_a_client_may_send_at_once_is_no_flood() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let ping = frame(FIN | PING, b"still open?");
    let pong = Some((FIN | PONG, b"still open?".to_vec()));
    let fragments = |count: usize, size: usize| {
        [
            frame(TEXT, &vec![b'x'; size]),
            frame(CONTINUATION, &vec![b'x'; size]).repeat(count - 2),
            frame(FIN | CONTINUATION, &vec![b'x'; size]),
        ]
        .concat()
    };
    for (user, bytes) in [
        ("largest", frame(FIN | TEXT, &vec![b'x'; LARGEST]).repeat(3)),
        ("fragments", fragments(64, 1024)),
        ("small fragments", fragments(LARGEST / 16, 16)),
        ("smallest fragments", fragments(LARGEST / 8, 8)),
        ("bytes", fragments(60, 1)),
        ("pongs", frame(FIN | PONG, b"").repeat(150)),
    ] {
        let mut socket = RawSocket::join(&gateway, user, "acme").await;
        socket.send(&bytes).await;
        socket.send(&ping).await;
        assert_eq!(socket.next().await, pong, "{user}");
    }
    let mut chopped = RawSocket::join(&gateway, "chopped", "acme").await;
    for byte in frame(FIN | TEXT, &[b'x'; 3000]) {
        chopped.send(&[byte]).await;
    }
    chopped.send(&ping).await;
    assert_eq!(chopped.next().await, pong);
}

/// Clients that come again and again, and flood each time.
#[tokio::test]
async fn other_workspaces_are_served_while_floods_last() {
    const FLOODERS: usize = 8;
    const EVENTS: usize = 50;
    let nats = Nats::jetstream().await;
    let gateway = Arc::new(Gateway::on(&nats).await);
    let publisher = Publisher::on(&nats).await;
    let mut witness = Client::join(&gateway, "witness", "globex").await;
    let done = Arc::new(AtomicUsize::new(0));
    let flooders = (0..FLOODERS).map(|flooder| {
        let (gateway, done) = (Arc::clone(&gateway), Arc::clone(&done));
        tokio::spawn(async move {
            for (time, (_, bytes, _)) in floods().iter().cycle().enumerate() {
                let user = format!("u{flooder}-{time}");
                let mut socket = RawSocket::join(&gateway, &user, "acme").await;
                socket.tries(bytes, PATIENCE).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let flooders: Vec<_> = flooders.collect();
    // Until each of them has flooded some times, and for so many events at least.
    let mut number = 0;
    while number < EVENTS || done.load(Ordering::Relaxed) < 10 * FLOODERS {
        let event = json!({ "title": number.to_string() });
        publisher.event("globex.custom.x", &event).await;
        assert_eq!(witness.notification().await["title"], number.to_string());
        number += 1;
    }
    for flooder in flooders {
        assert!(!flooder.is_finished(), "a flooder was kept out");
        flooder.abort();
    }
}

/// What a client of wss sends beneath the frames: TLS records that carry next to nothing. Those of a kind that
/// carry nothing at all, one after the other, rustls refuses; but not in turns.
#[derive(Debug, Clone, Copy)]
enum Beneath {
    /// 32 new keys, and a byte of a message.
    Keys,
    /// A byte of a message in each record.
    Bytes,
}

impl Beneath {
    async fn send(self, stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
        if let Self::Keys = self {
            for _ in 0..32 {
                let refreshed = stream.get_mut().1.refresh_traffic_keys();
                refreshed.map_err(std::io::Error::other)?;
            }
        }
        stream.write_all(b"x").await?;
        stream.flush().await
    }
}

#[tokio::test]
async fn a_message_in_records_of_one_byte_is_no_flood() {
    const LENGTH: usize = 3_000;
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    let gateway = Gateway::builder(&nats).tls(&certificates).ready().await;
    let stream = tls::connect(&gateway.address, &certificates.authority()).await;
    let mut stream = stream.expect("a connection");
    let request = handshake("ann", "acme");
    let begun = [
        request.as_bytes(),
        &header(FIN | TEXT, LENGTH, true),
        &[0; 4],
    ]
    .concat();
    stream.write_all(&begun).await.expect("it is sent");
    for _ in 0..LENGTH {
        let sent = Beneath::Bytes.send(&mut stream).await;
        sent.expect("it is taken");
    }
    let ping = frame(FIN | PING, b"still open?");
    stream.write_all(&ping).await.expect("it is taken");
    let mut told = Vec::new();
    while !told.ends_with(b"still open?") {
        let read = soon(stream.read_buf(&mut told)).await;
        assert!(
            read.expect("more") > 0,
            "{}",
            String::from_utf8_lossy(&told)
        );
    }
}

#[tokio::test]
async fn a_flood_beneath_the_frames_of_wss_is_ended_with_4029_and_others_are_served() {
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    let gateway = Gateway::builder(&nats).tls(&certificates).ready().await;
    let publisher = Publisher::on(&nats).await;
    let mut witness = Client::join(&gateway, "witness", "globex").await;
    let authority = certificates.authority();
    for (kind, most) in [(Beneath::Keys, 2_000), (Beneath::Bytes, 50_000)] {
        let stream = tls::connect(&gateway.address, &authority).await;
        let mut stream = stream.expect("a connection");
        let request = handshake(&format!("{kind:?}"), "acme");
        // A message that is not too long, of which the mask is the beginning.
        let request = [request.as_bytes(), &header(TEXT, 60_000, true)].concat();
        stream.write_all(&request).await.expect("it is sent");
        let mut sent = 0;
        while sent < most {
            // Once it has been closed, nobody reads it.
            let sending = timeout(PATIENCE / 10, kind.send(&mut stream)).await;
            let Ok(Ok(())) = sending else { break };
            sent += 1;
        }
        let event = json!({ "title": format!("{kind:?}") });
        publisher.event("globex.custom.x", &event).await;
        assert_eq!(witness.notification().await["title"], format!("{kind:?}"));
        let mut told = Vec::new();
        let read = timeout(PATIENCE / 2, stream.read_to_end(&mut told)).await;
        assert!(read.is_ok(), "{kind:?}: it goes on after {sent}");
        let close = [&[FIN | CLOSE, 16][..], &4029u16.to_be_bytes()].concat();
        let is_told = told.windows(close.len()).any(|bytes| bytes == close);
        assert!(is_told, "{kind:?}: {}", String::from_utf8_lossy(&told));
    }
}

/// It used to be read only once nothing waited for it: then its pings, its fresh token and its close waited,
/// too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_whose_queue_is_never_empty_is_heard() {
    const EVENTS: usize = 40_000;
    const SIZE: usize = 1024;
    const TOTAL: usize = EVENTS * SIZE;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.queue_bytes", 8 * TOTAL)
        // The kernel takes so much at a time that writing seldom waits.
        .set("sockets.send_buffer", 0)
        .set("log.level", "info")
        .ready()
        .await;
    let joined = attempt(&gateway, "ann", local(1), &[]).await;
    assert_eq!(joined.status, 101);
    let publisher = nats.connect().await;
    let event = Bytes::from(json!({ "title": "t", "message": "x".repeat(SIZE) }).to_string());
    for _ in 0..EVENTS {
        let sent = publisher.publish("ws.acme.custom.x", event.clone()).await;
        sent.expect("it is sent");
    }
    let waits = eventually(PATIENCE, async || {
        gateway.metric("herald_queue_memory_bytes", "").await > TOTAL as f64 / 2.0
    });
    assert!(waits.await, "nothing waits for the socket");
    let stream = joined.stream.into_std().expect("it is ours");
    let reading = tokio::task::spawn_blocking(move || asking(stream, TOTAL / 16));
    for bytes in soon(reading).await.expect("it is answered") {
        assert!(bytes < TOTAL / 3, "{bytes} bytes of {TOTAL} came first");
    }
}

/// Reads as fast as it can, and asks again and again, each time after so many bytes: how many came before each
/// answer.
fn asking(mut stream: std::net::TcpStream, every: usize) -> Vec<usize> {
    stream.set_nonblocking(false).expect("it blocks");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is set");
    let mut buffer = vec![0; 1 << 20];
    let mut waiting = Vec::new();
    let (mut read, mut asked, mut answers) = (0, None, Vec::new());
    while answers.len() < 8 {
        let more = stream.read(&mut buffer).expect("more");
        assert!(more > 0, "the connection has ended");
        read += more;
        waiting.extend_from_slice(&buffer[..more]);
        let mut rest = waiting.as_slice();
        while let Some((first, after)) = split_frame(rest) {
            if first == FIN | PONG {
                answers.extend(asked.take().map(|asked| read - asked));
            }
            rest = after;
        }
        waiting = rest.to_vec();
        if asked.is_none() && read > every * (answers.len() + 1) {
            asked = Some(read);
            stream.write_all(&frame(FIN | PING, b"")).expect("sent");
        }
    }
    answers
}

/// The first byte of a frame of the server's, and what comes after it.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (header, payload) = match *bytes {
        [first, 126, high, low, ..] => ((first, 4), usize::from(u16::from_be_bytes([high, low]))),
        [first, short @ 0..126, ..] => ((first, 2), usize::from(short)),
        _ => return None,
    };
    let (first, length) = header;
    Some((first, bytes.get(length + payload..)?))
}
