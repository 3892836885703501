//! The way from a request to an open socket: checks in their order, the join, and only then the 101.
//!
//! A refusal that the contract names is upgraded and closed at once, since a browser shows a failed
//! handshake as 1006 and nothing else. A refusal that means "later" is an HTTP error before the
//! upgrade, so that the contract's client, which resets its back-off on `open`, backs off.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, warn};

use super::close::Unsent;
use super::pump::Pump;
use super::refusal::Refusal;
use super::request::{self, Offer, Subprotocol};
use super::session::{Session, SessionLimits};
use super::transport::Transport;
use super::upgrade::{body_refused, switching, upgrade_required, websocket_key};
use super::{CloseReason, Control, QueueLimits, Writer, code_label};
use crate::admission::{Address, Admission, Permit, Place};
use crate::auth::{AuthError, Identity, UserKey};
use crate::config::Config;
use crate::event::WorkspaceSlug;
use crate::ops::{Arrival, Conn, Live, Setup};
use crate::room::{Damper, JoinRequest, Membership, RoomHandle, Rooms};
use crate::telemetry::{ConnectionTrace, Metrics, Outcome, Step, Steps, Telemetry};

/// Joins under way at a time. A storm of 10,000 at once lets the sockets that are there wait for 38 ms at
/// the 99th percentile, instead of 200 ms without a bound, and takes a tenth longer. It is far more than
/// the joins that one round trip to NATS keeps waiting, so that they do not wait for each other.
const JOINS: usize = 256;
/// How long a join may wait until it begins. Then it has its own time limit.
const TURN: Duration = Duration::from_secs(3);
/// Moments in the interval of pings at which sockets are pinged, so 100 ms apart by default.
const PING_MOMENTS: u32 = 250;
/// These moments are counted from here on.
static FIRST_OPENED: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The client of a request that came by no listener of ours, as none does.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What every handshake and socket of a gateway needs.
#[derive(Debug)]
pub struct Doorway {
    /// `server.path` of the start.
    path: String,
    live: Live,
    admission: Admission,
    /// Fair: who came first begins first.
    turns: Semaphore,
    metrics: Arc<Metrics>,
    /// There once NATS is.
    rooms: OnceLock<Rooms>,
    sockets: TaskTracker,
    draining: AtomicBool,
}

