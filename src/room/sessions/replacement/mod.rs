//! Who is replaced: the pure machine that says which session of a user stays. A user has one in each workspace.
//!
//! The last message that SESSIONS has for a user's subject decides, by its sequence; no clock is
//! compared between gateways. A session is registered before its claim is published, so that another
//! gateway's later claim always finds it, and is judged only once its own sequence is known.
//!
//! A SESSIONS that was created again or restored gives sequences a second time. It shows: a claim is stored at or below one
//! that was known before it was published; or SESSIONS has another's claim below one that was
//! acknowledged. Which of two such claims is the newer is known from causes first, and from the server's store times
//! where causes say nothing.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::auth::UserKey;
use crate::nats::{CheckedClaim, LastClaim, StoredClaim};
use crate::room::SessionId;

/// How long the last claim of a user is remembered who has no session here: another's may be heard, or an
/// own one acknowledged, out of order.
const REMEMBER: Duration = Duration::from_secs(30);
/// Users without a session here whose claims are remembered, at most. The claim of a user who has one always is.
const REMEMBERED_MAX: usize = 65_536;
/// Pause between two looks for users that can be forgotten.
const PRUNE_PAUSE: Duration = Duration::from_secs(1);

/// A claim as SESSIONS has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::room) struct Claim {
    pub session: SessionId,
    /// Its sequence in SESSIONS.
    pub sequence: u64,
    /// When the server stored it; an acknowledgement does not say.
    pub time: Option<DateTime<Utc>>,
    /// Whether this gateway published it.
    pub own: bool,
}

