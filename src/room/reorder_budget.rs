//! What the reorder buffers of all rooms share: a bound in bytes for all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may wait in all rooms of a gateway: after a leader change every busy room buffers.
const LIMIT_BYTES_ALL: usize = 64 * 1024 * 1024;
/// The same for a room that is slowed. A repair takes it as long as its events do, so it leaves half to the others.
const LIMIT_BYTES_SLOWED: usize = LIMIT_BYTES_ALL / 2;

/// What all buffers of a gateway share: the bytes that wait in them.
#[derive(Debug, Clone, Default)]
pub struct ReorderBudget(Arc<AtomicUsize>);

impl ReorderBudget {
    /// Takes `bytes` for a room that is slowed or not, if there are so many left for it.
    pub(super) fn take(&self, bytes: usize, is_slowed: bool) -> bool {
        let limit = if is_slowed {
            LIMIT_BYTES_SLOWED
        } else {
            LIMIT_BYTES_ALL
        };
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > limit {
            self.give(bytes);
        }
        taken <= limit
    }

    /// Takes `bytes` that were given just now. A little over the limit does no harm.
    pub(super) fn take_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}
