//! `server.proxy_protocol`: the client's address is what a trusted balancer says before all else, and who else says
//! something is not heard.
//!
//! 127.0.0.2 is the balancer; tests connect from other addresses of this machine as well.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::attempt::{Attempt, connect, local, send};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::raw::handshake;
use crate::support::soon;
use crate::support::tls::{self, Certificates};

const BALANCER: Ipv4Addr = local(2);
const REFUSED: &str = "herald_connections_refused_total";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn builder(nats: &Nats) -> Builder {
    Gateway::builder(nats)
        .set("server.trusted_proxies", "127.0.0.2, 10.0.0.0/8")
        .set("server.proxy_protocol", true)
        .set("sockets.max_connections_per_address", 1)
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 10.0.0.1 56324 443\r\n").into_bytes()
}

fn v2(version_command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
    let length = u16::try_from(variable.len()).unwrap().to_be_bytes();
    [
        SIGNATURE,
        &[version_command, family, length[0], length[1]],
        variable,
    ]
    .concat()
}

/// Version 2 with this client, and bytes of extensions.
fn v2_of(client: &str, more: usize) -> Vec<u8> {
    let client: Ipv4Addr = client.parse().unwrap();
    let addresses = [&client.octets()[..], &[10, 0, 0, 1, 0xdc, 4, 1, 0xbb]].concat();
    v2(0x21, 0x11, &[addresses, vec![0xee; more]].concat())
}

/// An attempt from `from` whose first bytes are `header`, in the same write as the request.
async fn with(
    gateway: &Gateway,
    from: Ipv4Addr,
    header: &[u8],
    user: &str,
    headers: &[(&str, &str)],
) -> Attempt {
    let mut stream = connect(gateway, from).await;
    // One that is closed at its first bytes need not take the rest.
    let _ = stream.write_all(header).await;
    send(stream, &handshake(user, "acme"), headers).await
}

