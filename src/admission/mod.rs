//! Who may come in, how many and how fast: a client's address, also behind proxies, the rate of new
//! connections, the number of connections of one address or workspace, and expired tokens that come again.
//!
//! Nothing here does I/O. [`forwarded`] and [`proxy_header`] read what proxies wrote, [`rate`] and [`expired`] are pure machines,
//! and [`per_key`] counts what is there now.
//! **Invariant:** no untrusted party chooses the address that it counts as.

mod address;
mod expired;
mod forwarded;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod per_key;
mod proxy_header;
mod rate;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::address::Address;
use self::expired::ExpiredTokens;
pub(crate) use self::forwarded::TrustedProxies;
pub(crate) use self::per_key::{KeyGuard, PerKey};
pub(crate) use self::proxy_header::{
    ConnectionSource, HeaderRead, Malformed, is_header, next_read,
};
use self::rate::Rates;
pub(crate) use self::rate::{KeyRates, Over, Rate};
use crate::config::{SocketsConfig, WorkspacesConfig};
use crate::event::WorkspaceSlug;

/// One connection of an address, counted.
pub(crate) type AddressGuard = KeyGuard<Address>;
/// One socket of a workspace, counted.
pub(crate) type WorkspaceGuard = KeyGuard<WorkspaceSlug>;

/// Those who want a socket and those who have one, counted. The limits are the caller's, since they change
/// while the gateway serves: what is over a new limit stays, and nobody comes in until it has left.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The most sockets that there are files for.
    most: usize,
    rates: Mutex<Rates>,
    expired: Mutex<ExpiredTokens>,
    per_address: Arc<PerKey<Address>>,
    joins: Mutex<KeyRates<WorkspaceSlug>>,
    per_workspace: Arc<PerKey<WorkspaceSlug>>,
    sockets: Arc<AtomicUsize>,
}

/// One of the sockets that a gateway may have; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct SocketGuard(Arc<AtomicUsize>);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// For `most` sockets at most, whatever the limits are.
    pub(crate) fn up_to(most: usize) -> Self {
        Self {
            most,
            rates: Mutex::default(),
            expired: Mutex::default(),
            per_address: Arc::default(),
            joins: Mutex::default(),
            per_workspace: Arc::default(),
            sockets: Arc::default(),
        }
    }

    /// One more attempt of `address`.
    ///
    /// # Errors
    /// The rate that it exceeds.
    pub(crate) fn attempt(&self, limits: &SocketsConfig, address: Address) -> Result<(), Over> {
        let mut rates = lock(&self.rates);
        rates.limit(limits.connect_rate, limits.connect_rate_per_address);
        rates.take(address, Instant::now())
    }

    /// Whether `token`, that comes from `address`, is to be looked at.
    ///
    /// # Errors
    /// It was expired too often of late; how long to wait.
    pub(crate) fn known(&self, token: &str, address: Address) -> Result<(), Duration> {
        let mut expired = lock(&self.expired);
        let key = expired.key(token, address);
        expired.check(key, Instant::now())
    }

    /// `token`, that came from `address`, is expired.
    pub(crate) fn expired(&self, token: &str, address: Address) {
        let mut expired = lock(&self.expired);
        let key = expired.key(token, address);
        expired.add(key, Instant::now());
    }

    /// A place for a socket of `address`; `None` where it has as many as it may.
    pub(crate) fn address_guard(
        &self,
        limits: &SocketsConfig,
        address: Address,
    ) -> Option<AddressGuard> {
        self.per_address
            .take(address, limits.max_connections_per_address)
    }

    /// One more join of `workspace`, by somebody who has access to it.
    ///
    /// # Errors
    /// The workspace exceeds its rate.
    pub(crate) fn join(
        &self,
        limits: &WorkspacesConfig,
        workspace: &WorkspaceSlug,
    ) -> Result<(), Over> {
        let now = Instant::now();
        let mut joins = lock(&self.joins);
        joins.limit(limits.join_rate);
        if let Some(point) = joins.next(workspace, 1, now).map_err(|_| Over::Workspace)? {
            joins.spend(workspace.clone(), point, now);
        }
        Ok(())
    }

    /// Counts a socket of `workspace`; `None` if it has as many as it may.
    pub(crate) fn workspace_guard(
        &self,
        limits: &WorkspacesConfig,
        workspace: &WorkspaceSlug,
    ) -> Option<WorkspaceGuard> {
        self.per_workspace
            .take(workspace.clone(), limits.max_connections)
    }

    /// A permit for one more socket; `None` where there are as many as there may be.
    pub(crate) fn socket_guard(&self, limits: &SocketsConfig) -> Option<SocketGuard> {
        let most = limits.max_connections.min(self.most);
        let may_come = |now: usize| (now < most).then_some(now + 1);
        self.sockets
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_come)
            .ok()?;
        Some(SocketGuard(Arc::clone(&self.sockets)))
    }
}

/// Nothing that holds one of these locks can panic half-way.
fn lock<T>(machine: &Mutex<T>) -> MutexGuard<'_, T> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_connections: usize) -> SocketsConfig {
        SocketsConfig {
            max_connections,
            ..SocketsConfig::default()
        }
    }

    #[test]
    fn who_is_over_a_lower_limit_stays_and_nobody_comes_until_it_has_left() {
        let admission = Admission::up_to(3);
        let mut permits: Vec<_> = (0..3)
            .filter_map(|_| admission.socket_guard(&limits(3)))
            .collect();
        assert_eq!(permits.len(), 3);
        assert!(admission.socket_guard(&limits(3)).is_none());
        assert!(admission.socket_guard(&limits(2)).is_none());
        permits.pop();
        assert!(admission.socket_guard(&limits(2)).is_none());
        permits.pop();
        permits.extend(admission.socket_guard(&limits(2)));
        assert_eq!(permits.len(), 2);
        permits.extend(admission.socket_guard(&limits(3)));
        assert_eq!(permits.len(), 3);
        // There are no files for more.
        assert!(admission.socket_guard(&limits(4)).is_none());
    }
}
