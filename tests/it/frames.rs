//! Frames that no library would send, by hand: each ends its own socket with the code of RFC 6455
//! section 7.4.1 and a reason, and no other socket notices. And unusual frames that are fine.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawSocket, TEXT, close_payload, frame, handshake,
    header, unmasked,
};

/// The contract's largest message.
const LARGEST: usize = 64 * 1024;

const PROTOCOL: (u16, &str) = (1002, "protocol error");
/// The library answers a close frame of the peer's by itself, in its own words.
const ANSWERED: (u16, &str) = (1002, "Protocol violation");
const NOT_TEXT: (u16, &str) = (1003, "binary messages are not supported");
const NOT_UTF8: (u16, &str) = (1007, "text message is not valid UTF-8");
const TOO_BIG: (u16, &str) = (1009, "message too big");

/// A case's name, what the client sends, and how its socket is closed.
type Case = (&'static str, Vec<u8>, (u16, &'static str));

fn binary_text_and_size() -> Vec<Case> {
    let large = vec![b'x'; LARGEST + 1];
    vec![
        ("binary", frame(FIN | BINARY, b"\0"), NOT_TEXT),
        ("empty binary", frame(FIN | BINARY, b""), NOT_TEXT),
        (
            "binary in fragments",
            [frame(BINARY, b"a"), frame(FIN | CONTINUATION, b"b")].concat(),
            NOT_TEXT,
        ),
        (
            "text that is not UTF-8",
            frame(FIN | TEXT, b"\xff"),
            NOT_UTF8,
        ),
        (
            "text that ends within a character",
            frame(FIN | TEXT, b"\xc3"),
            NOT_UTF8,
        ),
        (
            "a surrogate in text",
            frame(FIN | TEXT, b"\xed\xa0\x80"),
            NOT_UTF8,
        ),
        (
            "fragments that are not UTF-8 together",
            [
                frame(TEXT, b"\xce\xba\xe1"),
                frame(FIN | CONTINUATION, b"\xff"),
            ]
            .concat(),
            NOT_UTF8,
        ),
        (
            "fragments that end within a character",
            [frame(TEXT, b"ok"), frame(FIN | CONTINUATION, b"\xe1\xbd")].concat(),
            NOT_UTF8,
        ),
        (
            "a close reason that is not UTF-8",
            frame(FIN | CLOSE, &close_payload(1000, b"\xff")),
            NOT_UTF8,
        ),
        ("one byte too many", frame(FIN | TEXT, &large), TOO_BIG),
        (
            "one byte too many in two fragments",
            [
                frame(TEXT, &large[..LARGEST]),
                frame(FIN | CONTINUATION, b"x"),
            ]
            .concat(),
            TOO_BIG,
        ),
        (
            "too many bytes in fragments without an end",
            [
                frame(TEXT, b"x"),
                frame(CONTINUATION, &[b'x'; 999]).repeat(66),
            ]
            .concat(),
            TOO_BIG,
        ),
        // No more than the header with its mask comes, and nothing is reserved for the rest.
        (
            "a length of 2^62",
            [header(FIN | TEXT, 1 << 62, true), vec![0; 4]].concat(),
            TOO_BIG,
        ),
    ]
}

