//! Connections that are accepted and are no sockets yet: they do TLS, send the request's head, join, or end because they
//! are refused. Their number is bounded, so that clients that send nothing cannot use up files and memory.
//!
//! Over the bound nothing is accepted: a new connection waits in the kernel's queue, where it costs the gateway nothing.
//! To close it would be worse. A handshake takes milliseconds, so a storm of clients is through in seconds; a closed
//! client backs off and comes again. Silent clients would fill that queue for all of [`super::listener`]'s time limits.
//! So once all slots are taken, a connection that has sent no request is closed after [`TIMEOUT`].

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::files::OpenFiles;
use crate::admission::{Address, AddressGuard, ConnectionSource, PerKey, TrustedProxies};
use crate::codes::HttpRefusal;
use crate::setup::LiveSettings;
use crate::telemetry::{Clock, Metrics};

/// Pending connections at the sockets' listener, where there are files for them. A head that is as long as it may be and
/// TLS take some 60 KiB of each, at most 240 MiB of all.
const PENDING_MAX: usize = 4096;
/// Pending connections of one address, at least: where it may have few sockets, those that are refused or about to
/// become sockets must not keep out the one after them.
const PENDING_OF_ADDRESS_MIN: usize = 16;
/// How long a connection without a request is kept while others wait: three round trips over a bad
/// mobile network.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a refused one may take for its closing handshake while others wait: a flood of bad tokens
/// must not keep slots for as long as a proper client may take.
const TIMEOUT_REFUSED: Duration = Duration::from_millis(500);

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection of HTTP publishing is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The pending connections of one listener.
#[derive(Debug, Clone)]
pub(crate) struct PendingConnections {
    slots: Arc<Semaphore>,
    /// Their limits, and those of one address; unset for the listener that is not public.
    public: Option<(LiveSettings, Arc<PerKey<Address>>)>,
    /// How long the head of a request may take, or the next request.
    head_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// An address has as many connections as it may.
#[derive(Debug)]
pub(crate) struct Full;

/// One connection that has arrived; it keeps its slot until the last clone is gone.
#[derive(Debug, Clone)]
pub(crate) struct PendingConnection(Arc<PendingState>);

#[derive(Debug)]
struct PendingState {
    /// Who connected to us.
    peer: IpAddr,
    /// Whom a PROXY header named.
    named: OnceLock<Named>,
    accepted: Clock,
    has_requested: AtomicBool,
    /// A request is being answered.
    is_busy: AtomicBool,
    slot: OwnedSemaphorePermit,
    _of_address: Option<AddressGuard>,
}

/// Whom a proxy has connected to us.
#[derive(Debug)]
struct Named {
    /// `None`: somebody whose address is not known.
    client: Option<IpAddr>,
    _of_address: Option<AddressGuard>,
}

impl PendingConnections {
    /// Those of the sockets' listener.
    pub(crate) fn public(live: LiveSettings, files: OpenFiles, metrics: Arc<Metrics>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(files.pending.min(PENDING_MAX))),
            public: Some((live, Arc::default())),
            head_timeout: HEAD_TIMEOUT,
            metrics,
        }
    }

    /// Those of the admin listener, which a flood at the public one does not reach.
    pub(crate) fn admin(files: OpenFiles, metrics: Arc<Metrics>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(files.admin)),
            public: None,
            head_timeout: HEAD_TIMEOUT,
            metrics,
        }
    }

    /// Those of HTTP publishing, which are kept for the next request.
    pub(crate) fn publishing(files: OpenFiles, metrics: Arc<Metrics>) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(files.publish)),
            public: None,
            head_timeout: IDLE_TIMEOUT,
            metrics,
        }
    }

    /// How long the head of a request may take, or the next request.
    pub(crate) fn head_timeout(&self) -> Duration {
        self.head_timeout
    }

    /// A slot for the next connection, once there is one.
    pub(crate) async fn slot(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.slots).acquire_owned().await {
            Ok(slot) => slot,
            // Nobody closes the semaphore.
            Err(_) => std::future::pending().await,
        }
    }

    /// The connection from `peer`; `None` where its address has as many as it may.
    pub(crate) fn take(
        &self,
        slot: OwnedSemaphorePermit,
        peer: SocketAddr,
    ) -> Option<PendingConnection> {
        let peer = peer.ip();
        let of_address = self.of_address(peer).ok()?;
        Some(PendingConnection(Arc::new(PendingState {
            peer,
            named: OnceLock::new(),
            accepted: Clock::now(),
            has_requested: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            slot,
            _of_address: of_address,
        })))
    }

    /// A PROXY header, before anything else, names the client.
    ///
    /// # Errors
    /// The address has as many as it may.
    pub(crate) fn name(
        &self,
        pending: &PendingConnection,
        source: ConnectionSource,
    ) -> Result<(), Full> {
        let named = match source {
            ConnectionSource::Peer => return Ok(()),
            ConnectionSource::Unknown => Named {
                client: None,
                _of_address: None,
            },
            ConnectionSource::Client(ip) => Named {
                client: Some(ip),
                _of_address: self.of_address(ip)?,
            },
        };
        pending.0.named.get_or_init(|| named);
        Ok(())
    }

    /// Counts a connection that ends before its request.
    pub(crate) fn refused(&self, reason: HttpRefusal) {
        self.metrics.join_refused(reason);
    }

    /// One more connection of this address, if they are counted.
    fn of_address(&self, peer: IpAddr) -> Result<Option<AddressGuard>, Full> {
        let Some((live, all)) = &self.public else {
            return Ok(None);
        };
        let setup = live.now();
        // What comes through a proxy is counted when its request says whose it is.
        if setup.proxies.trust(peer) {
            return Ok(None);
        }
        let limit = match setup.config.sockets.max_connections_per_address {
            0 => 0,
            limit => limit.max(PENDING_OF_ADDRESS_MIN),
        };
        let guard = all.take(Address::from(peer), limit);
        guard.map(Some).ok_or_else(|| {
            self.refused(HttpRefusal::AddressConnections);
            Full
        })
    }

    /// Ends when the connection has sent no request while others wait for its slot.
    pub(crate) async fn outstayed(&self, pending: &PendingConnection) {
        loop {
            tokio::time::sleep(TIMEOUT).await;
            let others_wait = self.slots.available_permits() == 0;
            if others_wait && !pending.0.is_busy.load(Ordering::Relaxed) {
                self.refused(HttpRefusal::Silent);
                return;
            }
        }
    }
}

