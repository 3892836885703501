//! Whether a socket is slow: one of which the kernel takes nothing. Pure.
//!
//! A slow socket is closed once its queue is full, by [`super::Writer::push`]. Until then its room looks at the
//! [`Load`] of its sockets, and decides whether it waits for them.

use std::time::{Duration, Instant};

/// A socket of which the kernel takes nothing for so long is slow: once its queue is full, it is closed.
pub const SLOW_AFTER: Duration = Duration::from_millis(250);

/// Time between two looks at a queue, which say whether it moves.
const MOVES_WITHIN: Duration = Duration::from_secs(1);
/// It does if the kernel took so many of its bytes meanwhile, a part of what may wait.
const MOVES_BY: usize = 16;

/// How a queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub status: QueueStatus,
    /// The kernel takes something of it.
    pub moves: bool,
    /// More than half of what may wait does.
    pub is_half_full: bool,
    /// When the first of what waits was made.
    pub oldest: Option<Instant>,
}

/// What a queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueStatus {
    /// For nothing: it is empty, or has ended.
    Clear,
    /// For its socket's turn to be written.
    Due,
    /// For the kernel, which has taken nothing since then.
    Refused { since: Instant },
}

/// What the kernel takes of a socket's bytes.
#[derive(Debug, Default)]
pub(super) struct Uptake {
    /// Since when it takes nothing of what there is.
    refused_since: Option<Instant>,
    /// Bytes that it took, in all.
    pub(super) taken: u64,
    /// The last look at these.
    sample: Option<QueueSample>,
}

#[derive(Debug, Clone, Copy)]
struct QueueSample {
    at: Instant,
    taken: u64,
    /// Since the one before; none was while this queue waits.
    has_moved: Option<bool>,
}

impl Uptake {
    /// The kernel takes nothing.
    pub(super) fn refused(&mut self, now: Instant) {
        self.refused_since.get_or_insert(now);
    }

    /// The kernel took so many bytes: if it refuses again, that is from then on.
    pub(super) fn took(&mut self, count: usize) {
        self.taken += count as u64;
        self.refused_since = None;
    }

    /// Something begins to wait that was made `at` that time. Before, the socket kept up.
    pub(super) fn watch(&mut self, at: Instant) {
        self.sample = Some(QueueSample {
            at,
            taken: self.taken,
            has_moved: None,
        });
    }

    /// What the queue waits for, which nothing does if it `is_clear`; and whether it moves.
    pub(super) fn status(
        &mut self,
        is_clear: bool,
        now: Instant,
        limit: usize,
    ) -> (QueueStatus, bool) {
        let status = match self.refused_since {
            _ if is_clear => QueueStatus::Clear,
            Some(since) => QueueStatus::Refused { since },
            None => QueueStatus::Due,
        };
        let moves = status == QueueStatus::Due || self.moves(now, limit);
        (status, moves)
    }

    /// Whether the kernel takes a fair part of the limit in a second.
    fn moves(&mut self, now: Instant, limit: usize) -> bool {
        let Some(sample) = &mut self.sample else {
            return true;
        };
        let passed = now.saturating_duration_since(sample.at);
        let taken = (self.taken - sample.taken) as f64;
        let has_moved = taken >= (limit / MOVES_BY) as f64 * passed.as_secs_f64();
        if passed >= MOVES_WITHIN {
            *sample = QueueSample {
                at: now,
                taken: self.taken,
                has_moved: Some(has_moved),
            };
        }
        sample.has_moved.unwrap_or(has_moved)
    }
}
