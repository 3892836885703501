//! The sockets of a room: who of them gets what, when it is written, and when the room waits for them.

mod backpressure;
mod fan_out;
mod roster;
mod shards;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::backpressure::Backpressure;
pub(super) use self::fan_out::{Addressed, FanOutRound};
use self::fan_out::{FanOut, Sink, Turn, WRITES_A_TURN};
use self::roster::{Member, Roster};
pub(super) use self::shards::ShardReport;
use self::shards::{LARGE, Orders, SMALL, Shards};
use super::SessionId;
use super::handle::{JoinRequest, Successor};
use crate::auth::UserKey;
use crate::codes::CloseReason;
use crate::event::Position;
use crate::projection::Recipients;
use crate::socket::Writer;
use crate::telemetry::{EventTrace, FanOutTrace};

/// When to look again whether the shards are done with what they have; they report earlier.
const SHARDS_REPORT: Duration = Duration::from_secs(1);
/// Events that are sent together, at most. As many frames go to the kernel at once.
const BATCH: usize = 64;

/// The members of a room, and what is on its way to them.
#[derive(Debug, Default)]
pub(super) struct Members {
    roster: Roster,
    /// Notifications that are sent together: all of them are for everyone, or none is.
    batch: Vec<Addressed>,
    /// What the room has written since others had their turn.
    turn: Turn,
    /// Where shards run.
    workers: Option<Handle>,
    /// Of a large room.
    shards: Option<Shards>,
    /// Bytes that each queue may have got since it was last looked at them.
    unseen: usize,
    backpressure: Backpressure,
    /// When the stream was last found to be another one than before.
    other_since: Option<Instant>,
}

impl Members {
    /// None yet. Those of a large room are written to by shards on `workers`.
    pub(super) fn new(workers: Handle) -> Self {
        Self {
            workers: Some(workers),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.roster.len()
    }

    /// A socket becomes a member. `start` is the end of the stream, and when the join began, which was before the end
    /// was read. It may be the end of a stream that is no more. Then the socket gets all that is delivered, since the
    /// other stream was found after the join began.
    pub(super) fn join(
        &mut self,
        session: SessionId,
        request: JoinRequest,
        (start, began): (Position, Instant),
        successor: Successor,
    ) {
        let start_position = match self.other_since {
            Some(other_since) if began < other_since => 0,
            _ => start.sequence,
        };
        let JoinRequest {
            workspace: _,
            user,
            subject,
            writer,
        } = request;
        let sink = Sink {
            writer,
            start_position,
        };
        self.roster.insert(
            session,
            Member {
                user,
                subject,
                successor,
                sink,
            },
        );
        self.members_changed();
    }

    /// A session is a member no more; returns whose it was.
    pub(super) fn leave(&mut self, session: SessionId) -> Option<UserKey> {
        Some(self.remove(session)?.user)
    }

    /// Closes the socket of `session` for that of `by`.
    pub(super) fn replace(&mut self, session: SessionId, by: Option<SessionId>) {
        let Some(member) = self.remove(session) else {
            return;
        };
        if let Some(by) = by {
            // It is replaced once, so there is none yet.
            let _ = member.successor.set(by);
        }
        member.sink.writer.end_after(CloseReason::Replaced);
    }

    /// Has the socket of `session` pinged; the pong answers.
    pub(super) fn probe(&self, session: SessionId) -> Option<oneshot::Receiver<()>> {
        let member = self.roster.get(session)?;
        Some(member.sink.writer.probe())
    }

    fn remove(&mut self, session: SessionId) -> Option<Member> {
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

    /// A room that is small again has none, once they are done with what they have.
    fn leave_shards(&mut self) {
        let is_small = self.roster.len() < SMALL;
        self.shards.take_if(|shards| is_small && shards.is_idle());
    }

    /// Whether `addressed` may go out with what is batched.
    pub(super) fn joins_batch(&self, addressed: &Addressed) -> bool {
        let is_alike = |last: &Addressed| last.is_for_all() == addressed.is_for_all();
        self.batch.last().is_none_or(is_alike)
    }

    /// Adds a notification to the batch; whether that is full.
    #[must_use]
    pub(super) fn add(&mut self, addressed: Addressed) -> bool {
        self.batch.push(addressed);
        let bytes = self.batch.iter().map(|one| one.frame.len()).sum();
        self.batch.len() >= BATCH || self.is_pressed_by(bytes)
    }

    /// When the last of the batch was made, if there is one.
    pub(super) fn batched_at(&self) -> Option<Instant> {
        self.batch.last().map(|last| last.frame.made.at)
    }

    /// Sends the batch, from `began` on. What it returns is done; the rest the shards have.
    pub(super) fn flush(&mut self, began: Instant) -> Option<FanOutRound> {
        if self.batch.is_empty() {
            return None;
        }
        let batch = std::mem::take(&mut self.batch);
        self.fan_out(FanOutRound::new(batch, None, began))
    }

    /// Sends a notification whose trace is recorded, alone, as [`Members::flush`] does.
    pub(super) fn send_traced(
        &mut self,
        addressed: Addressed,
        trace: (EventTrace, FanOutTrace),
        began: Instant,
    ) -> Option<FanOutRound> {
        self.fan_out(FanOutRound::new(vec![addressed], Some(trace), began))
    }

    /// Takes the memory of a batch that is done, for the next one.
    pub(super) fn recycle(&mut self, mut batch: Vec<Addressed>) {
        if self.batch.capacity() == 0 {
            batch.clear();
            self.batch = batch;
        }
    }

    /// Gives each of a round's batch, in order, to the members that it is for and whose start position is below it,
    /// with one write for each socket. Some of the deliveries of what is traced have spans: not always to the same
    /// ones, so that each socket of a busy room is seen now and then. `None`: the shards have it.
    fn fan_out(&mut self, mut round: FanOutRound) -> Option<FanOutRound> {
        if self.shards.is_none() && self.roster.len() > LARGE {
            self.shards = self.workers.as_ref().map(Shards::start);
        }
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
        self.turn.spend(round.out.writes);
        Some(round)
    }

    /// Whether the room has written so much that others are to have their turn.
    pub(super) fn is_turn_over(&self) -> bool {
        self.turn.is_over()
    }

    /// Lets others have their turn, if this one is over.
    pub(super) async fn pass_turn(&mut self) {
        self.turn.pass().await;
    }

    /// What a shard reports next; without shards, nothing ever. `None` where the runtime is ending.
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

    /// The next round, in order, that all shards are done with.
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
                // Who waits may have run out of time.
                let _ = answer.send(());
            }
        }
    }

    /// How many members `recipients` names.
    pub(super) fn reached(&self, recipients: &Recipients) -> usize {
        self.roster.reached(recipients)
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
        let until = self.backpressure.judge(now, loads);
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
        self.backpressure.caught_up();
    }

    /// The stream is another one from `now` on, followed from its last message: no start position read so far means
    /// anything in it.
    pub(super) fn forget_start_positions(&mut self, now: Instant) {
        self.other_since = Some(now);
        self.roster.forget_start_positions();
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
