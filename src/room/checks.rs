//! When a room compares its claims with SESSIONS.

use std::time::Instant;

use super::schedule::Schedule;

/// When the room's claims are checked.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) schedule: Schedule,
    /// One is under way.
    pub(super) is_asked: bool,
}

impl Checks {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            is_asked: false,
        }
    }

    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_asked).then(|| self.schedule.next())
    }
}
