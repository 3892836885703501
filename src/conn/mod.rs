//! A client's connection, plain or TLS.

mod overhead;
pub(crate) mod tls;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) use self::overhead::{Counted, TooMuchOverhead};

/// How long a peer may take nothing of what the kernel has for it, once nobody waits for it here.
#[cfg(target_os = "linux")]
const STANDSTILL: Duration = Duration::from_secs(30);

/// What the listener accepted.
#[derive(Debug)]
pub(crate) enum Conn {
    Plain(TcpStream),
    /// Boxed: a TLS session is many times larger than a plain stream.
    Tls(Box<TlsStream<Counted>>),
}

impl Conn {
    /// The TCP connection, below TLS if there is any.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0.tcp(),
        }
    }
}

/// The coming drop leaves it to the kernel to send what it has, for as long as the peer takes some of
/// it now and then.
///
/// # Errors
/// Where the kernel refuses the option.
pub(crate) fn finish_on_drop(tcp: &TcpStream) -> io::Result<()> {
    // Elsewhere it is the system that decides how long it tries.
    #[cfg(target_os = "linux")]
    SockRef::from(tcp).set_tcp_user_timeout(Some(STANDSTILL))?;
    Ok(())
}

/// Makes the coming drop a reset: what the kernel has still to send is dropped with it.
///
/// # Errors
/// Where the kernel refuses the option.
pub(crate) fn reset_on_drop(tcp: &TcpStream) -> io::Result<()> {
    SockRef::from(tcp).set_linger(Some(Duration::ZERO))
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => {
                let before = buf.filled().len();
                let polled = Pin::new(&mut *tls).poll_read(cx, buf);
                tls.get_mut().0.carried(buf.filled().len() - before);
                polled
            }
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
