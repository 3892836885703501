//! What waits for one socket: a queue bounded in bytes, with the room at one end and the pump at the
//! other. The room never waits: a full queue is its answer, and closes the socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::CloseReason;

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
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Utf8Bytes>,
    bytes: usize,
    taken: u64,
    end: Option<CloseReason>,
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
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take {
    Text(Utf8Bytes),
    /// Nothing will follow.
    End(CloseReason),
}

impl Outbox {
    /// An empty queue of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            pump: AtomicWaker::new(),
            room: AtomicWaker::new(),
            limit,
        }))
    }

    /// Queues one text. One entry always fits an empty queue.
    pub fn push(&self, text: &Utf8Bytes) -> Push {
        let cost = text.len() + ENTRY_BYTES;
        let mut state = self.lock();
        if state.end.is_some() {
            return Push::Ended;
        }
        let fits = state.waiting.is_empty() || state.bytes + cost <= self.0.limit;
        if fits {
            state.bytes += cost;
            state.waiting.push_back(text.clone());
        } else {
            state.end_now(CloseReason::TooSlow);
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
        self.lock().end_now(reason);
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

impl State {
    fn has_room(&self, limit: usize) -> bool {
        self.end.is_some() || self.bytes <= limit / 2
    }

    fn end_now(&mut self, reason: CloseReason) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
        self.end.get_or_insert(reason);
    }

    fn take(&mut self) -> Option<Take> {
        match self.waiting.pop_front() {
            Some(text) => {
                self.bytes -= text.len() + ENTRY_BYTES;
                self.taken += 1;
                if self.waiting.is_empty() {
                    // An idle socket keeps no buffer from its last burst.
                    self.waiting = VecDeque::new();
                }
                Some(Take::Text(text))
            }
            None => self.end.map(Take::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Utf8Bytes {
        Utf8Bytes::from("x".repeat(length))
    }

    #[test]
    fn what_does_not_fit_ends_the_queue_and_drops_it() {
        let outbox = Outbox::new(1000);
        assert_eq!(outbox.push(&text(500)), Push::Queued);
        assert!(!outbox.has_room());
        assert_eq!(outbox.push(&text(500)), Push::Overflow);
        assert_eq!(outbox.push(&text(1)), Push::Ended);
        assert_eq!(outbox.take(), Some(Take::End(CloseReason::TooSlow)));
    }

    #[test]
    fn one_entry_always_fits_an_empty_queue() {
        let outbox = Outbox::new(10);
        assert_eq!(outbox.push(&text(500)), Push::Queued);
        assert_eq!(outbox.take(), Some(Take::Text(text(500))));
        assert_eq!(outbox.push(&text(500)), Push::Queued);
        assert_eq!(outbox.taken(), 1);
    }

    #[test]
    fn an_end_waits_for_what_was_queued_and_the_first_reason_stands() {
        let outbox = Outbox::new(1000);
        outbox.push(&text(1));
        outbox.end_after(CloseReason::Inactive);
        outbox.end_after(CloseReason::Restart);
        assert_eq!(outbox.push(&text(1)), Push::Ended);
        assert_eq!(outbox.take(), Some(Take::Text(text(1))));
        assert_eq!(outbox.take(), Some(Take::End(CloseReason::Inactive)));
    }
}