fn protocol_errors() -> Vec<Case> {
    let bytes = vec![
        ("unmasked text", unmasked(FIN | TEXT, b"x")),
        ("unmasked ping", unmasked(FIN | PING, b"x")),
        ("unmasked empty text", unmasked(FIN | TEXT, b"")),
        ("reserved bit 1", frame(FIN | 0x40 | TEXT, b"x")),
        ("reserved bit 2", frame(FIN | 0x20 | TEXT, b"x")),
        ("reserved bit 3", frame(FIN | 0x10 | PING, b"x")),
        ("reserved data opcode 3", frame(FIN | 0x3, b"x")),
        ("reserved data opcode 7", frame(FIN | 0x7, b"x")),
        ("reserved control opcode B", frame(FIN | 0xB, b"")),
        ("reserved control opcode F", frame(FIN | 0xF, b"x")),
        ("a ping in fragments", frame(PING, b"x")),
        (
            "a close in fragments",
            frame(CLOSE, &close_payload(1000, b"")),
        ),
        ("a ping of 126 bytes", frame(FIN | PING, &[b'x'; 126])),
        ("a pong of 126 bytes", frame(FIN | PONG, &[b'x'; 126])),
        (
            "a close of 126 bytes",
            frame(FIN | CLOSE, &close_payload(1000, &[b'x'; 124])),
        ),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"x")),
        (
            "a continuation of nothing, unfinished",
            frame(CONTINUATION, b"x"),
        ),
        (
            "a continuation after the end",
            [
                frame(TEXT, b"a"),
                frame(FIN | CONTINUATION, b"b"),
                frame(FIN | CONTINUATION, b"c"),
            ]
            .concat(),
        ),
        (
            "a new text within fragments",
            [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(),
        ),
        (
            "a new binary within fragments",
            [frame(TEXT, b"a"), frame(BINARY, b"b")].concat(),
        ),
        ("a close of one byte", frame(FIN | CLOSE, b"\x03")),
    ];
    bytes
        .into_iter()
        .map(|(name, bytes)| (name, bytes, PROTOCOL))
        .collect()
}

/// Close codes that no peer may send (RFC 6455 section 7.4).
fn forbidden_close_codes() -> Vec<Case> {
    [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]
        .into_iter()
        .map(|code| {
            (
                "a forbidden close code",
                frame(FIN | CLOSE, &close_payload(code, b"")),
                ANSWERED,
            )
        })
        .collect()
}

#[tokio::test]
async fn each_broken_frame_closes_its_socket_with_its_code_and_no_other() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut witness = Client::join(&gateway, "witness", "acme").await;
    let cases: Vec<Case> = [
        binary_text_and_size(),
        protocol_errors(),
        forbidden_close_codes(),
    ]
    .concat();
    let mut closed = std::collections::BTreeMap::new();
    for (index, (name, bytes, (code, reason))) in cases.iter().enumerate() {
        let mut socket = RawSocket::join(&gateway, &format!("user-{index}"), "acme").await;
        socket.send(bytes).await;
        assert_eq!(
            socket.closed().await,
            (*code, (*reason).to_owned()),
            "{name}"
        );
        *closed.entry(*code).or_insert(0.0) += 1.0;
        publisher
            .event("acme.custom.x", &json!({ "title": name }))
            .await;
        assert_eq!(witness.notification().await["title"], *name);
    }
    for (code, count) in closed {
        gateway
            .metric_becomes("herald_connections_closed_total", &code.to_string(), count)
            .await;
    }
    gateway.metric_becomes("herald_connections", "", 1.0).await;
}

