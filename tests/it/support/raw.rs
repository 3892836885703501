//! A WebSocket client by hand: bytes on TCP after a handshake, for what no library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;
use super::gateway::Gateway;
use super::token::token;

/// The first byte of a frame: FIN, and the opcode (RFC 6455 section 5.2).
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// The key that frames are masked with; any would do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct RawSocket {
    stream: BufReader<TcpStream>,
}

/// A frame as a client must send it: masked. `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len(), true);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// A frame without a mask.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len(), false);
    bytes.extend(payload);
    bytes
}

/// The payload of a close frame.
pub(crate) fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A frame's first bytes, up to its length.
pub(crate) fn header(first: u8, length: usize, masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    if let Ok(short @ 0..126) = u8::try_from(length) {
        bytes.push(mask_bit | short);
    } else if let Ok(medium) = u16::try_from(length) {
        bytes.push(mask_bit | 126);
        bytes.extend(medium.to_be_bytes());
    } else {
        bytes.push(mask_bit | 127);
        bytes.extend((length as u64).to_be_bytes());
    }
    bytes
}

/// A handshake's request, whole.
pub(crate) fn handshake(user: &str, workspace: &str) -> String {
    handshake_with(&token(user, workspace), workspace)
}

/// The same with any token.
pub(crate) fn handshake_with(token: &str, workspace: &str) -> String {
    request(&format!("token={token}&workspaceSlug={workspace}"))
}

fn request(query: &str) -> String {
    format!(
        "GET /?{query} HTTP/1.1\r\nHost: x\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

impl RawSocket {
    /// Joins as `user`.
    pub(crate) async fn join(gateway: &Gateway, user: &str, workspace: &str) -> Self {
        Self::join_with(gateway, user, workspace, b"").await
    }

    /// Joins as `user`, with `more` in the same write as the request.
    pub(crate) async fn join_with(
        gateway: &Gateway,
        user: &str,
        workspace: &str,
        more: &[u8],
    ) -> Self {
        let request = [handshake(user, workspace).as_bytes(), more].concat();
        Self::upgraded(gateway, &request).await
    }

    /// Connects with a query as it is.
    pub(crate) async fn connect(gateway: &Gateway, query: &str) -> Self {
        Self::upgraded(gateway, request(query).as_bytes()).await
    }

    /// Sends a request that must be answered with a 101.
    async fn upgraded(gateway: &Gateway, request: &[u8]) -> Self {
        Self::over(TcpStream::connect(&gateway.address).await, request).await
    }

    /// The same over any way to the gateway.
    pub(crate) async fn over(connected: std::io::Result<TcpStream>, request: &[u8]) -> Self {
        let mut stream = connected.expect("a peer");
        stream.write_all(request).await.expect("it is sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, stream.read_u8()).await;
            head.push(byte.expect("an answer in time").expect("a whole answer"));
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self {
            stream: BufReader::with_capacity(64 * 1024, stream),
        }
    }

    /// The connection itself, behind the handshake.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("it is taken in time").expect("it is sent");
    }

    /// Sends bytes for as long as `time`. `false` once the connection has ended.
    pub(crate) async fn tries(&mut self, bytes: &[u8], time: Duration) -> bool {
        let sent = timeout(time, self.stream.write_all(bytes)).await;
        sent.expect("it is taken, or the connection ends").is_ok()
    }

    /// The next frame that is no ping: its first byte and its payload. `None` at the end of the
    /// connection.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (first, payload) = timeout(PATIENCE, self.read()).await.expect("in time")?;
            if first != FIN | PING {
                return Some((first, payload));
            }
        }
    }

    /// The next frame, a ping too.
    pub(crate) async fn any(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, self.read()).await.expect("in time")
    }

    /// The close code and reason that the gateway sends. It is answered, after which the gateway must
    /// end the connection.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let Some(payload) = self.close_frame().await else {
            return (1006, String::new());
        };
        self.answer(&payload).await;
        assert_eq!(self.next().await, None, "something after the close frame");
        match payload.split_at_checked(2) {
            Some((code, reason)) => (
                u16::from_be_bytes([code[0], code[1]]),
                String::from_utf8(reason.to_vec()).expect("a reason in UTF-8"),
            ),
            None => (1005, String::new()),
        }
    }

    /// The payload of the gateway's close frame, which is not answered; `None` if the connection ends
    /// without one.
    pub(crate) async fn close_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.next().await? {
                (first, payload) if first == FIN | CLOSE => return Some(payload),
                _ => {}
            }
        }
    }

    /// Sends a close frame, as the answer to one with this payload.
    pub(crate) async fn answer(&mut self, payload: &[u8]) {
        // Who sent a close frame before may have no connection any more.
        let _ = self.stream.write_all(&frame(FIN | CLOSE, payload)).await;
    }

    /// The end of the connection, if it comes within `time`: in good order, or with an error.
    pub(crate) async fn ended(&mut self, time: Duration) -> Option<std::io::Result<()>> {
        let mut byte = [0];
        let read = timeout(time, self.stream.read(&mut byte)).await.ok()?;
        Some(read.map(|read| assert_eq!(read, 0, "something after the close frame")))
    }

    /// A frame of the server's, which must not be masked.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => usize::from(self.stream.read_u16().await.ok()?),
            127 => usize::try_from(self.stream.read_u64().await.ok()?).expect("a length"),
            short @ 0..126 => usize::from(short),
            masked => panic!("a masked frame from the server: {masked}"),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }
}
