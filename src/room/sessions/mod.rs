//! Which session of each user stands. A room hears the claims of its workspace, has those checked that may have been
//! missed, and makes again what SESSIONS lost.
//!
//! [`replacement`] is the pure machine that decides who is replaced; here its actions are carried out.

pub(super) mod replacement;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use self::replacement::{ClaimAction, Claims};
use super::context::RoomContext;
use super::handle::{RoomCommand, RoomHandle};
use super::schedule::Schedule;
use super::session_id::SessionId;
use crate::auth::UserKey;
use crate::nats::{CheckedClaim, ClaimCheckRequest, ClaimError};
use crate::telemetry::LiveDrop;

/// How long making a claim again may take before SESSIONS is looked into once more.
const RECLAIM_DEADLINE: Duration = Duration::from_secs(5);
/// How often claims that no longer matter are forgotten.
const PRUNE: Duration = Duration::from_secs(60);

/// The claims of a room's sessions.
pub(super) struct Sessions {
    room: RoomHandle,
    context: Arc<RoomContext>,
    live: Subscriber,
    claims: Claims,
    /// When the claims are compared with SESSIONS.
    schedule: Schedule,
    /// A check is under way.
    is_checking: bool,
    /// Each request for a check takes the sender along.
    checks: (
        mpsc::UnboundedSender<Vec<CheckedClaim>>,
        mpsc::UnboundedReceiver<Vec<CheckedClaim>>,
    ),
    prune_at: Instant,
}

/// One thing that a room hears of claims.
pub(super) enum ClaimInput {
    /// A claim was republished: somebody's join, here or at another gateway.
    Live(Message),
    /// What SESSIONS has.
    Checked(Vec<CheckedClaim>),
}

/// A session that is to be closed for a newer one of its user.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replaced {
    pub(super) session: SessionId,
    pub(super) by: Option<SessionId>,
}

impl Sessions {
    /// None yet. Claims are heard by `live`; `share` spreads the checks of rooms.
    pub(super) fn new(
        room: RoomHandle,
        context: Arc<RoomContext>,
        live: Subscriber,
        (share, now): (u16, Instant),
    ) -> Self {
        Self {
            room,
            context,
            live,
            claims: Claims::default(),
            schedule: Schedule::new(share, now),
            is_checking: false,
            checks: mpsc::unbounded_channel(),
            prune_at: now + PRUNE,
        }
    }

