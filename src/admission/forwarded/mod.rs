//! The address of a client behind proxies, from what trusted proxies wrote. Pure.
//!
//! Each proxy appends the address that connected to it. So the list is read from its right end, where
//! the proxy that connected to us wrote: an entry is true if a trusted proxy wrote it, and who wrote it
//! is the entry to its right. The first address that is no trusted proxy is the client; what
//! stands to the left of it the client may have sent itself, and nobody looks at it. Where a trusted
//! proxy wrote no address (`unknown`, `_hidden`, nothing that can be read), nothing beyond it is
//! known, and its own address stands for whoever is behind it.
//!
//! A proxy writes one of the two headers and passes the other on as the client sent it. So where both
//! are there they must say the same, and else say nothing.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// The older header, which has no standard: `client, proxy, proxy`.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What one proxy wrote: the address that connected to it, if that can be known.
type Hop = Option<IpAddr>;

/// The proxies whose word on a client's address is taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `ip` is one of them.
    pub(crate) fn trust(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// The address of the client whose request, with these headers, came from `peer`.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trust(peer) {
            return peer;
        }
        let forwarded = self.walk(peer, headers, &header::FORWARDED, forwarded);
        let x_forwarded_for = self.walk(peer, headers, &X_FORWARDED_FOR, x_forwarded_for);
        match (forwarded, x_forwarded_for) {
            (Some(client), None) | (None, Some(client)) => client,
            (Some(one), Some(other)) if one == other => one,
            (Some(_), Some(_)) | (None, None) => peer,
        }
    }

    /// From the right to the first that is not trusted, or that nothing is known beyond. `None` where
    /// the header is missing.
    fn walk(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        name: &HeaderName,
        hops: fn(&str) -> Vec<Hop>,
    ) -> Option<IpAddr> {
        // Several lines are one list (RFC 9110 section 5.3); each is read by itself, so that no quote
        // that a client opens in its line swallows a proxy's.
        let mut lines = headers.get_all(name).iter().rev().peekable();
        lines.peek()?;
        let mut at = peer;
        for line in lines {
            for hop in hops(&String::from_utf8_lossy(line.as_bytes())) {
                match hop {
                    Some(ip) => at = ip,
                    None => return Some(at),
                }
                if !self.trust(at) {
                    return Some(at);
                }
            }
        }
        Some(at)
    }
}

/// The hops of an `X-Forwarded-For`, the last one first.
fn x_forwarded_for(line: &str) -> Vec<Hop> {
    let entries = line.rsplit(',').map(|entry| entry.trim_matches(OWS));
    let written = entries.filter(|entry| !entry.is_empty());
    written.map(node).collect()
}

/// The hops of a `Forwarded` (RFC 7239 section 4), the last one first. A line that does not follow the
/// grammar is one hop that says nothing: where its elements end cannot be known.
fn forwarded(line: &str) -> Vec<Hop> {
    let mut hops = Vec::new();
    let mut rest = Some(line);
    while let Some(line) = rest {
        let Some((hop, after)) = element(line) else {
            return vec![None];
        };
        hops.extend(hop);
        rest = after;
    }
    hops.reverse();
    hops
}

/// Optional whitespace (RFC 9110 section 5.6.3).
const OWS: [char; 2] = [' ', '\t'];

/// The first element of a line, and the rest behind its comma; no hop where the element is empty.
fn element(line: &str) -> Option<(Option<Hop>, Option<&str>)> {
    let mut rest = line.trim_start_matches(OWS);
    let mut is_empty = true;
    let mut by_whom: Option<Hop> = None;
    loop {
        if rest.is_empty() || rest.starts_with(',') {
            let hop = (!is_empty).then(|| by_whom.flatten());
            return Some((hop, rest.strip_prefix(',')));
        }
        if let Some(after) = rest.strip_prefix(';') {
            rest = after.trim_start_matches(OWS);
            continue;
        }
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix('=')?)?;
        is_empty = false;
        // Each parameter comes once in an element.
        if name.eq_ignore_ascii_case("for") && by_whom.replace(node(&value)).is_some() {
            return None;
        }
        rest = after.trim_start_matches(OWS);
        if !(rest.is_empty() || rest.starts_with([';', ','])) {
            return None;
        }
    }
}

/// A token (RFC 9110 section 5.6.2), and what follows.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_of_token(c)).unwrap_or(text.len());
    let (token, rest) = text.split_at_checked(end)?;
    (!token.is_empty()).then_some((token, rest))
}

/// A token or a quoted string (RFC 9110 section 5.6.4), without its quotes, and what follows.
fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(token, rest)| (Cow::Borrowed(token), rest));
    };
    let mut unquoted = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((Cow::Owned(unquoted), chars.as_str())),
            '\\' => unquoted.push(chars.next()?),
            c => unquoted.push(c),
        }
    }
}

/// The address of a node (RFC 7239 section 6), with or without port and brackets. `unknown` and
/// `_obfuscated` have none.
fn node(text: &str) -> Hop {
    let text = text.trim_matches(OWS);
    let ip = if let Some(bracketed) = text.strip_prefix('[') {
        let (v6, port) = bracketed.split_once(']')?;
        if !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
            return None;
        }
        IpAddr::V6(v6.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        ip
    } else {
        let (v4, port) = text.rsplit_once(':')?;
        if !is_port(port) {
            return None;
        }
        IpAddr::V4(v4.parse::<Ipv4Addr>().ok()?)
    };
    Some(ip.to_canonical())
}

/// A port, which may be obfuscated, too.
fn is_port(text: &str) -> bool {
    text.starts_with('_') || text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests;
