//! The upgraded connection and its framing (RFC 6455): the one module that knows the WebSocket
//! library, which reads here and never writes. Room, session machine and pump see messages only.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use uuid::Uuid;

use super::Writer;
use super::allowance::{Allowance, Excess};
use super::close_frame_scanner::CloseFrameScanner;
use super::depth::Undelivered;
use super::frame::frame;
use super::metered::Metered;
use super::wire::Wire;
use super::writer::WriteTurn;
use crate::codes::{CloseReason, Unsent};
use crate::conn::{Conn, TooMuchOverhead};

/// The read buffer, allocated for each socket and kept while it is idle. Clients send heartbeats and
/// tokens; a longer message grows it for as long as it takes.
const READ_BUFFER: usize = 1024;
/// What the library may keep of its own answers, which go nowhere.
const WRITE_BUFFER_MAX: usize = 1024;
/// The first byte of control frames: FIN and the opcode.
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// How long a close frame may take to be written before the connection is reset.
const CLOSE_FRAME: Duration = Duration::from_secs(5);
/// The same behind what is the peer's: the kernel says that it can take more when a third of its buffer is free.
const CLOSE_FRAME_AWAITED: Duration = Duration::from_secs(10);
/// How long the peer may take for its own close frame.
const CLOSE_PEER: Duration = Duration::from_secs(5);
/// The same for one that may still have much to read before ours: a full `sockets.send_buffer` at 2 KiB a second.
const CLOSE_PEER_AWAITED: Duration = Duration::from_secs(30);
/// How long the peer may take to end the connection after both close frames. What it got of us is then no
/// more in danger, and the kernel does the rest.
const LINGER: Duration = Duration::from_secs(1);
/// What is taken of a peer behind our close frame as frames, in bytes: each costs work.
const FRAMES_AFTER_CLOSE: usize = 256 * 1024;
/// What is taken of it in all, unless it was closed for a flood. A message that was too big is still on its
/// way, and the close frame of a client that cannot write and read at once comes behind it.
const BYTES_AFTER_CLOSE: usize = 4 * 1024 * 1024;
/// A client's shortest frame.
const FRAME_BYTES: usize = 6;

/// A WebSocket connection of the server's side.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Boxed: the socket's future contains it several times.
    stream: WebSocketStream<Box<Metered>>,
    writer: Writer,
    /// Where the peer's next frame begins is not known any more.
    is_broken: bool,
    /// The peer sent more than it may.
    is_flooded: bool,
    /// What the peer's close frame said, which answers it (RFC 6455 5.5.1). Boxed, as the next.
    peer_close: Option<Box<[u8]>>,
    /// The payload of the ping that went out with our close frame. Boxed: every idle socket has the field.
    last_ping: Option<Box<Bytes>>,
}

/// What comes in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// With what its pong has to contain.
    Ping(Bytes),
    /// With the payload of the ping that it answers.
    Pong(Bytes),
    /// The peer's close frame; 1005 if it had no code.
    Closed(u16),
    /// The peer broke the protocol or a limit.
    Violation(CloseReason),
    /// The connection is gone.
    Gone,
}