#[tokio::test]
async fn a_balancer_must_send_a_header_and_nobody_else_may() {
    let nats = Nats::jetstream().await;
    let gateway = builder(&nats).ready().await;
    let mut six = vec![0x20; 36];
    six.extend([4, 0, 1, 0]);
    let long_line = [b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat();
    let cases = [
        (BALANCER, v1("203.0.113.1"), true),
        (BALANCER, v2_of("203.0.113.2", 0), true),
        (BALANCER, v2_of("203.0.113.3", 4000), true),
        (
            BALANCER,
            b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(),
            true,
        ),
        (BALANCER, v2(0x21, 0x21, &six), true),
        (BALANCER, b"PROXY UNKNOWN\r\n".to_vec(), true),
        (BALANCER, b"".to_vec(), false),
        (BALANCER, b"\r\n".to_vec(), false),
        (
            BALANCER,
            b"PROXY TCP4 203.0.113.4 10.0.0.1 1 2\n".to_vec(),
            false,
        ),
        (
            BALANCER,
            b"PROXY TCP4 203.0.113.4 10.0.0.1 1\r\n".to_vec(),
            false,
        ),
        (
            BALANCER,
            b"PROXY TCP4 example.com 10.0.0.1 1 2\r\n".to_vec(),
            false,
        ),
        (BALANCER, long_line, false),
        (BALANCER, v2(0x21, 0x11, &[0; 11]), false),
        (BALANCER, v2(0x11, 0x11, &[0; 12]), false),
        (BALANCER, v2(0x21, 0x11, &[0; 65_535]), false),
        // One header alone is one.
        (
            BALANCER,
            [v1("203.0.113.5"), v1("203.0.113.6")].concat(),
            false,
        ),
        (local(3), b"".to_vec(), true),
        (local(4), v1("203.0.113.7"), false),
        (local(4), v2_of("203.0.113.7", 0), false),
        (local(4), b"PROXY UNKNOWN\r\n".to_vec(), false),
        (local(4), v2(0x20, 0, &[]), false),
    ];
    let mut open = Vec::new();
    for (number, (from, header, is_served)) in cases.iter().enumerate() {
        let attempt = with(&gateway, *from, header, &format!("u{number}"), &[]).await;
        let header = String::from_utf8_lossy(header);
        if *is_served {
            assert_eq!(attempt.status, 101, "{header}: {attempt:?}");
            open.push(attempt);
        } else {
            assert_ne!(attempt.status, 101, "{header}: {attempt:?}");
        }
    }
    // All but the second header, which is a request that nobody understands.
    assert_eq!(gateway.metric(REFUSED, "proxy_protocol").await, 13.0);
    // The operator's own are told at once, with the reason.
    let line = gateway.logged("connection of a proxy refused").await;
    assert!(
        line.contains("it sent no PROXY header") && line.contains("127.0.0.2"),
        "{line}"
    );
}

#[tokio::test]
async fn its_address_is_the_clients_and_forwarded_counts_only_if_it_is_trusted() {
    let nats = Nats::jetstream().await;
    let gateway = builder(&nats).ready().await;
    let forwarded = |client| [("X-Forwarded-For", client)];
    let local_of = v2(0x20, 0, &[]);
    let unix = v2(0x21, 0x31, &[b'/'; 216]);
    // Of each pair the second is refused exactly if both count as one address.
    for (number, (one, headers, other, other_headers, is_one)) in [
        (v1("203.0.113.1"), "", v2_of("203.0.113.1", 3), "", true),
        (v1("203.0.113.2"), "", v1("203.0.113.3"), "", false),
        // What a client writes itself.
        (
            v1("203.0.113.4"),
            "1.1.1.1",
            v1("203.0.113.4"),
            "1.1.1.2",
            true,
        ),
        (
            v2_of("203.0.113.5", 0),
            "10.1.1.1",
            v2_of("203.0.113.6", 0),
            "10.1.1.1",
            false,
        ),
        // What a proxy of one's own writes that stands before the balancer.
        (v1("10.0.0.7"), "1.1.2.1", v1("10.0.0.7"), "1.1.2.2", false),
        (v1("10.0.0.7"), "1.1.3.1", v1("10.0.0.8"), "1.1.3.1", true),
        (
            b"PROXY TCP6 ::ffff:10.0.0.7 ::1 1 2\r\n".to_vec(),
            "1.1.4.1",
            v1("10.0.0.8"),
            "1.1.4.1",
            true,
        ),
        // Whom the balancer does not know it does not vouch for.
        (
            b"PROXY UNKNOWN\r\n".to_vec(),
            "1.1.5.1",
            b"PROXY UNKNOWN\r\n".to_vec(),
            "1.1.5.2",
            true,
        ),
        (unix.clone(), "1.1.6.1", unix, "1.1.6.2", true),
        // It speaks for itself.
        (local_of.clone(), "1.1.7.1", local_of, "1.1.7.2", false),
    ]
    .into_iter()
    .enumerate()
    {
        let user = |which: &str| format!("{which}{number}");
        let first = with(&gateway, BALANCER, &one, &user("a"), &forwarded(headers)).await;
        assert_eq!(first.status, 101, "{number}: {first:?}");
        let second = with(
            &gateway,
            BALANCER,
            &other,
            &user("b"),
            &forwarded(other_headers),
        )
        .await;
        let is_refused = second.is_later(429, "too many connections from this address");
        assert_eq!(is_refused, is_one, "{number}: {second:?}");
        assert!(is_refused || second.status == 101, "{number}: {second:?}");
        drop((first, second));
        gateway.metric_becomes("herald_connections", "", 0.0).await;
    }
    gateway.prints("\"address\":\"203.0.113.1\"").await;
}

/// Before there is a request, too: a flood through the balancer is its client's.
#[tokio::test]
async fn connections_that_ask_for_nothing_count_for_the_client_behind_the_balancer() {
    let nats = Nats::jetstream().await;
    let gateway = builder(&nats).ready().await;
    let mut silent = Vec::new();
    for number in 0..17 {
        let mut stream = connect(&gateway, BALANCER).await;
        let header = if number % 2 == 0 {
            v1("203.0.113.1")
        } else {
            v2_of("203.0.113.1", 9)
        };
        stream.write_all(&header).await.unwrap();
        silent.push(stream);
    }
    gateway
        .metric_becomes(REFUSED, "address_connections", 1.0)
        .await;
    let other = with(&gateway, BALANCER, &v1("203.0.113.2"), "ann", &[]).await;
    assert_eq!(other.status, 101);
    drop(silent);
    let again = crate::support::eventually(crate::support::PATIENCE, async || {
        with(&gateway, BALANCER, &v1("203.0.113.1"), "bob", &[])
            .await
            .status
            == 101
    });
    assert!(again.await, "its places are not given back");
}

#[tokio::test]
async fn a_header_may_come_in_any_pieces_but_not_for_ever() {
    let nats = Nats::jetstream().await;
    let gateway = builder(&nats).ready().await;
    for (from, header, is_served) in [
        (BALANCER, v1("203.0.113.1"), true),
        (BALANCER, v2_of("203.0.113.2", 5), true),
        (local(3), v1("203.0.113.3"), false),
        (local(3), v2_of("203.0.113.4", 5), false),
        (local(4), Vec::new(), true),
    ] {
        let mut stream = connect(&gateway, from).await;
        stream.set_nodelay(true).unwrap();
        let request = handshake(&format!("{from}{}", header.len()), "acme");
        let (first, rest) = request.split_at(20);
        for byte in [&header[..], first.as_bytes()].concat() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let attempt = send(stream, rest, &[]).await;
        assert_eq!(attempt.status == 101, is_served, "{attempt:?}");
    }
    // In no more time than a TLS handshake may take.
    let began = Instant::now();
    let mut slow = Vec::new();
    for (from, start) in [
        (BALANCER, &b""[..]),
        (BALANCER, b"PROXY TCP4 203"),
        (BALANCER, &SIGNATURE[..11]),
        (local(3), b"PROX"),
    ] {
        let mut stream = connect(&gateway, from).await;
        stream.write_all(start).await.unwrap();
        slow.push(stream);
    }
    for mut stream in slow {
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(5) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

#[tokio::test]
async fn the_header_stands_before_tls() {
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    let gateway = builder(&nats).tls(&certificates).ready().await;
    let attempt = async |from, header: &[u8], user: &str| {
        let mut stream = connect(&gateway, from).await;
        stream.write_all(header).await.ok()?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(tls::client(&certificates.authority()));
        let mut stream = connector.connect(name, stream).await.ok()?;
        stream
            .write_all(handshake(user, "acme").as_bytes())
            .await
            .ok()?;
        let mut head = vec![0; 12];
        stream.read_exact(&mut head).await.ok()?;
        Some((String::from_utf8(head).ok()?, stream))
    };
    let (open, full) = (Some("HTTP/1.1 101"), Some("HTTP/1.1 429"));
    let mut sockets = Vec::new();
    for (user, from, header, expected) in [
        ("a", BALANCER, v1("203.0.113.1"), open),
        ("b", BALANCER, v2_of("203.0.113.1", 40), full),
        ("c", BALANCER, v2_of("203.0.113.2", 40), open),
        ("d", BALANCER, Vec::new(), None),
        ("e", local(3), Vec::new(), open),
        ("f", local(4), v1("203.0.113.3"), None),
        ("g", local(4), v2_of("203.0.113.3", 0), None),
    ] {
        let attempt = attempt(from, &header, user).await;
        let head = attempt.as_ref().map(|(head, _)| head.as_str());
        assert_eq!(head, expected, "{user}");
        // The first has its place for as long as it is open.
        sockets.extend(attempt);
    }
}

#[tokio::test]
async fn without_the_setting_and_on_the_other_listener_there_is_no_header() {
    let nats = Nats::jetstream().await;
    let gateway = builder(&nats).ready().await;
    let ask = async |header: &[u8]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((BALANCER, 0))).unwrap();
        let admin = gateway.admin.parse().unwrap();
        let mut stream: TcpStream = socket.connect(admin).await.unwrap();
        stream.write_all(header).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(ask(b"").await.starts_with("HTTP/1.1 200"));
    assert!(!ask(&v1("203.0.113.1")).await.contains("HTTP/1.1 200"));
    let off = builder(&nats).unset("server.proxy_protocol").ready().await;
    assert_eq!(with(&off, BALANCER, b"", "ann", &[]).await.status, 101);
    for header in [v1("203.0.113.1"), v2_of("203.0.113.1", 0)] {
        assert_ne!(with(&off, BALANCER, &header, "bob", &[]).await.status, 101);
    }
}
