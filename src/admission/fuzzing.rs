//! What the fuzz targets reach of addresses.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::TrustedProxies;

/// Whose request came from `peer` with these headers, where `trusted` are the proxies.
pub fn client(trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    TrustedProxies::new(trusted.to_vec()).client(peer, headers)
}
