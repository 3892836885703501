//! What waits for one socket: a queue bounded in bytes, with the room at one end and the pump at the
//! other. The room never waits: a full queue is its answer, and closes the socket.
//!
//! All queues share one ceiling. A queue may hold a part of what is free below it, so that the fuller
//! the gateway is, the less may wait for one socket (the dynamic thresholds of switches with shared
//! memory, Choudhury and Hahne 1998): the fullest queues end first, and give back what they held,
//! while a socket that keeps up never notices.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::{CloseReason, Parcel};
use crate::config::SocketsConfig;
use crate::room::SessionId;
use crate::telemetry::{ENTRY_BYTES, QueueDepth, Undelivered};

/// A socket of which the kernel takes nothing for so long is slow: once its queue is full, it is closed.
pub const SLOW_AFTER: Duration = Duration::from_millis(250);

/// Below this part of the ceiling, one in so many, nothing is free enough for a queue of its full limit.
const SCARCE: usize = 4;

/// The queue. Cheap to clone; empty, it has allocated nothing beyond itself.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// A lock and not a channel: the pump needs "close now" to overtake what waits, the room needs
    /// "does it fit" and "did it move", and each holds the lock for a few instructions only.
    state: Mutex<State>,
    pump: AtomicWaker,
    limits: QueueLimits,
    /// Of all queues of the gateway.
    depth: Arc<QueueDepth>,
}

/// What may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// In one queue.
    each: usize,
    /// In all queues together.
    all: u64,
    /// A queue may hold one part in so many of what is free.
    part: u64,
}

impl QueueLimits {
    /// So many bytes in `each` queue and in `all` of them. Each may fill as long as a quarter of all is
    /// free.
    fn new(each: usize, all: usize) -> Self {
        Self {
            each,
            all: all as u64,
            part: (all / SCARCE / each.max(1)).max(1) as u64,
        }
    }

    /// What one queue may hold, where all of them take `memory`.
    fn now(self, memory: u64) -> usize {
        let part = self.all.saturating_sub(memory) / self.part;
        usize::try_from(part).map_or(self.each, |part| part.min(self.each))
    }
}

impl From<&SocketsConfig> for QueueLimits {
    fn from(config: &SocketsConfig) -> Self {
        Self::new(config.queue_bytes, config.queue_bytes_total)
    }
}

/// For tests that look at one queue only.
#[cfg(test)]
impl From<usize> for QueueLimits {
    fn from(each: usize) -> Self {
        Self::new(each, usize::MAX)
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    bytes: usize,
    taken: u64,
    /// Since when the kernel takes nothing of what it was given.
    refused_since: Option<Instant>,
    end: Option<CloseReason>,
    /// The session for which this one is to be closed.
    successor: Option<SessionId>,
    /// A ping that the pump is to send; it tells of the pong.
    probe: Option<oneshot::Sender<()>>,
}

/// One notification for this socket.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) parcel: Arc<Parcel>,
    /// Its delivery has a span.
    pub(super) is_traced: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        self.parcel.text.len() + ENTRY_BYTES
    }
}

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub standing: Standing,
    /// More than half of what may wait does.
    pub is_half_full: bool,
}

/// What a queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// For nothing: it is empty, or has ended.
    Clear,
    /// For its socket's turn to be written.
    Due,
    /// For the kernel, which has taken nothing since then.
    Refused { since: Instant },
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Queued,
    /// It did not fit: the outbox has ended with [`CloseReason::TooSlow`] and is empty.
    Overflow,
    /// The outbox had ended before.
    Ended,
}

/// What the pump takes.
#[derive(Debug)]
pub(super) enum Take {
    Entry(Entry),
    /// Nothing will follow.
    End(CloseReason),
}

