//! An attempt at a WebSocket handshake from any address of this machine, and its HTTP answer.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;
use super::gateway::Gateway;
use super::raw::handshake;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// 0: the connection ended without an answer.
    pub(crate) status: u16,
    head: String,
    /// What came after the head, of a refusal.
    pub(crate) body: String,
    pub(crate) stream: TcpStream,
}

impl Attempt {
    /// A line of the answer's head.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(this, _)| this.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }

    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.header("retry-after")?.parse().ok()
    }

    /// A refusal that means "later": with a time and a sentence, and not upgraded.
    pub(crate) fn is_later(&self, status: u16, words: &str) -> bool {
        self.status == status
            && self.retry_after().is_some_and(|seconds| seconds > 0)
            && self.body.contains(words)
    }
}

/// A connection from `from`.
pub(crate) async fn connect(gateway: &Gateway, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("ours");
    let address = gateway.address.parse().expect("an address");
    let connecting = timeout(PATIENCE, socket.connect(address));
    connecting.await.expect("in time").expect("a peer")
}

/// Sends a request with more header lines, and reads the answer's head.
pub(crate) async fn send(
    mut stream: TcpStream,
    request: &str,
    headers: &[(&str, &str)],
) -> Attempt {
    let mut more = String::new();
    for (name, value) in headers {
        more.push_str(&format!("{name}: {value}\r\n"));
    }
    let request = request.replacen("Host: x\r\n", &format!("Host: x\r\n{more}"), 1);
    let mut text = String::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let mut byte = [0];
        while !text.ends_with("\r\n\r\n") {
            let read = timeout(PATIENCE, stream.read(&mut byte)).await;
            match read.expect("an answer in time") {
                Ok(1) => text.push(char::from(byte[0])),
                Ok(_) | Err(_) => break,
            }
        }
    }
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or(0);
    let mut attempt = Attempt {
        status,
        head: text,
        body: String::new(),
        stream,
    };
    let length = attempt.header("content-length");
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let read = attempt.stream.read_exact(&mut body).await;
    read.expect("the body");
    attempt.body = String::from_utf8(body).expect("UTF-8");
    attempt
}

/// Tries to join `acme` as `user` from `from`.
pub(crate) async fn attempt(
    gateway: &Gateway,
    user: &str,
    from: Ipv4Addr,
    headers: &[(&str, &str)],
) -> Attempt {
    let stream = connect(gateway, from).await;
    send(stream, &handshake(user, "acme"), headers).await
}

/// One of this machine's addresses: all of 127.0.0.0/8.
pub(crate) const fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}
