//! What gateways do together about a user's connections that replace each other: each reports to all the
//! living sockets that it closed for a newer one, and all refuse newcomers once these are too many.
//!
//! Before a newcomer is refused, the gateway that has the user's standing socket pings it. A socket that
//! does not answer gives way. The rules are [`machine`]'s; here is what does them.

mod machine;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tracing::debug;

use self::machine::{ANSWER, Flaps, Newcomer, Who};
use super::handle::{RoomCommand, RoomHandle};
use super::session_id::SessionId;
use crate::auth::UserKey;
use crate::event::WorkspaceSlug;
use crate::nats::{Notice, Notices};

/// How long a socket may take to answer a ping; less than [`ANSWER`], so that its gateway can still say
/// that it did not.
const PONG: Duration = Duration::from_millis(2500);
/// Sockets that are pinged for newcomers at a time. A further question gets no answer.
const PINGS_MAX: usize = 1024;

/// A cheap handle on what is known of flapping users.
#[derive(Debug, Clone)]
pub struct Damper(Arc<DamperShared>);

#[derive(Debug)]
struct DamperShared {
    /// A lock, for a look-up: joins, sockets and the listener come from many tasks.
    state: Mutex<DamperState>,
    notices: Notices,
}

/// The user's connections replace each other too fast: not before so long.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("connections of this user replace each other")]
pub struct Flapping {
    pub retry_after: Duration,
}

#[derive(Debug, Default)]
struct DamperState {
    flaps: Flaps,
    /// Whose sockets are being pinged.
    pinged: HashSet<Who>,
}

impl Damper {
    /// Nobody flaps yet. What happens goes out by `notices`.
    pub fn new(notices: Notices) -> Self {
        Self(Arc::new(DamperShared {
            state: Mutex::default(),
            notices,
        }))
    }

    /// A living socket of the user was closed for that of `by`: here, so that all are to know.
    pub(crate) fn replaced(
        &self,
        workspace: &WorkspaceSlug,
        user: UserKey,
        session: SessionId,
        by: SessionId,
    ) {
        let who = (workspace.clone(), user);
        self.notify(
            &who,
            Notice::Replaced {
                session: session.uuid(),
                by: by.uuid(),
            },
        );
        self.count(who, session, by);
    }

    fn count(&self, who: Who, session: SessionId, by: SessionId) {
        let workspace = who.0.clone();
        let now = Instant::now();
        if self.lock().flaps.replaced(who, session, by, now) {
            debug!(%workspace, "connections of a user replace each other, new ones are refused");
        }
    }

    /// Whether newcomers of the user have to pass [`Damper::check`].
    pub(crate) fn is_blocked(&self, workspace: &WorkspaceSlug, user: UserKey) -> bool {
        let who = (workspace.clone(), user);
        self.lock().flaps.is_blocked(&who, Instant::now())
    }

    /// Waits until it is known whether the user's standing socket lives, if newcomers are refused. It may
    /// take [`ANSWER`].
    ///
    /// # Errors
    /// [`Flapping`] if it does.
    pub(crate) async fn check(
        &self,
        workspace: &WorkspaceSlug,
        user: UserKey,
    ) -> Result<(), Flapping> {
        let who = (workspace.clone(), user);
        loop {
            let now = Instant::now();
            let (until, mut answer) = {
                let flaps = &mut self.lock().flaps;
                let until = match flaps.newcomer(&who, now) {
                    Newcomer::Welcome => return Ok(()),
                    Newcomer::Vacant => {
                        // Elsewhere the block would protect this newcomer's socket from the user's next one.
                        self.notify(&who, Notice::Probed(false));
                        return Ok(());
                    }
                    Newcomer::Refused(retry_after) => {
                        return Err(Flapping { retry_after });
                    }
                    Newcomer::Probe => {
                        self.notify(&who, Notice::Probe);
                        now + ANSWER
                    }
                    Newcomer::Wait(until) => until,
                };
                (until, flaps.answer(&who))
            };
            // The look says what came of it, also where the time is over.
            let _ = timeout_at(until.into(), answer.changed()).await;
        }
    }

    /// The user's standing session has ended here: a block has nothing to protect any more, anywhere.
    pub(super) fn left(&self, workspace: &WorkspaceSlug, user: UserKey, session: SessionId) {
        if self.is_blocked(workspace, user) {
            let who = (workspace.clone(), user);
            self.notify(&who, Notice::Left(session.uuid()));
            self.lock().flaps.left(&who, session);
        }
    }

    /// Takes a notice of a gateway, maybe this one; `room` is that of `workspace`, if there is one here.
    pub(super) fn noticed(
        &self,
        workspace: WorkspaceSlug,
        user: UserKey,
        notice: Notice,
        room: Option<RoomHandle>,
    ) {
        let who = (workspace, user);
        let now = Instant::now();
        match notice {
            Notice::Replaced { session, by } => self.count(who, session.into(), by.into()),
            Notice::Left(session) => self.lock().flaps.left(&who, session.into()),
            Notice::Probed(is_alive) => self.lock().flaps.answered(&who, is_alive, now),
            Notice::Probe => {
                let mut state = self.lock();
                state.flaps.probed(&who, now);
                let Some(room) = room else {
                    return;
                };
                let may_ping = state.pinged.len() < PINGS_MAX && state.pinged.insert(who.clone());
                drop(state);
                if may_ping {
                    // Nobody looks how it ends: without an answer the newcomers wait for its time.
                    tokio::spawn(answer(self.clone(), room, who));
                }
            }
        }
    }

    fn notify(&self, (workspace, user): &Who, notice: Notice) {
        self.0.notices.send(workspace, *user, notice);
    }

    fn lock(&self) -> MutexGuard<'_, DamperState> {
        // No code under the lock can panic half-way through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether the user's standing socket in `room` lives. Says nothing where none is here.
async fn answer(damper: Damper, room: RoomHandle, who: Who) {
    let _pinged = Pinged(&damper, &who);
    let (workspace, user) = &who;
    let until = tokio::time::Instant::now() + PONG;
    let pong = timeout_at(until, pong(&room, *user)).await;
    let Ok(Some(pong)) = pong else {
        return;
    };
    let is_alive = matches!(timeout_at(until, pong).await, Ok(Ok(())));
    debug!(%workspace, is_alive, "existing socket pinged for a new one");
    damper.notify(&who, Notice::Probed(is_alive));
}

/// Has the user's standing socket pinged. The receiver gets the pong, or ends with the socket.
async fn pong(room: &RoomHandle, user: UserKey) -> Option<oneshot::Receiver<()>> {
    let pong = room.request(|answer| RoomCommand::Probe { user, answer });
    pong.await?
}

/// A socket that is being pinged, until the value is gone.
struct Pinged<'a>(&'a Damper, &'a Who);

impl Drop for Pinged<'_> {
    fn drop(&mut self) {
        let Self(damper, who) = self;
        damper.lock().pinged.remove(who);
    }
}
