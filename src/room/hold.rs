//! Live messages that wait while their room repairs, bounded in bytes.

use std::collections::VecDeque;

use crate::ingest::Live;

/// Bytes that may wait in one room. What does not fit is read from the stream afterwards.
const LIMIT_BYTES: usize = 1024 * 1024;

/// What a waiting message costs beyond its payload: itself and its headers, roughly.
const ENTRY_BYTES: usize = 512;

/// The buffer.
#[derive(Debug, Default)]
pub(super) struct Hold {
    waiting: VecDeque<Live>,
    bytes: usize,
    overflowed: bool,
}

impl Hold {
    /// Keeps `live`, or, once full, drops all that waits and everything that comes: one repair more
    /// reads it all in order, which is simpler and no slower than keeping a part.
    pub(super) fn push(&mut self, live: Live) {
        let cost = live.message.payload.len() + ENTRY_BYTES;
        if self.overflowed {
            return;
        }
        if self.bytes + cost > LIMIT_BYTES {
            self.clear();
            self.overflowed = true;
            return;
        }
        self.bytes += cost;
        self.waiting.push_back(live);
    }

    /// Whether nothing waits and nothing was dropped.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.overflowed
    }

    /// Gives back what [`Hold::pop`] took, in its place.
    pub(super) fn put_back(&mut self, live: Live) {
        self.bytes += live.message.payload.len() + ENTRY_BYTES;
        self.waiting.push_front(live);
    }

    pub(super) fn pop(&mut self) -> Option<Live> {
        let live = self.waiting.pop_front()?;
        self.bytes -= live.message.payload.len() + ENTRY_BYTES;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(live)
    }

    /// Whether messages were dropped since last asked.
    pub(super) fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    pub(super) fn clear(&mut self) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
        self.overflowed = false;
    }
}
