//! The sockets of a room, and who of them gets what.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::SessionId;
use super::fan_out::{Addressed, FanOut, FanOutRound, Sample, Sink, WRITES_A_TURN};
use super::handle::Successor;
use super::pressure::Pressure;
use super::shards::{LARGE, Orders, SMALL, ShardReport, Shards};
use crate::auth::UserKey;
use crate::event::Position;
use crate::projection::Recipients;
use crate::socket::{Frame, Writer};

/// When to look again whether the shards are through with what they have; they tell before.
const SHARDS_REPORT: Duration = Duration::from_secs(1);

/// One socket as its room knows it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) user: UserKey,
    /// The token's `sub`, which `recipients` name.
    pub(super) subject: Arc<str>,
    pub(super) successor: Successor,
    pub(super) sink: Sink,
}

/// The members of a room, and what is on its way to them.
#[derive(Debug, Default)]
pub(super) struct Members {
    roster: Roster,
    /// Of a large room.
    shards: Option<Shards>,
    /// Bytes that each queue may have got since it was last looked at them.
    unseen: usize,
    pressure: Pressure,
    /// When the stream was last found to be another one than before.
    other_since: Option<Instant>,
}

/// Members by session, and by the subject that recipients name.
#[derive(Debug, Default)]
struct Roster {
    by_session: HashMap<SessionId, Member>,
    by_subject: HashMap<Arc<str>, Vec<SessionId>>,
}

impl Roster {
    fn insert(&mut self, session: SessionId, member: Member) {
        self.by_subject
            .entry(Arc::clone(&member.subject))
            .or_default()
            .push(session);
        self.by_session.insert(session, member);
    }

    fn remove(&mut self, session: SessionId) -> Option<Member> {
        let member = self.by_session.remove(&session)?;
        if let Some(sessions) = self.by_subject.get_mut(&member.subject) {
            sessions.retain(|known| *known != session);
            if sessions.is_empty() {
                self.by_subject.remove(&member.subject);
            }
        }
        Some(member)
    }

    fn len(&self) -> usize {
        self.by_session.len()
    }

    fn sinks(&self) -> impl Iterator<Item = (SessionId, &Sink)> {
        let members = self.by_session.iter();
        members.map(|(session, member)| (*session, &member.sink))
    }

