//! When a room takes no further event because its sockets have not taken the last ones. Pure.
//!
//! A burst may outrun healthy sockets: then the intake waits, and the stream keeps what comes. But nobody
//! waits for a slow socket. *Slow* is what the kernel takes nothing of; a socket whose turn to be written has
//! not come is the gateway's own lack of CPU.

use std::time::{Duration, Instant};

use crate::socket::{Load, SLOW_AFTER, Standing};

/// While most of those that are behind take something within this time, the burst is too large, and no socket
/// too slow.
const MOVES_WITHIN: Duration = Duration::from_secs(1);
/// When to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long one room has waited for its sockets.
#[derive(Debug)]
pub(super) struct Pressure {
    /// For the fewer ones, all together.
    few: Budget,
    /// For most of them, while these hardly move.
    most: Budget,
}

/// Some time, which comes back slowly.
#[derive(Debug)]
struct Budget {
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
    /// Some are, who are slow from then on.
    ForFew(Instant),
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            few: Budget::new(Duration::from_millis(250), 100),
            most: Budget::new(Duration::from_secs(4), 25),
        }
    }
}

impl Pressure {
    /// Until when the intake waits, as the queues of the room's sockets stand, and whether there is a burst; `None`:
    /// it goes on.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        is_burst: bool,
        loads: impl Iterator<Item = Load>,
    ) -> Option<Instant> {
        let wait = wait(now, is_burst, loads);
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

impl Budget {
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

fn wait(now: Instant, is_burst: bool, loads: impl Iterator<Item = Load>) -> Option<Wait> {
    let (mut all, mut behind, mut moving) = (0usize, 0usize, 0usize);
    let (mut is_pressed, mut is_due) = (false, false);
    let mut slow_at: Option<Instant> = None;
    for load in loads {
        all += 1;
        let moved = match load.standing {
            Standing::Clear => continue,
            Standing::Due => {
                is_due |= load.is_half_full;
                now
            }
            Standing::Refused { since } => since,
        };
        behind += 1;
        moving += usize::from(now.saturating_duration_since(moved) < MOVES_WITHIN);
        is_pressed |= load.is_half_full;
        let slow = moved + SLOW_AFTER;
        if load.is_half_full && now < slow {
            slow_at = slow_at.max(Some(slow));
        }
    }
    let are_most = is_pressed && 2 * behind > all;
    if is_due || are_most && 2 * moving > behind {
        Some(Wait::Free)
    } else if are_most && is_burst {
        Some(Wait::ForMost)
    } else {
        slow_at.map(Wait::ForFew)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn load(standing: Standing) -> Load {
        Load {
            standing,
            is_half_full: standing != Standing::Clear,
        }
    }

    /// How long the room waits until it goes on for the first time, a minute at most, where `behind` of its `all`
    /// sockets took something `age` ago each time that it looks.
    fn waits(
        pressure: &mut Pressure,
        start: Instant,
        all: usize,
        behind: usize,
        age: Duration,
    ) -> Duration {
        let mut now = start;
        while now < start + MINUTE {
            let since = now - age;
            let refused = std::iter::repeat_n(load(Standing::Refused { since }), behind);
            let clear = std::iter::repeat(load(Standing::Clear));
            let Some(until) = pressure.judge(now, true, refused.chain(clear).take(all)) else {
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
        for (all, behind, age, expected) in [
            // Few.
            (10, 1, never, few),
            (10, 5, never, few),
            (10, 5, SLOW_AFTER, never),
            // Most, who move.
            (10, 6, never, MINUTE),
            (1, 1, MOVES_WITHIN / 2, MINUTE),
            // Most, who hardly do.
            (110, 100, MOVES_WITHIN, most),
            (1, 1, MOVES_WITHIN, most),
            // None.
            (10, 0, never, never),
            (0, 0, never, never),
        ] {
            let start = Instant::now() + MINUTE;
            let waited = waits(&mut Pressure::default(), start, all, behind, age);
            assert_eq!(waited, expected, "{behind} of {all} since {age:?}");
        }
    }

    #[test]
    fn without_a_burst_nobody_waits_for_most_who_hardly_move() {
        let start = Instant::now() + MINUTE;
        let since = start - MOVES_WITHIN;
        let loads = [load(Standing::Refused { since })];
        let mut pressure = Pressure::default();
        assert_eq!(pressure.judge(start, false, loads.into_iter()), None);
        assert!(pressure.judge(start, true, loads.into_iter()).is_some());
    }

    #[test]
    fn what_was_waited_for_some_is_not_waited_for_others_and_comes_back_slowly() {
        let mut pressure = Pressure::default();
        let start = Instant::now() + MINUTE;
        let few = waits(&mut pressure, start, 10, 1, Duration::ZERO);
        let next = start + few;
        assert_eq!(
            waits(&mut pressure, next, 10, 5, Duration::ZERO),
            Duration::ZERO
        );
        let later = next + Duration::from_secs(1);
        pressure.judge(later, true, std::iter::empty());
        assert_eq!(waits(&mut pressure, later, 10, 3, Duration::ZERO), few / 25);
    }

    #[test]
    fn a_socket_whose_turn_has_not_come_is_waited_for_at_nobodys_cost() {
        let mut pressure = Pressure::default();
        let mut now = Instant::now();
        let loads = [Standing::Due, Standing::Clear, Standing::Clear].map(load);
        for _ in 0..10_000 {
            now = pressure
                .judge(now, false, loads.into_iter())
                .expect("a wait");
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
                standing: match age {
                    Some(age) => Standing::Refused { since: now - Duration::from_millis(age) },
                    None => Standing::Due,
                },
                is_half_full: false,
            });
            prop_assert_eq!(Pressure::default().judge(now, true, loads), None);
        }
    }
}
