//! A join: what happens between an accepted token and the 101, in its order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, warn};

use super::flaps::Flapping;
use super::handle::{JoinRequest, RoomCommand, RoomHandle, Successor};
use super::opening;
use super::registry::Rooms;
use super::session_id::SessionId;
use crate::auth::UserKey;
use crate::event::Position;
use crate::nats::{ClaimError, LeaderError};
use crate::telemetry::{JoinPhase, JoinPhases};

/// A join that is not done by then is refused with a 503: long enough for a leader election's usual
/// course, short enough that a browser does not hang.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why a join is put off. All of these mean "later".
#[derive(Debug, Clone, thiserror::Error)]
pub enum JoinError {
    /// NATS did not answer in time; what is known of the reason.
    #[error("NATS is away")]
    Unavailable(Option<LeaderError>),
    /// There is no room for the user's claim.
    #[error("the stream of claims is full")]
    Full,
    /// There is no room for anything in the NATS account.
    #[error("the NATS account has no room")]
    AccountFull,
    #[error(transparent)]
    Flapping(#[from] Flapping),
}

/// A session is a member of its room for as long as this exists.
#[derive(Debug)]
pub struct Membership {
    room: RoomHandle,
    user: UserKey,
    session: SessionId,
    successor: Successor,
}

impl Membership {
    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The newer session for which this one is closed.
    pub fn successor(&self) -> Option<SessionId> {
        self.successor.get().copied()
    }

    /// The room.
    pub fn room(&self) -> &RoomHandle {
        &self.room
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.room.send(RoomCommand::Left {
            user: self.user,
            session: self.session,
        });
    }
}

impl Rooms {
    /// Joins: room active and start position read, then the claim, then attached. From the return on, the
    /// writer gets every event stored for the user. Dropping the future at any point leaves nothing
    /// behind but, at worst, a claim that the user's next connection replaces. `phases` says how far it
    /// came.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(crate) async fn join(
        &self,
        request: JoinRequest,
        phases: &mut JoinPhases,
    ) -> Result<Membership, JoinError> {
        let deadline = Instant::now() + DEADLINE;
        let guard = opening::enter(self, &request.workspace);
        let room = guard.room();
        let claims = &self.context().claims;
        let mut cause = None;
        let read = timeout_at(deadline, async {
            let start_position = self.context().stream_end.wait(&mut cause);
            let last = claims.last(&request.workspace, request.user);
            tokio::join!(start_position, room.is_active(), last)
        });
        let Ok((start_position, active, last)) = read.instrument(phases.span()).await else {
            return Err(JoinError::Unavailable(cause));
        };
        let (Some(start_position), true) = (start_position, active) else {
            return Err(JoinError::Unavailable(None));
        };
        let (last, cause) = match last {
            Ok(last) => (Some(last), None),
            Err(cause) => (None, Some(cause)),
        };
        phases.begin(JoinPhase::Claim);
        // From here on the room knows the session. Dropping the membership tells the room that it has left.
        let membership = Membership {
            room: room.clone(),
            user: request.user,
            session: SessionId::random(),
            successor: Successor::default(),
        };
        let session = membership.session;
        room.request(|answer| RoomCommand::Pending {
            user: request.user,
            session,
            answer,
        })
        .instrument(phases.span())
        .await
        .ok_or(JoinError::Unavailable(None))?;
        let claim = claims
            // Without the answer to that read, it reads again.
            .claim(
                &request.workspace,
                request.user,
                session.uuid(),
                last,
                deadline,
            )
            .instrument(phases.span())
            .await
            .map_err(|error| self.not_claimed(error, cause))?;
        phases.begin(JoinPhase::Open);
        room.request(|answer| RoomCommand::Attach {
            session,
            request,
            start: (start_position, (deadline - DEADLINE).into_std()),
            claim,
            successor: Arc::clone(&membership.successor),
            answer,
        })
        .instrument(phases.span())
        .await
        .ok_or(JoinError::Unavailable(None))?;
        Ok(membership)
    }

    /// What a claim that is not stored means for the join.
    fn not_claimed(&self, error: ClaimError, cause: Option<LeaderError>) -> JoinError {
        let stream = self.context().names.sessions();
        match error {
            ClaimError::Unacknowledged | ClaimError::Overtaken => JoinError::Unavailable(cause),
            ClaimError::Full => {
                warn!(stream, "join refused, the stream of claims is full");
                JoinError::Full
            }
            ClaimError::AccountFull => {
                warn!(stream, "join refused, the nats account has no room");
                JoinError::AccountFull
            }
        }
    }

    /// The stream's end, read until the leader answers. `None` if the gateway is ending.
    pub async fn stream_end(&self) -> Option<Position> {
        self.context().stream_end.wait(&mut None).await
    }
}
