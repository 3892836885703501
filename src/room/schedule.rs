//! When a room compares with NATS what it knows: its events by a sweep, its claims by a check. Pure.

use std::time::{Duration, Instant};

/// It does so once in this time, give or take a quarter.
const EVERY: Duration = Duration::from_secs(60);
/// When to look again after a disturbance.
const FOLLOW_UPS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// When the next look is due.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Where this room stands between a quarter early (0) and a quarter late, so that rooms opened
    /// together do not stay together.
    share: u16,
    regular: Instant,
    follow_ups: [Option<Instant>; 2],
    /// Look once more after the answer.
    again: bool,
}

impl Schedule {
    /// Of a room that opens `now`: it is looked at early, since in a cluster not every server may know
    /// yet what this one subscribes to.
    pub(super) fn new(share: u16, now: Instant) -> Self {
        let mut schedule = Self {
            share,
            regular: now,
            follow_ups: [None; 2],
            again: false,
        };
        schedule.done(now);
        schedule.follow_up(now);
        schedule
    }

    pub(super) fn next(&self) -> Instant {
        let follow_ups = self.follow_ups.iter().flatten();
        follow_ups.copied().fold(self.regular, Instant::min)
    }

    /// A look has been requested.
    pub(super) fn requested(&mut self, now: Instant) {
        for due in &mut self.follow_ups {
            *due = due.filter(|due| *due > now);
        }
        self.done(now);
    }

    /// Nothing is missing.
    pub(super) fn done(&mut self, now: Instant) {
        self.regular = now + self.jittered(EVERY);
    }

    /// Look as soon as possible.
    pub(super) fn soon(&mut self, now: Instant) {
        self.regular = now;
    }

    /// Look again at what may change by itself.
    pub(super) fn look_again(&mut self, now: Instant, after: Duration) {
        self.regular = self.regular.min(now + after);
    }

    /// There was a disturbance: look again a little later, twice.
    pub(super) fn follow_up(&mut self, now: Instant) {
        self.follow_ups = FOLLOW_UPS.map(|after| Some(now + self.jittered(after)));
    }

    /// Look once more after the answer.
    pub(super) fn again(&mut self) {
        self.again = true;
    }

    /// Whether to look once more.
    pub(super) fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    fn jittered(&self, around: Duration) -> Duration {
        let half = around / 2;
        around - half / 2 + half / u32::from(u16::MAX) * u32::from(self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbance_is_followed_up_twice_and_then_the_minute_counts() {
        let start = Instant::now();
        let mut schedule = Schedule::new(0, start);
        let mut seen = Vec::new();
        let mut now = start;
        for _ in 0..4 {
            now = schedule.next();
            schedule.requested(now);
            schedule.done(now);
            seen.push(now.duration_since(start));
        }
        assert!(seen[0] < Duration::from_secs(2), "{seen:?}");
        assert!(seen[1] < Duration::from_secs(6), "{seen:?}");
        assert!(seen[2] > Duration::from_secs(40), "{seen:?}");
        schedule.follow_up(now);
        assert!(schedule.next() < now + Duration::from_secs(2));
    }
}
