//! The sockets of a large room in shards, by session: each has a task and a queue, so that all cores write.
//!
//! The room decides who gets what, for all at one time. A shard only writes it, in order. So nothing has to be taken
//! back for a socket that leaves: a writer that has ended takes nothing more.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::fan_out::{Addressed, FanOut, FanOutRound, Sample, Sink, Turn, WRITES_A_TURN};
use crate::event::Position;
use crate::room::SessionId;
use crate::socket::{Frame, Writer};

/// A room of more sockets than this is large. What a task by itself does with so many takes some 2 ms. Measured with
/// 300 sockets, 100 events a second, two cores: shards cost nothing (9.0 µs a delivery, 9.2 without), and the median is
/// 2.7 ms, not 3.2.
pub(super) const LARGE: usize = 256;
/// A large room that has fewer is one no more. Far enough below, so that one that comes and goes changes nothing.
pub(super) const SMALL: usize = 128;
/// Shards of a room, at most: each event wakes them all, which some 30 sockets each should be worth.
const SHARDS_MAX: usize = 8;
/// Rounds in a shard's queue: one that is given out, and one behind it, so that no shard waits for another.
const ROUNDS_MAX: usize = 2;

/// Those of the members of one shard.
type Sinks = Arc<[(SessionId, Sink)]>;

/// Notifications for all members.
type Events = Arc<[(Position, Arc<Frame>)]>;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Shards {
    /// Unbounded, but the room begins with no other event while they are full, see [`Shards::is_full`].
    queues: Vec<mpsc::UnboundedSender<Job>>,
    /// One for each job.
    reports: mpsc::UnboundedReceiver<ShardReport>,
    /// They end with this.
    tasks: JoinSet<()>,
    /// `None` after a change of the members.
    sinks: Option<Vec<Sinks>>,
    /// Rounds that a shard is not done with, and those behind them.
    rounds: VecDeque<UnderWay>,
    /// How many rounds came before these.
    before: u64,
    /// Of `rounds`, for one socket.
    bytes: usize,
}

#[derive(Debug)]
struct UnderWay {
    round: FanOutRound,
    /// Shards that are not done with it.
    left: usize,
}

/// What a shard is to give out of a round.
#[derive(Debug)]
struct Job {
    round: u64,
    orders: Vec<Order>,
}

/// What a shard gives out in one go.
#[derive(Debug)]
enum Order {
    ToAll {
        sinks: Sinks,
        events: Events,
        sample: Sample,
    },
    ToOne {
        session: SessionId,
        writer: Writer,
        frames: Vec<Arc<Frame>>,
        sample: Sample,
    },
}

/// The orders of a round, by shard.
#[derive(Debug)]
pub(super) struct Orders(Vec<(Sinks, Vec<Order>)>);

/// A shard is done with its part of a round.
#[derive(Debug)]
pub(in crate::room) struct ShardReport {
    round: u64,
    out: FanOut,
    ended: Instant,
}

impl Shards {
    /// As many as `runtime` has workers.
    pub(super) fn start(runtime: &Handle) -> Self {
        Self::of(
            runtime.metrics().num_workers().clamp(1, SHARDS_MAX),
            runtime,
        )
    }