    /// The next input. `None` when the connection is ending. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<ClaimInput> {
        tokio::select! {
            biased;
            checked = self.checks.1.recv() => checked.map(ClaimInput::Checked),
            claim = self.live.next() => claim.map(ClaimInput::Live),
        }
    }

    /// Takes an input; returns who is replaced.
    pub(super) fn take(&mut self, input: ClaimInput) -> Vec<Replaced> {
        match input {
            ClaimInput::Live(message) => self.heard(message),
            ClaimInput::Checked(claims) => self.checked(claims),
        }
    }

    /// A join is about to claim.
    pub(super) fn pending(&mut self, user: UserKey, session: SessionId) {
        self.claims.pending(user, session);
    }

    /// The claim of a session is stored at `sequence`; returns who is replaced.
    pub(super) fn acknowledged(
        &mut self,
        user: UserKey,
        session: SessionId,
        sequence: u64,
    ) -> Vec<Replaced> {
        let actions = self
            .claims
            .acknowledged(user, session, sequence, Instant::now());
        self.carry_out(user, actions)
    }

    /// A claim was made again, or was not; returns who is replaced.
    pub(super) fn reclaimed(
        &mut self,
        user: UserKey,
        session: SessionId,
        result: Result<u64, ClaimError>,
    ) -> Vec<Replaced> {
        match result {
            Ok(sequence) => self.acknowledged(user, session, sequence),
            Err(error) => {
                warn!(%error, %session, "claim not made again");
                // Not at once: what stands in the way may be there again.
                self.schedule.follow_up(Instant::now());
                Vec::new()
            }
        }
    }

    /// A session has ended, or a join gave up.
    pub(super) fn left(&mut self, user: UserKey, session: SessionId) {
        if self.claims.left(user, session) {
            let damper = &self.context.damper;
            damper.left(self.room.workspace(), user, session);
        }
    }

    /// The user's session that stands here, if one does.
    pub(super) fn standing(&self, user: UserKey) -> Option<SessionId> {
        self.claims.standing(user)
    }

    /// A claim may have been missed: looks now, and again a little later.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.schedule.follow_up(now);
        self.check(true, now);
    }

    /// Does what is due.
    pub(super) fn time(&mut self, now: Instant) {
        if !self.is_checking && now >= self.schedule.next() {
            self.check(false, now);
        }
        if now >= self.prune_at {
            self.claims.prune(now);
            self.prune_at = now + PRUNE;
        }
    }

    /// When [`Sessions::time`] is due.
    pub(super) fn deadline(&self) -> Instant {
        if self.is_checking {
            self.prune_at
        } else {
            self.prune_at.min(self.schedule.next())
        }
    }

    fn heard(&mut self, message: Message) -> Vec<Replaced> {
        let workspace = self.room.workspace();
        match self.context.claims.parse_live(message, workspace) {
            Some((user, claim)) => {
                let actions = self.claims.heard(user, claim.into(), Instant::now());
                self.carry_out(user, actions)
            }
            None => {
                debug!(%workspace, "live claim dropped");
                self.context.metrics.live_dropped(LiveDrop::BadClaim);
                Vec::new()
            }
        }
    }

    fn checked(&mut self, answers: Vec<CheckedClaim>) -> Vec<Replaced> {
        self.is_checking = false;
        let now = Instant::now();
        let mut replaced = Vec::new();
        for answer in answers {
            let actions = self.claims.checked(&answer, now);
            replaced.extend(self.carry_out(answer.user, actions));
        }
        if self.schedule.take_again() {
            self.check(true, now);
        }
        replaced
    }

    /// Has SESSIONS compared with what the room's sessions claimed; if that is under way, once more after it.
    fn check(&mut self, urgent: bool, now: Instant) {
        if self.is_checking {
            self.schedule.again();
            return;
        }
        self.schedule.requested(now);
        let sessions = self.claims.acknowledged_sessions();
        let sessions: Vec<_> = sessions
            .map(|(user, session, claim)| (user, session.uuid(), claim))
            .collect();
        if sessions.is_empty() {
            return;
        }
        self.is_checking = true;
        self.context.claim_checks.send(ClaimCheckRequest {
            workspace: self.room.workspace().clone(),
            answer: self.checks.0.clone(),
            sessions,
            urgent,
        });
    }

    fn carry_out(&mut self, user: UserKey, actions: Vec<ClaimAction>) -> Vec<Replaced> {
        let mut replaced = Vec::new();
        for action in actions {
            match action {
                ClaimAction::Replaced(session) => {
                    let by = self.claims.latest(user);
                    replaced.push(Replaced { session, by });
                    self.claims.left(user, session);
                }
                ClaimAction::ClaimAgain { session, last } => self.claim_again(user, session, last),
                ClaimAction::Check => self.check(true, Instant::now()),
            }
        }
        replaced
    }

    fn claim_again(&self, user: UserKey, session: SessionId, last: u64) {
        let room = self.room.clone();
        info!(workspace = %room.workspace(), %session, "claim is gone from the stream, claiming again");
        let writer = self.context.claims.clone();
        // Should it fail without a word, the next check of the claims finds that it is still gone.
        tokio::spawn(async move {
            let deadline = tokio::time::Instant::now() + RECLAIM_DEADLINE;
            let result = writer
                .claim_again(room.workspace(), user, session.uuid(), last, deadline)
                .await;
            room.send(RoomCommand::Reclaimed {
                user,
                session,
                result,
            });
        });
    }
}
