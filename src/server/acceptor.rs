//! Who becomes a socket: the checks of a handshake in their order, and what all of them share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::http::request::Parts;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug};

use super::refusal::Refusal;
use super::request::{self, SubprotocolOffer};
use crate::admission::{Address, AddressGuard, Admission, SocketGuard};
use crate::auth::{AuthError, Identity, UserKey};
use crate::codes::{CloseReason, HttpRefusal};
use crate::config::Config;
use crate::event::WorkspaceSlug;
use crate::room::{Damper, JoinError, JoinRequest, Membership, RoomHandle, Rooms};
use crate::setup::{LiveSettings, Setup};
use crate::socket::{QueueDepth, QueueLimits, Writer};
use crate::telemetry::{
    ConnectionTrace, JoinOutcome, JoinPhase, JoinPhases, Metrics, Telemetry, TokenCheck,
};

/// Joins under way at a time. A storm of 10,000 at once lets the sockets that are there wait for 38 ms at
/// the 99th percentile, instead of 200 ms without a bound, and takes a tenth longer. It is far more than
/// the joins that one round trip to NATS keeps waiting, so that they do not wait for each other.
const JOINS: usize = 256;
/// How long a join may wait until it begins. Then it has its own time limit.
const TURN: Duration = Duration::from_secs(3);

/// What every handshake and socket of a gateway needs.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// `server.path` of the start.
    pub(super) path: String,
    pub(super) live: LiveSettings,
    admission: Admission,
    /// Fair: joins begin in the order in which they came.
    turns: Semaphore,
    metrics: Arc<Metrics>,
    /// What waits for all sockets.
    pub(super) queues: Arc<QueueDepth>,
    /// Set once NATS is connected.
    rooms: OnceLock<Rooms>,
    pub(super) sockets: TaskTracker,
    draining: AtomicBool,
}

