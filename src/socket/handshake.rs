//! The way from a request to an open socket: checks in their order, the join, and only then the 101.
//!
//! A refusal that the contract names is upgraded and closed at once, since a browser shows a failed
//! handshake as 1006 and nothing else. A refusal that means "later" is an HTTP error before the
//! upgrade, so that the contract's client, which resets its back-off on `open`, backs off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::pump::Pump;
use super::session::{Session, SessionLimits};
use super::transport::Transport;
use super::{CloseReason, Outbox, code_label, request};
use crate::auth::{Identity, UserKey, Verifier, presented_token};
use crate::config::Config;
use crate::event::WorkspaceSlug;
use crate::ops::Conn;
use crate::room::{JoinError, JoinRequest, Membership, RoomHandle, Rooms};
use crate::telemetry::Metrics;

/// What a client is told to wait where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What every handshake and socket of a gateway needs.
#[derive(Debug)]
pub struct Doorway {
    verifier: Verifier,
    limits: SessionLimits,
    max_message_bytes: usize,
    queue_bytes: usize,
    allowed_origins: Vec<String>,
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// There once NATS is.
    rooms: OnceLock<Rooms>,
    sockets: TaskTracker,
    draining: AtomicBool,
}

/// A request that is not answered with a socket.
enum Refusal {
    /// Upgraded and closed with its code.
    Close(CloseReason),
    /// An HTTP error.
    Http {
        status: StatusCode,
        reason: &'static str,
        text: &'static str,
        retry_after: Option<Duration>,
    },
}

