//! A real HAProxy before Herald, with both versions of the PROXY header, plain and with TLS.
//!
//! It is looked for on `PATH`; where `HERALD_TEST_HAPROXY` is set, it must be there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::attempt::local;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::raw::handshake;
use crate::support::tls::{self, Certificates};
use crate::support::{PATIENCE, eventually, program};

fn is_there() -> bool {
    program(
        "haproxy",
        "HERALD_TEST_HAPROXY",
        "Debian: apt install haproxy",
    )
    .is_some()
}

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("an address").port()
}

/// What the guide says of HAProxy; its last line is the server's.
fn backend_of_the_guide() -> &'static str {
    let guide = include_str!("../../../docs/configuration.md");
    let (_, block) = guide
        .split_once("<!-- example: haproxy.cfg -->\n```\n")
        .expect("an example");
    let (block, _) = block.split_once("\n```").expect("its end");
    block
}

/// Two frontends, for version 1 and 2, each with a backend that looks whether the gateway is ready.
struct Haproxy {
    ports: [u16; 2],
    folder: tempfile::TempDir,
    _process: tokio::process::Child,
}

impl Haproxy {
    async fn before(gateway: &Gateway, check: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = [free_port(), free_port()];
        let stats = folder.path().join("stats");
        let to = &gateway.address;
        let mut config = format!(
            "global\n  stats socket {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\n  timeout check 5s\n",
            stats.display()
        );
        let backend = backend_of_the_guide();
        for (name, port, of_server) in [
            (
                "one",
                ports[0],
                backend.replace("send-proxy-v2", "send-proxy"),
            ),
            (
                "two",
                ports[1],
                backend.replace(
                    "send-proxy-v2",
                    "send-proxy-v2 proxy-v2-options crc32c,unique-id",
                ),
            ),
        ] {
            config.push_str(&format!(
                "frontend in_{name}\n  bind 127.0.0.1:{port}\n  default_backend {name}\n  \
                 unique-id-format %[uuid]\n{} inter 100ms fall 1 {check}\n  source 127.0.0.2\n",
                of_server
                    .replace("backend herald", &format!("backend {name}"))
                    .replace("10.0.0.11:8080", to)
            ));
        }
        let config = file(folder.path(), "haproxy.cfg", config);
        let process = tokio::process::Command::new("haproxy")
            .args(["-db", "-f", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let haproxy = Self {
            ports,
            folder,
            _process: process,
        };
        let healthy = eventually(PATIENCE, async || {
            haproxy.stats().await.matches("L7OK").count() == 2
        });
        assert!(healthy.await, "{}", haproxy.stats().await);
        haproxy
    }

    /// What it knows of its servers; nothing while it starts.
    async fn stats(&self) -> String {
        let mut text = String::new();
        if let Ok(mut stats) = UnixStream::connect(self.folder.path().join("stats")).await {
            let _ = stats.write_all(b"show stat\n").await;
            let _ = stats.read_to_string(&mut text).await;
        }
        text
    }
}

async fn connect(from: Ipv4Addr, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("ours");
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(to).await.expect("a peer")
}

/// The start of the answer to a handshake, and the connection.
async fn join(
    from: Ipv4Addr,
    port: u16,
    authority: Option<&Path>,
    user: &str,
) -> (String, Box<dyn Send>) {
    let request = handshake(user, "acme").replacen(
        "Host: x\r\n",
        "Host: x\r\nX-Forwarded-For: 198.51.100.1\r\n",
        1,
    );
    let mut head = [0; 12];
    let mut tcp = connect(from, port).await;
    let connection: Box<dyn Send> = match authority {
        None => {
            tcp.write_all(request.as_bytes()).await.expect("sent");
            tcp.read_exact(&mut head).await.expect("an answer");
            Box::new(tcp)
        }
        Some(authority) => {
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = TlsConnector::from(tls::client(authority));
            let mut tls = connector.connect(name, tcp).await.expect("TLS");
            tls.write_all(request.as_bytes()).await.expect("sent");
            tls.read_exact(&mut head).await.expect("an answer");
            Box::new(tls)
        }
    };
    (String::from_utf8_lossy(&head).into_owned(), connection)
}

#[tokio::test]
async fn behind_haproxy_each_client_has_its_own_address() {
    if !is_there() {
        return;
    }
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    for authority in [None, Some(certificates.authority())] {
        let mut builder = Gateway::builder(&nats)
            .set("server.trusted_proxies", "127.0.0.2")
            .set("server.proxy_protocol", true)
            .set("sockets.max_connections_per_address", 2);
        let mut check = "";
        if authority.is_some() {
            builder = builder.tls(&certificates);
            check = "check-ssl verify none";
        }
        let gateway = builder.ready().await;
        let haproxy = Haproxy::before(&gateway, check).await;
        let authority = authority.as_deref();
        let [one, two] = haproxy.ports;
        let mut open = Vec::new();
        // Two of each address, whichever way they come; the third is told to come later.
        for (from, port, status) in [
            (3, one, "101"),
            (3, two, "101"),
            (3, one, "429"),
            (3, two, "429"),
            (4, one, "101"),
            (5, two, "101"),
        ] {
            let user = format!("u{}", open.len());
            let (head, connection) = join(local(from), port, authority, &user).await;
            assert_eq!(head, format!("HTTP/1.1 {status}"), "127.0.0.{from}");
            open.push(connection);
        }
        gateway.prints("\"address\":\"127.0.0.3\"").await;
        let refused = gateway.metric("herald_connections_refused_total", "proxy_protocol");
        assert_eq!(refused.await, 0.0);
    }
}