impl Transport {
    /// Frames `conn`, of which `read` has been read already. What waits in `writer` may be written now.
    pub(crate) async fn new(
        conn: Conn,
        read: Bytes,
        max_message_bytes: usize,
        writer: Writer,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_MAX)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let wire = Wire::new(conn, writer.clone());
        let mut conn = Box::new(Metered::new(wire, Allowance::new(max_message_bytes)));
        // A copy: what was read stands in hyper's buffer of 8 KiB, which would live as long as the
        // socket. What is too much is not looked at: it may be thousands of frames.
        let read = if conn.count(&read) {
            read.to_vec()
        } else {
            Vec::new()
        };
        let stream =
            WebSocketStream::from_partially_read(conn, read, Role::Server, Some(config)).await;
        Self {
            stream,
            writer,
            is_broken: false,
            is_flooded: false,
            peer_close: None,
            last_ping: None,
        }
    }

    /// The next message.
    pub(crate) fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let incoming = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => Incoming::Binary,
            Some(Ok(Message::Ping(payload))) => Incoming::Ping(payload),
            Some(Ok(Message::Pong(payload))) => Incoming::Pong(payload),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.as_ref().map_or(1005, |frame| frame.code.into());
                let payload = frame.map(|frame| close_payload(code, &frame.reason));
                self.peer_close = payload.map(Vec::into_boxed_slice);
                Incoming::Closed(code)
            }
            Some(Err(error)) => broken(&error),
            None => Incoming::Gone,
        };
        if let Incoming::Violation(reason) = incoming {
            self.violated(reason);
        }
        Poll::Ready(incoming)
    }

    fn violated(&mut self, reason: CloseReason) {
        self.is_broken = true;
        self.is_flooded |= matches!(
            reason,
            CloseReason::TooManyMessages | CloseReason::TooManyBytes
        );
    }

    /// Answers a ping. Only the newest of those that wait is (RFC 6455 5.5.3).
    pub(crate) fn pong(&mut self, payload: &[u8]) {
        self.writer.pong(frame(PONG, payload));
    }

    /// Sends a ping with the next write. The pong brings `payload` back.
    pub(crate) fn ping(&mut self, payload: &[u8]) {
        self.writer.ping(frame(PING, payload));
    }

    /// Writes what there is. [`WriteTurn::Done`] once the kernel has all of it.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<WriteTurn, Gone>> {
        let wire = self.stream.get_mut().wire();
        wire.poll_write_out(cx).map_err(|_| Gone)
    }

    /// Writes a close frame behind what is begun; whether the kernel has all of it. To be followed
    /// by [`Transport::finish`] or [`Transport::give_up`].
    pub(crate) async fn close(&mut self, reason: CloseReason) -> bool {
        if reason == CloseReason::Replaced {
            // Who answers this has read the close frame behind it, too: its own is no page's end that
            // crossed ours.
            let payload = probe_payload();
            self.ping(&payload);
            self.last_ping = Some(Box::new(payload));
        }
        let why = match reason {
            CloseReason::TooSlow => Undelivered::Slow,
            _ => Undelivered::Closed,
        };
        let within = match reason.unsent() {
            Unsent::Awaited => CLOSE_FRAME_AWAITED,
            Unsent::Left | Unsent::Dropped => CLOSE_FRAME,
        };
        let payload = close_payload(reason.code(), reason.text());
        self.close_with(&payload, why, within).await
    }

    /// Answers the peer's close frame; whether the kernel has the answer and all before it.
    pub(crate) async fn answer_close(&mut self) -> bool {
        let payload = self.peer_close.take().unwrap_or_default();
        self.close_with(&payload, Undelivered::Closed, CLOSE_FRAME)
            .await
    }

    async fn close_with(&mut self, payload: &[u8], why: Undelivered, within: Duration) -> bool {
        self.writer.close(frame(CLOSE, payload), why);
        let written = async {
            while poll_fn(|cx| self.poll_write(cx)).await? == WriteTurn::More {
                consume_budget().await;
            }
            Ok::<_, Gone>(())
        };
        let is_written = matches!(timeout(within, written).await, Ok(Ok(())));
        self.writer.over(why);
        is_written
    }

    /// Ends the connection of a peer that has not taken our close frame, or has not answered it.
    pub(crate) async fn give_up(self, unsent: Unsent) {
        match unsent {
            Unsent::Dropped => self.reset(),
            Unsent::Left | Unsent::Awaited => {
                if let Err(error) = self.stream.get_ref().wire_ref().finish_on_drop() {
                    tracing::debug!(%error, "kernel goes on for as long as it likes");
                }
                self.end().await;
            }
        }
    }

    /// Ends the connection at once, with what the kernel has still to send dropped.
    pub(crate) fn reset(self) {
        if let Err(error) = self.stream.get_ref().wire_ref().reset_on_drop() {
            tracing::debug!(%error, "connection not reset");
        }
    }

    /// After our close frame: waits for the peer's, [`CLOSE_PEER`] at most. Only then may the connection
    /// end, by [`Transport::end_after`] (RFC 6455 5.5.1 and 7.1.1): a client that reads on takes our end of
    /// it, seen before its answer is out, for one without a closing handshake.
    pub(crate) async fn finish(&mut self, unsent: Unsent) -> CloseAnswer {
        let timeout_after = match unsent {
            Unsent::Awaited => CLOSE_PEER_AWAITED,
            Unsent::Left | Unsent::Dropped => CLOSE_PEER,
        };
        let answer = timeout(timeout_after, self.answer()).await;
        answer.unwrap_or(CloseAnswer::Silent)
    }

    /// Ends the connection as the peer's answer requires.
    pub(crate) async fn end_after(self, answer: CloseAnswer, unsent: Unsent) {
        match answer {
            CloseAnswer::Closed { .. } | CloseAnswer::Left => self.end().await,
            CloseAnswer::Silent if self.is_flooded => self.reset(),
            CloseAnswer::Silent => self.give_up(unsent).await,
        }
    }

    /// What the peer does about our close frame. Pending where it floods: it is not read any more.
    async fn answer(&mut self) -> CloseAnswer {
        let mut taken = 0;
        let mut has_read = false;
        while !self.is_broken && taken < FRAMES_AFTER_CLOSE {
            match self.stream.next().await {
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    return CloseAnswer::Closed { code, has_read };
                }
                Some(Ok(message)) => {
                    taken += message.len() + FRAME_BYTES;
                    if let (Message::Pong(payload), Some(ping)) = (message, &self.last_ping) {
                        has_read |= payload == **ping;
                    }
                }
                Some(Err(error)) => match broken(&error) {
                    Incoming::Violation(reason) => self.violated(reason),
                    _ => return CloseAnswer::Left,
                },
                None => return CloseAnswer::Left,
            }
            consume_budget().await;
        }
        let most = if self.is_flooded {
            FRAMES_AFTER_CLOSE
        } else {
            BYTES_AFTER_CLOSE
        };
        let mut scanner = CloseFrameScanner::default();
        let mut bytes = [0u8; 2048];
        while taken < most {
            let read = self.stream.get_mut().wire().read(&mut bytes).await;
            let Ok(read @ 1..) = read else {
                return CloseAnswer::Left;
            };
            if let Some(code) = bytes.get(..read).and_then(|read| scanner.take(read)) {
                return CloseAnswer::Closed { code, has_read };
            }
            taken += read;
        }
        std::future::pending().await
    }

    /// After both close frames: ends the connection, as the server does first, and reads until the peer
    /// does too, for [`LINGER`]. Closing with unread data would make the kernel send a reset, which can
    /// overtake the close frame.
    pub(crate) async fn end(mut self) {
        let conn = self.stream.get_mut().wire();
        let ending = async {
            conn.shutdown().await?;
            let mut sink = [0u8; 512];
            let mut taken = 0;
            while taken < FRAMES_AFTER_CLOSE {
                match conn.read(&mut sink).await? {
                    0 => break,
                    read => taken += read,
                }
            }
            io::Result::Ok(())
        };
        match timeout(LINGER, ending).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::debug!(%error, "peer did not close in good order"),
        }
    }
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// What the peer did about our close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseAnswer {
    /// It sent a close frame, too, with this code (1005: none). It may be one that crossed ours, unless it
    /// `has_read` the ping that went out with that.
    Closed { code: u16, has_read: bool },
    /// It ended the connection without one.
    Left,
    /// Neither in time: the connection is to be reset.
    Silent,
}