impl Doorway {
    /// A doorway that lets nobody in until [`Doorway::open`].
    pub fn new(config: &Config, verifier: Verifier, metrics: Arc<Metrics>) -> Self {
        Self {
            verifier,
            limits: SessionLimits::from(&config.sockets),
            max_message_bytes: config.sockets.max_message_bytes,
            queue_bytes: config.sockets.queue_bytes,
            allowed_origins: config.server.allowed_origins.clone(),
            permits: Arc::new(Semaphore::new(
                config.sockets.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            metrics,
            rooms: OnceLock::new(),
            sockets: TaskTracker::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// NATS is there: joins may begin. A second call changes nothing.
    pub fn open(&self, rooms: Rooms) {
        self.rooms.get_or_init(|| rooms);
    }

    /// From now on every join is refused.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The tasks of all sockets.
    pub fn sockets(&self) -> &TaskTracker {
        &self.sockets
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Verifies a fresh token for an open socket.
    pub(super) fn refresh(
        &self,
        token: &str,
        user: UserKey,
        workspace: &WorkspaceSlug,
        now: SystemTime,
    ) -> Result<SystemTime, CloseReason> {
        let identity = self.verifier.verify(token, now)?;
        if identity.user != user {
            return Err(CloseReason::OtherUser);
        }
        if !identity.workspaces.allow(workspace) {
            return Err(CloseReason::NoAccess);
        }
        Ok(identity.expires_at)
    }

    /// Waits until everything stored before now is queued for the members of `room`.
    pub(super) async fn catch_up(&self, room: &RoomHandle) {
        if let Some(rooms) = self.rooms.get()
            && let Some(end) = rooms.floor().await
        {
            room.barrier(end).await;
        }
    }

    /// The checks in their order; what passes them all is a member of its room.
    async fn admit(&self, request: &Parts) -> Result<Admitted, Refusal> {
        if !request::origin_allowed(&request.headers, &self.allowed_origins) {
            return Err(Refusal::http(
                StatusCode::FORBIDDEN,
                "origin",
                "this origin may not connect\n",
            ));
        }
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::later("draining", "the gateway is restarting\n"));
        }
        let (identity, workspace) = self.authorize(request)?;
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Refusal::later("capacity", "the gateway is full\n"))?;
        let rooms = self
            .rooms
            .get()
            .ok_or_else(|| Refusal::later("nats", "NATS is away\n"))?;
        let outbox = Outbox::new(self.queue_bytes);
        let membership = rooms
            .join(JoinRequest {
                workspace: workspace.clone(),
                user: identity.user,
                subject: Arc::clone(&identity.subject),
                outbox: outbox.clone(),
            })
            .await?;
        Ok(Admitted {
            user: identity.user,
            expires_at: identity.expires_at,
            workspace,
            outbox,
            membership,
            permit,
        })
    }

    /// Token, then slug, then access.
    fn authorize(&self, request: &Parts) -> Result<(Identity, WorkspaceSlug), CloseReason> {
        let token = presented_token(request.uri.query(), &request.headers)?;
        let identity = self.verifier.verify(token.expose(), SystemTime::now())?;
        let workspace = request::workspace(&request.uri)?;
        if !identity.workspaces.allow(&workspace) {
            return Err(CloseReason::NoAccess);
        }
        Ok((identity, workspace))
    }
}

/// A member of a room that waits for its socket.
struct Admitted {
    user: UserKey,
    expires_at: SystemTime,
    workspace: WorkspaceSlug,
    outbox: Outbox,
    membership: Membership,
    permit: OwnedSemaphorePermit,
}

/// `GET /`: a WebSocket, or the reason why not.
pub async fn upgrade(State(doorway): State<Arc<Doorway>>, request: Request) -> Response {
    // The body is left alone, and unlike the rest may not be shared across an await.
    let (mut request, _) = request.into_parts();
    let accept = match websocket_key(&request) {
        Ok(key) => derive_accept_key(key.as_bytes()),
        Err(response) => return *response,
    };
    let Some(upgrade) = request.extensions.remove::<OnUpgrade>() else {
        return upgrade_required();
    };
    match doorway.admit(&request).await {
        Ok(admitted) => {
            let sockets = doorway.sockets.clone();
            sockets.spawn(serve(Arc::clone(&doorway), upgrade, admitted));
            switching(&accept, &request.headers)
        }
        Err(Refusal::Close(reason)) => {
            debug!(code = reason.code(), reason = reason.text(), "refused");
            doorway.metrics.count_close(code_label(reason.code()));
            let limit = doorway.max_message_bytes;
            doorway.sockets.spawn(async move {
                if let Some((conn, read)) = upgraded(upgrade).await {
                    Transport::new(conn, read, limit).await.close(reason).await;
                }
            });
            switching(&accept, &request.headers)
        }
        Err(Refusal::Http {
            status,
            reason,
            text,
            retry_after,
        }) => {
            doorway.metrics.join_refused(reason);
            let mut response = (status, text).into_response();
            if let Some(after) = retry_after {
                let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

async fn serve(doorway: Arc<Doorway>, upgrade: OnUpgrade, admitted: Admitted) {
    let Admitted {
        user,
        expires_at,
        workspace,
        outbox,
        membership,
        permit,
    } = admitted;
    let Some((conn, read)) = upgraded(upgrade).await else {
        return;
    };
    let transport = Transport::new(conn, read, doorway.max_message_bytes).await;
    let session = Session::new(
        doorway.limits,
        expires_at,
        Instant::now(),
        first_ping(doorway.limits.ping, &membership),
    );
    let mut pump = Pump {
        transport,
        session,
        outbox,
        membership,
        doorway,
        user,
        workspace,
    };
    let end = pump.run().await;
    pump.finish(end).await;
    drop(permit);
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

/// Between half and all of the interval, so that sockets opened together are pinged apart.
fn first_ping(interval: Duration, membership: &Membership) -> Duration {
    let share = u32::from(membership.session().low_byte());
    interval / 2 + interval / 510 * share
}

/// The key of a request that is a WebSocket handshake (RFC 6455 4.2.1).
fn websocket_key(request: &Parts) -> Result<String, Box<Response>> {
    let headers = &request.headers;
    let is_upgrade = request.method == Method::GET
        && has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket");
    if !is_upgrade {
        return Err(Box::new(upgrade_required()));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Box::new(upgrade_required()));
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        .filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16))
        .map(str::to_owned)
        .ok_or_else(|| {
            let text = "Sec-WebSocket-Key is not 16 bytes in base64\n";
            Box::new((StatusCode::BAD_REQUEST, text).into_response())
        })
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn upgrade_required() -> Response {
    let text = "This is a WebSocket endpoint. Connect with a WebSocket client (version 13): \
        wss://<host>/?token=<JWT>&workspaceSlug=<workspace>\n";
    let headers = [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
    ];
    (StatusCode::UPGRADE_REQUIRED, headers, text).into_response()
}

fn switching(accept: &str, request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if request::offers_subprotocol(request) {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(request::SUBPROTOCOL),
        );
    }
    response
}

impl Refusal {
    fn http(status: StatusCode, reason: &'static str, text: &'static str) -> Self {
        Self::Http {
            status,
            reason,
            text,
            retry_after: None,
        }
    }

    fn later(reason: &'static str, text: &'static str) -> Self {
        Self::Http {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason,
            text,
            retry_after: Some(RETRY_AFTER),
        }
    }
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason)
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Unavailable => Self::later("nats", "NATS is away\n"),
            JoinError::Flapping { retry_after } => Self::Http {
                status: StatusCode::CONFLICT,
                reason: "flapping",
                text: "connections of this user replace each other\n",
                retry_after: Some(retry_after),
            },
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
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