    /// The sessions of those whom `recipients` name.
    fn sessions(&self, recipients: &Recipients) -> impl Iterator<Item = SessionId> {
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
    fn reached_at_most(&self, batch: &[Addressed]) -> usize {
        let reached = batch.iter().map(|one| match &one.recipients {
            Recipients::Everyone => self.len(),
            Recipients::Users(users) => users.len(),
        });
        reached.sum()
    }

    /// Has each member that `round` names `given` what of it is above its floor, in order.
    fn to_some(
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
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.roster.len()
    }

    pub(super) fn insert(&mut self, session: SessionId, member: Member) {
        self.roster.insert(session, member);
        self.members_changed();
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Member> {
        self.roster.by_session.get(&session)
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Member> {
        let member = self.roster.remove(session)?;
        self.members_changed();
        self.leave_shards();
        Some(member)
    }

    fn members_changed(&mut self) {
        if let Some(shards) = &mut self.shards {
            shards.members_changed();
        }
    }

    /// The floor of a socket that asked to join `since`, and read this one. It may be of a stream that is no more: then
    /// there is none, since what the room delivers of another one was stored after the join asked.
    pub(super) fn start_position(&self, start_position: Position, since: Instant) -> u64 {
        match self.other_since {
            Some(other_since) if since < other_since => 0,
            _ => start_position.sequence,
        }
    }

    /// Whether there are so many that they are to stand in shards.
    pub(super) fn want_shards(&self) -> bool {
        self.shards.is_none() && self.roster.len() > LARGE
    }

    /// From now on they do.
    pub(super) fn stand_in(&mut self, shards: Shards) {
        self.shards = Some(shards);
    }

    /// A room that is small again has none, once they are through with what they have.
    fn leave_shards(&mut self) {
        let is_small = self.roster.len() < SMALL;
        self.shards.take_if(|shards| is_small && shards.is_idle());
    }

    /// Gives each of a round's batch, in order, to the members that it is for and whose floor is below it, with one
    /// write for each socket. Some of the deliveries of what is traced have spans: not always to the same ones, so
    /// that each socket of a busy room is seen now and then. `None`: the shards have it.
    pub(super) fn fan_out(&mut self, mut round: FanOutRound) -> Option<FanOutRound> {
        self.unseen = self.unseen.saturating_add(round.bytes());
        let Self { roster, shards, .. } = self;
        // What they have goes first; then the room may write to a few sockets by itself.
        if let Some(shards) = shards
            && (!shards.is_idle() || roster.reached_at_most(&round.batch) > WRITES_A_TURN)
        {
            let mut orders = shards.orders(roster.sinks());
            give_by_orders(roster, &round, &mut orders);
            shards.give(round, orders);
            return None;
        }
        give_now(roster, &mut round);
        Some(round)
    }

    /// What a shard tells next; without shards, nothing ever. `None` where the runtime is ending.
    pub(super) async fn next_report(&mut self) -> Option<ShardReport> {
        match &mut self.shards {
            Some(shards) => shards.next().await,
            None => std::future::pending().await,
        }
    }

    /// Takes note of a report.
    pub(super) fn reported(&mut self, report: ShardReport) {
        if let Some(shards) = &mut self.shards {
            shards.reported(report);
        }
    }

    /// The next round, in order, that all shards are through with.
    pub(super) fn finished(&mut self) -> Option<FanOutRound> {
        let round = self.shards.as_mut()?.finished()?;
        self.leave_shards();
        Some(round)
    }

    /// Answers once all that was given out has come to its sockets.
    pub(super) fn when_written(&mut self, answer: oneshot::Sender<()>) {
        match &mut self.shards {
            Some(shards) => shards.when_written(answer),
            None => {
                // Who asked may have run out of time.
                let _ = answer.send(());
            }
        }
    }

    /// How many members `recipients` names.
    pub(super) fn reached(&self, recipients: &Recipients) -> usize {
        match recipients {
            Recipients::Everyone => self.roster.len(),
            Recipients::Users(_) => self.roster.sessions(recipients).count(),
        }
    }

    /// Until when the fan-out waits for sockets that have not taken what it gave them; `None`: it goes on.
    ///
    /// It may go on for a quarter of the limit without a look, so that no queue overflows between two
    /// looks for another reason than its socket's. In a large room what waits in the shards, which no look shows, is
    /// a part of that quarter; for these it waits at nobody's cost.
    pub(super) fn pressed(&mut self, now: impl Fn() -> Instant) -> Option<Instant> {
        let is_full = |shards: &Shards| shards.is_full(self.limit() / 4);
        if self.shards.as_ref().is_some_and(is_full) {
            return Some(now() + SHARDS_REPORT);
        }
        if !self.is_pressed_by(0) {
            return None;
        }
        let now = now();
        let loads = self.roster.sinks().map(|(_, sink)| sink.writer.load(now));
        let until = self.pressure.judge(now, loads);
        if until.is_none() {
            self.unseen = 0;
        }
        until
    }

    /// Whether with so many bytes more it is time for a look at the queues.
    pub(super) fn is_pressed_by(&self, bytes: usize) -> bool {
        let part = if self.shards.is_some() { 8 } else { 4 };
        self.unseen.saturating_add(bytes) >= self.limit() / part
    }

    /// Bytes that may wait for one socket, as things stand.
    fn limit(&self) -> usize {
        let one = self.roster.sinks().next();
        one.map_or(usize::MAX, |(_, sink)| sink.writer.limit())
    }

    /// Nothing more waits to be delivered.
    pub(super) fn caught_up(&mut self) {
        self.pressure.caught_up();
    }

    /// The stream is another one from `now` on, followed from its last message: no floor read so far means anything in it.
    pub(super) fn forget_start_positions(&mut self, now: Instant) {
        self.other_since = Some(now);
        for member in self.roster.by_session.values_mut() {
            member.sink.start_position = 0;
        }
        self.members_changed();
    }

    /// The queues of all members.
    pub(super) fn writers(&self) -> Vec<Writer> {
        let sinks = self.roster.sinks();
        sinks.map(|(_, sink)| sink.writer.clone()).collect()
    }
}

fn give_now(roster: &Roster, round: &mut FanOutRound) {
    let mut out = FanOut::default();
    if round.is_for_all() {
        let collected: Vec<_>;
        let frames = match round.batch.as_slice() {
            [one] => std::slice::from_ref(&one.frame),
            batch => {
                collected = batch.iter().map(|one| Arc::clone(&one.frame)).collect();
                collected.as_slice()
            }
        };
        let positions = round.batch.iter().map(|one| one.position);
        let mut sample = round.sample(roster.len());
        out.push_to_all(frames, &positions, roster.sinks(), &mut sample);
    } else {
        roster.to_some(round, |session, sink, frames, sample| {
            out.push(session, &sink.writer, &frames, sample);
        });
    }
    round.out = out;
    round.ended = Instant::now();
}

fn give_by_orders(roster: &Roster, round: &FanOutRound, orders: &mut Orders) {
    if round.is_for_all() {
        orders.give_all(&round.batch, round.sample(roster.len()));
    } else {
        roster.to_some(round, |session, sink, frames, sample| {
            orders.give_one(session, sink.writer.clone(), frames, sample.split(1));
        });
    }
}
