//! When a key set is fetched, and how far what was fetched can be relied on. Pure: the time is given.

use std::time::{Duration, Instant};

/// Fetches that unknown keys ask for begin so long after the one before, however many tokens come. A provider bears
/// it, and a token of a new key that waits this long and for one fetch more is judged by keys that are newer than it.
pub(super) const REQUEST_INTERVAL: Duration = Duration::from_secs(5);

/// What its provider says about how long a key set stays fresh counts between these. A key that is withdrawn is to be
/// known within about an hour, also where a provider says a day.
const FRESH_MIN: Duration = Duration::from_secs(60);
const FRESH_MAX: Duration = Duration::from_secs(60 * 60);

/// Pauses after failures: doubled from the first to the last.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is known of the fetches of one address.
#[derive(Debug)]
pub(super) struct Freshness {
    /// The next fetch, unless somebody wants one before.
    next: Instant,
    /// Begin of the last fetch.
    began: Option<Instant>,
    is_requested: bool,
    /// Begin and end of the last fetch that gave keys.
    good: Option<(Instant, Instant)>,
    /// Since then.
    failures: u32,
}

impl Freshness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            began: None,
            is_requested: false,
            good: None,
            failures: 0,
        }
    }

    /// When the next fetch begins.
    pub(super) fn due(&self) -> Instant {
        match self.began {
            Some(began) if self.is_requested => self.next.min(began + REQUEST_INTERVAL),
            _ => self.next,
        }
    }

    /// A token came whose key is not known, or the operator wants the keys to be fetched again. Whether that is new.
    pub(super) fn request(&mut self) -> bool {
        !std::mem::replace(&mut self.is_requested, true)
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.is_requested = false;
    }

    /// The fetch that began last has ended, and gave keys that are fresh for that long. A random `share` keeps many
    /// gateways from fetching at the same moment. At `decides` another answer decides about keys that are missing.
    pub(super) fn succeeded(
        &mut self,
        now: Instant,
        fresh_for: Duration,
        share: u8,
        decides: Option<Instant>,
    ) -> Duration {
        self.good = Some((self.began.unwrap_or(now), now));
        self.failures = 0;
        let fresh_for = fresh_for.clamp(FRESH_MIN, FRESH_MAX);
        // From 90 to 110 %.
        let fresh_for = fresh_for / 10 * 9 + fresh_for / 5 / 255 * u32::from(share);
        self.next = now + fresh_for;
        if let Some(decides) = decides {
            self.next = self.next.min(decides.max(now + REQUEST_INTERVAL));
        }
        fresh_for
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let doubled = RETRY_MIN * 2u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.next = now + doubled.min(RETRY_MAX);
    }

    /// Whether keys were fetched since `moment`, from the begin of the fetch on.
    pub(super) fn has_fetched_since(&self, moment: Instant) -> bool {
        self.good.is_some_and(|(began, _)| began >= moment)
    }

    /// How long ago keys were fetched. `None`: never.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let (_, ended) = self.good?;
        Some(now.saturating_duration_since(ended))
    }

    /// How long it is until a fetch may begin that a token asks for: a second at least.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let next = self.began.map_or(now, |began| began + REQUEST_INTERVAL);
        let pause = next.saturating_duration_since(now);
        pause.max(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// A fetch that takes a second.
    fn fetch(freshness: &mut Freshness, at: Instant, fresh_for: Option<Duration>) {
        freshness.begin(at);
        let end = at + seconds(1);
        match fresh_for {
            Some(fresh_for) => {
                freshness.succeeded(end, fresh_for, 127, None);
            }
            None => freshness.failed(end),
        }
    }

    #[test]
    fn keys_are_fetched_again_when_they_are_no_longer_fresh() {
        let start = Instant::now();
        for (says, least, most) in [
            (Duration::ZERO, 54, 66),
            (seconds(60), 54, 66),
            (seconds(600), 540, 660),
            (seconds(86_400), 3240, 3960),
            (Duration::MAX, 3240, 3960),
        ] {
            for share in [0, 127, 255] {
                let mut freshness = Freshness::new(start);
                assert_eq!(freshness.due(), start);
                freshness.begin(start);
                let fresh = freshness.succeeded(start, says, share, None);
                assert_eq!(freshness.due(), start + fresh);
                let wanted = seconds(least)..=seconds(most);
                assert!(wanted.contains(&fresh), "{says:?} {share}: {fresh:?}");
            }
        }
    }

    #[test]
    fn after_failures_the_pauses_grow_to_a_minute() {
        let start = Instant::now();
        let mut freshness = Freshness::new(start);
        fetch(&mut freshness, start, Some(seconds(600)));
        let mut at = freshness.due();
        for pause in [10, 20, 40, 60, 60, 60] {
            fetch(&mut freshness, at, None);
            assert_eq!(freshness.due(), at + seconds(1 + pause));
            at = freshness.due();
        }
        // An hour of failures changes nothing about the keys but their age.
        for _ in 0..60 {
            fetch(&mut freshness, at, None);
            at = freshness.due();
        }
        let age = freshness.age(at).unwrap();
        assert!(age > seconds(3600), "{age:?}");
        fetch(&mut freshness, at, Some(seconds(600)));
        assert_eq!(freshness.age(at + seconds(1)), Some(Duration::ZERO));
        let next = freshness.due();
        fetch(&mut freshness, next, None);
        assert_eq!(freshness.due(), next + seconds(1 + 10));
    }

    /// However many tokens have an unknown key.
    #[test]
    fn unknown_keys_have_the_set_fetched_once_in_a_while() {
        let start = Instant::now();
        let mut freshness = Freshness::new(start);
        fetch(&mut freshness, start, Some(seconds(600)));
        let mut fetches = 0;
        for second in 10..70 {
            let now = start + seconds(second);
            freshness.request();
            if now >= freshness.due() {
                fetch(&mut freshness, now, Some(seconds(600)));
                fetches += 1;
            }
        }
        assert_eq!(fetches, 12);
        // One that fails is not repeated faster.
        fetch(&mut freshness, start + seconds(100), None);
        freshness.request();
        assert_eq!(freshness.due(), start + seconds(105));
        assert_eq!(freshness.pause(start + seconds(102)), seconds(3));
        assert_eq!(freshness.pause(start + seconds(110)), seconds(1));
    }

    #[test]
    fn only_a_fetch_that_began_later_is_newer_than_a_token() {
        let start = Instant::now();
        let mut freshness = Freshness::new(start);
        assert!(!freshness.has_fetched_since(start));
        assert_eq!(freshness.age(start), None);
        fetch(&mut freshness, start, Some(seconds(600)));
        assert!(freshness.has_fetched_since(start));
        assert!(!freshness.has_fetched_since(start + seconds(1)));
        // It was asked for while a fetch was under way: that one may have been answered before.
        freshness.begin(start + seconds(20));
        freshness.request();
        freshness.succeeded(start + seconds(24), seconds(600), 0, None);
        assert_eq!(freshness.due(), start + seconds(25));
        fetch(&mut freshness, start + seconds(25), None);
        assert!(!freshness.has_fetched_since(start + seconds(21)));
    }

    #[test]
    fn missing_keys_are_decided_about_by_a_fetch_of_their_own() {
        let start = Instant::now();
        let mut freshness = Freshness::new(start);
        freshness.begin(start);
        let decides = start + seconds(30);
        freshness.succeeded(start, seconds(600), 0, Some(decides));
        assert_eq!(freshness.due(), decides);
    }
}
