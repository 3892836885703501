//! What waits for one socket: a queue bounded in bytes, with the room at one end and the pump at the
//! other. The room never waits: a full queue is its answer, and closes the socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;

use super::{CloseReason, Parcel};
use crate::telemetry::{QueueDepth, Undelivered};

/// What an entry costs beyond its text: its slot and its frame header.
const ENTRY_BYTES: usize = 40;

/// The queue. Cheap to clone; empty, it has allocated nothing beyond itself.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// A lock and not a channel: the pump needs "close now" to overtake what waits, the room needs
    /// "does it fit" and "did it move", and each holds the lock for a few instructions only.
    state: Mutex<State>,
    pump: AtomicWaker,
    /// The room, where it waits for this queue to have room.
    room: AtomicWaker,
    limit: usize,
    /// Of all queues of the gateway.
    depth: Arc<QueueDepth>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    bytes: usize,
    taken: u64,
    end: Option<CloseReason>,
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
    /// An empty queue of at most `limit` bytes, counted in `depth`.
    pub fn new(limit: usize, depth: Arc<QueueDepth>) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            pump: AtomicWaker::new(),
            room: AtomicWaker::new(),
            limit,
            depth,
        }))
    }

    /// Queues one notification; its delivery has a span if `is_traced`. One entry always fits an
    /// empty queue.
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
        let fits = state.waiting.is_empty() || state.bytes + cost <= self.0.limit;
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

    /// Ends the queue at once; what waits is dropped.
    pub fn end_now(&self, reason: CloseReason) {
        self.0.end_now(&mut self.lock(), reason);
        self.0.pump.wake();
        self.0.room.wake();
    }

    /// Whether at most half of the limit waits, or nothing more is taken anyway.
    pub fn has_room(&self) -> bool {
        self.lock().has_room(self.0.limit)
    }

    /// As [`Outbox::has_room`]; where there is none, `cx` is woken when there is.
    pub fn poll_room(&self, cx: &Context<'_>) -> bool {
        self.0.room.register(cx.waker());
        self.has_room()
    }

    /// Bytes that may wait.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Entries the pump has taken so far: whether a slow socket moves at all.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// The next entry or the end, if there is one.
    pub(super) fn take(&self) -> Option<Take> {
        let mut state = self.lock();
        let had_room = state.has_room(self.0.limit);
        let take = state.take();
        if let Some(Take::Entry(entry)) = &take {
            self.0.depth.taken(1, entry.cost() as u64);
        }
        let has_room = state.has_room(self.0.limit);
        drop(state);
        if has_room && !had_room {
            self.0.room.wake();
        }
        take
    }

    /// Wakes `cx` at the next change. To be called before looking, so that no change is missed.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.0.pump.register(cx.waker());
    }

    /// Whether the queue overflowed: the pump then stops writing, even half-way.
    pub(super) fn overflowed(&self) -> bool {
        self.lock().end == Some(CloseReason::TooSlow)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
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
    fn has_room(&self, limit: usize) -> bool {
        self.end.is_some() || self.bytes <= limit / 2
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
        assert!(!outbox.has_room());
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
}
