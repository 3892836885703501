//! Who may come in, how many and how fast: a client's address, also behind proxies, the rate of new
//! connections, and the number of connections of one address.
//!
//! Nothing here does I/O. [`forwarded`] reads what proxies wrote, [`rate`] is a pure machine, and
//! [`per_address`] counts what is there now.
//! **Invariant:** no untrusted party chooses the address that it counts as.

mod address;
mod forwarded;
mod per_address;
mod rate;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::HeaderMap;

pub(crate) use self::address::Address;
pub(crate) use self::forwarded::TrustedProxies;
pub(crate) use self::per_address::{PerAddress, Place};
pub(crate) use self::rate::Over;
use self::rate::Rates;
use crate::config::Config;

/// The limits on those who want a socket.
#[derive(Debug)]
pub(crate) struct Admission {
    proxies: TrustedProxies,
    rates: Mutex<Rates>,
    /// Unset where one address may have all.
    per_address: Option<Arc<PerAddress>>,
}

/// A socket's part of what its address may have, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    _place: Option<Place>,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        let sockets = &config.sockets;
        Self {
            proxies: TrustedProxies::new(config.server.trusted_proxies.clone()),
            rates: Mutex::new(Rates::new(
                sockets.connect_rate,
                sockets.connect_rate_per_address,
            )),
            per_address: PerAddress::new(sockets.max_connections_per_address),
        }
    }

    /// Whose request came from `peer` with these headers.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Address {
        Address::from(self.proxies.client(peer, headers))
    }

    /// One more attempt of `address`.
    ///
    /// # Errors
    /// The rate that it exceeds.
    pub(crate) fn attempt(&self, address: Address) -> Result<(), Over> {
        // Nothing that holds the lock can panic half-way.
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(address, Instant::now())
    }

    /// A seat for a socket of `address`; `None` where it has as many as it may.
    pub(crate) fn seat(&self, address: Address) -> Option<Seat> {
        let place = match &self.per_address {
            Some(all) => Some(all.take(address)?),
            None => None,
        };
        Some(Seat { _place: place })
    }
}