impl From<StoredClaim> for Claim {
    fn from(stored: StoredClaim) -> Self {
        Self {
            session: stored.session.into(),
            sequence: stored.sequence,
            time: Some(stored.time),
            own: stored.own,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::room) enum ClaimAction {
    /// Close this session with 4009: a later claim of the user is known.
    Replaced(SessionId),
    /// Publish the claim of this session again, expecting `last` to be the subject's last sequence:
    /// SESSIONS does not have it any more.
    ClaimAgain { session: SessionId, last: u64 },
    /// What was heard contradicts what is known: read SESSIONS.
    Check,
}

/// The claims of one room.
#[derive(Debug, Default)]
pub(in crate::room) struct Claims {
    users: HashMap<UserKey, UserSessions>,
    recent: HashMap<UserKey, Recent>,
    /// When it was last looked for what no longer matters.
    pruned: Option<Instant>,
}

/// The sessions of one user here: one, but for the moment in which a newer one takes over.
#[derive(Debug, Default)]
struct UserSessions {
    sessions: Vec<ClaimedSession>,
    /// Another's claim that was heard live and is below an acknowledged one of these.
    lower: Option<SessionId>,
}

#[derive(Debug)]
struct ClaimedSession {
    id: SessionId,
    /// Unknown until the claim is acknowledged.
    sequence: Option<u64>,
    /// When the server stored the claim, once that is known.
    time: Option<DateTime<Utc>>,
    /// The highest claim of the user that was known before this one was published.
    known: u64,
}

/// What is remembered of a user, for claims that arrive before an own ack.
#[derive(Debug)]
struct Recent {
    last: Claim,
    heard: Instant,
}

impl ClaimedSession {
    /// Whether its claim is from before `claim`, which has a lower sequence. `lower` was heard live.
    fn is_older_than(&self, claim: Claim, lower: Option<SessionId>) -> bool {
        match (self.time, claim.time) {
            (Some(own), Some(other)) => own < other,
            _ => lower == Some(claim.session),
        }
    }
}

impl Claims {
    /// Registers a session whose claim is about to be published.
    pub(in crate::room) fn pending(&mut self, user: UserKey, session: SessionId) {
        let heard = self.recent.get(&user).map(|recent| recent.last.sequence);
        let of_user = self.users.entry(user).or_default();
        let acknowledged = of_user.sessions.iter().filter_map(|known| known.sequence);
        let known = acknowledged.chain(heard).max().unwrap_or(0);
        of_user.sessions.push(ClaimedSession {
            id: session,
            sequence: None,
            time: None,
            known,
        });
    }

    /// The session's claim is stored at `sequence`.
    pub(in crate::room) fn acknowledged(
        &mut self,
        user: UserKey,
        session: SessionId,
        sequence: u64,
        now: Instant,
    ) -> Vec<ClaimAction> {
        let claim = Claim {
            session,
            sequence,
            time: None,
            own: true,
        };
        let of_user = self.users.get_mut(&user);
        let own =
            of_user.and_then(|of_user| of_user.sessions.iter_mut().find(|own| own.id == session));
        if let Some(own) = own {
            let known = std::mem::take(&mut own.known);
            own.sequence = Some(sequence);
            if sequence <= known {
                return self.rewound(user, claim, now);
            }
        }
        self.heard(user, claim, now)
    }

    /// A claim was heard, live or as an own ack. The same claim may be heard twice.
    pub(in crate::room) fn heard(
        &mut self,
        user: UserKey,
        claim: Claim,
        now: Instant,
    ) -> Vec<ClaimAction> {
        let mut fell_back = false;
        if let Some(of_user) = self.users.get_mut(&user) {
            for session in &mut of_user.sessions {
                if session.id != claim.session {
                    fell_back |= session.sequence.is_some_and(|own| own > claim.sequence);
                } else if session.sequence.is_none_or(|own| own == claim.sequence) {
                    session.time = session.time.or(claim.time);
                }
            }
            fell_back &= !claim.own;
            if fell_back {
                of_user.lower = Some(claim.session);
            }
        }
        self.note(user, claim, now);
        let mut actions = self.judge(user);
        if fell_back {
            // Either this claim came late, or SESSIONS was created again and counts from the start.
            actions.push(ClaimAction::Check);
        }
        actions
    }

    /// What a consistent read of SESSIONS has found for a session.
    pub(in crate::room) fn checked(
        &mut self,
        found: &CheckedClaim,
        now: Instant,
    ) -> Vec<ClaimAction> {
        let (user, session) = (found.user, SessionId::from(found.session));
        let Some(of_user) = self.users.get_mut(&user) else {
            return Vec::new();
        };
        let Some(own) = of_user.sessions.iter_mut().find(|own| own.id == session) else {
            return Vec::new();
        };
        if own.sequence != Some(found.sequence) {
            // It was claimed again meanwhile: the answer is about the past.
            return Vec::new();
        }
        let lower = of_user.lower.take();
        let (last, claim) = match found.last {
            LastClaim::Nothing => (0, None),
            LastClaim::NoClaim(sequence) => (sequence, None),
            LastClaim::Claim(stored) => (stored.sequence, Some(Claim::from(stored))),
        };
        match claim {
            Some(claim) if claim.session == session => {
                own.sequence = Some(claim.sequence);
                own.time = claim.time;
                Vec::new()
            }
            Some(claim) if claim.sequence > found.sequence => self.heard(user, claim, now),
            // SESSIONS is another one than that which acknowledged the claim. This one is from after
            // that, or was in the backup.
            Some(claim) if own.is_older_than(claim, lower) => self.rewound(user, claim, now),
            Some(_) | None => self.claim_again(user, session, last),
        }
    }

    /// SESSIONS does not have the claim of `session` any more, and none that replaces it.
    fn claim_again(&mut self, user: UserKey, session: SessionId, last: u64) -> Vec<ClaimAction> {
        // What was remembered belongs to a SESSIONS that is no more.
        self.recent.remove(&user);
        vec![ClaimAction::ClaimAgain { session, last }]
    }

    /// `claim` is the user's first known of a SESSIONS that counts from the start: what was acknowledged before
    /// is older.
    fn rewound(&mut self, user: UserKey, claim: Claim, now: Instant) -> Vec<ClaimAction> {
        let mut actions = Vec::new();
        if let Some(of_user) = self.users.get_mut(&user) {
            for session in &mut of_user.sessions {
                session.known = 0;
                if session.id != claim.session && session.sequence.is_some() {
                    actions.push(ClaimAction::Replaced(session.id));
                }
            }
        }
        self.recent.remove(&user);
        self.note(user, claim, now);
        actions
    }

    /// The session has left, for whatever reason. `true` if it had an acknowledged claim: the user's
    /// standing one.
    pub(in crate::room) fn left(&mut self, user: UserKey, session: SessionId) -> bool {
        let mut stood = false;
        if let Some(of_user) = self.users.get_mut(&user) {
            of_user.sessions.retain(|known| {
                let leaves = known.id == session;
                stood |= leaves && known.sequence.is_some();
                !leaves
            });
            if of_user.sessions.is_empty() {
                self.users.remove(&user);
            }
        }
        if self
            .recent
            .get(&user)
            .is_some_and(|recent| recent.last.session == session)
        {
            self.recent.remove(&user);
        }
        stood
    }

    /// The session of `user` that stands here, if one does: of two, the later.
    pub(in crate::room) fn standing(&self, user: UserKey) -> Option<SessionId> {
        let acknowledged = |session: &ClaimedSession| Some((session.sequence?, session.id));
        let sessions = self.users.get(&user)?.sessions.iter();
        sessions.filter_map(acknowledged).max().map(|(_, id)| id)
    }

    /// The session with the latest claim of `user` that is known.
    pub(in crate::room) fn latest(&self, user: UserKey) -> Option<SessionId> {
        Some(self.recent.get(&user)?.last.session)
    }

    /// Each acknowledged session with its claim's sequence: what a check compares with SESSIONS.
    pub(in crate::room) fn acknowledged_sessions(
        &self,
    ) -> impl Iterator<Item = (UserKey, SessionId, u64)> + '_ {
        self.users.iter().flat_map(|(user, of_user)| {
            of_user
                .sessions
                .iter()
                .filter_map(|session| Some((*user, session.id, session.sequence?)))
        })
    }

    /// Forgets what no longer matters. Called now and then.
    pub(in crate::room) fn prune(&mut self, now: Instant) {
        self.pruned = Some(now);
        self.recent
            .retain(|_, recent| now.saturating_duration_since(recent.heard) < REMEMBER);
    }

    /// Remembers the user's latest claim.
    fn note(&mut self, user: UserKey, claim: Claim, now: Instant) {
        let is_new = !self.recent.contains_key(&user) && !self.users.contains_key(&user);
        if is_new && self.recent.len() >= REMEMBERED_MAX {
            // Each look goes through all of them.
            let since = self
                .pruned
                .map(|pruned| now.saturating_duration_since(pruned));
            if since.is_none_or(|since| since >= PRUNE_PAUSE) {
                self.prune(now);
            }
            if self.recent.len() >= REMEMBERED_MAX {
                return;
            }
        }
        let recent = self.recent.entry(user).or_insert(Recent {
            last: claim,
            heard: now,
        });
        if claim.sequence > recent.last.sequence {
            recent.last = claim;
            recent.heard = now;
        }
    }

    /// Sessions of `user` whose own claim is known and is not the latest.
    fn judge(&self, user: UserKey) -> Vec<ClaimAction> {
        let (Some(of_user), Some(recent)) = (self.users.get(&user), self.recent.get(&user)) else {
            return Vec::new();
        };
        of_user
            .sessions
            .iter()
            .filter(|session| {
                session.id != recent.last.session
                    && session
                        .sequence
                        .is_some_and(|sequence| sequence < recent.last.sequence)
            })
            .map(|session| ClaimAction::Replaced(session.id))
            .collect()
    }
}
