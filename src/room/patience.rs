//! How long a room pauses for one socket whose queue is half full. Pure.
//!
//! Live, hardly at all: a burst may outrun a healthy socket for some milliseconds, and closing it for
//! that would be wrong, but nobody is to wait for a slow one. So each socket has a small allowance of
//! its room's time. A repair brings much at once through no fault of the sockets: it waits for
//! whoever moves at all.

use std::time::{Duration, Instant};

/// A socket that moves nothing for this long is not waited for, live.
const STILL: Duration = Duration::from_millis(50);
/// The most that one socket that moves can hold its room up, live, all pauses together.
const ALLOWANCE: Duration = Duration::from_millis(250);
/// The allowance comes back at one part in this many: the share of time it can hold it up for ever.
const REFILL: u32 = 100;
/// A socket that moves nothing for this long while a repair waits for it is not slow but stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The allowance of one socket.
#[derive(Debug, Default)]
pub(super) struct Patience {
    spent: Duration,
    /// When `spent` was last brought up to date.
    at: Option<Instant>,
    waiting: Option<Waiting>,
}

/// A pause under way.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    /// How much the socket had taken, and when that last changed.
    taken: u64,
    moved: Instant,
}

impl Patience {
    /// Whether the room pauses for this socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The queue has room: a pause for it is over.
    pub(super) fn relieved(&mut self, now: Instant) {
        if let Some(waiting) = self.waiting.take() {
            self.refill(waiting.since);
            self.spent += now.saturating_duration_since(waiting.since);
            self.at = Some(now);
        }
    }

    /// The queue has no room and has given out `taken` entries so far: until when to pause for it.
    /// `None` once it has had its time.
    pub(super) fn wait(&mut self, now: Instant, taken: u64, repairing: bool) -> Option<Instant> {
        let mut waiting = self.waiting.unwrap_or(Waiting {
            since: now,
            taken,
            moved: now,
        });
        if waiting.taken != taken {
            waiting.taken = taken;
            waiting.moved = now;
        }
        self.refill(waiting.since);
        let until = if repairing {
            waiting.moved + STUCK_AFTER
        } else {
            let allowed = waiting.since + ALLOWANCE.saturating_sub(self.spent);
            allowed.min(waiting.moved + STILL)
        };
        if now < until {
            self.waiting = Some(waiting);
            return Some(until);
        }
        self.waiting = Some(waiting);
        self.relieved(now);
        None
    }

    /// Gives back what the time up to `now` has earned.
    fn refill(&mut self, now: Instant) {
        if let Some(at) = self.at
            && now > at
        {
            self.spent = self.spent.saturating_sub((now - at) / REFILL);
            self.at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_a_socket_that_stands_still_is_hardly_waited_for() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert_eq!(patience.wait(start, 7, false), Some(start + STILL));
        assert_eq!(patience.wait(start + STILL, 7, false), None);
    }

    #[test]
    fn live_a_socket_that_moves_has_an_allowance_that_comes_back_slowly() {
        let start = Instant::now();
        let mut patience = Patience::default();
        let (mut now, mut taken) = (start, 0);
        while patience.wait(now, taken, false).is_some() {
            now += STILL / 2;
            taken += 1;
        }
        assert_eq!(now, start + ALLOWANCE);
        assert_eq!(patience.wait(now, taken + 1, false), None);
        let later = now + STILL * REFILL;
        assert_eq!(patience.wait(later, taken + 2, false), Some(later + STILL));
        assert_eq!(patience.wait(later + STILL, taken + 3, false), None);
    }

    #[test]
    fn a_repair_waits_as_long_as_the_socket_moves() {
        let start = Instant::now();
        let mut patience = Patience::default();
        let mut now = start;
        for taken in 0..100 {
            assert_eq!(patience.wait(now, taken, true), Some(now + STUCK_AFTER));
            now += STUCK_AFTER - Duration::from_millis(1);
        }
        assert_eq!(patience.wait(now + STUCK_AFTER, 99, true), None);
    }
}