impl Acceptor {
    /// An acceptor that lets nobody in until [`Acceptor::open`], and never more than `most` sockets, whatever the
    /// settings say.
    pub(crate) fn new(
        live: LiveSettings,
        most: usize,
        queues: Arc<QueueDepth>,
        telemetry: &Telemetry,
    ) -> Self {
        Self {
            path: live.now().config.server.path.clone(),
            live,
            admission: Admission::up_to(most),
            turns: Semaphore::new(JOINS),
            queues,
            metrics: Arc::clone(telemetry.metrics()),
            rooms: OnceLock::new(),
            sockets: TaskTracker::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// The path of the sockets' URL.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What waits for all sockets.
    pub(crate) fn queues(&self) -> &Arc<QueueDepth> {
        &self.queues
    }

    /// NATS is connected: joins may begin. A second call changes nothing.
    pub(crate) fn open(&self, rooms: Rooms) {
        self.rooms.get_or_init(|| rooms);
    }

    /// From now on every join is refused.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until no join is under way; those that began before [`Acceptor::drain`] still open.
    pub(crate) async fn settled(&self) {
        const ALL: u32 = JOINS as u32;
        // It is never closed. Joins that wait for a turn come before this one, and are refused.
        let _all = self.turns.acquire_many(ALL).await;
    }

    /// The tasks of all sockets.
    pub(crate) fn sockets(&self) -> &TaskTracker {
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
            Some(Refusal::Close(CloseReason::NoToken)) => TokenCheck::Missing,
            Some(Refusal::Close(CloseReason::BadToken)) => TokenCheck::Invalid,
            Some(Refusal::Close(CloseReason::TokenExpired)) => TokenCheck::Expired,
            Some(Refusal::Close(CloseReason::NoAccess)) => TokenCheck::NoAccess,
            Some(Refusal::Close(CloseReason::OtherUser)) => TokenCheck::OtherUser,
            Some(Refusal::Http(_)) => TokenCheck::NotYet,
            // The token was good; the rest of the request may not be.
            Some(Refusal::Close(_)) | None => TokenCheck::Ok,
        };
        self.metrics.token_check(usage, result);
    }

    /// Waits until everything stored before now is queued for the members of `room`.
    pub(super) async fn catch_up(&self, room: &RoomHandle) {
        if let Some(rooms) = self.rooms.get()
            && let Some(end) = rooms.stream_end().await
        {
            room.barrier(end.sequence).await;
        }
    }

    /// The checks in their order; what passes them all is a member of its room. The rates come before
    /// the token is looked at: a flood must not cost a signature check each.
    pub(super) async fn admit(
        &self,
        setup: &Setup,
        request: &Parts,
        offer: SubprotocolOffer,
        address: Address,
        phases: &mut JoinPhases,
    ) -> Result<Admitted, Refusal> {
        let Config {
            server, sockets, ..
        } = &setup.config;
        phases.begin(JoinPhase::Authenticate);
        if !request::origin_allowed(&request.headers, &server.allowed_origins) {
            return Err(HttpRefusal::Origin.into());
        }
        if offer == SubprotocolOffer::Others {
            return Err(HttpRefusal::Subprotocol.into());
        }
        self.not_draining()?;
        self.admission.attempt(sockets, address)?;
        let mut turn = self.turn().instrument(phases.span()).await?;
        let (identity, workspace) = self.authorize(setup, request, address)?;
        phases.begin(JoinPhase::Activate);
        let rooms = self.rooms.get().ok_or(HttpRefusal::Nats)?;
        let damper = &rooms.context().damper;
        if damper.is_blocked(&workspace, identity.user) {
            // Others are not to wait meanwhile.
            drop(turn);
            let allowed = damper.check(&workspace, identity.user);
            let allowed = allowed.instrument(phases.span()).await;
            allowed.map_err(JoinError::from)?;
            turn = self.turn().instrument(phases.span()).await?;
        }
        let address_guard = self.admission.address_guard(sockets, address);
        let address_guard = address_guard.ok_or(HttpRefusal::AddressConnections)?;
        let socket_guard = self.admission.socket_guard(sockets);
        let socket_guard = socket_guard.ok_or(HttpRefusal::Capacity)?;
        // What is stored for the newcomer could not be repaired.
        if let Some(trouble) = rooms.context().readable.trouble(server.unready_after) {
            return Err(Refusal::unreadable(&trouble));
        }
        let writer = Writer::new(QueueLimits::from(sockets), Arc::clone(&self.queues));
        let join = JoinRequest {
            workspace: workspace.clone(),
            user: identity.user,
            subject: Arc::clone(&identity.subject),
            writer: writer.clone(),
        };
        let membership = rooms.join(join, phases).await?;
        drop(turn);
        Ok(Admitted {
            user: identity.user,
            expires_at: identity.expires_at,
            workspace,
            writer,
            membership,
            guards: Box::new((socket_guard, address_guard)),
        })
    }

    /// The turn to join, while nothing drains.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let turn = timeout(TURN, self.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(HttpRefusal::Busy.into());
        };
        // It may have taken a while, and a claim closes the user's other socket.
        self.not_draining()?;
        Ok(turn)
    }

    fn not_draining(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(HttpRefusal::Draining.into());
        }
        Ok(())
    }

    /// Records that a socket is open.
    pub(super) fn opened(
        &self,
        phases: &mut JoinPhases,
        workspace: &WorkspaceSlug,
        membership: &Membership,
    ) -> Option<Box<ConnectionTrace>> {
        for (phase, took) in phases.took() {
            self.metrics.join_phase(phase, took);
        }
        let session = membership.session();
        let connection = phases.connection();
        connection.ended(&JoinOutcome::Open {
            workspace: workspace.as_str(),
            session: session.to_string(),
        });
        connection
            .span()
            .in_scope(|| debug!(%session, %workspace, "socket opened"));
        connection.trace()
    }

    /// Checks the token, unless the same token was expired each time of late.
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
        known.map_err(|wait| Refusal::later(HttpRefusal::TokenExpired, wait))?;
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
                .map_or(Refusal::later(HttpRefusal::TokenNotYet, pause), Into::into));
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
pub(super) struct Admitted {
    pub(super) user: UserKey,
    pub(super) expires_at: SystemTime,
    pub(super) workspace: WorkspaceSlug,
    pub(super) writer: Writer,
    pub(super) membership: Membership,
    /// For the limits of the gateway and of the address. Boxed: the socket's future contains them twice.
    pub(super) guards: Box<(SocketGuard, AddressGuard)>,
}