impl Outbox {
    /// An empty queue that is counted in `depth`, the one of all queues with these limits.
    pub fn new(limits: impl Into<QueueLimits>, depth: Arc<QueueDepth>) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            pump: AtomicWaker::new(),
            limits: limits.into(),
            depth,
        }))
    }

    /// Queues one notification; its delivery has a span if `is_traced`. One entry always fits an
    /// empty queue, also at the ceiling: a socket that has taken all before keeps up.
    pub fn push(&self, parcel: &Arc<Parcel>, is_traced: bool) -> Push {
        let entry = Entry {
            parcel: Arc::clone(parcel),
            is_traced,
        };
        let cost = entry.cost();
        let mut state = self.lock();
        if state.end.is_some() {
            return Push::Ended;
        }
        let fits = state.waiting.is_empty() || state.bytes + cost <= self.0.may_hold();
        if fits {
            state.bytes += cost;
            state.waiting.push_back(entry);
            self.0.depth.queued(1, cost as u64);
        } else {
            self.0.end_now(&mut state, CloseReason::TooSlow);
        }
        drop(state);
        self.0.pump.wake();
        if fits { Push::Queued } else { Push::Overflow }
    }

    /// Ends the queue after what already waits.
    pub fn end_after(&self, reason: CloseReason) {
        self.lock().end.get_or_insert(reason);
        self.0.pump.wake();
    }

    /// Ends the queue after what already waits, for the newer session `by`.
    pub(crate) fn replace(&self, by: SessionId) {
        self.lock().successor = Some(by);
        self.end_after(CloseReason::Replaced);
    }

    /// The newer session for which this one is closed.
    pub(super) fn successor(&self) -> Option<SessionId> {
        self.lock().successor
    }

    /// Ends the queue at once; what waits is dropped.
    pub fn end_now(&self, reason: CloseReason) {
        self.0.end_now(&mut self.lock(), reason);
        self.0.pump.wake();
    }

    /// Has the socket pinged. The answer is the pong; its end without one, that of the socket.
    pub(crate) fn probe(&self) -> oneshot::Receiver<()> {
        let (answer, pong) = oneshot::channel();
        self.lock().probe = Some(answer);
        self.0.pump.wake();
        pong
    }

    /// A ping that is to be sent, with whom to tell of the pong.
    pub(super) fn take_probe(&self) -> Option<oneshot::Sender<()>> {
        self.lock().probe.take()
    }

    /// How the queue stands.
    pub fn load(&self) -> Load {
        self.lock().load(self.0.may_hold())
    }

    /// The kernel refused what it was given, or has taken all of it.
    pub(super) fn refused(&self, is_refused: bool) {
        let mut state = self.lock();
        if !is_refused {
            state.refused_since = None;
        } else if state.refused_since.is_none() {
            state.refused_since = Some(Instant::now());
        }
    }

    /// Bytes that may wait, as things stand.
    pub fn limit(&self) -> usize {
        self.0.may_hold()
    }

    /// Entries the pump has taken so far: whether a slow socket moves at all.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// The next entry or the end, if there is one.
    pub(super) fn take(&self) -> Option<Take> {
        let mut state = self.lock();
        let take = state.take();
        if let Some(Take::Entry(entry)) = &take {
            self.0.depth.taken(1, entry.cost() as u64);
        }
        take
    }

    /// Wakes `cx` at the next change. To be called before looking, so that no change is missed.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.0.pump.register(cx.waker());
    }

    /// Why the queue has ended or is to end after what waits. Once it overflowed ([`CloseReason::TooSlow`])
    /// the pump stops writing, even half-way.
    pub(super) fn ending(&self) -> Option<CloseReason> {
        self.lock().end
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// What the queue may hold, as full as the gateway is.
    fn may_hold(&self) -> usize {
        self.limits.now(self.depth.memory())
    }

    fn end_now(&self, state: &mut State, reason: CloseReason) {
        let why = match reason {
            CloseReason::TooSlow => Undelivered::Slow,
            _ => Undelivered::Closed,
        };
        self.drop_waiting(state, why);
        state.end.get_or_insert(reason);
    }

    fn drop_waiting(&self, state: &mut State, why: Undelivered) {
        let bytes = state.bytes as u64;
        let dropped = state.clear();
        self.depth.taken(dropped, bytes);
        self.depth.dropped(dropped, why);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut state =
            std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.drop_waiting(&mut state, Undelivered::Closed);
    }
}

impl State {
    fn load(&self, limit: usize) -> Load {
        let standing = match self.refused_since {
            _ if self.end.is_some() || self.waiting.is_empty() => Standing::Clear,
            Some(since) => Standing::Refused { since },
            None => Standing::Due,
        };
        Load {
            standing,
            is_half_full: standing != Standing::Clear && self.bytes > limit / 2,
        }
    }

