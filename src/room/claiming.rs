//! What a room does about sessions: who comes, who leaves, who is replaced.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::actor::Room;
use super::claims::ClaimAction;
use super::fan_out::Sink;
use super::handle::{Attach, RoomCommand};
use super::members::Member;
use super::session_id::SessionId;
use crate::auth::UserKey;
use crate::codes::CloseReason;
use crate::nats::{CheckedClaim, ClaimCheckRequest, ClaimError};
use crate::telemetry::LiveDrop;

/// How long making a claim again may take before SESSIONS is looked into once more.
const RECLAIM_DEADLINE: Duration = Duration::from_secs(5);

impl Room {
    pub(super) fn pending(
        &mut self,
        user: UserKey,
        session: SessionId,
        answer: oneshot::Sender<()>,
    ) {
        self.claims.pending(user, session);
        // A join that gave up meanwhile says so with `Left`.
        let _ = answer.send(());
    }

    pub(super) fn attach(
        &mut self,
        session: SessionId,
        attach: Attach,
        answer: oneshot::Sender<()>,
    ) {
        let Attach {
            user,
            subject,
            writer,
            requested_at,
            start_position,
            claim,
            successor,
        } = attach;
        let start_position = self.members.start_position(start_position, requested_at);
        self.members.insert(
            session,
            Member {
                user,
                subject,
                successor,
                sink: Sink {
                    writer,
                    start_position,
                },
            },
        );
        let actions = self
            .claims
            .acknowledged(user, session, claim, Instant::now());
        self.follow(user, actions);
        // A join that gave up meanwhile says so with `Left`.
        let _ = answer.send(());
    }

    pub(super) fn left(&mut self, user: UserKey, session: SessionId) {
        self.members.remove(session);
        if self.claims.left(user, session) {
            self.context.damper.left(&self.workspace, user, session);
        }
    }

    /// A newcomer is to be refused for the user's standing socket, if that lives.
    pub(super) fn probe(
        &self,
        user: UserKey,
        answer: oneshot::Sender<Option<oneshot::Receiver<()>>>,
    ) {
        let standing = self.claims.standing(user);
        let member = standing.and_then(|session| self.members.get(session));
        // Who asked waits no longer than a socket may take to answer.
        let _ = answer.send(member.map(|member| member.sink.writer.probe()));
    }

    /// A claim was republished: somebody's join, here or at another gateway.
    pub(super) fn heard(&mut self, message: async_nats::Message) {
        match self.context.claims.parse_live(message, &self.workspace) {
            Some((user, claim)) => {
                let actions = self.claims.heard(user, claim.into(), Instant::now());
                self.follow(user, actions);
            }
            None => {
                debug!(workspace = %self.workspace, "live claim dropped");
                self.context.metrics.live_dropped(LiveDrop::BadClaim);
            }
        }
    }

    /// A claim may have been missed: looks now, and again a little later.
    pub(super) fn doubt_claims(&mut self, now: Instant) {
        self.checks.schedule.follow_up(now);
        self.check_claims(true, now);
    }

    /// Checks the claims if that is due.
    pub(super) fn check_claims_on_time(&mut self, now: Instant) {
        if self.checks.deadline().is_some_and(|due| now >= due) {
            self.check_claims(false, now);
        }
    }

    /// Asks what SESSIONS holds for the room's sessions; if that is under way, once more after it.
    fn check_claims(&mut self, urgent: bool, now: Instant) {
        if self.checks.is_pending {
            self.checks.schedule.again();
            return;
        }
        self.checks.schedule.requested(now);
        let held = self.claims.acknowledged_sessions();
        let held: Vec<_> = held
            .map(|(user, session, claim)| (user, session.uuid(), claim))
            .collect();
        if held.is_empty() {
            return;
        }
        self.checks.is_pending = true;
        self.context.claim_checks.send(ClaimCheckRequest {
            workspace: self.workspace.clone(),
            answer: self.checked.sender.clone(),
            sessions: held,
            urgent,
        });
    }

    pub(super) fn checked(&mut self, answers: Vec<CheckedClaim>) {
        self.checks.is_pending = false;
        let now = Instant::now();
        for answer in answers {
            let CheckedClaim {
                user,
                session,
                sequence,
                last,
            } = answer;
            let actions = self
                .claims
                .checked(user, session.into(), sequence, last.into(), now);
            self.follow(user, actions);
        }
        if self.checks.schedule.take_again() {
            self.check_claims(true, now);
        }
    }

    pub(super) fn reclaimed(
        &mut self,
        user: UserKey,
        session: SessionId,
        result: Result<u64, ClaimError>,
    ) {
        match result {
            Ok(sequence) => {
                let actions = self
                    .claims
                    .acknowledged(user, session, sequence, Instant::now());
                self.follow(user, actions);
            }
            Err(error) => {
                warn!(%error, %session, "claim not made again");
                // Not at once: what stands in the way may be there again.
                self.checks.schedule.follow_up(Instant::now());
            }
        }
    }

    fn follow(&mut self, user: UserKey, actions: Vec<ClaimAction>) {
        for action in actions {
            match action {
                ClaimAction::Replaced(session) => {
                    if let Some(member) = self.members.remove(session) {
                        if let Some(by) = self.claims.latest(user) {
                            // It is replaced once, so there is none yet.
                            let _ = member.successor.set(by);
                        }
                        member.sink.writer.end_after(CloseReason::Replaced);
                    }
                    self.claims.left(user, session);
                }
                ClaimAction::ClaimAgain { session, last } => self.claim_again(user, session, last),
                ClaimAction::Check => self.check_claims(true, Instant::now()),
            }
        }
    }

    fn claim_again(&self, user: UserKey, session: SessionId, last: u64) {
        info!(workspace = %self.workspace, %session, "claim is gone from the stream, claiming again");
        let room = self.handle.clone();
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