impl PendingConnection {
    /// The address that connected: the client's, or a proxy's.
    pub(crate) fn peer(&self) -> IpAddr {
        self.0.peer
    }

    /// The client whose request, with these headers, came on this connection.
    pub(crate) fn client(&self, proxies: &TrustedProxies, headers: &HeaderMap) -> IpAddr {
        match self.0.named.get() {
            None => proxies.client(self.0.peer, headers),
            Some(Named {
                client: Some(ip), ..
            }) => proxies.client(*ip, headers),
            // The proxy does not know the client. So the proxy's own address counts.
            Some(Named { client: None, .. }) => self.0.peer,
        }
    }

    /// When the connection was accepted, for its first request.
    pub(crate) fn accepted(&self) -> Option<Clock> {
        let is_first = !self.0.has_requested.swap(true, Ordering::Relaxed);
        is_first.then_some(self.0.accepted)
    }

    /// Ends when others wait for the slot of this one, which is refused.
    pub(crate) async fn is_wanted(&self) {
        loop {
            tokio::time::sleep(TIMEOUT_REFUSED).await;
            if self.0.slot.semaphore().available_permits() == 0 {
                return;
            }
        }
    }

    /// Whether a request of this connection is being answered.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        self.0.is_busy.store(is_busy, Ordering::Relaxed);
    }
}
