//! Which threads a room runs on.
//!
//! A room of few sockets runs where its events are read: it would cost more to wake another thread than to write to
//! them. One that is large, or has much to do, would keep others there waiting, so it runs on the workers.

use std::time::{Duration, Instant};

/// A room of more sockets runs on the workers. To wake one costs much beside so few writes: measured beside the bare
/// writes, one room of 100 sockets at 100 events a second costs 1.37 times as much on the workers and 1.17 on the
/// intake, and 100 such rooms 1.40 and 1.19.
const MANY: usize = 128;
/// A room of this many at most goes back. Far enough below, so that one that comes and goes changes nothing.
const FEW: usize = 64;
/// What a room may cost in a second on the intake. At ten sockets that is some 1,300 events.
const COST_MAX: Duration = Duration::from_millis(100);
/// A room that cost less in the second before goes back.
const COST_LOW: Duration = Duration::from_millis(50);
/// So long a room stays on the workers, and up to twice as long, so that not all come back at once.
const STAY: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// What things cost a room, about: no clock is read for them.
const EVENT: Duration = Duration::from_micros(20);
const WRITE: Duration = Duration::from_micros(5);
const BYTE: Duration = Duration::from_nanos(1);

/// Where rooms run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The one thread that reads from NATS.
    Intake,
    Workers,
}

/// Where a room runs, and what it costs there.
#[derive(Debug)]
pub(super) struct Affinity {
    threads: Threads,
    /// Before this it does not go back to the intake.
    stays_until: Instant,
    /// How long it stays on the workers.
    stay: Duration,
    second_began: Instant,
    /// In this second, and in the one before.
    cost: [Duration; 2],
}

impl Affinity {
    /// Of a room that begins, which it does on the intake. `share` is chance: see [`STAY`].
    pub(super) fn new(share: u16, now: Instant) -> Self {
        Self {
            threads: Threads::Intake,
            stays_until: now,
            stay: STAY + STAY * u32::from(share) / u32::from(u16::MAX),
            second_began: now,
            cost: [Duration::ZERO; 2],
        }
    }

    /// Where the room is to run.
    pub(super) fn threads(&self) -> Threads {
        self.threads
    }

    /// The room took an event.
    pub(super) fn took_event(&mut self) {
        self.cost[0] += EVENT;
    }

    /// The room wrote so often, and so many bytes.
    pub(super) fn wrote(&mut self, writes: usize, bytes: u64) {
        let writes = u32::try_from(writes).unwrap_or(u32::MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.cost[0] += WRITE.saturating_mul(writes) + BYTE.saturating_mul(bytes);
    }

    /// Whether the room, which has so many sockets, is to go on elsewhere.
    pub(super) fn changes(&mut self, sockets: usize, is_intake_busy: bool, now: Instant) -> bool {
        self.count_seconds(now);
        let [cost, before] = self.cost;
        let to = match self.threads {
            Threads::Intake
                if sockets > MANY || cost > COST_MAX || is_intake_busy && !cost.is_zero() =>
            {
                self.stays_until = now + self.stay;
                Threads::Workers
            }
            Threads::Workers
                if sockets <= FEW
                    && cost.max(before) < COST_LOW
                    && !is_intake_busy
                    && now >= self.stays_until =>
            {
                Threads::Intake
            }
            stays => stays,
        };
        std::mem::replace(&mut self.threads, to) != to
    }

    fn count_seconds(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.second_began);
        if passed < SECOND {
            return;
        }
        let before = if passed < 2 * SECOND {
            self.cost[0]
        } else {
            Duration::ZERO
        };
        self.cost = [Duration::ZERO, before];
        self.second_began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(began: Instant, milliseconds: u64) -> Instant {
        began + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_room_of_few_sockets_stays_and_one_of_many_goes_and_comes_back_late() {
        let began = Instant::now();
        let mut room = Affinity::new(0, began);
        assert_eq!(room.threads(), Threads::Intake);
        assert!(!room.changes(MANY, false, began));
        assert!(room.changes(MANY + 1, false, began));
        assert_eq!(room.threads(), Threads::Workers);
        // Neither too early nor with more than few.
        assert!(!room.changes(FEW, false, at(began, 9_999)));
        assert!(!room.changes(FEW + 1, false, at(began, 10_000)));
        assert!(!room.changes(FEW, true, at(began, 10_000)));
        assert!(room.changes(FEW, false, at(began, 10_000)));
        assert_eq!(room.threads(), Threads::Intake);
    }

    #[test]
    fn a_room_that_has_much_to_do_goes_within_the_second() {
        for (events, writes, bytes, goes) in [
            (1_000, 10, 530, false),
            (2_000, 10, 530, true),
            (6_000, 0, 0, true),
            (40, 1, 1_000_000, false),
            (200, 1, 1_000_000, true),
        ] {
            let began = Instant::now();
            let mut room = Affinity::new(0, began);
            for _ in 0..events {
                room.took_event();
                room.wrote(writes, bytes * writes as u64);
            }
            let case = (events, writes, bytes);
            assert_eq!(room.changes(10, false, at(began, 999)), goes, "{case:?}");
        }
    }

    #[test]
    fn what_it_cost_in_another_second_does_not_count() {
        let began = Instant::now();
        let mut room = Affinity::new(0, began);
        for second in 0..100 {
            for _ in 0..1_000 {
                room.took_event();
            }
            assert!(!room.changes(10, false, at(began, second * 1_000)));
        }
    }

    #[test]
    fn a_room_that_is_noisy_still_does_not_come_back() {
        let began = Instant::now();
        let mut room = Affinity::new(0, began);
        for second in 0..60 {
            for _ in 0..10_000 {
                room.took_event();
            }
            let changes = room.changes(1, false, at(began, second * 1_000));
            assert_eq!(changes, second == 0, "{second}");
        }
        assert!(!room.changes(1, false, at(began, 59_999)));
        assert!(room.changes(1, false, at(began, 60_000)));
    }

    #[test]
    fn only_who_has_something_to_do_leaves_a_busy_intake_and_all_come_back_at_other_times() {
        let began = Instant::now();
        let mut idle = Affinity::new(0, began);
        assert!(!idle.changes(10, true, began));
        for (share, back) in [(0, 10_000), (u16::MAX / 2, 15_000), (u16::MAX, 20_000)] {
            let mut room = Affinity::new(share, began);
            room.took_event();
            assert!(room.changes(10, true, began));
            assert!(!room.changes(10, false, at(began, back - 1)));
            assert!(room.changes(10, false, at(began, back)));
        }
    }
}
