//! The way from a request to an open socket: checks in their order, the join, and only then the 101.
//!
//! A refusal that the contract names is upgraded and closed at once, since a browser shows a failed
//! handshake as 1006 and nothing else. A refusal that means "later" is an HTTP error before the
//! upgrade, so that the contract's client, which resets its back-off on `open`, backs off.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{Instrument, debug, warn};

use super::acceptor::{Acceptor, Admitted};
use super::pending_connections::PendingConnection;
use super::pump::Pump;
use super::refusal::{HttpAnswer, Refusal};
use super::request::{self, Subprotocol, SubprotocolOffer};
use super::upgrade::{switching, upgrade_required, websocket_key};
use crate::admission::Address;
use crate::codes::{CloseReason, HttpRefusal, Unsent, code_label};
use crate::conn::Conn;
use crate::socket::{ControlMessage, Session, SessionLimits, Transport, Writer};
use crate::telemetry::{JoinOutcome, JoinPhase, JoinPhases};

/// Moments in the interval of pings at which sockets are pinged, so 100 ms apart by default.
const PING_MOMENTS: u32 = 250;
/// These moments are counted from here on.
static FIRST_OPENED: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The client of a request that came by another listener. There is none.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What is needed until a socket is open, and not after. Boxed, so that its future does not keep it.
struct Opening {
    phases: JoinPhases,
    limits: SessionLimits,
    max_message_bytes: usize,
    offer: SubprotocolOffer,
}

/// `GET` of the sockets' path: a WebSocket, or the reason why not.
pub(crate) async fn upgrade(State(acceptor): State<Arc<Acceptor>>, request: Request) -> Response {
    let has_body = !request.body().is_end_stream();
    // The body is left alone, and unlike the rest may not be shared across an await.
    let (mut request, _) = request.into_parts();
    let accept = match websocket_key(&request, &acceptor.path) {
        Ok(key) => derive_accept_key(key.as_bytes()),
        Err(response) => return *response,
    };
    if has_body {
        return HttpRefusal::Body.into_response();
    }
    let Some(upgrade) = request.extensions.remove::<OnUpgrade>() else {
        return upgrade_required(&acceptor.path);
    };
    let pending = request.extensions.remove::<PendingConnection>();
    let mut phases = JoinPhases::new(
        &acceptor.path,
        &request.headers,
        pending.as_ref().and_then(PendingConnection::accepted),
    );
    // Once: the whole join goes by the same settings.
    let setup = acceptor.live.now();
    let offer = request::offer(&request.headers);
    let client = |pending: &PendingConnection| pending.client(&setup.proxies, &request.headers);
    let address = Address::from(pending.as_ref().map_or(NOBODY, client));
    let connection = phases.connection().span().clone();
    let admitted = acceptor.admit(
        &setup,
        &request,
        offer,
        address,
        pending.as_ref(),
        &mut phases,
    );
    match admitted.instrument(connection).await {
        Ok(admitted) => {
            let sockets = acceptor.sockets.clone();
            sockets.spawn(serve(
                Arc::clone(&acceptor),
                upgrade,
                admitted,
                Box::new(Opening {
                    phases,
                    limits: SessionLimits::from(&setup.config.sockets),
                    max_message_bytes: setup.config.sockets.max_message_bytes,
                    offer,
                }),
            ));
            switching(&accept, offer)
        }
        Err(Refusal::Close(reason)) => {
            debug!(code = reason.code(), reason = reason.text(), "refused");
            acceptor.metrics().count_close(code_label(reason.code()));
            let bytes = setup.config.sockets.max_message_bytes;
            let refused = refuse(Arc::clone(&acceptor), upgrade, bytes, reason, phases);
            acceptor.sockets.spawn(async move {
                // It does not count as a socket: until it is gone it stays a pending connection.
                match pending {
                    Some(pending) => tokio::select! {
                        () = refused => {}
                        () = pending.is_wanted() => {}
                    },
                    None => refused.await,
                }
            });
            switching(&accept, offer)
        }
        Err(Refusal::Http(refusal)) => {
            acceptor.metrics().join_refused(refusal.reason);
            answer_refused(refusal, address, &mut phases)
        }
    }
}

/// An HTTP error instead of a socket.
fn answer_refused(refusal: HttpAnswer, address: Address, phases: &mut JoinPhases) -> Response {
    let (status, reason) = (refusal.reason.status(), refusal.reason.label());
    phases.end();
    let connection = phases.connection();
    connection.ended(&JoinOutcome::Refused { status, reason });
    connection
        .span()
        .in_scope(|| debug!(status, reason, %address, "join refused"));
    refusal.into_response()
}

