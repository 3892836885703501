//! A rate, and the rates of new connections: in all, of one address, of one workspace. Pure: the time is given.
//!
//! The generic cell rate algorithm (ITU-T I.371), which is a token bucket kept as one point in time:
//! when all that was taken will have been earned. Of new connections a second's worth may come at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::Address;

/// How much may come at once, as time: with a rate of 100 a second, 100.
const BURST: Duration = Duration::from_secs(1);
/// Keys are not looked through for old ones below this number.
const FEW_KEYS: usize = 1024;

/// Which rate was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    All,
    Address,
    Workspace,
}

/// The rates of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    all: Option<Rate>,
    spent: Option<Instant>,
    each: KeyRates<Address>,
}

/// A rate that each key has for itself.
#[derive(Debug)]
pub(crate) struct KeyRates<K> {
    each: Option<Rate>,
    /// A key whose point is past has taken nothing that is not earned, and need not be kept. So these are the keys of
    /// the last second, and as many again that have not been looked at since.
    spent_by: HashMap<K, Instant>,
    /// How many there may be before the old ones are removed.
    look_at: usize,
}

impl<K> Default for KeyRates<K> {
    fn default() -> Self {
        Self {
            each: None,
            spent_by: HashMap::new(),
            look_at: 0,
        }
    }
}

/// How fast something may come, and how much of it at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// The time in which one is earned.
    interval: Duration,
    /// How much may come at once, as the time in which it is earned.
    burst: Duration,
}

impl Rate {
    /// One in each `interval`, and `burst` of them at once.
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            burst: interval.saturating_mul(burst),
        }
    }

    /// So many a second; `None` for 0, which is no limit.
    pub(crate) fn per_second(rate: u32) -> Option<Self> {
        let interval = BURST.checked_div(rate)?;
        let burst = BURST;
        Some(Self { interval, burst })
    }

    /// Takes `count` more `now`: the new point of what is `spent`.
    ///
    /// # Errors
    /// How long it takes until they may come.
    pub(crate) fn take(
        self,
        spent: Option<Instant>,
        count: u32,
        now: Instant,
    ) -> Result<Instant, Duration> {
        let from = spent.map_or(now, |spent| spent.max(now));
        let next = from + self.interval.saturating_mul(count);
        match next.checked_duration_since(now + self.burst) {
            None | Some(Duration::ZERO) => Ok(next),
            Some(wait) => Err(wait),
        }
    }

    /// `count` of what is `spent` were none: the new point.
    pub(crate) fn give_back(self, spent: Instant, count: u32) -> Option<Instant> {
        spent.checked_sub(self.interval.saturating_mul(count))
    }
}

impl Rates {
    /// So many a second in all, and of each address; 0: without a limit. What was taken at other rates
    /// stays taken.
    pub(crate) fn limit(&mut self, all: u32, each: u32) {
        self.all = Rate::per_second(all);
        self.each.limit(each);
    }

    /// Takes one for `address`. One that is refused costs nothing. An address over its own rate takes
    /// nothing from the rate of all. If that rate is used up, the address keeps its own.
    ///
    /// # Errors
    /// The rate that is exceeded.
    pub(crate) fn take(&mut self, address: Address, now: Instant) -> Result<(), Over> {
        let own = self
            .each
            .next(&address, 1, now)
            .map_err(|_| Over::Address)?;
        if let Some(all) = self.all {
            self.spent = Some(all.take(self.spent, 1, now).map_err(|_| Over::All)?);
        }
        if let Some(own) = own {
            self.each.spend(address, own, now);
        }
        Ok(())
    }
}

impl<K: Eq + Hash> KeyRates<K> {
    /// So many a second of each key; 0: without a limit.
    pub(crate) fn limit(&mut self, each: u32) {
        self.each = Rate::per_second(each);
    }

    /// The point of `key` if `count` more of it come `now`; `None` without a limit.
    ///
    /// # Errors
    /// How long it takes until they may come.
    pub(crate) fn next(
        &self,
        key: &K,
        count: u32,
        now: Instant,
    ) -> Result<Option<Instant>, Duration> {
        let next = |each: Rate| each.take(self.spent_by.get(key).copied(), count, now);
        self.each.map(next).transpose()
    }

