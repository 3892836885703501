//! Who the members of a room are, and which of them a notification is for.

use std::collections::HashMap;
use std::sync::Arc;

use super::fan_out::{Addressed, FanOutRound, Sample, Sink};
use crate::auth::UserKey;
use crate::projection::Recipients;
use crate::room::SessionId;
use crate::room::handle::Successor;
use crate::socket::Frame;

/// One socket as its room knows it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) user: UserKey,
    /// The token's `sub`, which `recipients` name.
    pub(super) subject: Arc<str>,
    pub(super) successor: Successor,
    pub(super) sink: Sink,
}

/// Members by session, and by the subject that recipients name.
#[derive(Debug, Default)]
pub(super) struct Roster {
    by_session: HashMap<SessionId, Member>,
    by_subject: HashMap<Arc<str>, Vec<SessionId>>,
}

impl Roster {
    pub(super) fn insert(&mut self, session: SessionId, member: Member) {
        self.by_subject
            .entry(Arc::clone(&member.subject))
            .or_default()
            .push(session);
        self.by_session.insert(session, member);
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Member> {
        let member = self.by_session.remove(&session)?;
        if let Some(sessions) = self.by_subject.get_mut(&member.subject) {
            sessions.retain(|known| *known != session);
            if sessions.is_empty() {
                self.by_subject.remove(&member.subject);
            }
        }
        Some(member)
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Member> {
        self.by_session.get(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }

    pub(super) fn sinks(&self) -> impl Iterator<Item = (SessionId, &Sink)> {
        let members = self.by_session.iter();
        members.map(|(session, member)| (*session, &member.sink))
    }

    /// The sessions of those whom `recipients` name.
    pub(super) fn sessions(&self, recipients: &Recipients) -> impl Iterator<Item = SessionId> {
        let users = match recipients {
            Recipients::Everyone => None,
            Recipients::Users(users) => Some(users),
        };
        users
            .into_iter()
            .flatten()
            .filter_map(|user| self.by_subject.get(user.as_str()))
            .flatten()
            .copied()
    }

    /// How many members get some of `batch`, or more.
    pub(super) fn reached_at_most(&self, batch: &[Addressed]) -> usize {
        let reached = batch.iter().map(|one| match &one.recipients {
            Recipients::Everyone => self.len(),
            Recipients::Users(users) => users.len(),
        });
        reached.sum()
    }

    /// Has each member that `round` names `given` what of it is above its start position, in order.
    pub(super) fn to_some(
        &self,
        round: &FanOutRound,
        mut give: impl FnMut(SessionId, &Sink, Vec<Arc<Frame>>, &mut Sample),
    ) {
        let reached = round.batch.iter().flat_map(|one| {
            let sessions = self.sessions(&one.recipients);
            sessions.map(move |session| (session, one))
        });
        let mut reached: Vec<_> = reached.collect();
        // Stable: each socket keeps their order.
        reached.sort_by_key(|(session, _)| *session);
        let mut sample = round.sample(reached.len());
        for of_one in reached.chunk_by(|(one, _), (next, _)| one == next) {
            let session = of_one.first().map(|(session, _)| *session);
            let member = session.and_then(|session| self.by_session.get_key_value(&session));
            let Some((session, Member { sink, .. })) = member else {
                continue;
            };
            let above = of_one
                .iter()
                .filter(|(_, one)| sink.start_position < one.position.sequence);
            let frames: Vec<_> = above.map(|(_, one)| Arc::clone(&one.frame)).collect();
            if !frames.is_empty() {
                give(*session, sink, frames, &mut sample);
            }
        }
    }

    /// How many members `recipients` names.
    pub(super) fn reached(&self, recipients: &Recipients) -> usize {
        match recipients {
            Recipients::Everyone => self.len(),
            Recipients::Users(_) => self.sessions(recipients).count(),
        }
    }

    /// All that is delivered from now on is for everyone.
    pub(super) fn forget_start_positions(&mut self) {
        for member in self.by_session.values_mut() {
            member.sink.start_position = 0;
        }
    }
}
