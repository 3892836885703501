//! The upgraded connection and its framing (RFC 6455): the one module that knows the WebSocket
//! library. Room, session machine and pump see messages only.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::CloseReason;
use super::allowance::{Allowance, Excess};
use super::metered::Metered;
use crate::ops::Conn;

/// The read buffer, allocated for each socket and kept while it is idle. Clients send heartbeats and
/// tokens; a longer message grows it for as long as it takes.
const READ_BUFFER: usize = 1024;
/// Small notifications written together, at most.
const WRITE_BUFFER: usize = 16 * 1024;
/// The most that waits behind a blocked write: one batch, one notification, pongs.
const WRITE_BUFFER_MAX: usize = 256 * 1024;
/// How long a close frame may take to be written before the connection is reset.
const CLOSE_FRAME: Duration = Duration::from_secs(5);
/// How long the peer may take to end the connection after the close frame.
const CLOSE_PEER: Duration = Duration::from_secs(5);

/// A WebSocket connection of the server's side.
#[derive(Debug)]
pub(super) struct Transport {
    /// Boxed: the socket's future holds it several times.
    stream: WebSocketStream<Box<Metered>>,
    unflushed: bool,
}

/// What comes in.
#[derive(Debug)]
pub(super) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    Ping,
    Pong,
    /// The peer's close frame; 1005 if it had no code.
    Closed(u16),
    /// The peer broke the protocol or a limit.
    Violation(CloseReason),
    /// The connection is gone.
    Gone,
}

impl Transport {
    /// Frames `conn`, of which `read` has been read already.
    pub(super) async fn new(conn: Conn, read: Bytes, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER_MAX)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let mut conn = Box::new(Metered::new(conn, Allowance::new(max_message_bytes)));
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
            unflushed: false,
        }
    }

    /// The next message. The library answers pings by itself, with the next read or flush.
    pub(super) fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let incoming = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => Incoming::Binary,
            Some(Ok(Message::Ping(_))) => Incoming::Ping,
            Some(Ok(Message::Pong(_))) => Incoming::Pong,
            Some(Ok(Message::Close(frame))) => {
                Incoming::Closed(frame.map_or(1005, |frame| frame.code.into()))
            }
            Some(Err(error)) => broken(&error),
            None => Incoming::Gone,
        };
        Poll::Ready(incoming)
    }

    /// Ready once a text can be taken, which is when no earlier write is blocked.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.stream).poll_ready(cx).map_err(|_| Gone)
    }

    /// Takes a text; [`Transport::poll_flush`] sees it written.
    pub(super) fn text(&mut self, text: Utf8Bytes) -> Result<(), Gone> {
        self.start(Message::Text(text))
    }

    /// Takes a ping.
    pub(super) fn ping(&mut self) -> Result<(), Gone> {
        self.start(Message::Ping(Bytes::new()))
    }

    /// Ready once the kernel has everything taken so far.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(|_| Gone)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a close frame behind what was taken; whether the kernel has all of it. To be followed
    /// by [`Transport::finish`] or [`Transport::reset`].
    pub(super) async fn close(&mut self, reason: CloseReason) -> bool {
        let close = self.stream.send(Message::Close(Some(reason.frame())));
        matches!(timeout(CLOSE_FRAME, close).await, Ok(Ok(())))
    }

    /// Answers the peer's close frame; whether the kernel has the answer and all before it.
    pub(super) async fn answer_close(&mut self) -> bool {
        // The library has queued the answer; that it then reports the close is no failure.
        match timeout(CLOSE_FRAME, self.stream.flush()).await {
            Ok(Ok(()) | Err(Error::ConnectionClosed)) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Ends the connection at once, with what the kernel has still to send dropped.
    pub(super) fn reset(self) {
        if let Err(error) = self.stream.get_ref().reset_on_drop() {
            tracing::debug!(%error, "connection not reset");
        }
    }

    /// Half-closes and reads until the peer does too. Closing with unread data would make the kernel
    /// send a reset, which can overtake the close frame.
    pub(super) async fn finish(mut self) {
        let conn = self.stream.get_mut().conn();
        let finish = async {
            conn.shutdown().await?;
            let mut sink = [0u8; 512];
            while conn.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        match timeout(CLOSE_PEER, finish).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "peer did not end in good order"),
            Err(_) => self.reset(),
        }
    }

    fn start(&mut self, message: Message) -> Result<(), Gone> {
        self.unflushed = true;
        Pin::new(&mut self.stream)
            .start_send(message)
            .map_err(|_| Gone)
    }
}

/// The connection cannot be written to any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone;

fn broken(error: &Error) -> Incoming {
    match error {
        Error::Capacity(_) => Incoming::Violation(CloseReason::MessageTooBig),
        Error::Utf8(_) => Incoming::Violation(CloseReason::Utf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Gone,
        Error::Protocol(_) => Incoming::Violation(CloseReason::Protocol),
        Error::Io(error) => match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(Excess::Frames) => Incoming::Violation(CloseReason::TooManyMessages),
            Some(Excess::Bytes) => Incoming::Violation(CloseReason::TooManyBytes),
            None => Incoming::Gone,
        },
        // Everything else is the connection's end, or an error of a client's side.
        _ => Incoming::Gone,
    }
}
