//! A connection as its socket's task has it. What is plain shares it with the [`Writer`], which others write by;
//! what goes over TLS is the task's alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::Writer;
use super::writer::WriteTurn;
use crate::conn::{self, Conn};

/// What is encrypted at once, about: one record of TLS (RFC 8446 section 5.1).
const RECORD: usize = 16 * 1024;
/// Records that are written before it is looked at what came in.
const RECORDS_A_TURN: usize = 4;

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    writer: Writer,
    tls: Option<TlsWire>,
}

#[derive(Debug)]
struct TlsWire {
    conn: Conn,
    /// Frames that the session has not taken, from `at` on.
    bytes: Vec<u8>,
    at: usize,
    /// The session has what the kernel may not have.
    is_unflushed: bool,
}

impl Wire {
    /// The 101 of `conn` is out: what waits in `writer` may be written.
    pub(super) fn new(conn: Conn, writer: Writer) -> Self {
        let tls = match conn {
            Conn::Plain(tcp) => {
                writer.open(Some(tcp));
                None
            }
            Conn::Tls(_) => {
                writer.open(None);
                Some(TlsWire {
                    conn,
                    bytes: Vec::new(),
                    at: 0,
                    is_unflushed: false,
                })
            }
        };
        Self { writer, tls }
    }

    /// Writes what there is. [`WriteTurn::Done`] once the kernel has all of it.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<WriteTurn>> {
        let Some(tls) = &mut self.tls else {
            return self.writer.poll_write(cx);
        };
        let polled = tls.poll_write_out(&self.writer, cx);
        if polled.is_pending() {
            self.writer.refused();
        }
        polled
    }

    /// Ends our side.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.conn.shutdown().await,
            None => SockRef::from(self.tcp()?).shutdown(std::net::Shutdown::Write),
        }
    }

    /// [`conn::finish_on_drop`].
    pub(super) fn finish_on_drop(&self) -> io::Result<()> {
        conn::finish_on_drop(self.tcp()?)
    }

    /// [`conn::reset_on_drop`].
    pub(super) fn reset_on_drop(&self) -> io::Result<()> {
        conn::reset_on_drop(self.tcp()?)
    }

    fn tcp(&self) -> io::Result<&TcpStream> {
        match &self.tls {
            Some(tls) => Ok(tls.conn.tcp()),
            None => self.writer.tcp().ok_or(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl TlsWire {
    fn poll_write_out(
        &mut self,
        writer: &Writer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<WriteTurn>> {
        for _ in 0..RECORDS_A_TURN {
            if self.at == self.bytes.len() {
                self.bytes.clear();
                self.at = 0;
                writer.take_bytes(RECORD, &mut self.bytes);
            }
            let left = self.bytes.get(self.at..).unwrap_or_default();
            if left.is_empty() {
                // An idle socket keeps no buffer from its last burst.
                self.bytes = Vec::new();
                if self.is_unflushed {
                    ready!(Pin::new(&mut self.conn).poll_flush(cx))?;
                    self.is_unflushed = false;
                }
                return Poll::Ready(Ok(WriteTurn::Done));
            }
            self.at += ready!(Pin::new(&mut self.conn).poll_write(cx, left))?;
            self.is_unflushed = true;
        }
        Poll::Ready(Ok(WriteTurn::More))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(tls) = &mut this.tls {
            return Pin::new(&mut tls.conn).poll_read(cx, buf);
        }
        let tcp = this.tcp()?;
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            match tcp.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The readiness was out of date.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
