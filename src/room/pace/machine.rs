//! How fast the events of a workspace are given out, and which come too late. Pure: the time is given.
//!
//! While the rate is used up, the room takes no event: the stream keeps them. What has waited for too long is dropped, so
//! that what comes is never older than that. Only the waiting counts that the rate caused. An event that is old because
//! NATS was away is not dropped for it.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::admission::Rate;

/// An event that the rate delays by more than this is dropped.
pub(in crate::room) const LATE_MAX: Duration = Duration::from_secs(60);

/// The pace of one room.
#[derive(Debug, Default)]
pub(in crate::room) struct EventPace {
    /// `None`: without a limit.
    rate: Option<Rate>,
    spent: Option<Instant>,
    phase: PacePhase,
    /// The last event that the rate did not delay: when it was given out, and when it was stored. Others are compared
    /// with it, so that no difference between the clocks of this host and of NATS matters.
    in_time: Option<(Instant, DateTime<Utc>)>,
}

/// Whether events wait for the rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PacePhase {
    /// None does.
    #[default]
    Free,
    /// The rate is used up. Whether an event waits is not known yet.
    UsedUp,
    /// Some do.
    Slowed,
}

impl EventPace {
    /// So many events a second from now on; 0: without a limit.
    pub(in crate::room) fn limit(&mut self, per_second: u32) {
        self.rate = Rate::per_second(per_second);
    }

    /// Whether there is a limit.
    pub(in crate::room) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Whether events may be waiting for the rate.
    pub(in crate::room) fn is_pending(&self) -> bool {
        self.phase != PacePhase::Free
    }

    /// Whether events wait for the rate, or did just now.
    pub(in crate::room) fn is_slowed(&self) -> bool {
        self.phase == PacePhase::Slowed
    }

    /// Until when no event is given out; `None`: it may be. Without a limit no clock is read.
    pub(in crate::room) fn until(&mut self, now: impl Fn() -> Instant) -> Option<Instant> {
        let rate = self.rate?;
        let now = now();
        let wait = rate.take(self.spent, 1, now).err()?;
        if self.phase == PacePhase::Free {
            self.phase = PacePhase::UsedUp;
        }
        Some(now + wait)
    }

    /// An event that was stored at `stored` is given out. Whether the workspace is slowed from now on.
    pub(in crate::room) fn gave(&mut self, stored: DateTime<Utc>, now: Instant) -> bool {
        // With another rate than the one by which it was let through, this may be one more than that allows.
        let next = self
            .rate
            .and_then(|rate| rate.take(self.spent, 1, now).ok());
        self.spent = next.or(self.spent);
        if self.phase == PacePhase::Free || self.in_time.is_none() {
            self.in_time = Some((now, stored));
        }
        let begins = self.phase == PacePhase::UsedUp;
        if begins {
            self.phase = PacePhase::Slowed;
        }
        begins
    }

    /// Whether the rate delays an event that was stored at `stored` for too long.
    pub(in crate::room) fn is_too_late(&self, stored: DateTime<Utc>, now: Instant) -> bool {
        let Some((given, in_time)) = self
            .in_time
            .filter(|_| self.is_limited() && self.is_slowed())
        else {
            return false;
        };
        let passed = now.saturating_duration_since(given);
        let later = stored.signed_duration_since(in_time);
        chrono::TimeDelta::from_std(passed).is_ok_and(|passed| {
            (passed - later)
                .to_std()
                .is_ok_and(|delay| delay > LATE_MAX)
        })
    }

    /// No event waits any more. Whether the workspace was slowed until now.
    pub(in crate::room) fn caught_up(&mut self) -> bool {
        std::mem::take(&mut self.phase) == PacePhase::Slowed
    }

