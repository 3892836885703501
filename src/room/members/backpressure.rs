//! When a room takes no further event because its sockets have not taken the last ones. Pure.
//!
//! A burst may outrun healthy sockets: then the intake waits, and the stream keeps what comes. But nobody
//! waits for a slow socket. *Slow* is what the kernel takes nothing of; a socket whose turn to be written has
//! not come is the gateway's own lack of CPU.

use std::time::{Duration, Instant};

use crate::socket::{Load, QueueStatus, SLOW_AFTER};

/// Queues that were filled within this time were so by a burst. Those of slow sockets fill slowly.
const BURST: Duration = Duration::from_secs(1);
/// When to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long one room has waited for its sockets.
#[derive(Debug)]
pub(super) struct Backpressure {
    /// For the fewer ones, all together.
    few: WaitBudget,
    /// For most of them, while these hardly move.
    most: WaitBudget,
    /// There is a burst, until nothing more waits to be delivered.
    is_burst: bool,
}

/// Some time, which comes back slowly.
#[derive(Debug)]
struct WaitBudget {
    all: Duration,
    /// All of it comes back in so many times its length.
    refill: u32,
    spent: Duration,
    /// When `spent` was last brought up to date, and whether it has been spent since.
    at: Option<(Instant, bool)>,
}

/// Why the intake waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The gateway has not written yet, or most are behind and move: the burst is too large.
    Free,
    /// Most are behind in a burst, and hardly move.
    ForMost,
    /// Some are, since a short time, who are slow from then on.
    ForFew(Instant),
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            few: WaitBudget::new(Duration::from_millis(250), 100),
            most: WaitBudget::new(Duration::from_secs(4), 25),
            is_burst: false,
        }
    }
}

impl Backpressure {
    /// Nothing more waits to be delivered.
    pub(super) fn caught_up(&mut self) {
        self.is_burst = false;
    }

    /// Until when the intake waits, as the queues of the room's sockets stand; `None`: it goes on.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        loads: impl Iterator<Item = Load>,
    ) -> Option<Instant> {
        let crowd = Crowd::of(now, loads);
        self.is_burst |= 2 * crowd.filled_quickly > crowd.half_full;
        let wait = crowd.wait(self.is_burst);
        let few = self.few.left(now, matches!(wait, Some(Wait::ForFew(_))));
        let most = self.most.left(now, wait == Some(Wait::ForMost));
        let until = match wait? {
            Wait::Free => now + LOOK_AGAIN,
            Wait::ForMost => now + most,
            Wait::ForFew(until) => until.min(now + few),
        };
        (now < until).then(|| until.min(now + LOOK_AGAIN))
    }
}

impl WaitBudget {
    fn new(all: Duration, refill: u32) -> Self {
        Self {
            all,
            refill,
            spent: Duration::ZERO,
            at: None,
        }
    }

    /// What is left; from now on it is being spent, or comes back.
    fn left(&mut self, now: Instant, is_spent: bool) -> Duration {
        if let Some((at, was_spent)) = self.at {
            let passed = now.saturating_duration_since(at);
            self.spent = if was_spent {
                (self.spent + passed).min(self.all)
            } else {
                self.spent.saturating_sub(passed / self.refill)
            };
        }
        let left = self.all - self.spent;
        self.at = Some((now, is_spent && !left.is_zero()));
        left
    }
}

/// How many sockets stand how.
#[derive(Debug, Default)]
struct Crowd {
    all: usize,
    behind: usize,
    moving: usize,
    half_full: usize,
    filled_quickly: usize,
    /// A queue is half full whose socket had no turn.
    is_due: bool,
    /// When the last of those is slow whose queue a burst has filled by half.
    slow_at: Option<Instant>,
}

impl Crowd {
    fn of(now: Instant, loads: impl Iterator<Item = Load>) -> Self {
        let mut crowd = Self::default();
        for load in loads {
            crowd.all += 1;
            let since = match load.status {
                QueueStatus::Clear => continue,
                QueueStatus::Due => now,
                QueueStatus::Refused { since } => since,
            };
            crowd.behind += 1;
            crowd.moving += usize::from(load.moves);
            if !load.is_half_full {
                continue;
            }
            crowd.half_full += 1;
            crowd.is_due |= load.status == QueueStatus::Due;
            let is_young = |oldest| now.saturating_duration_since(oldest) < BURST;
            let is_quick = load.oldest.is_some_and(is_young);
            crowd.filled_quickly += usize::from(is_quick);
            let slow = since + SLOW_AFTER;
            // Who has been behind for longer does not keep up, and is behind again after any wait.
            if is_quick && load.moves && now < slow {
                crowd.slow_at = crowd.slow_at.max(Some(slow));
            }
        }
        crowd
    }

