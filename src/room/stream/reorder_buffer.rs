//! Live messages that wait while their room repairs, bounded in bytes: for each room, and for all rooms
//! of the gateway together.

use std::collections::VecDeque;

use crate::event::StoredMessage;
use crate::room::ReorderBudget;

/// Bytes that may wait in one room. What does not fit is read from the stream afterwards.
const LIMIT_BYTES: usize = 1024 * 1024;
/// The same in a room that is slowed.
const LIMIT_BYTES_SLOWED: usize = LIMIT_BYTES / 4;

/// What a waiting message costs beyond its payload: itself and its headers, roughly.
const ENTRY_BYTES: usize = 512;

/// The buffer.
#[derive(Debug)]
pub(super) struct ReorderBuffer {
    waiting: VecDeque<StoredMessage>,
    bytes: usize,
    overflowed: bool,
    budget: ReorderBudget,
}

impl ReorderBuffer {
    /// Nothing waits; what will is counted in `budget`.
    pub(super) fn new(budget: ReorderBudget) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            overflowed: false,
            budget,
        }
    }

    /// Keeps `live`, or, once full, drops all that waits and everything that comes: one repair more
    /// reads it all in order, which is simpler and no slower than keeping a part.
    pub(super) fn push(&mut self, live: StoredMessage, is_slowed: bool) {
        let cost = cost(&live);
        if self.overflowed {
            return;
        }
        let limit = if is_slowed {
            LIMIT_BYTES_SLOWED
        } else {
            LIMIT_BYTES
        };
        if self.bytes + cost > limit || !self.budget.take(cost, is_slowed) {
            self.clear();
            self.overflowed = true;
            return;
        }
        self.bytes += cost;
        self.waiting.push_back(live);
    }

    /// Gives back what [`ReorderBuffer::pop`] took, to where it was.
    pub(super) fn put_back(&mut self, live: StoredMessage) {
        let cost = cost(&live);
        self.budget.take_back(cost);
        self.bytes += cost;
        self.waiting.push_front(live);
    }

    pub(super) fn pop(&mut self) -> Option<StoredMessage> {
        let live = self.waiting.pop_front()?;
        let cost = cost(&live);
        self.bytes -= cost;
        self.budget.give(cost);
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_SLOTS {
            self.waiting = VecDeque::new();
        }
        Some(live)
    }

    /// Whether messages were dropped since the last call.
    pub(super) fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    pub(super) fn clear(&mut self) {
        self.waiting = VecDeque::new();
        self.budget.give(std::mem::take(&mut self.bytes));
        self.overflowed = false;
    }
}

impl Drop for ReorderBuffer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Slots kept while nothing waits, so that a message that is taken at once costs no allocation.
const KEPT_SLOTS: usize = 4;

fn cost(live: &StoredMessage) -> usize {
    live.payload.len() + ENTRY_BYTES
}
