//! What the reorder buffers of all rooms share: a bound in bytes for all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may wait in all rooms of a gateway: after a leader change every busy room buffers.
const LIMIT_BYTES_ALL: usize = 64 * 1024 * 1024;

/// What all buffers of a gateway share: the bytes that wait in them.
#[derive(Debug, Clone, Default)]
pub struct ReorderBudget(Arc<AtomicUsize>);

impl ReorderBudget {
    /// Takes `bytes` if there are so many left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > LIMIT_BYTES_ALL {
            self.give(bytes);
        }
        taken <= LIMIT_BYTES_ALL
    }

    /// Takes `bytes` that were given just now. A little over the limit does no harm.
    pub(super) fn take_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}