    fn wait(&self, is_burst: bool) -> Option<Wait> {
        if self.half_full == 0 {
            return None;
        }
        if self.is_due {
            return Some(Wait::Free);
        }
        if is_burst && 2 * self.behind > self.all {
            let move_on = 2 * self.moving > self.behind;
            return Some(if move_on { Wait::Free } else { Wait::ForMost });
        }
        self.slow_at.map(Wait::ForFew)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn load(status: QueueStatus) -> Load {
        Load {
            status,
            moves: true,
            is_half_full: status != QueueStatus::Clear,
            oldest: None,
        }
    }

    /// How long the room waits until it goes on for the first time, a minute at most, where `behind` of its `all`
    /// sockets took something `age` ago each time that it looks.
    fn waits(
        pressure: &mut Backpressure,
        start: Instant,
        all: usize,
        behind: usize,
        (age, moves): (Duration, bool),
    ) -> Duration {
        let mut now = start;
        while now < start + MINUTE {
            let since = now - age;
            let refused = Load {
                moves,
                oldest: Some(now),
                ..load(QueueStatus::Refused { since })
            };
            let refused = std::iter::repeat_n(refused, behind);
            let clear = std::iter::repeat(load(QueueStatus::Clear));
            let Some(until) = pressure.judge(now, refused.chain(clear).take(all)) else {
                break;
            };
            now = until;
        }
        now - start
    }

    #[test]
    fn a_room_waits_for_its_sockets_as_long_as_is_fair_to_the_others() {
        let few = Duration::from_millis(250);
        let most = Duration::from_secs(4);
        let never = Duration::ZERO;
        for (all, behind, age, moves, expected) in [
            // Few.
            (10, 1, never, true, few),
            (10, 5, never, true, few),
            (10, 5, never, false, never),
            (10, 5, SLOW_AFTER, true, never),
            // Most, who move.
            (10, 6, never, true, MINUTE),
            (1, 1, SLOW_AFTER, true, MINUTE),
            // Most, who hardly do.
            (110, 100, never, false, most),
            (1, 1, SLOW_AFTER, false, most),
            // None.
            (10, 0, never, true, never),
            (0, 0, never, true, never),
        ] {
            let start = Instant::now() + MINUTE;
            let mut pressure = Backpressure {
                is_burst: true,
                ..Backpressure::default()
            };
            let waited = waits(&mut pressure, start, all, behind, (age, moves));
            assert_eq!(waited, expected, "{behind} of {all} since {age:?}, {moves}");
        }
    }

    /// Slow sockets fill their queues slowly, however many they are.
    #[test]
    fn nobody_waits_for_most_if_not_in_a_burst() {
        let now = Instant::now() + MINUTE;
        let filled = |age: Duration| {
            let load = Load {
                oldest: Some(now - age),
                ..load(QueueStatus::Refused {
                    since: now - SLOW_AFTER,
                })
            };
            std::iter::repeat_n(load, 3)
        };
        let mut pressure = Backpressure::default();
        assert_eq!(pressure.judge(now, filled(BURST)), None);
        assert!(pressure.judge(now, filled(BURST / 2)).is_some());
        assert!(
            pressure.judge(now, filled(MINUTE)).is_some(),
            "the burst goes on"
        );
        pressure.caught_up();
        assert_eq!(pressure.judge(now, filled(MINUTE)), None);
    }

    /// As readers are that take less than there is: now and then much at once, when their window opens.
    #[test]
    fn nobody_waits_for_few_that_are_behind_for_long() {
        let now = Instant::now() + MINUTE;
        let judged = |age| {
            let behind = Load {
                oldest: Some(now - age),
                ..load(QueueStatus::Refused { since: now })
            };
            let healthy = std::iter::repeat_n(load(QueueStatus::Clear), 9);
            Backpressure::default().judge(now, healthy.chain([behind]))
        };
        assert_eq!(judged(BURST), None);
        assert!(judged(BURST / 2).is_some());
    }

    #[test]
    fn what_was_waited_for_some_is_not_waited_for_others_and_comes_back_slowly() {
        let mut pressure = Backpressure::default();
        let start = Instant::now() + MINUTE;
        let few = waits(&mut pressure, start, 10, 1, (Duration::ZERO, true));
        let next = start + few;
        assert_eq!(
            waits(&mut pressure, next, 10, 5, (Duration::ZERO, true)),
            Duration::ZERO
        );
        let later = next + Duration::from_secs(1);
        pressure.judge(later, std::iter::empty());
        assert_eq!(
            waits(&mut pressure, later, 10, 3, (Duration::ZERO, true)),
            few / 25
        );
    }

    #[test]
    fn a_socket_whose_turn_has_not_come_is_waited_for_at_nobodys_cost() {
        let mut pressure = Backpressure::default();
        let mut now = Instant::now();
        let loads = [QueueStatus::Due, QueueStatus::Clear, QueueStatus::Clear].map(load);
        for _ in 0..10_000 {
            now = pressure.judge(now, loads.into_iter()).expect("a wait");
        }
        assert_eq!(pressure.few.spent + pressure.most.spent, Duration::ZERO);
    }

    proptest! {
        #[test]
        fn only_a_queue_that_is_half_full_makes_the_intake_wait(
            ages in prop::collection::vec(prop::option::of(0u64..2000), 0..20),
        ) {
            let now = Instant::now() + MINUTE;
            let loads = ages.into_iter().map(|age| Load {
                status: match age {
                    Some(age) => QueueStatus::Refused { since: now - Duration::from_millis(age) },
                    None => QueueStatus::Due,
                },
                moves: true,
                is_half_full: false,
                oldest: Some(now),
            });
            prop_assert_eq!(Backpressure::default().judge(now, loads), None);
        }
    }
}