    /// One more of `key` came, which has this point from `now` on. Now and then the keys that have nothing to earn back
    /// are removed.
    pub(crate) fn spend(&mut self, key: K, point: Instant, now: Instant) {
        self.spent_by.insert(key, point);
        if self.spent_by.len() >= self.look_at.max(FEW_KEYS) {
            self.spent_by.retain(|_, spent| *spent > now);
            self.look_at = FEW_KEYS.max(self.spent_by.len() * 2);
            self.spent_by.shrink_to(self.look_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> Address {
        Address::from(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn rates_of(all: u32, each: u32) -> Rates {
        let mut rates = Rates::default();
        rates.limit(all, each);
        rates
    }

    /// How many of `attempts` are taken.
    fn taken(rates: &mut Rates, from: u32, attempts: usize, now: Instant) -> usize {
        (0..attempts)
            .filter(|_| rates.take(address(from), now).is_ok())
            .count()
    }

    #[test]
    fn what_is_given_back_may_be_taken_again_and_no_more_than_that() {
        let now = Instant::now();
        let rate = Rate::new(Duration::from_secs(1), 10);
        let mut spent = None;
        for _ in 0..100 {
            let taken = rate.take(spent, 10, now).unwrap();
            spent = rate.give_back(taken, 10);
        }
        let spent = rate.give_back(now, 5);
        assert!(rate.take(spent, 10, now).is_ok());
        assert!(rate.take(spent, 11, now).is_err());
    }

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut rates = rates_of(100, 0);
        assert_eq!(taken(&mut rates, 1, 500, start), 100);
        assert_eq!(rates.take(address(2), start), Err(Over::All));
        let later = start + Duration::from_millis(500);
        assert_eq!(taken(&mut rates, 1, 500, later), 50);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(taken(&mut rates, 1, 500, much_later), 100);
    }

    #[test]
    fn another_rate_holds_from_then_on_and_forgives_nothing() {
        let start = Instant::now();
        let mut rates = rates_of(100, 0);
        assert_eq!(taken(&mut rates, 1, 500, start), 100);
        rates.limit(1000, 0);
        assert_eq!(taken(&mut rates, 1, 500, start), 0);
        let later = start + Duration::from_millis(500);
        assert_eq!(taken(&mut rates, 1, 5000, later), 500);
        rates.limit(10, 0);
        assert_eq!(taken(&mut rates, 1, 500, later + BURST), 10);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut rates = rates_of(0, 0);
        assert_eq!(taken(&mut rates, 1, 100_000, Instant::now()), 100_000);
        assert!(rates.each.spent_by.is_empty());
    }

    #[test]
    fn an_address_over_its_rate_takes_nothing_of_the_others() {
        let now = Instant::now();
        let mut rates = rates_of(100, 10);
        assert_eq!(taken(&mut rates, 1, 10_000, now), 10);
        assert_eq!(rates.take(address(1), now), Err(Over::Address));
        for other in 2..11 {
            assert_eq!(taken(&mut rates, other, 10, now), 10);
        }
        assert_eq!(rates.take(address(11), now), Err(Over::All));
        // It found all taken, and keeps its own.
        let later = now + BURST;
        assert_eq!(taken(&mut rates, 11, 10, later), 10);
    }

    #[test]
    fn addresses_that_came_long_ago_are_forgotten() {
        let mut now = Instant::now();
        let mut rates = rates_of(0, 5);
        for number in 0..200_000 {
            now += Duration::from_millis(1);
            assert_eq!(rates.take(address(number), now), Ok(()));
        }
        assert!(rates.each.spent_by.len() <= 2 * FEW_KEYS);
        assert!(rates.each.spent_by.capacity() <= 8 * FEW_KEYS);
    }

    proptest! {
        /// In no stretch of time is more taken than the rate earns in it and one burst.
        #[test]
        fn never_more_than_the_rate_and_one_burst(
            rate in 1u32..500,
            pauses in prop::collection::vec(0u64..20_000, 1..400),
        ) {
            let mut now = Instant::now();
            let mut rates = rates_of(rate, 0);
            let mut times = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                if rates.take(address(1), now).is_ok() {
                    times.push(now);
                }
            }
            for (index, from) in times.iter().enumerate() {
                for (more, to) in times[index..].iter().enumerate() {
                    let earned = (*to - *from).as_secs_f64() * f64::from(rate);
                    prop_assert!((more + 1) as f64 <= earned + f64::from(rate) + 1.0);
                }
            }
        }
    }
}
