//! What waits in the queues of all sockets: kept by the queues themselves, read when somebody looks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What an entry of a queue costs beyond its frame: its slot.
pub(super) const ENTRY_BYTES: usize = 32;

/// What waits in all sockets' queues, and what never left them. Kept by the queues themselves.
#[derive(Debug, Default)]
pub struct QueueDepth {
    notifications: AtomicI64,
    bytes: AtomicI64,
    /// Bytes of all frames, each counted once for however many sockets it waits.
    frames: AtomicI64,
    dropped_slow: AtomicU64,
    dropped_closed: AtomicU64,
}

/// Why a notification that was queued was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// Its socket was too slow to keep up.
    Slow,
    /// Its socket ended before.
    Closed,
}

impl QueueDepth {
    /// As many more, of so many bytes together, wait.
    pub(crate) fn queued(&self, notifications: u64, bytes: u64) {
        self.notifications
            .fetch_add(signed(notifications), Ordering::Relaxed);
        self.bytes.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// They wait no more.
    pub(crate) fn taken(&self, notifications: u64, bytes: u64) {
        self.notifications
            .fetch_sub(signed(notifications), Ordering::Relaxed);
        self.bytes.fetch_sub(signed(bytes), Ordering::Relaxed);
    }

    /// A frame of so many bytes was made for the queues.
    pub(crate) fn frame_made(&self, bytes: u64) {
        self.frames.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// No queue has it any more.
    pub(crate) fn frame_gone(&self, bytes: u64) {
        self.frames.fetch_sub(signed(bytes), Ordering::Relaxed);
    }

    /// Notifications and bytes that wait.
    pub(crate) fn now(&self) -> (i64, i64) {
        (value(&self.notifications), value(&self.bytes))
    }

    /// The memory that all of it takes: each frame once, and each queue's entries.
    pub(crate) fn memory(&self) -> u64 {
        let entries = value(&self.notifications).unsigned_abs() * ENTRY_BYTES as u64;
        value(&self.frames).unsigned_abs() + entries
    }

    /// They will not be written.
    pub(crate) fn dropped(&self, notifications: u64, why: Undelivered) {
        let counter = match why {
            Undelivered::Slow => &self.dropped_slow,
            Undelivered::Closed => &self.dropped_closed,
        };
        counter.fetch_add(notifications, Ordering::Relaxed);
    }

    /// How many were dropped because their sockets were slow, and because they ended.
    pub(crate) fn not_written(&self) -> (u64, u64) {
        let value = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (value(&self.dropped_slow), value(&self.dropped_closed))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A reader between two of the additions sees one of them.
fn value(number: &AtomicI64) -> i64 {
    number.load(Ordering::Relaxed).max(0)
}

#[cfg(test)]
impl QueueDepth {
    pub(crate) fn waiting(&self) -> (i64, i64) {
        self.now()
    }
}
