//! Accepting connections and speaking HTTP/1.1 on them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::pending_connections::{PendingConnection, PendingConnections};
use super::proxied::{self, NoSource};
use crate::admission::ConnectionSource;
use crate::codes::HttpRefusal;
use crate::conn::{Conn, Counted};
use crate::setup::{LiveSettings, Setup};

/// How long a client may take for a TLS handshake; before that, a proxy for its header.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head. A token of 16 KiB in the URL fits.
const HEAD_BYTES: usize = 32 * 1024;
/// Connections that the kernel keeps for us while a storm of them comes.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds `address`; `send_buffer` is the kernel's share of each accepted socket (0: its default).
///
/// # Errors
/// Where the address is taken or not ours.
pub(crate) fn bind(address: SocketAddr, send_buffer: usize) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if send_buffer > 0 {
        // Accepted sockets inherit it. Linux doubles the value for its own bookkeeping.
        socket.set_send_buffer_size(send_buffer / 2)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until `cancel`, as long as there is a slot, and serves `router` on each connection. Upgraded
/// connections leave the tracker when their handler has taken them. `live` knows the certificate of the
/// moment, and whether proxies send headers; a listener without it speaks plainly, and with anybody.
pub(crate) async fn accept(
    listener: TcpListener,
    live: Option<LiveSettings>,
    router: Router,
    pending_connections: PendingConnections,
    connections: TaskTracker,
    cancel: CancellationToken,
) {
    loop {
        // The slot first: what is accepted without one is not bounded.
        let next = async {
            let slot = pending_connections.slot().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let Some(pending) = pending_connections.take(slot, peer) else {
                    debug!(peer = %peer.ip(), "too many connections of one address");
                    continue;
                };
                let pending_connections = pending_connections.clone();
                let router = router.clone();
                let setup = live.as_ref().map(LiveSettings::now);
                let cancel = cancel.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = connection(tcp, setup, router, &pending_connections, &pending) => {}
                        // Requests that wait at the end of a drain get no answer any more.
                        () = cancel.cancelled() => {}
                        () = pending_connections.outstayed(&pending) => debug!("silent connection closed"),
                    }
                });
            }
            Err(error) => {
                // Out of files is the usual cause; the next connection may do.
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    mut tcp: TcpStream,
    setup: Option<Arc<Setup>>,
    router: Router,
    pending_connections: &PendingConnections,
    pending: &PendingConnection,
) {
    if let Err(error) = SockRef::from(&tcp).set_tcp_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    if let Some(setup) = setup
        .as_deref()
        .filter(|it| it.config.server.proxy_protocol)
        && named(&mut tcp, setup, pending_connections, pending)
            .await
            .is_none()
    {
        return;
    }
    let tls = setup.as_ref().and_then(|setup| setup.tls.clone());
    // It may be of old settings before long, with all that they name.
    drop(setup);
    let conn = match tls {
        None => Conn::Plain(tcp),
        Some(tls) => match timeout(TIMEOUT, tls.acceptor().accept(Counted::new(tcp))).await {
            Ok(Ok(stream)) => Conn::Tls(Box::new(stream)),
            Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
            Err(_) => return debug!("TLS handshake timed out"),
        },
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(pending_connections.head_timeout())
        .max_buf_size(HEAD_BYTES);
    let router = TowerToHyperService::new(router);
    // Each request gets the connection that it came on.
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let pending = pending.clone();
        pending.set_busy(true);
        request.extensions_mut().insert(pending.clone());
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            pending.set_busy(false);
            answer
        }
    });
    let serve = http
        .serve_connection(TokioIo::new(conn), service)
        .with_upgrades();
    if let Err(error) = serve.await {
        debug!(%error, "connection ended");
    }
}

/// Reads the PROXY header, which only a trusted proxy may send. `None`: the connection is to be closed.
async fn named(
    tcp: &mut TcpStream,
    setup: &Setup,
    pending_connections: &PendingConnections,
    pending: &PendingConnection,
) -> Option<()> {
    let peer = pending.peer();
    let is_trusted = setup.proxies.trust(peer);
    let header = timeout(TIMEOUT, async {
        if is_trusted {
            return proxied::header(tcp).await;
        }
        proxied::no_header(tcp)
            .await
            .map(|()| ConnectionSource::Peer)
    });
    let why = match header.await {
        Ok(Ok(source)) => {
            let Err(full) = pending_connections.name(pending, source) else {
                return Some(());
            };
            debug!(?full, "too many connections of one address");
            return None;
        }
        Ok(Err(NoSource::Left)) => return None,
        // As any client that says nothing, whatever the setting.
        Err(_) if !is_trusted => return None,
        Ok(Err(why)) => why.to_string(),
        Err(_) => "it sent no whole PROXY header in time".to_owned(),
    };
    pending_connections.refused(HttpRefusal::ProxyProtocol);
    if is_trusted {
        warn!(%peer, why, "connection of a proxy refused");
    } else {
        debug!(%peer, why, "connection refused");
    }
    None
}