#[tokio::test]
async fn unusual_frames_that_keep_to_the_protocol_are_fine() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let pong = |payload: &[u8]| Some((FIN | PONG, payload.to_vec()));

    let mut ann = RawSocket::join(&gateway, "ann", "acme").await;
    // The largest message, in one frame and in many.
    ann.send(&frame(FIN | TEXT, &vec![b'x'; LARGEST])).await;
    ann.send(&frame(TEXT, &[b'x'; 1024])).await;
    ann.send(&frame(CONTINUATION, &[b'x'; 1024]).repeat(62))
        .await;
    ann.send(&frame(FIN | CONTINUATION, &[b'x'; 1024])).await;
    // Texts that are no messages of Herald's.
    for text in ["", "not json", "[]", "null", "{\"type\":", "\u{1f980}"] {
        ann.send(&frame(FIN | TEXT, text.as_bytes())).await;
    }
    // A character split over fragments, with a ping, an empty fragment and a pong nobody asked for
    // between them.
    for bytes in [
        frame(TEXT, b"\xf0\x9f"),
        frame(FIN | PING, b"between"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"unasked"),
        frame(FIN | CONTINUATION, b"\xa6\x80"),
    ] {
        ann.send(&bytes).await;
    }
    assert_eq!(ann.next().await, pong(b"between"));
    // The largest ping, byte by byte.
    for byte in frame(FIN | PING, &[b'p'; 125]) {
        ann.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(ann.next().await, pong(&[b'p'; 125]));
    ann.send(&frame(FIN | PING, b"")).await;
    assert_eq!(ann.next().await, pong(b""));

    // Frames in the same write as the handshake, also more of them than a request's head may be long.
    let first = frame(FIN | PING, b"early");
    let mut bob = RawSocket::join_with(&gateway, "bob", "acme", &first).await;
    assert_eq!(bob.next().await, pong(b"early"));
    let first = [
        frame(FIN | TEXT, &vec![b'x'; LARGEST]),
        frame(FIN | PING, b"late"),
    ]
    .concat();
    let mut cyd = RawSocket::join_with(&gateway, "cyd", "acme", &first).await;
    assert_eq!(cyd.next().await, pong(b"late"));
    let split = first.len() / 2;
    let mut dan = RawSocket::join_with(&gateway, "dan", "acme", &first[..split]).await;
    dan.send(&first[split..]).await;
    assert_eq!(dan.next().await, pong(b"late"));

    // All of them still hear.
    publisher
        .event("acme.custom.x", &json!({ "title": "still here" }))
        .await;
    for socket in [&mut ann, &mut bob, &mut cyd, &mut dan] {
        let (first, payload) = socket.next().await.expect("a notification");
        assert_eq!(first, FIN | TEXT);
        let notification: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(notification["title"], "still here");
    }

    // A client's own close is answered with its code and reason.
    for (socket, code, reason) in [
        (&mut ann, 1000, "bye"),
        (&mut bob, 1001, ""),
        (&mut cyd, 4321, "an application's own"),
    ] {
        let payload = close_payload(code, reason.as_bytes());
        socket.send(&frame(FIN | CLOSE, &payload)).await;
        assert_eq!(socket.closed().await, (code, reason.to_owned()));
    }
    dan.send(&frame(FIN | CLOSE, b"")).await;
    assert_eq!(dan.closed().await, (1005, String::new()));
    for (label, count) in [("1000", 1.0), ("1001", 1.0), ("other", 1.0), ("1005", 1.0)] {
        gateway
            .metric_becomes("herald_connections_closed_total", label, count)
            .await;
    }
    gateway.metric_becomes("herald_connections", "", 0.0).await;
}

/// How long a connection lasts on which `head` is sent, and then a byte every second, without ever
/// finishing a request.
async fn unfinished(gateway: &Gateway, head: &str, dribble: bool) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(&gateway.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 512];
    loop {
        let step = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
        match step {
            Ok(Ok(0) | Err(_)) => return start.elapsed(),
            Ok(Ok(_)) => {}
            Err(_) if dribble => {
                // The connection may just have ended: the next read says so.
                let _ = stream.write_all(b"x").await;
            }
            Err(_) => {}
        }
        assert!(start.elapsed() < Duration::from_secs(25), "{head:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_and_texts_alone_keep_a_socket() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.inactivity", "3s")
        .ready()
        .await;
    let request = handshake("ann", "acme");
    let (head, _) = request.split_at(request.len() - 2);
    // Twice the limit, in steps well below it, of what is no message of Herald's.
    let chatty = async {
        let mut bob = RawSocket::join(&gateway, "bob", "acme").await;
        for text in ["not json", "", "[]", "{\"type\":", "null", "{}"] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bob.send(&frame(FIN | TEXT, text.as_bytes())).await;
        }
        let quiet = Instant::now();
        assert_eq!(bob.closed().await, (4008, "inactive".to_owned()));
        assert!(quiet.elapsed() > Duration::from_secs(2), "{quiet:?}");
    };
    let (silent, nothing, slow, ()) = tokio::join!(
        unfinished(&gateway, head, false),
        unfinished(&gateway, "", false),
        unfinished(&gateway, head, true),
        chatty,
    );
    for time in [silent, nothing, slow] {
        assert!(time > Duration::from_secs(9), "{time:?}");
        assert!(time < Duration::from_secs(20), "{time:?}");
    }
}