    fn of(count: usize, runtime: &Handle) -> Self {
        let (report, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let queues = std::iter::repeat_with(|| {
            let (give, jobs) = mpsc::unbounded_channel();
            tasks.spawn_on(shard(jobs, report.clone()), runtime);
            give
        });
        Self {
            queues: queues.take(count).collect(),
            reports,
            tasks,
            sinks: None,
            rounds: VecDeque::new(),
            before: 0,
            bytes: 0,
        }
    }

    /// The members have changed.
    pub(super) fn members_changed(&mut self) {
        self.sinks = None;
    }

    /// Orders for a round, of which there are none yet. `all` members are looked at only after a change.
    pub(super) fn orders<'a>(
        &mut self,
        all: impl Iterator<Item = (SessionId, &'a Sink)>,
    ) -> Orders {
        let count = self.queues.len();
        let sinks = self.sinks.get_or_insert_with(|| {
            let mut sinks = vec![Vec::new(); count];
            for (session, sink) in all {
                if let Some(shard) = sinks.get_mut(shard_of(session, count)) {
                    shard.push((session, sink.clone()));
                }
            }
            sinks.into_iter().map(Sinks::from).collect()
        });
        Orders(
            sinks
                .iter()
                .map(|sinks| (Arc::clone(sinks), Vec::new()))
                .collect(),
        )
    }

    /// Gives a round out by these `orders`, behind those that are under way.
    pub(super) fn give(&mut self, round: FanOutRound, orders: Orders) {
        let number = self.before + self.rounds.len() as u64;
        let mut left = 0;
        for (queue, (_, orders)) in self.queues.iter().zip(orders.0) {
            if orders.is_empty() {
                continue;
            }
            left += 1;
            // A shard that has ended has panicked. The room finds out, see [`Shards::next`].
            let _ = queue.send(Job {
                round: number,
                orders,
            });
        }
        self.bytes += round.bytes();
        self.rounds.push_back(UnderWay { round, left });
    }

    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.rounds.is_empty()
    }

    /// No more is to be given out for now: all that may wait does, or so many bytes for one socket.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.rounds.len() >= ROUNDS_MAX || !self.is_idle() && self.bytes >= bytes
    }

    /// Answers once all shards are done with what they have now.
    pub(super) fn when_written(&mut self, answer: oneshot::Sender<()>) {
        match self.rounds.back_mut() {
            Some(last) => last.round.answers.push(answer),
            None => {
                // Who waits may have run out of time.
                let _ = answer.send(());
            }
        }
    }

    /// What a shard reports next; `None` where the runtime is ending.
    ///
    /// # Panics
    /// With the panic of a shard's task.
    pub(super) async fn next(&mut self) -> Option<ShardReport> {
        let ended = tokio::select! {
            biased;
            ended = self.tasks.join_next() => ended?,
            report = self.reports.recv() => return report,
        };
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
        None
    }

    /// Takes note of a report.
    pub(super) fn reported(&mut self, report: ShardReport) {
        let index = usize::try_from(report.round - self.before).unwrap_or(usize::MAX);
        if let Some(under_way) = self.rounds.get_mut(index) {
            under_way.left -= 1;
            under_way.round.out.add(report.out);
            under_way.round.ended = under_way.round.ended.max(report.ended);
        }
    }

    /// The next round, in order, that all shards are done with.
    pub(super) fn finished(&mut self) -> Option<FanOutRound> {
        if self.rounds.front()?.left > 0 {
            return None;
        }
        let UnderWay { round, .. } = self.rounds.pop_front()?;
        self.before += 1;
        self.bytes -= round.bytes();
        Some(round)
    }
}

impl Orders {
    /// Gives `batch` to all members.
    pub(super) fn give_all(&mut self, batch: &[Addressed], mut sample: Sample) {
        let events: Events = batch
            .iter()
            .map(|one| (one.position, Arc::clone(&one.frame)))
            .collect();
        for (sinks, orders) in &mut self.0 {
            let sample = sample.split(sinks.len());
            if !sinks.is_empty() {
                orders.push(Order::ToAll {
                    sinks: Arc::clone(sinks),
                    events: Arc::clone(&events),
                    sample,
                });
            }
        }
    }

    /// Gives `frames` to one member.
    pub(super) fn give_one(
        &mut self,
        session: SessionId,
        writer: Writer,
        frames: Vec<Arc<Frame>>,
        sample: Sample,
    ) {
        let shard = shard_of(session, self.0.len());
        if let Some((_, orders)) = self.0.get_mut(shard) {
            orders.push(Order::ToOne {
                session,
                writer,
                frames,
                sample,
            });
        }
    }
}

/// In which of so many shards a session is: always in the same one, or its events would lose their order.
fn shard_of(session: SessionId, shards: usize) -> usize {
    usize::from(session.low_byte()) % shards
}

