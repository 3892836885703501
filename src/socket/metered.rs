//! A connection whose client may send so much and no more: what it sends is counted as it is read, since the
//! library above swallows fragments by itself, as many as there are.
//!
//! With that the work for one socket before others get their turn is bounded, too. A turn ends after 128 reads of
//! the library's buffer (tokio's budget), and the allowance before as many frames as would be felt.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::allowance::{Allowance, Excess};
use super::wire::Wire;

/// The connection. A read ends with an [`Excess`] in its error, once, after what was too much.
#[derive(Debug)]
pub(super) struct Metered {
    wire: Wire,
    meter: Meter,
}

#[derive(Debug)]
enum Meter {
    Counting(Allowance),
    /// The next read reports it. What has been read is given out before: so it stays known where the next frame
    /// begins.
    Over(Excess),
    /// It was reported: what comes is thrown away, and the socket ends soon.
    Reported,
}

impl Metered {
    pub(super) fn new(wire: Wire, allowance: Allowance) -> Self {
        let meter = Meter::Counting(allowance);
        Self { wire, meter }
    }

    /// Counts bytes that were read before; whether they are within what the client may send.
    pub(super) fn count(&mut self, bytes: &[u8]) -> bool {
        let Meter::Counting(allowance) = &mut self.meter else {
            return false;
        };
        match allowance.take(bytes, Instant::now()) {
            Ok(()) => true,
            Err(excess) => {
                self.meter = Meter::Over(excess);
                false
            }
        }
    }

    /// As [`Metered::wire`], to look at.
    pub(super) fn wire_ref(&self) -> &Wire {
        &self.wire
    }

    /// The connection itself, where nothing is counted.
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Meter::Over(excess) = this.meter {
            this.meter = Meter::Reported;
            return Poll::Ready(Err(io::Error::other(excess)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.wire).poll_read(cx, buf))?;
        this.count(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

/// The library's own answers go nowhere: the [`super::Writer`] has them in their order.
impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