impl CloseAnswer {
    /// Whether the peer lived to read a close frame with `code`: its own is the answer to that. A page that
    /// goes away (1001) takes its socket along, whatever it has read.
    pub(crate) fn is_to(self, code: u16) -> bool {
        match self {
            Self::Closed { code: 1001, .. } => false,
            Self::Closed {
                code: answer,
                has_read,
            } => has_read || answer == code,
            Self::Left | Self::Silent => false,
        }
    }
}

/// The payload of a ping whose pong must be known from others: nobody can guess it.
pub(crate) fn probe_payload() -> Bytes {
    Bytes::copy_from_slice(Uuid::new_v4().as_bytes())
}

/// The connection cannot be written to any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

fn broken(error: &Error) -> Incoming {
    match error {
        Error::Capacity(_) => Incoming::Violation(CloseReason::MessageTooBig),
        Error::Utf8(_) => Incoming::Violation(CloseReason::Utf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Gone,
        Error::Protocol(_) => Incoming::Violation(CloseReason::Protocol),
        Error::Io(error) => match error.get_ref() {
            Some(error) if error.is::<TooMuchOverhead>() => {
                Incoming::Violation(CloseReason::TooManyBytes)
            }
            Some(error) => match error.downcast_ref() {
                Some(Excess::Frames) => Incoming::Violation(CloseReason::TooManyMessages),
                Some(Excess::Bytes) => Incoming::Violation(CloseReason::TooManyBytes),
                None => Incoming::Gone,
            },
            None => Incoming::Gone,
        },
        // Everything else is the connection's end, or an error of a client's side.
        _ => Incoming::Gone,
    }
}