    /// Drops all that waits; returns how many.
    fn clear(&mut self) -> u64 {
        let dropped = std::mem::take(&mut self.waiting).len();
        self.bytes = 0;
        dropped as u64
    }

    fn take(&mut self) -> Option<Take> {
        match self.waiting.pop_front() {
            Some(entry) => {
                self.bytes -= entry.cost();
                self.taken += 1;
                // The connection takes one only once it has written what it had.
                self.refused_since = None;
                if self.waiting.is_empty() {
                    // An idle socket keeps no buffer from its last burst.
                    self.waiting = VecDeque::new();
                }
                Some(Take::Entry(entry))
            }
            None => self.end.map(Take::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outbox(limit: usize) -> Outbox {
        Outbox::new(limit, Arc::default())
    }

    fn push(outbox: &Outbox, length: usize) -> Push {
        outbox.push(&Parcel::of_length(length), false)
    }

    /// The length of the next notification, or the end.
    fn take(outbox: &Outbox) -> Result<usize, CloseReason> {
        match outbox.take().expect("something waits") {
            Take::Entry(entry) => Ok(entry.parcel.text.len()),
            Take::End(reason) => Err(reason),
        }
    }

    #[test]
    fn what_does_not_fit_ends_the_queue_and_drops_it() {
        let outbox = outbox(1000);
        assert_eq!(push(&outbox, 500), Push::Queued);
        assert!(outbox.load().is_half_full);
        assert_eq!(push(&outbox, 500), Push::Overflow);
        assert_eq!(push(&outbox, 1), Push::Ended);
        assert_eq!(take(&outbox), Err(CloseReason::TooSlow));
    }

    #[test]
    fn one_entry_always_fits_an_empty_queue() {
        let outbox = outbox(10);
        assert_eq!(push(&outbox, 500), Push::Queued);
        assert_eq!(take(&outbox), Ok(500));
        assert_eq!(push(&outbox, 500), Push::Queued);
        assert_eq!(outbox.taken(), 1);
    }

    #[test]
    fn an_end_waits_for_what_was_queued_and_the_first_reason_stands() {
        let outbox = outbox(1000);
        push(&outbox, 1);
        outbox.end_after(CloseReason::Inactive);
        outbox.end_after(CloseReason::Restart);
        assert_eq!(push(&outbox, 1), Push::Ended);
        assert_eq!(take(&outbox), Ok(1));
        assert_eq!(take(&outbox), Err(CloseReason::Inactive));
    }

    #[test]
    fn whatever_happens_to_an_entry_the_depth_comes_back_to_zero() {
        let depth = Arc::<QueueDepth>::default();
        let outbox = Outbox::new(1000, Arc::clone(&depth));
        for _ in 0..3 {
            push(&outbox, 100);
        }
        assert_eq!(depth.waiting(), (3, 420));
        assert_eq!(take(&outbox), Ok(100));
        assert_eq!(depth.waiting(), (2, 280));
        push(&outbox, 900);
        assert_eq!(depth.waiting(), (0, 0));
        assert_eq!(depth.not_written(), (2, 0));
        let other = Outbox::new(1000, Arc::clone(&depth));
        push(&other, 100);
        drop(other);
        assert_eq!(depth.waiting(), (0, 0));
        assert_eq!(depth.not_written(), (2, 1));
    }

    /// Queues that share a ceiling, and the texts that were made for them.
    struct Gateway {
        limits: QueueLimits,
        depth: Arc<QueueDepth>,
        queues: Vec<Outbox>,
    }

    impl Gateway {
        fn new(queues: usize, each: usize, all: usize) -> Self {
            let (limits, depth) = (QueueLimits::new(each, all), Arc::<QueueDepth>::default());
            let queue = || Outbox::new(limits, Arc::clone(&depth));
            let queues = (0..queues).map(|_| queue()).collect();
            Self {
                limits,
                depth,
                queues,
            }
        }

        /// Pushes a text of its own.
        fn push(&self, queue: usize, length: usize) -> Push {
            self.queues[queue].push(&Parcel::counted(length, &self.depth), false)
        }
    }

    #[test]
    fn a_text_counts_once_for_however_many_sockets_it_waits() {
        let gateway = Gateway::new(3, 1000, 100_000);
        let parcel = Parcel::counted(100, &gateway.depth);
        assert_eq!(gateway.depth.memory(), 100);
        for queue in &gateway.queues {
            assert_eq!(queue.push(&parcel, false), Push::Queued);
        }
        assert_eq!(gateway.depth.memory(), 100 + 3 * 40);
        assert_eq!(gateway.depth.waiting(), (3, 3 * 140));
        drop(parcel);
        for (queue, left) in gateway.queues.iter().zip([100 + 2 * 40, 100 + 40, 0]) {
            assert_eq!(take(queue), Ok(100));
            assert_eq!(gateway.depth.memory(), left);
        }
    }

    #[test]
    fn far_from_the_ceiling_each_queue_has_its_whole_limit() {
        let gateway = Gateway::new(8, 1000, 12_000);
        for queue in 0..8 {
            assert_eq!(gateway.push(queue, 960), Push::Queued);
        }
        assert_eq!(gateway.depth.memory(), 8000);
        assert_eq!(gateway.limits.now(8000), 1000);
        assert_eq!(gateway.limits.now(10_500), 500);
        assert_eq!(gateway.limits.now(12_000), 0);
        assert_eq!(gateway.limits.now(u64::MAX), 0);
    }

    #[test]
    fn near_the_ceiling_the_fullest_queue_ends_and_what_it_held_lets_the_others_go_on() {
        let gateway = Gateway::new(20, 1000, 8000);
        for queue in 0..20 {
            assert_eq!(gateway.push(queue, 20 * queue), Push::Queued);
        }
        let _elsewhere = Parcel::counted(2800, &gateway.depth);
        assert_eq!(gateway.depth.memory(), 7400);
        assert_eq!(gateway.push(0, 10), Push::Queued);
        assert_eq!(gateway.push(19, 10), Push::Overflow);
        assert_eq!(gateway.depth.memory(), 7030);
        assert_eq!(gateway.push(18, 10), Push::Queued);
        // Who has taken what it had goes on whatever the others do.
        for _ in 0..100 {
            assert!(take(&gateway.queues[1]).is_ok());
            assert_eq!(gateway.push(1, 10), Push::Queued);
        }
    }

    #[test]
    fn at_the_ceiling_an_empty_queue_still_takes_one() {
        let gateway = Gateway::new(1, 1000, 1000);
        let _waits_elsewhere = Parcel::counted(5000, &gateway.depth);
        assert_eq!(gateway.push(0, 100), Push::Queued);
        assert_eq!(gateway.push(0, 1), Push::Overflow);
        assert_eq!(gateway.depth.memory(), 5000);
    }

    proptest! {
        /// The memory is always that of the texts and entries that are there; beyond the ceiling there
        /// is never more than the one entry that an empty queue takes; and a queue ends as slow
        /// only if it held more than its part.
        #[test]
        fn the_ceiling_holds_and_nothing_stays_counted(
            queues in 1usize..12,
            all in 1000usize..20_000,
            steps in prop::collection::vec((0usize..12, 0u8..8, 1usize..400), 1..400),
        ) {
            let gateway = Gateway::new(queues, 1000, all);
            for (queue, what, length) in steps {
                let outbox = &gateway.queues[queue % queues];
                match what {
                    0..=4 => {
                        let before = outbox.lock().bytes;
                        let memory = gateway.depth.memory() + length as u64;
                        let part = gateway.limits.now(memory);
                        match gateway.push(queue % queues, length) {
                            Push::Queued => prop_assert!(before == 0 || before + length + 40 <= part),
                            Push::Overflow => prop_assert!(before > 0 && before + length + 40 > part),
                            Push::Ended => {}
                        }
                    }
                    5..=6 => drop(outbox.take()),
                    _ => outbox.end_after(CloseReason::Inactive),
                }
                let counted: usize = gateway.queues.iter().map(|queue| queue.lock().bytes).sum();
                prop_assert_eq!(gateway.depth.memory(), counted as u64);
                prop_assert!(counted <= all + queues * 440, "{} of {}", counted, all);
            }
            let depth = Arc::clone(&gateway.depth);
            drop(gateway);
            prop_assert_eq!(depth.memory(), 0);
            prop_assert_eq!(depth.waiting(), (0, 0));
        }
    }
}
