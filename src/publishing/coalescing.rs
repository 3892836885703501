//! When requests are many, input and output of several are done at a time, as network cards coalesce their interrupts.
//! Pure.
//!
//! A thread that sleeps until the next bytes come wakes for each request and for each acknowledgement, and each of its
//! writes wakes another process. That costs more than the request itself.

use std::time::{Duration, Instant};

/// From so many requests a second on.
const BUSY_PER_S: u64 = 2500;
/// The rate is measured over this time.
const WINDOW: Duration = Duration::from_millis(20);
/// What comes within this time is done together. An answer waits for two of them at most.
const PAUSE: Duration = Duration::from_micros(1200);
/// One sender that waits for each answer gets it at once, however fast it is.
const UNDER_WAY_MIN: usize = 2;

/// How many requests came of late.
#[derive(Debug)]
pub(super) struct Coalescing {
    since: Instant,
    /// That came before `since`.
    requests: u64,
    is_busy: bool,
}

impl Coalescing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            requests: 0,
            is_busy: false,
        }
    }

    /// How long a thread that has nothing to do pauses before it looks for more. `requests` came until now, and so
    /// many are `under_way`.
    pub(super) fn pause(
        &mut self,
        requests: u64,
        under_way: usize,
        now: Instant,
    ) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let came = u128::from(requests.saturating_sub(self.requests));
            self.is_busy = came * 1_000_000 >= u128::from(BUSY_PER_S) * passed.as_micros();
            self.since = now;
            self.requests = requests;
        }
        (self.is_busy && under_way >= UNDER_WAY_MIN).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_while_requests_are_many_and_several_are_under_way() {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(start);
        for (ms, requests, under_way, pauses) in [
            (0, 1, 64, false),
            (19, 1000, 64, false),
            (20, 1000, 64, true),
            (21, 1001, 1, false),
            (39, 1049, 2, true),
            // 50 in 20 ms are 2,500 a second, 49 are not.
            (40, 1050, 2, true),
            (60, 1099, 64, false),
            (80, 1149, 64, true),
            // Nothing came for long.
            (9000, 1150, 64, false),
        ] {
            let now = start + Duration::from_millis(ms);
            let pause = coalescing.pause(requests, under_way, now);
            assert_eq!(pause.is_some(), pauses, "after {ms} ms");
        }
    }
}