/// The task of a shard.
async fn shard(
    mut jobs: mpsc::UnboundedReceiver<Job>,
    reports: mpsc::UnboundedSender<ShardReport>,
) {
    let mut turn = Turn::default();
    while let Some(Job { round, orders }) = jobs.recv().await {
        let mut out = FanOut::default();
        for order in orders {
            give_out(order, &mut out, &mut turn).await;
        }
        let ended = Instant::now();
        // The room may be ending.
        let _ = reports.send(ShardReport { round, out, ended });
    }
}

async fn give_out(order: Order, out: &mut FanOut, turn: &mut Turn) {
    match order {
        Order::ToAll {
            sinks,
            events,
            mut sample,
        } => {
            let frames: Vec<_> = events.iter().map(|(_, frame)| Arc::clone(frame)).collect();
            for sinks in sinks.chunks(WRITES_A_TURN) {
                turn.pass().await;
                turn.spend(sinks.len());
                let positions = events.iter().map(|(position, _)| *position);
                let sinks = sinks.iter().map(|(session, sink)| (*session, sink));
                out.push_to_all(&frames, &positions, sinks, &mut sample);
            }
        }
        Order::ToOne {
            session,
            writer,
            frames,
            mut sample,
        } => {
            turn.pass().await;
            turn.spend(1);
            out.push(session, &writer, &frames, &mut sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Recipients;
    use crate::room::SessionId;

    fn position(sequence: u64) -> Position {
        Position {
            sequence,
            time: chrono::DateTime::from_timestamp_nanos(sequence.cast_signed()),
        }
    }

    fn sinks(count: u128) -> Vec<(SessionId, Sink)> {
        let sink = |number| {
            let sink = Sink {
                writer: Writer::new(usize::MAX, Arc::default()),
                start_position: 0,
            };
            (SessionId::from_u128(number), sink)
        };
        (0..count).map(sink).collect()
    }

    /// Gives all of `sinks` a notification of so many bytes.
    fn give(shards: &mut Shards, sinks: &[(SessionId, Sink)], length: usize) {
        let round = FanOutRound::new(
            vec![Addressed {
                position: position(1),
                id: String::new(),
                recipients: Recipients::Everyone,
                frame: Frame::of_length(length),
            }],
            None,
            Instant::now(),
        );
        let sinks = sinks.iter().map(|(session, sink)| (*session, sink));
        let mut orders = shards.orders(sinks);
        orders.give_all(&round.batch, round.sample(0));
        shards.give(round, orders);
    }

    async fn report(shards: &mut Shards) {
        let report = shards.next().await.expect("the runtime lives");
        shards.reported(report);
    }

    #[tokio::test]
    async fn shards_are_full_until_all_of_them_are_through() {
        let mut shards = Shards::of(2, &Handle::current());
        let sinks = sinks(4);
        assert!(!shards.is_full(0), "what is larger than all goes out alone");
        give(&mut shards, &sinks, 500);
        assert!(shards.is_full(500) && !shards.is_full(501));
        let (answer, mut answered) = oneshot::channel();
        shards.when_written(answer);
        give(&mut shards, &sinks, 0);
        assert!(shards.is_full(usize::MAX));
        report(&mut shards).await;
        assert!(shards.finished().is_none() && answered.try_recv().is_err());
        while !shards.is_idle() {
            report(&mut shards).await;
            while let Some(round) = shards.finished() {
                for answer in round.answers {
                    answer.send(()).expect("it is waited for");
                }
                assert_eq!(round.out.delivered, 4);
            }
        }
        answered.await.expect("the mark has passed both");
        assert!(!shards.is_full(1));
    }

    #[tokio::test]
    async fn others_have_their_turn_while_a_shard_writes() {
        let mut shards = Shards::of(1, &Handle::current());
        give(&mut shards, &sinks(10 * WRITES_A_TURN as u128), 1);
        let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let taken = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        report(&mut shards).await;
        other.abort();
        assert!(turns.load(std::sync::atomic::Ordering::Relaxed) >= 9);
    }

    #[tokio::test]
    async fn the_panic_of_a_shard_is_its_rooms() {
        let mut shards = Shards::of(2, &Handle::current());
        shards.tasks.spawn(async { panic!("a shard's") });
        let room = tokio::spawn(async move { shards.next().await });
        assert!(room.await.expect_err("it has panicked").is_panic());
    }
}
