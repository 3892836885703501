//! A connection that never blocks, plain or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// Whom to connect to, and how.
#[derive(Debug, Clone)]
pub struct Address {
    peer: SocketAddr,
    /// With a `Host` header's text, and the path with the query, of a ws: or wss: URL.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// The parts of a ws: or wss: URL. `Debug` would show a token.
pub(crate) struct Url<'a> {
    pub(crate) is_tls: bool,
    pub(crate) authority: &'a str,
    /// With the query; begins with a slash.
    pub(crate) path: String,
}

impl<'a> Url<'a> {
    /// `None`: it is none.
    pub(crate) fn parse(url: &'a str) -> Option<Self> {
        let (is_tls, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let authority = authority
            .rsplit('@')
            .next()
            .filter(|host| !host.is_empty())?;
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self {
            is_tls,
            authority,
            path: format!("{slash}{path}"),
        })
    }

    fn host_and_port(&self) -> (&'a str, u16) {
        let default = if self.is_tls { 443 } else { 80 };
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default)),
            _ => (self.authority, default),
        }
    }
}

impl Address {
    /// Looks up the host of `url`, which blocks. `tls` is for wss: alone.
    ///
    /// # Errors
    /// A text without the URL, which may hold a token.
    pub fn of(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Self, String> {
        let url = Url::parse(url).ok_or("the address is no ws:// or wss:// URL")?;
        let (host, port) = url.host_and_port();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut peers = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("{host} cannot be looked up: {error}"))?;
        let peer = peers.next().ok_or(format!("{host} has no address"))?;
        let tls = match (url.is_tls, tls) {
            (false, _) => None,
            (true, None) => return Err("a wss:// address needs certificates to trust".to_owned()),
            (true, Some(config)) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| format!("{host} is no name for TLS"))?;
                Some((Arc::clone(config), name))
            }
        };
        Ok(Self { peer, tls })
    }

    /// Begins to connect. `small`: with a receive buffer that a slow reader soon has full.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn connect(&self, small: bool) -> io::Result<Wire> {
        let domain = socket2::Domain::for_address(self.peer);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if small {
            socket.set_recv_buffer_size(16 * 1024)?;
        }
        match socket.connect(&self.peer.into()) {
            Err(error)
                if error.kind() != io::ErrorKind::WouldBlock
                    && error.raw_os_error() != Some(IN_PROGRESS) =>
            {
                return Err(error);
            }
            _ => {}
        }
        let tcp = TcpStream::from_std(socket.into());
        let tls = match &self.tls {
            Some((config, name)) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone());
                Some(Box::new(connection.map_err(io::Error::other)?))
            }
            None => None,
        };
        Ok(Wire { tcp, tls })
    }
}

/// EINPROGRESS, of Linux and of macOS.
const IN_PROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Whether a read that filled less than its buffer left nothing behind.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(buffer),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.tcp).read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.write(bytes),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.tcp).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.tcp).flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (url, expected) in [
            ("ws://h", Some((false, "h", 80, "/"))),
            ("wss://h?a=b", Some((true, "h", 443, "/?a=b"))),
            ("ws://u:p@h:8080/p?q#f", Some((false, "h", 8080, "/p?q"))),
            ("ws://[::1]:9/", Some((false, "[::1]", 9, "/"))),
            ("ws://[::1]/", Some((false, "[::1]", 80, "/"))),
            ("http://h/", None),
            ("ws:///x", None),
            ("", None),
        ] {
            let parsed = Url::parse(url);
            let found = parsed.as_ref().map(|url| {
                let (host, port) = url.host_and_port();
                (url.is_tls, host, port, url.path.as_str())
            });
            assert_eq!(found, expected, "{url}");
        }
    }
}
