//! One client: what it is there for, the upgrade, and what it sends.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame;
use crate::wire::{Address, Url, Wire};

/// The longest answer to an upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// All that comes.
    All,
    /// So many bytes a second.
    Slowly(u32),
    /// Nothing after the open.
    Nothing,
}

/// What a client does that is not to be measured itself.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub reads: Reads,
    /// Connects anew so long after its connection ended.
    pub back: Option<Duration>,
    /// Closes so long after its open.
    pub lives: Option<Duration>,
}

impl Manner {
    pub const STEADY: Self = Self {
        reads: Reads::All,
        back: None,
        lives: None,
    };
}

/// One client, and what it is there for.
#[derive(Clone)]
pub struct SocketPlan {
    pub address: Address,
    /// The head of the upgrade, which holds a token: no `Debug`.
    pub request: Vec<u8>,
    /// Text frames to send after the open.
    pub hello: Vec<String>,
    /// The server's question and the answer to it.
    pub pong: Option<Arc<(Vec<u8>, String)>>,
    pub room: u32,
    /// Whether what it gets is measured, or is there to be beside it.
    pub measured: bool,
    pub manner: Manner,
}

/// A client as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    /// Until the head of the answer is there.
    Upgrading,
    Open,
}

pub(crate) struct Slot {
    pub(crate) plan: SocketPlan,
    pub(crate) wire: Option<Wire>,
    pub(crate) phase: Phase,
    pub(crate) began: Instant,
    /// Which connection of this socket it is, so that a timer of an earlier one does nothing.
    pub(crate) turn: u32,
    /// What was read of a frame or head that is not all there.
    pub(crate) rest: Vec<u8>,
    /// A message in parts, as far as it came.
    pub(crate) parts: Option<Vec<u8>>,
    pub(crate) unsent: Vec<u8>,
    /// One bit for each event of the room.
    pub(crate) seen: Vec<u64>,
    pub(crate) newest: Option<u32>,
}

impl Slot {
    /// Not connected yet.
    pub(crate) fn new(plan: SocketPlan, at: Instant) -> Self {
        Self {
            plan,
            wire: None,
            phase: Phase::Idle,
            began: at,
            turn: 0,
            rest: Vec::new(),
            parts: None,
            unsent: Vec::new(),
            seen: Vec::new(),
            newest: None,
        }
    }

    /// Says goodbye, as far as the kernel takes it.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let bye = frame::masked(frame::CLOSE, &1000_u16.to_be_bytes(), [1, 2, 3, 4]);
        self.unsent.extend(bye);
        self.send()
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        while !self.unsent.is_empty() {
            match wire.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match wire.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// What is behind the head of the answer. `None`: the head is not all there.
    ///
    /// # Errors
    /// Why it is no upgrade.
    pub(crate) fn upgraded<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            _ => return Err("no HTTP answer".to_owned()),
        };
        if response.code != Some(101) {
            return Err(format!("HTTP {}", response.code.unwrap_or_default()));
        }
        let accepted = response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("sec-websocket-accept")
                && header.value == ACCEPT.as_bytes()
        });
        if !accepted {
            return Err("a wrong Sec-WebSocket-Accept".to_owned());
        }
        Ok(bytes.get(length..))
    }
}

/// Whether one line of a frame is the server's question.
pub(crate) fn asks(payload: &[u8], question: &[u8]) -> bool {
    memchr::memmem::find(payload, question).is_some()
        && payload
            .split(|byte| *byte == b'\n')
            .any(|line| line.trim_ascii() == question)
}

/// The example of RFC 6455 section 1.3, and the answer to it: a client that is no browser protects no cache.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of an upgrade at a ws: or wss: URL.
///
/// # Errors
/// A text without the URL, which may hold a token.
pub fn request_at(url: &str) -> Result<Vec<u8>, String> {
    let url = Url::parse(url).ok_or("the address is no ws:// or wss:// URL")?;
    Ok(request(url.authority, &url.path, None, &BTreeMap::new()))
}

/// The head of an upgrade. `path` begins with a slash.
pub(crate) fn request(
    authority: &str,
    path: &str,
    subprotocol: Option<&str>,
    headers: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        head.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_line_of_its_own() {
        for (payload, question, expected) in [
            ("PING\r\n", "PING", true),
            ("MSG a 1 4\r\nPING!\r\n", "PING", false),
            ("{}", "{}", true),
            ("{\"id\":1}\n{}", "{}", true),
            ("{\"id\":2,\"subscribe\":{}}", "{}", false),
        ] {
            let found = asks(payload.as_bytes(), question.as_bytes());
            assert_eq!(found, expected, "{payload:?}");
        }
    }
}
