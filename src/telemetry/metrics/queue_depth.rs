//! What waits in the queues of all sockets: kept by the queues themselves, read when somebody looks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::Undelivered;

/// What waits in all sockets' queues, and what never left them. Kept by the queues themselves.
#[derive(Debug, Default)]
pub struct QueueDepth {
    notifications: AtomicI64,
    bytes: AtomicI64,
    pub(super) dropped_slow: AtomicU64,
    pub(super) dropped_closed: AtomicU64,
}

impl QueueDepth {
    /// As many more, of so many bytes together, wait.
    pub(crate) fn queued(&self, notifications: u64, bytes: u64) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.notifications
            .fetch_add(signed(notifications), Ordering::Relaxed);
        self.bytes.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// They wait no more.
    pub(crate) fn taken(&self, notifications: u64, bytes: u64) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.notifications
            .fetch_sub(signed(notifications), Ordering::Relaxed);
        self.bytes.fetch_sub(signed(bytes), Ordering::Relaxed);
    }

    /// Notifications and bytes that wait.
    pub(super) fn now(&self) -> (i64, i64) {
        // A reader between two of the additions sees one of them.
        let value = |number: &AtomicI64| number.load(Ordering::Relaxed).max(0);
        (value(&self.notifications), value(&self.bytes))
    }

    /// They will not be written.
    pub(crate) fn dropped(&self, notifications: u64, why: Undelivered) {
        let counter = match why {
            Undelivered::Slow => &self.dropped_slow,
            Undelivered::Closed => &self.dropped_closed,
        };
        counter.fetch_add(notifications, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl QueueDepth {
    pub(crate) fn waiting(&self) -> (i64, i64) {
        self.now()
    }

    /// Dropped because they were slow, and because they closed.
    pub(crate) fn not_written(&self) -> (u64, u64) {
        let value = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (value(&self.dropped_slow), value(&self.dropped_closed))
    }
}
