//! What the fuzz targets reach of sockets: the checks of a handshake, and frames up to the session.

use std::future::poll_fn;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Bytes;

use super::{request, upgrade};
use crate::conn::Conn;
use crate::event::WorkspaceSlug;
use crate::socket::{Action, Incoming, Session, SessionInput, SessionLimits, Transport, Writer};

/// The key of a handshake, or the status that refuses it.
///
/// # Errors
/// The status.
pub fn key(request: &Parts) -> Result<String, u16> {
    upgrade::websocket_key(request, "/").map_err(|response| response.status().as_u16())
}

/// The headers of the 101.
pub fn switching(accept: &str, request: &HeaderMap) -> HeaderMap {
    upgrade::switching(accept, request::offer(request))
        .headers()
        .clone()
}

/// The workspace of a request, or the close code.
///
/// # Errors
/// The close code.
pub fn workspace(request: &Parts) -> Result<WorkspaceSlug, u16> {
    request::workspace(&request.uri).map_err(crate::codes::CloseReason::code)
}

/// Whether the origin may connect.
pub fn origin_allowed(request: &Parts, allowed: &[String]) -> bool {
    request::origin_allowed(&request.headers, allowed)
}

/// What a socket made of a client's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedFrame {
    Text(String),
    Ping,
    Pong,
    /// The client closed.
    Closed(u16),
    /// Herald closes.
    Ours(u16),
    /// The connection ended.
    Gone,
    /// A token frame.
    Token,
}

/// What the socket makes of `bytes`, of which the first `read` came with the handshake. Time stands still.
pub async fn frames(bytes: &[u8], read: usize, max_message_bytes: usize) -> Vec<ObservedFrame> {
    let Ok((mut client, conn)) = pair() else {
        return Vec::new();
    };
    let (read, rest) = bytes.split_at(read.min(bytes.len()));
    // The kernel's buffer holds more than a fuzzer's input has.
    if client.write_all(rest).is_err() || client.shutdown(Shutdown::Write).is_err() {
        return Vec::new();
    }
    let read = Bytes::copy_from_slice(read);
    let writer = Writer::new(0, Arc::default());
    let mut transport = Transport::new(conn, read, max_message_bytes, writer).await;
    let (now, wall) = (Instant::now(), SystemTime::now());
    let limits = SessionLimits {
        inactivity: Duration::from_secs(300),
        ping: Duration::from_secs(25),
        pong_is_activity: false,
    };
    let mut session = Session::new(limits, wall + Duration::from_secs(60), now, limits.ping);
    let mut seen = Vec::new();
    loop {
        let incoming = poll_fn(|cx| transport.poll_incoming(cx)).await;
        let input = match &incoming {
            Incoming::Text(text) => {
                seen.push(ObservedFrame::Text(text.as_str().to_owned()));
                SessionInput::Text(text)
            }
            Incoming::Binary => SessionInput::Binary,
            Incoming::Ping(_) => {
                seen.push(ObservedFrame::Ping);
                SessionInput::Ping
            }
            Incoming::Pong { .. } => {
                seen.push(ObservedFrame::Pong);
                SessionInput::Pong
            }
            Incoming::Closed(code) => {
                seen.push(ObservedFrame::Closed(*code));
                return seen;
            }
            Incoming::Violation(reason) => {
                seen.push(ObservedFrame::Ours(reason.code()));
                return seen;
            }
            Incoming::Gone => {
                seen.push(ObservedFrame::Gone);
                return seen;
            }
        };
        let mut is_token = false;
        let action = session.take(input, now, wall, |_, expires_at| {
            is_token = true;
            Ok(expires_at)
        });
        if is_token {
            seen.push(ObservedFrame::Token);
        }
        match action {
            Action::Close(reason) | Action::CloseAfterCatchUp(reason) => {
                seen.push(ObservedFrame::Ours(reason.code()));
                return seen;
            }
            Action::Nothing
            | Action::Ping
            | Action::Heartbeat
            | Action::Renewed(_)
            | Action::Dead => {}
        }
    }
}

/// Two ends of a connection. Not TCP's, which would run out of ports.
fn pair() -> std::io::Result<(UnixStream, Conn)> {
    let (client, server) = UnixStream::pair()?;
    server.set_nonblocking(true)?;
    let server = std::net::TcpStream::from(OwnedFd::from(server));
    Ok((client, Conn::Plain(TcpStream::from_std(server)?)))
}
