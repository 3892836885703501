//! What TLS records cost beyond what they carry: empty ones, padding, key updates. rustls refuses the 33rd in a
//! row of empty ones and of key updates, but each resets the other's count. It may also read on and on before
//! it has a byte to give. So bytes are counted on TCP beneath it, those that it carried are given back, and a
//! turn ends in time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::admission::Rate;

/// Bytes of overhead that a client may go on sending, each second: two records of 37 bytes for each of the 20
/// frames that it may send are a tenth of that.
const BYTES_PER_SECOND: u32 = 16 * 1024;
/// As much may come at once: the handshake, and 10,000 records with a byte in each.
const BYTES_BURST: u32 = 256 * 1024;
const OVERHEAD: Rate = Rate::new(
    Duration::from_nanos(1_000_000_000 / BYTES_PER_SECOND as u64),
    BYTES_BURST,
);
/// Bytes read for one connection before others get their turn. 600 key updates fit in it; each was seen to take
/// 9 us at most, without optimisation.
const TURN: usize = 16 * 1024;

/// A client sends far more TLS than what it carries.
#[derive(Debug, thiserror::Error)]
#[error("too much overhead of TLS")]
pub(crate) struct TooMuchOverhead;

/// A TCP connection beneath TLS. A read ends with [`TooMuchOverhead`] in its error, once; nothing is read after
/// that.
#[derive(Debug)]
pub(crate) struct Counted {
    tcp: TcpStream,
    /// When what came, and was not carried, is earned.
    spent: Option<Instant>,
    state: OverheadState,
    /// Bytes read in this turn.
    in_turn: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OverheadState {
    Counting,
    /// The next read reports it.
    Over,
    Reported,
}

impl Counted {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            spent: None,
            state: OverheadState::Counting,
            in_turn: 0,
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// So many bytes of what was read have been given out by TLS: these are no overhead.
    pub(crate) fn carried(&mut self, bytes: usize) {
        self.spent = self
            .spent
            .and_then(|spent| OVERHEAD.give_back(spent, count(bytes)));
    }

    fn take(&mut self, bytes: usize, now: Instant) {
        match OVERHEAD.take(self.spent, count(bytes), now) {
            Ok(spent) => self.spent = Some(spent),
            Err(_) => self.state = OverheadState::Over,
        }
    }
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state {
            OverheadState::Counting => {}
            OverheadState::Over => {
                this.state = OverheadState::Reported;
                return Poll::Ready(Err(io::Error::other(TooMuchOverhead)));
            }
            // Nobody is woken: the connection is about to end.
            OverheadState::Reported => return Poll::Pending,
        }
        if this.in_turn >= TURN {
            this.in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.tcp).poll_read(cx, buf);
        if polled.is_pending() {
            this.in_turn = 0;
        }
        ready!(polled)?;
        let read = buf.filled().len() - before;
        this.in_turn += read;
        this.take(read, Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
