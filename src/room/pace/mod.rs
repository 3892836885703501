//! Slows a room whose workspace has more events than its rate, and drops what comes too late. [`machine`] decides; here it
//! is counted and logged.

mod machine;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::warn;

pub(super) use self::machine::EventPace;
#[cfg(test)]
pub(super) use self::machine::LATE_MAX;
use super::context::RoomContext;
use super::handle::RoomHandle;
use crate::event::Position;

/// What was dropped is logged once in this time.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// The pace of a room.
pub(super) struct RoomPace {
    room: RoomHandle,
    context: Arc<RoomContext>,
    pace: EventPace,
    /// What was dropped and is not logged yet.
    dropped: Option<DroppedEvents>,
}

struct DroppedEvents {
    since: Instant,
    count: u64,
    from: u64,
    to: u64,
}

impl RoomPace {
    pub(super) fn new(room: RoomHandle, context: Arc<RoomContext>) -> Self {
        Self {
            room,
            context,
            pace: EventPace::default(),
            dropped: None,
        }
    }

    /// So many events a second from now on; 0: without a limit.
    pub(super) fn limit(&mut self, per_second: u32) {
        self.pace.limit(per_second);
    }

    /// Whether there is a limit.
    pub(super) fn is_limited(&self) -> bool {
        self.pace.is_limited()
    }

    /// Whether events may be waiting for the rate.
    pub(super) fn is_pending(&self) -> bool {
        self.pace.is_pending()
    }

    /// Whether events wait for the rate, or did just now.
    pub(super) fn is_slowed(&self) -> bool {
        self.pace.is_slowed()
    }

    /// Until when no event is given out; `None`: it may be.
    pub(super) fn until(&mut self) -> Option<Instant> {
        self.pace.until(Instant::now)
    }

    /// An event goes to at least one socket.
    pub(super) fn gave(&mut self, event: Position, now: Instant) {
        if self.pace.gave(event.time, now) {
            self.context.metrics.workspace_slowed();
            self.show(true);
        }
    }

    /// Whether an event is to be dropped, which is counted.
    pub(super) fn drops(&mut self, event: Position, now: Instant) -> bool {
        if !self.pace.is_too_late(event.time, now) {
            return false;
        }
        self.context.metrics.dropped_over_rate();
        let dropped = self.dropped.get_or_insert(DroppedEvents {
            since: now,
            count: 0,
            from: event.sequence,
            to: event.sequence,
        });
        dropped.count += 1;
        dropped.from = dropped.from.min(event.sequence);
        dropped.to = dropped.to.max(event.sequence);
        if now.saturating_duration_since(dropped.since) >= LOGGED_EVERY {
            self.log_dropped();
        }
        true
    }

    /// No event waits any more.
    pub(super) fn caught_up(&mut self) {
        if self.pace.caught_up() {
            self.context.metrics.workspace_not_slowed();
            self.show(false);
            self.log_dropped();
        }
    }

    /// What comes next may be old for another reason than the rate.
    pub(super) fn interrupted(&mut self) {
        self.pace.interrupted();
    }

    fn show(&self, is_slowed: bool) {
        let shown = &self.room.shared().is_slowed;
        shown.store(is_slowed, Ordering::Relaxed);
    }

    fn log_dropped(&mut self) {
        if let Some(DroppedEvents {
            count, from, to, ..
        }) = self.dropped.take()
        {
            warn!(
                workspace = %self.room.workspace(),
                dropped = count,
                from,
                to,
                "workspace over its event rate, events over 60 s late dropped, possibly lost"
            );
        }
    }
}

/// With its room.
impl Drop for RoomPace {
    fn drop(&mut self) {
        self.caught_up();
    }
}
