//! How much may wait for one socket, and for all of them together. Pure.

use crate::config::SocketsConfig;

/// Below this part of the ceiling, one in so many, nothing is free enough for a queue of its full limit.
const SCARCE: usize = 4;

/// What may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// In one queue.
    each: usize,
    /// In all queues together.
    all: u64,
    /// One queue may have one part in so many of what is free.
    part: u64,
}

impl QueueLimits {
    /// So many bytes in `each` queue and in `all` of them. Each may fill as long as a quarter of all is
    /// free.
    pub(super) fn new(each: usize, all: usize) -> Self {
        Self {
            each,
            all: all as u64,
            part: (all / SCARCE / each.max(1)).max(1) as u64,
        }
    }

    /// What may wait in one queue, where all of them take `memory`.
    pub(super) fn now(self, memory: u64) -> usize {
        let part = self.all.saturating_sub(memory) / self.part;
        usize::try_from(part).map_or(self.each, |part| part.min(self.each))
    }
}

impl From<&SocketsConfig> for QueueLimits {
    fn from(config: &SocketsConfig) -> Self {
        Self::new(config.queue_bytes, config.queue_bytes_total)
    }
}

/// Of one queue alone.
impl From<usize> for QueueLimits {
    fn from(each: usize) -> Self {
        Self::new(each, usize::MAX)
    }
}