    /// What comes next may be old for another reason than the rate.
    pub(in crate::room) fn interrupted(&mut self) {
        self.in_time = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(start: DateTime<Utc>, after: Duration) -> DateTime<Utc> {
        start + after
    }

    /// Gives out what is stored at these times after the start, as fast as may be, up to an end: the times of what was
    /// given out, and how many were dropped.
    fn run(pace: &mut EventPace, per_second: u32, events: &[Duration]) -> (Vec<Duration>, usize) {
        let (start, wall) = (Instant::now(), Utc::now());
        let (mut now, mut given, mut dropped) = (start, Vec::new(), 0);
        pace.limit(per_second);
        for event in events {
            if now < start + *event {
                now = start + *event;
                pace.caught_up();
            }
            while let Some(until) = pace.until(|| now) {
                now = until;
            }
            if pace.is_too_late(stored(wall, *event), now) {
                dropped += 1;
            } else {
                pace.gave(stored(wall, *event), now);
                given.push(now - start);
            }
        }
        (given, dropped)
    }

    #[test]
    fn a_flood_is_given_out_at_the_rate_and_what_is_a_minute_late_is_dropped() {
        for rate in [1, 7, 100, 1000] {
            let each = usize::try_from(rate).unwrap();
            // All at once: a second's worth comes at once, and a minute's worth at the rate.
            let events = vec![Duration::ZERO; 100 * each];
            let mut pace = EventPace::default();
            let (given, dropped) = run(&mut pace, rate, &events);
            assert_eq!(given.len(), 61 * each, "{rate}");
            assert_eq!(dropped, 39 * each, "{rate}");
            assert!(given.is_sorted() && given[given.len() - 1] <= LATE_MAX);
            assert!(pace.is_slowed() && pace.caught_up() && !pace.is_slowed());
        }
    }

    #[test]
    fn below_the_rate_and_without_one_nothing_waits() {
        let seconds = |each: u32| (0..each * 100).map(move |n| Duration::from_secs(1) * n / each);
        for (rate, each) in [(0, 1000), (10, 10), (10, 1), (1, 1)] {
            let events: Vec<_> = seconds(each).collect();
            let mut pace = EventPace::default();
            assert_eq!(run(&mut pace, rate, &events), (events, 0), "{rate} {each}");
            assert!(!pace.is_slowed());
        }
    }

    #[test]
    fn in_a_flood_that_lasts_what_comes_is_a_minute_old_and_the_rate_is_kept() {
        // Ten times the rate for five minutes.
        let events: Vec<_> = (0..30_000u32)
            .map(|n| Duration::from_millis(10) * n)
            .collect();
        let mut pace = EventPace::default();
        let (given, dropped) = run(&mut pace, 10, &events);
        assert_eq!(given.len() + dropped, events.len());
        assert!((3580..=3610).contains(&given.len()), "{}", given.len());
        assert!(given[given.len() - 1] <= Duration::from_secs(361));
    }

    #[test]
    fn what_nats_kept_back_is_not_dropped() {
        let (start, wall) = (Instant::now(), Utc::now());
        let mut pace = EventPace::default();
        pace.limit(10);
        let give_all = |pace: &mut EventPace, from: Instant, count: u32, stored: DateTime<Utc>| {
            let mut now = from;
            for _ in 0..count {
                while let Some(until) = pace.until(|| now) {
                    now = until;
                }
                assert!(!pace.is_too_late(stored, now), "after {:?}", now - from);
                pace.gave(stored, now);
            }
            now
        };
        let now = give_all(&mut pace, start, 100, wall);
        assert!(pace.is_slowed());
        // It is away for an hour; then 30 s of its events come, stored when it went away.
        pace.interrupted();
        let now = give_all(&mut pace, now + 60 * LATE_MAX, 300, wall);
        // From then on the minute counts.
        assert!(pace.is_too_late(wall, now + LATE_MAX));
        // Without a limit nothing is dropped.
        pace.limit(0);
        assert!(!pace.is_too_late(wall, now + LATE_MAX) && pace.until(Instant::now).is_none());
    }
}