/// Upgrades and closes at once.
async fn refuse(
    acceptor: Arc<Acceptor>,
    upgrade: OnUpgrade,
    max_message_bytes: usize,
    reason: CloseReason,
    mut phases: JoinPhases,
) {
    phases.begin(JoinPhase::Open);
    if let Some((conn, read)) = upgraded(upgrade).instrument(phases.span()).await {
        // For its close frame alone.
        let writer = Writer::new(0, Arc::clone(&acceptor.queues));
        let mut transport = Transport::new(conn, read, max_message_bytes, writer).await;
        let is_written = transport.close(reason).await;
        phases.end();
        phases.connection().ended(&JoinOutcome::Closed {
            code: reason.code(),
            reason: reason.text(),
        });
        drop((acceptor, phases));
        if is_written {
            // Nothing but the close frame waits.
            let answer = transport.finish(Unsent::Left).await;
            debug!(?answer, "closing handshake of a refusal ended");
            transport.end_after(answer, Unsent::Left).await;
        } else {
            transport.reset();
        }
    }
}

async fn serve(
    acceptor: Arc<Acceptor>,
    upgrade: OnUpgrade,
    admitted: Admitted,
    mut opening: Box<Opening>,
) {
    let Admitted {
        socket,
        membership,
        guards,
    } = admitted;
    let span = opening.phases.span();
    let Some((conn, read)) = upgraded(upgrade).instrument(span).await else {
        return;
    };
    opening.phases.end();
    let trace = acceptor.opened(&mut opening.phases, &socket);
    let Opening {
        offer,
        phases,
        limits,
        max_message_bytes,
    } = *opening;
    // With them the connection's span: it is not to be open as long as the socket.
    drop(phases);
    let expires_at = socket.credential().expires_at;
    let has_control = offer == SubprotocolOffer::Ours(Subprotocol::V2);
    if has_control {
        let session = socket.session.to_string();
        // Before the writer opens: a notification may wait already.
        socket
            .writer
            .hello(ControlMessage::hello(session, expires_at, &limits).frame());
    }
    let transport = Transport::new(conn, read, max_message_bytes, socket.writer.clone()).await;
    let now = Instant::now();
    let age = now.saturating_duration_since(*FIRST_OPENED);
    let first_ping = first_ping(limits.ping, socket.session.low_byte(), age);
    let session = Session::new(limits, expires_at, now, first_ping);
    let mut pump = Pump {
        transport,
        session,
        socket,
        membership,
        acceptor,
        trace,
        opened: now,
        has_control,
        probe: None,
    };
    let end = pump.run().await;
    pump.finish(end).await;
    drop(guards);
}

/// Any path but the sockets' and those of the gateway's health.
pub(crate) async fn elsewhere(State(acceptor): State<Arc<Acceptor>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let path = acceptor.path();
    // A client that lost its way, or a proxy that changes paths. Scanners ask for pages.
    if websocket_key(&request, path).is_ok() {
        acceptor.metrics().join_refused(HttpRefusal::Path);
        debug!(status = 404, reason = "path", "join refused");
    }
    let text = format!(
        "{} Sockets are at wss://<host>{path} (server.path), \
         the gateway's health at /healthz and /readyz.",
        HttpRefusal::Path.text()
    );
    HttpRefusal::Path.answer(&text, None)
}

/// The connection after the 101, and what was read of it already.
async fn upgraded(upgrade: OnUpgrade) -> Option<(Conn, bytes::Bytes)> {
    match upgrade.await {
        Ok(upgraded) => match upgraded.downcast::<TokioIo<Conn>>() {
            Ok(parts) => Some((parts.io.into_inner(), parts.read_buf)),
            Err(_) => {
                warn!("upgraded connection is of another kind than the listener's");
                None
            }
        },
        Err(error) => {
            debug!(%error, "peer left during the handshake");
            None
        }
    }
}

/// When a socket is pinged first that opens `age` after the first one: between half and all of the interval, so that those
/// opened together are pinged apart. But in each interval there are a few moments for all sockets, so that one wake-up
/// serves many: 10,000 idle sockets cost 17 ms of CPU a second so, and 45 without.
fn first_ping(interval: Duration, share: u8, age: Duration) -> Duration {
    let first = interval / 2 + interval / 510 * u32::from(share);
    let apart = (interval / PING_MOMENTS).as_nanos().max(1);
    let late = u64::try_from((age + first).as_nanos() % apart).unwrap_or_default();
    first.saturating_sub(Duration::from_nanos(late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_pinged_apart_but_many_at_a_time() {
        let interval = Duration::from_secs(25);
        let mut moments = std::collections::HashSet::new();
        for opened in 0..10_000_u32 {
            let age = Duration::from_micros(1_234_567) * opened;
            let first = first_ping(interval, (opened % 256) as u8, age);
            let least = interval / 2 - interval / PING_MOMENTS;
            assert!(least <= first && first <= interval, "{first:?}");
            moments.insert((age + first).as_nanos() % interval.as_nanos());
        }
        assert_eq!(moments.len(), PING_MOMENTS as usize);
        // However short it is.
        assert!(first_ping(Duration::from_nanos(7), 255, interval) <= Duration::from_nanos(7));
    }

    fn size_of_future<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Each idle socket keeps this future for hours. What only its end needs must not be a part of
    /// it: with the closing handshake inside it had 3.5 KiB.
    #[test]
    fn the_future_of_an_idle_socket_is_small() {
        let size = size_of_future(serve);
        assert!(size <= 1536, "{size} bytes");
    }
}