impl Doorway {
    /// A doorway that lets nobody in until [`Doorway::open`], and never more than `most` sockets, whatever the
    /// settings say.
    pub fn new(live: Live, most: usize, telemetry: &Telemetry) -> Self {
        Self {
            path: live.now().config.server.path.clone(),
            live,
            admission: Admission::up_to(most),
            turns: Semaphore::new(JOINS),
            metrics: Arc::clone(telemetry.metrics()),
            rooms: OnceLock::new(),
            sockets: TaskTracker::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// The path of the sockets' URL.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// NATS is there: joins may begin. A second call changes nothing.
    pub fn open(&self, rooms: Rooms) {
        self.rooms.get_or_init(|| rooms);
    }

    /// From now on every join is refused.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until no join is under way; those that began before [`Doorway::drain`] still open.
    pub async fn settled(&self) {
        const ALL: u32 = JOINS as u32;
        // It is never closed. Whoever waits for a turn comes before us, and is refused.
        let _all = self.turns.acquire_many(ALL).await;
    }

    /// The tasks of all sockets.
    pub fn sockets(&self) -> &TaskTracker {
        &self.sockets
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where replacements are counted, once there is NATS.
    pub(super) fn damper(&self) -> Option<Damper> {
        let rooms = self.rooms.get()?;
        Some(rooms.context().damper.clone())
    }

    /// Verifies a fresh token for an open socket, whose own one is good until `until`. One that becomes
    /// valid before that is good from then on; one that does so a little later changes nothing.
    pub(super) fn refresh(
        &self,
        token: &str,
        user: UserKey,
        workspace: &WorkspaceSlug,
        until: SystemTime,
    ) -> Result<SystemTime, CloseReason> {
        let checked = (|| -> Result<SystemTime, Refusal> {
            let setup = self.live.now();
            let judged = setup.verifier.judge(token, SystemTime::now())?;
            if judged.identity().user != user {
                return Err(CloseReason::OtherUser.into());
            }
            if !judged.allows(workspace) {
                return Err(CloseReason::NoAccess.into());
            }
            Ok(judged.valid_by(until)?.expires_at)
        })();
        self.count_check("refresh", checked.as_ref().err());
        match checked {
            Ok(expires_at) => Ok(expires_at),
            Err(Refusal::Close(reason)) => Err(reason),
            Err(Refusal::Http(_)) => Ok(until),
        }
    }

    fn count_check(&self, usage: &'static str, wrong: Option<&Refusal>) {
        let result = match wrong {
            Some(Refusal::Close(CloseReason::NoToken)) => "missing",
            Some(Refusal::Close(CloseReason::BadToken)) => "invalid",
            Some(Refusal::Close(CloseReason::TokenExpired)) => "expired",
            Some(Refusal::Close(CloseReason::NoAccess)) => "no_access",
            Some(Refusal::Close(CloseReason::OtherUser)) => "other_user",
            Some(Refusal::Http(_)) => "not_yet",
            // The token was good; the rest of the request may not be.
            Some(Refusal::Close(_)) | None => "ok",
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

    /// The checks in their order; what passes them all is a member of its room. The rates come before
    /// the token is looked at: a flood must not cost a signature check each.
    async fn admit(
        &self,
        setup: &Setup,
        request: &Parts,
        offer: Offer,
        address: Address,
        steps: &mut Steps,
    ) -> Result<Admitted, Refusal> {
        let Config {
            server, sockets, ..
        } = &setup.config;
        steps.begin(Step::Authenticate);
        if !request::origin_allowed(&request.headers, &server.allowed_origins) {
            return Err(Refusal::ORIGIN);
        }
        if offer == Offer::Others {
            return Err(Refusal::SUBPROTOCOL);
        }
        self.not_draining()?;
        self.admission.attempt(sockets, address)?;
        let mut turn = self.turn().instrument(steps.step()).await?;
        let (identity, workspace) = self.authorize(setup, request, address)?;
        steps.begin(Step::Activate);
        let rooms = self.rooms.get().ok_or(Refusal::NATS)?;
        let damper = &rooms.context().damper;
        if damper.is_blocked(&workspace, identity.user) {
            // Others are not to wait meanwhile.
            drop(turn);
            let asked = damper.ask(&workspace, identity.user);
            asked.instrument(steps.step()).await?;
            turn = self.turn().instrument(steps.step()).await?;
        }
        let place = self.admission.place(sockets, address);
        let place = place.ok_or(Refusal::ADDRESS_CONNECTIONS)?;
        let permit = self.admission.permit(sockets);
        let permit = permit.ok_or(Refusal::CAPACITY)?;
        // What is stored for the newcomer could not be repaired.
        if let Some(trouble) = rooms.context().readable.trouble(server.unready_after) {
            return Err(Refusal::unreadable(&trouble));
        }
        let writer = Writer::new(QueueLimits::from(sockets), Arc::clone(self.metrics.depth()));
        let join = JoinRequest {
            workspace: workspace.clone(),
            user: identity.user,
            subject: Arc::clone(&identity.subject),
            writer: writer.clone(),
        };
        let membership = rooms.join(join, steps).await?;
        drop(turn);
        Ok(Admitted {
            user: identity.user,
            expires_at: identity.expires_at,
            workspace,
            writer,
            membership,
            permits: Box::new((permit, place)),
        })
    }

    /// The turn to join, while nothing drains.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let turn = timeout(TURN, self.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refusal::BUSY);
        };
        // It may have taken a while, and a claim closes the user's other socket.
        self.not_draining()?;
        Ok(turn)
    }

    fn not_draining(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::DRAINING);
        }
        Ok(())
    }

    /// Tells of a socket that is open.
    fn opened(
        &self,
        steps: &mut Steps,
        workspace: &WorkspaceSlug,
        membership: &Membership,
    ) -> Option<Box<ConnectionTrace>> {
        for (step, took) in steps.took() {
            self.metrics.join_step(step, took);
        }
        let session = membership.session();
        let connection = steps.connection();
        connection.ended(&Outcome::Open {
            workspace: workspace.as_str(),
            session: session.to_string(),
        });
        connection
            .span()
            .in_scope(|| debug!(%session, %workspace, "socket opened"));
        connection.trace()
    }

    /// Looks at the token, unless it was expired each time of late.
    fn authorize(
        &self,
        setup: &Setup,
        request: &Parts,
        address: Address,
    ) -> Result<(Identity, WorkspaceSlug), Refusal> {
        let token = match request::token(request, setup.config.auth.cookie.as_deref()) {
            Err(refusal @ Refusal::Close(_)) => {
                self.count_check("join", Some(&refusal));
                return Err(refusal);
            }
            // No token is looked at where one may not come in a cookie.
            token => token?,
        };
        let known = self.admission.known(token.expose(), address);
        known.map_err(Refusal::token_expired)?;
        let checked = check(setup, token.expose(), request);
        self.count_check("join", checked.as_ref().err());
        if let Err(Refusal::Close(CloseReason::TokenExpired)) = &checked {
            self.admission.expired(token.expose(), address);
        }
        checked
    }
}

/// Token, then slug, then access; the moment from which the token is valid comes last, since "later" promises
/// that all else is right.
fn check(
    setup: &Setup,
    token: &str,
    request: &Parts,
) -> Result<(Identity, WorkspaceSlug), Refusal> {
    let now = SystemTime::now();
    let workspace = request::workspace(&request.uri);
    let judged = match setup.verifier.judge(token, now) {
        Err(AuthError::NotYet(pause)) => {
            return Err(workspace
                .err()
                .map_or(Refusal::token_not_yet(pause), Into::into));
        }
        judged => judged?,
    };
    let workspace = workspace?;
    if !judged.allows(&workspace) {
        return Err(CloseReason::NoAccess.into());
    }
    Ok((judged.valid_by(now)?, workspace))
}

/// A member of a room that waits for its socket.
struct Admitted {
    user: UserKey,
    expires_at: SystemTime,
    workspace: WorkspaceSlug,
    writer: Writer,
    membership: Membership,
    /// Of the gateway's sockets, and of its address'. Boxed: the socket's future holds it twice.
    permits: Box<(Permit, Place)>,
}

/// What is needed until a socket is open, and not after. Boxed, so that its future does not keep it.
struct Opening {
    steps: Steps,
    limits: SessionLimits,
    max_message_bytes: usize,
    offer: Offer,
}

/// `GET` of the sockets' path: a WebSocket, or the reason why not.
pub async fn upgrade(State(doorway): State<Arc<Doorway>>, request: Request) -> Response {
    let has_body = !request.body().is_end_stream();
    // The body is left alone, and unlike the rest may not be shared across an await.
    let (mut request, _) = request.into_parts();
    let accept = match websocket_key(&request, &doorway.path) {
        Ok(key) => derive_accept_key(key.as_bytes()),
        Err(response) => return *response,
    };
    if has_body {
        return body_refused();
    }
    let Some(upgrade) = request.extensions.remove::<OnUpgrade>() else {
        return upgrade_required(&doorway.path);
    };
    let arrival = request.extensions.remove::<Arrival>();
    let mut steps = Steps::new(
        &doorway.path,
        &request.headers,
        arrival.as_ref().and_then(Arrival::accepted),
    );
    // Once: the whole join goes by the same settings.
    let setup = doorway.live.now();
    let offer = request::offer(&request.headers);
    let client = |arrival: &Arrival| arrival.client(&setup.proxies, &request.headers);
    let address = Address::from(arrival.as_ref().map_or(NOBODY, client));
    let connection = steps.connection().span().clone();
    let admitted = doorway.admit(&setup, &request, offer, address, &mut steps);
    match admitted.instrument(connection).await {
        Ok(admitted) => {
            let sockets = doorway.sockets.clone();
            sockets.spawn(serve(
                Arc::clone(&doorway),
                upgrade,
                admitted,
                Box::new(Opening {
                    steps,
                    limits: SessionLimits::from(&setup.config.sockets),
                    max_message_bytes: setup.config.sockets.max_message_bytes,
                    offer,
                }),
            ));
            switching(&accept, offer)
        }
        Err(Refusal::Close(reason)) => {
            debug!(code = reason.code(), reason = reason.text(), "refused");
            doorway.metrics.count_close(code_label(reason.code()));
            let bytes = setup.config.sockets.max_message_bytes;
            let refused = refuse(Arc::clone(&doorway), upgrade, bytes, reason, steps);
            doorway.sockets.spawn(async move {
                // It is no socket that counts: until it is gone it keeps its place among the arrivals.
                match arrival {
                    Some(arrival) => tokio::select! {
                        () = refused => {}
                        () = arrival.is_wanted() => {}
                    },
                    None => refused.await,
                }
            });
            switching(&accept, offer)
        }
        Err(Refusal::Http(refusal)) => {
            let (status, reason) = (refusal.status.as_u16(), refusal.reason);
            doorway.metrics.join_refused(reason);
            steps.end();
            let connection = steps.connection();
            connection.ended(&Outcome::Refused { status, reason });
            connection
                .span()
                .in_scope(|| debug!(status, reason, %address, "join refused"));
            refusal.into_response()
        }
    }
}

/// Upgrades and closes at once.
async fn refuse(
    doorway: Arc<Doorway>,
    upgrade: OnUpgrade,
    max_message_bytes: usize,
    reason: CloseReason,
    mut steps: Steps,
) {
    steps.begin(Step::Open);
    if let Some((conn, read)) = upgraded(upgrade).instrument(steps.step()).await {
        // For its close frame alone.
        let writer = Writer::new(0, Arc::clone(doorway.metrics.depth()));
        let mut transport = Transport::new(conn, read, max_message_bytes, writer).await;
        let is_written = transport.close(reason).await;
        steps.end();
        steps.connection().ended(&Outcome::Closed {
            code: reason.code(),
            reason: reason.text(),
        });
        drop((doorway, steps));
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
    doorway: Arc<Doorway>,
    upgrade: OnUpgrade,
    admitted: Admitted,
    mut opening: Box<Opening>,
) {
    let Admitted {
        user,
        expires_at,
        workspace,
        writer,
        membership,
        permits,
    } = admitted;
    let step = opening.steps.step();
    let Some((conn, read)) = upgraded(upgrade).instrument(step).await else {
        return;
    };
    opening.steps.end();
    let trace = doorway.opened(&mut opening.steps, &workspace, &membership);
    let Opening {
        offer,
        steps,
        limits,
        max_message_bytes,
    } = *opening;
    // With them the connection's span: it is not to be open as long as the socket.
    drop(steps);
    let has_control = offer == Offer::Ours(Subprotocol::V2);
    if has_control {
        let session = membership.session().to_string();
        // Before the writer opens: a notification may wait already.
        writer.hello(Control::hello(session, expires_at, &limits).frame());
    }
    let transport = Transport::new(conn, read, max_message_bytes, writer.clone()).await;
    let now = Instant::now();
    let age = now.saturating_duration_since(*FIRST_OPENED);
    let first_ping = first_ping(limits.ping, membership.session().low_byte(), age);
    let session = Session::new(limits, expires_at, now, first_ping);
    let mut pump = Pump {
        transport,
        session,
        writer,
        membership,
        doorway,
        user,
        workspace,
        trace,
        opened: now,
        has_control,
        probe: None,
    };
    let end = pump.run().await;
    pump.finish(end).await;
    drop(permits);
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
