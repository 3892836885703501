//! Who becomes a socket: the checks of a handshake in their order, and what all of them share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::http::request::Parts;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug};

use super::directory::{Directory, DirectoryEntry, OpenSocket};
use super::pending_connections::PendingConnection;
use super::refusal::Refusal;
use super::request::{self, SubprotocolOffer};
use crate::admission::{Address, AddressGuard, Admission, SocketGuard, WorkspaceGuard};
use crate::auth::{AuthError, Identity, PresentedToken, Revocations, VerifiedToken};
use crate::codes::{CloseReason, HttpRefusal};
use crate::config::Config;
use crate::event::WorkspaceSlug;
use crate::room::{Damper, JoinError, JoinRequest, Membership, RoomHandle, Rooms};
use crate::setup::{LiveSettings, Setup};
use crate::socket::{QueueDepth, QueueLimits, Writer};
use crate::telemetry::{ConnectionTrace, JoinOutcome, JoinPhase, JoinPhases, Metrics, TokenCheck};

/// Joins under way at a time. A storm of 10,000 at once lets the sockets that are there wait for 38 ms at
/// the 99th percentile, instead of 200 ms without a bound, and takes a tenth longer. It is far more than
/// the joins that one round trip to NATS keeps waiting, so that they do not wait for each other.
const JOINS: usize = 256;
/// How long a join may wait until it begins. Then it has its own time limit.
const TURN: Duration = Duration::from_secs(3);
/// After this time a token may come again whose key is not known.
const KEYS_SOON: Duration = Duration::from_secs(2);

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
    /// All sockets that are open.
    directory: Arc<Directory>,
    /// Empty until NATS is connected.
    revocations: Revocations,
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
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            path: live.now().config.server.path.clone(),
            live,
            admission: Admission::up_to(most),
            turns: Semaphore::new(JOINS),
            queues,
            metrics,
            directory: Arc::default(),
            revocations: Revocations::default(),
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

    /// All sockets that are open.
    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Which tokens are revoked.
    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// All rooms, once there is NATS.
    pub(crate) fn rooms(&self) -> Option<&Rooms> {
        self.rooms.get()
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

    /// Verifies a fresh token for an open `socket`, whose own one is good until `until`. One that becomes
    /// valid before that is good from then on; one that does so a little later, or whose key is not known yet, changes
    /// nothing.
    pub(super) fn refresh(
        &self,
        token: &str,
        socket: &OpenSocket,
        until: SystemTime,
    ) -> Result<SystemTime, CloseReason> {
        let checked = (|| -> Result<SystemTime, Refusal> {
            let setup = self.live.now();
            let now = SystemTime::now();
            let judged =
                setup
                    .verifier
                    .judge_finally(token, now, &self.revocations, Err(KEYS_SOON))?;
            if judged.identity().credential.user != socket.user() {
                return Err(CloseReason::OtherUser.into());
            }
            if !judged.allows(socket.workspace()) {
                return Err(CloseReason::NoAccess.into());
            }
            let credential = judged.valid_by(until)?.credential;
            let expires_at = credential.expires_at;
            socket.renew(credential);
            self.check_trust(socket)?;
            Ok(expires_at)
        })();
        self.count_check("refresh", checked.as_ref().err());
        match checked {
            Ok(expires_at) => Ok(expires_at),
            Err(Refusal::Close(reason)) => Err(reason),
            Err(Refusal::Http(_)) => Ok(until),
        }
    }

    /// Whether the credential of a socket is still to be trusted. It was when it was verified, and whoever ends the
    /// trust looks for sockets in the directory: so this comes once the directory has the credential.
    fn check_trust(&self, socket: &OpenSocket) -> Result<(), CloseReason> {
        let credential = socket.credential();
        if self.revocations.kind_of(&credential).is_some() {
            return Err(CloseReason::Revoked);
        }
        if !self.live.now().verifier.trusts(&credential) {
            // A token of another key will do.
            return Err(CloseReason::TokenExpired);
        }
        Ok(())
    }

    fn count_check(&self, usage: &'static str, wrong: Option<&Refusal>) {
        let result = match wrong {
            Some(Refusal::Close(CloseReason::NoToken)) => TokenCheck::Missing,
            Some(Refusal::Close(CloseReason::BadToken)) => TokenCheck::Invalid,
            Some(Refusal::Close(CloseReason::Revoked)) => TokenCheck::Revoked,
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
        pending: Option<&PendingConnection>,
        phases: &mut JoinPhases,
    ) -> Result<Admitted, Refusal> {
        let Config {
            server,
            sockets,
            workspaces,
            ..
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
        let turn = self.turn().instrument(phases.span()).await?;
        let span = phases.span();
        let authorized = self.authorized(setup, request, address, pending, turn, span);
        let (identity, workspace, mut turn) = authorized.await?;
        // An unauthorised flood uses up nothing of a workspace's.
        self.admission.join(workspaces, &workspace)?;
        phases.begin(JoinPhase::Activate);
        let rooms = self.rooms.get().ok_or(HttpRefusal::Nats)?;
        let damper = &rooms.context().damper;
        let user = identity.credential.user;
        if damper.is_blocked(&workspace, user) {
            // Others are not to wait meanwhile.
            drop(turn);
            let allowed = damper.check(&workspace, user);
            let allowed = allowed.instrument(phases.span()).await;
            allowed.map_err(JoinError::from)?;
            turn = self.turn().instrument(phases.span()).await?;
        }
        let address_guard = self.admission.address_guard(sockets, address);
        let address_guard = address_guard.ok_or(HttpRefusal::AddressConnections)?;
        let workspace_guard = self.admission.workspace_guard(workspaces, &workspace);
        let workspace_guard = workspace_guard.ok_or(HttpRefusal::WorkspaceFull)?;
        let socket_guard = self.admission.socket_guard(sockets);
        let socket_guard = socket_guard.ok_or(HttpRefusal::Capacity)?;
        // What is stored for the newcomer could not be repaired.
        if let Some(trouble) = rooms.context().readable.trouble(server.unready_after) {
            return Err(Refusal::unreadable(&trouble));
        }
        let writer = Writer::new(QueueLimits::from(sockets), Arc::clone(&self.queues));
        let join = JoinRequest {
            workspace,
            user,
            subject: Arc::clone(&identity.subject),
            writer: writer.clone(),
        };
        let membership = rooms.join(join, phases).await?;
        let socket = self.enter(&membership, identity, writer)?;
        drop(turn);
        Ok(Admitted {
            socket,
            membership,
            guards: Box::new((socket_guard, address_guard, workspace_guard)),
        })
    }

    /// Enters the directory, if the credential is still to be trusted then.
    fn enter(
        &self,
        membership: &Membership,
        identity: Identity,
        writer: Writer,
    ) -> Result<DirectoryEntry, CloseReason> {
        let (session, room) = (membership.session(), membership.room().clone());
        let Identity {
            subject,
            credential,
            ..
        } = identity;
        let socket = OpenSocket::new(session, room, writer, subject, credential);
        let socket = self.directory.enter(socket);
        self.check_trust(&socket)?;
        Ok(socket)
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
        socket: &OpenSocket,
    ) -> Option<Box<ConnectionTrace>> {
        for (phase, took) in phases.took() {
            self.metrics.join_phase(phase, took);
        }
        let (session, workspace) = (socket.session, socket.workspace());
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

    /// The token of a request, unless the same token was expired each time of late.
    fn presented(
        &self,
        setup: &Setup,
        request: &Parts,
        address: Address,
    ) -> Result<PresentedToken, Refusal> {
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
        Ok(token)
    }

    /// Who may enter which workspace, by the token of a request that has this `turn`; and the turn. While the token's
    /// key is not known yet, others have it.
    async fn authorized<'a>(
        &'a self,
        setup: &Setup,
        request: &Parts,
        address: Address,
        pending: Option<&PendingConnection>,
        mut turn: SemaphorePermit<'a>,
        span: Span,
    ) -> Result<(Identity, WorkspaceSlug, SemaphorePermit<'a>), Refusal> {
        let token = self.presented(setup, request, address)?;
        let came = Instant::now();
        let (verifier, now) = (&setup.verifier, SystemTime::now());
        let judged = match verifier.judge(token.expose(), now, &self.revocations) {
            Err(AuthError::UnknownKey) => {
                drop(turn);
                let waited = self.wait_for_key(setup, request, &token, came, pending);
                let waited = Box::pin(waited).instrument(span.clone()).await?;
                turn = self.turn().instrument(span).await?;
                let now = SystemTime::now();
                verifier.judge_finally(token.expose(), now, &self.revocations, waited)
            }
            judged => judged,
        };
        let (identity, workspace) = self.authorize(request, &token, address, judged)?;
        Ok((identity, workspace, turn))
    }

    /// Waits for the key of a token that came at `came`, as long as nobody else waits for its connection's slot.
    async fn wait_for_key(
        &self,
        setup: &Setup,
        request: &Parts,
        token: &PresentedToken,
        came: Instant,
        pending: Option<&PendingConnection>,
    ) -> Result<Result<(), Duration>, Refusal> {
        // What is wrong whatever the key is, is said at once.
        request::workspace(&request.uri)?;
        if self.rooms.get().is_none() {
            return Err(HttpRefusal::Nats.into());
        }
        let is_wanted = async {
            match pending {
                Some(pending) => pending.is_wanted().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            waited = setup.verifier.wait_for_key(token.expose(), came) => waited,
            () = is_wanted => Err(KEYS_SOON),
        })
    }

    /// Who may enter which workspace by this token, which was `judged`.
    fn authorize(
        &self,
        request: &Parts,
        token: &PresentedToken,
        address: Address,
        judged: Result<VerifiedToken<'_>, AuthError>,
    ) -> Result<(Identity, WorkspaceSlug), Refusal> {
        let checked = check(request, judged);
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
    request: &Parts,
    judged: Result<VerifiedToken<'_>, AuthError>,
) -> Result<(Identity, WorkspaceSlug), Refusal> {
    let workspace = request::workspace(&request.uri);
    let judged = match judged {
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
    Ok((judged.valid_by(SystemTime::now())?, workspace))
}

/// A member of a room that waits for its socket.
pub(super) struct Admitted {
    pub(super) socket: DirectoryEntry,
    pub(super) membership: Membership,
    /// For the limits of the gateway, the address and the workspace. Boxed: the socket's future contains them twice.
    pub(super) guards: Box<(SocketGuard, AddressGuard, WorkspaceGuard)>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::auth::{RevocationEntry, RevokedSet};
    use crate::config::{AuthConfig, IssuerConfig, Secret};
    use crate::event::WorkspaceSlug;
    use crate::room::{RoomHandle, SessionId};
    use crate::setup::Building;

    const SECRET: &str = "a secret of the tests that is long enough";

    fn acceptor() -> Acceptor {
        let issuer = IssuerConfig {
            hmac_secret: Some(Secret::from(SECRET)),
            ..IssuerConfig::default()
        };
        let config = Config {
            auth: AuthConfig::from(issuer),
            ..Config::default()
        };
        let setup = Building::of(config.into()).finish().unwrap();
        let metrics = Arc::new(Metrics::unexported());
        Acceptor::new(LiveSettings::new(setup), 10, Arc::default(), metrics)
    }

    /// A token of ada's, issued so many seconds from now.
    fn issued(offset: i64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap().as_secs()).unwrap();
        let claims = json!({
            "sub": "ada", "workspaces": "*", "iat": now + offset, "exp": now + 600,
        });
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        encode(&Header::default(), &claims, &key).unwrap()
    }

    /// The fresh token was good when it was looked at, and whoever revoked it saw the socket with the one before.
    #[test]
    fn a_socket_that_refreshes_at_the_moment_of_a_revocation_ends() {
        let acceptor = acceptor();
        let now = SystemTime::now();
        let (soon, old) = (issued(5), issued(-10));
        let setup = acceptor.live.now();
        let judged = setup.verifier.judge(&soon, now, &acceptor.revocations);
        let identity = judged.unwrap().valid_by(now).unwrap();
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let entry = json!({ "do": "revoke", "what": { "user": "ada" }, "before": seconds });
        let entry = RevocationEntry::parse(entry.to_string().as_bytes()).unwrap();
        for _ in 0..10 {
            let room = RoomHandle::of_no_room(WorkspaceSlug::parse("acme").unwrap());
            let writer = Writer::new(0, Arc::default());
            let credential = identity.credential.clone();
            let socket = OpenSocket::new(
                SessionId::from_u128(7),
                room,
                writer,
                "ada".into(),
                credential,
            );
            acceptor
                .revocations
                .change(|set| *set = RevokedSet::default());
            let refreshed = std::thread::scope(|threads| {
                let credential = socket.lock();
                let refreshing = threads.spawn(|| acceptor.refresh(&old, &socket, now));
                // It has looked at the token by then. If it has not, it sees the revocation at once.
                std::thread::sleep(Duration::from_millis(20));
                acceptor.revocations.change(|set| set.take(1, &entry));
                assert_eq!(acceptor.revocations.kind_of(&credential), None);
                drop(credential);
                refreshing.join().unwrap()
            });
            assert_eq!(refreshed, Err(CloseReason::Revoked));
        }
    }
}
