//! The way from a request to an open socket: checks in their order, the join, and only then the 101.
//!
//! A refusal that the contract names is upgraded and closed at once, since a browser shows a failed
//! handshake as 1006 and nothing else. A refusal that means "later" is an HTTP error before the
//! upgrade, so that the contract's client, which resets its back-off on `open`, backs off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::in_flight::InFlight;
use super::pump::Pump;
use super::session::{Session, SessionLimits};
use super::transport::Transport;
use super::upgrade::{switching, upgrade_required, websocket_key};
use super::{CloseReason, Outbox, code_label, request};
use crate::auth::{Identity, UserKey, Verifier, presented_token};
use crate::config::Config;
use crate::event::WorkspaceSlug;
use crate::ops::Conn;
use crate::room::{JoinError, JoinRequest, Membership, RoomHandle, Rooms};
use crate::telemetry::{Clock, ConnectionTrace, Metrics, Outcome, Step, Steps, Telemetry, Tracing};

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
    tracing: Option<Arc<Tracing>>,
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
    pub fn new(config: &Config, verifier: Verifier, telemetry: &Telemetry) -> Self {
        Self {
            verifier,
            limits: SessionLimits::from(&config.sockets),
            max_message_bytes: config.sockets.max_message_bytes,
            queue_bytes: config.sockets.queue_bytes,
            allowed_origins: config.server.allowed_origins.clone(),
            permits: Arc::new(Semaphore::new(
                config.sockets.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            metrics: Arc::clone(telemetry.metrics()),
            tracing: telemetry.tracing().cloned(),
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

    pub(super) fn tracing(&self) -> Option<&Arc<Tracing>> {
        self.tracing.as_ref()
    }

    /// Verifies a fresh token for an open socket.
    pub(super) fn refresh(
        &self,
        token: &str,
        user: UserKey,
        workspace: &WorkspaceSlug,
        now: SystemTime,
    ) -> Result<SystemTime, CloseReason> {
        let checked = (|| {
            let identity = self.verifier.verify(token, now)?;
            if identity.user != user {
                return Err(CloseReason::OtherUser);
            }
            if !identity.workspaces.allow(workspace) {
                return Err(CloseReason::NoAccess);
            }
            Ok(identity.expires_at)
        })();
        self.count_check("refresh", checked.as_ref().err());
        checked
    }

    fn count_check(&self, usage: &'static str, wrong: Option<&CloseReason>) {
        let result = match wrong {
            Some(CloseReason::NoToken) => "missing",
            Some(CloseReason::BadToken) => "invalid",
            Some(CloseReason::TokenExpired) => "expired",
            Some(CloseReason::NoAccess) => "no_access",
            Some(CloseReason::OtherUser) => "other_user",
            // The token was good; the rest of the request may not be.
            Some(_) | None => "ok",
        };
        self.metrics.token_check(usage, result);
    }

    /// Waits until everything stored before now is queued for the members of `room`.
    pub(super) async fn catch_up(&self, room: &RoomHandle) {
        if let Some(rooms) = self.rooms.get()
            && let Some(end) = rooms.floor().await
        {
            room.barrier(end.sequence).await;
        }
    }

    /// The checks in their order; what passes them all is a member of its room.
    async fn admit(&self, request: &Parts, steps: &mut Steps) -> Result<Admitted, Refusal> {
        steps.begin(Step::Authenticate);
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
        let authorized = self.authorize(request);
        self.count_check("join", authorized.as_ref().err());
        let (identity, workspace) = authorized?;
        steps.begin(Step::Activate);
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Refusal::later("capacity", "the gateway is full\n"))?;
        let rooms = self
            .rooms
            .get()
            .ok_or_else(|| Refusal::later("nats", "NATS is away\n"))?;
        let outbox = Outbox::new(self.queue_bytes, Arc::clone(self.metrics.depth()));
        let join = JoinRequest {
            workspace: workspace.clone(),
            user: identity.user,
            subject: Arc::clone(&identity.subject),
            outbox: outbox.clone(),
        };
        let membership = rooms.join(join, steps).await?;
        Ok(Admitted {
            user: identity.user,
            expires_at: identity.expires_at,
            workspace,
            outbox,
            membership,
            permit,
        })
    }

    /// The spans of a join that has ended, if it is recorded.
    fn trace(&self, steps: &Steps, outcome: &Outcome<'_>) -> Option<Box<ConnectionTrace>> {
        let tracing = self.tracing.as_ref()?;
        tracing.connection(steps, outcome).map(Box::new)
    }

    /// Tells of a socket that is open.
    fn opened(
        &self,
        steps: &Steps,
        workspace: &WorkspaceSlug,
        membership: &Membership,
    ) -> Option<Box<ConnectionTrace>> {
        for (step, took) in steps.took() {
            self.metrics.join_step(step, took);
        }
        let session = membership.session();
        let open = Outcome::Open {
            workspace: workspace.as_str(),
            session: session.to_string(),
        };
        let trace = self.trace(steps, &open);
        let _current = trace.as_ref().map(|trace| trace.enter());
        debug!(%session, %workspace, "socket opened");
        trace
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
    let accepted = request.extensions.remove::<Clock>();
    let mut steps = Steps::new(&request.headers, accepted);
    match doorway.admit(&request, &mut steps).await {
        Ok(admitted) => {
            let sockets = doorway.sockets.clone();
            sockets.spawn(serve(
                Arc::clone(&doorway),
                upgrade,
                admitted,
                Box::new(steps),
            ));
            switching(&accept, &request.headers)
        }
        Err(Refusal::Close(reason)) => {
            debug!(code = reason.code(), reason = reason.text(), "refused");
            doorway.metrics.count_close(code_label(reason.code()));
            let refused = refuse(Arc::clone(&doorway), upgrade, reason, steps);
            doorway.sockets.spawn(refused);
            switching(&accept, &request.headers)
        }
        Err(Refusal::Http {
            status,
            reason,
            text,
            retry_after,
        }) => {
            doorway.metrics.join_refused(reason);
            steps.end();
            let status_code = status.as_u16();
            let refused = Outcome::Refused {
                status: status_code,
                reason,
            };
            let trace = doorway.trace(&steps, &refused);
            let _current = trace.as_ref().map(|trace| trace.enter());
            debug!(status = status_code, reason, "join refused");
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

/// Upgrades and closes at once.
async fn refuse(doorway: Arc<Doorway>, upgrade: OnUpgrade, reason: CloseReason, mut steps: Steps) {
    steps.begin(Step::Open);
    if let Some((conn, read)) = upgraded(upgrade).await {
        let mut transport = Transport::new(conn, read, doorway.max_message_bytes).await;
        let is_written = transport.close(reason).await;
        steps.end();
        let closed = Outcome::Closed {
            code: reason.code(),
            reason: reason.text(),
        };
        // Nothing follows that would link to it.
        let _trace = doorway.trace(&steps, &closed);
        if is_written {
            transport.finish().await;
        } else {
            transport.reset();
        }
    }
}

async fn serve(
    doorway: Arc<Doorway>,
    upgrade: OnUpgrade,
    admitted: Admitted,
    mut steps: Box<Steps>,
) {
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
    steps.end();
    let trace = doorway.opened(&steps, &workspace, &membership);
    drop(steps);
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
        in_flight: InFlight::default(),
        trace,
        opened: Instant::now(),
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
