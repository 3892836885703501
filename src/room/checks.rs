//! When a room compares its claims with SESSIONS.

use std::time::Instant;

use super::schedule::Schedule;

/// When the room's claims are checked.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) schedule: Schedule,
    /// One is under way.
    pub(super) is_pending: bool,
}

impl Checks {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            is_pending: false,
        }
    }

    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_pending).then(|| self.schedule.next())
    }
}
