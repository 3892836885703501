//! What the fuzz targets reach of addresses.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::{ConnectionSource, HeaderRead, TrustedProxies, is_header, next_read};

/// Whose request came from `peer` with these headers, where `trusted` are the proxies.
pub fn client(trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    TrustedProxies::new(trusted.to_vec()).client(peer, headers)
}

/// What a PROXY header says of who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Client(IpAddr),
    Unknown,
    Peer,
}

/// What the header at the start of `sent` says, and its length; `None` where there is none, or no whole one.
pub fn proxy_header(sent: &[u8]) -> Option<(Said, usize)> {
    let mut taken = 0;
    loop {
        let (header, rest) = sent.split_at_checked(taken)?;
        taken += match next_read(header).ok()? {
            HeaderRead::Exactly(more) => more,
            HeaderRead::Line(most) => {
                let line = rest.get(..most.min(rest.len()))?;
                let end = line.iter().position(|byte| *byte == b'\n');
                end.map_or(line.len().max(1), |end| end + 1)
            }
            HeaderRead::Done(source) => {
                let said = match source {
                    ConnectionSource::Client(ip) => Said::Client(ip),
                    ConnectionSource::Unknown => Said::Unknown,
                    ConnectionSource::Peer => Said::Peer,
                };
                return Some((said, taken));
            }
        };
    }
}

/// Whether a connection that starts so starts with a header; `None` where that cannot be told yet.
pub fn starts_with_proxy_header(start: &[u8]) -> Option<bool> {
    is_header(start)
}
