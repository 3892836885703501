//! Expired tokens that come again and again: a client that has its token from a cache. Pure: the time is
//! given.
//!
//! The contract wants 4003 for them, and so its client sees `open`, forgets its back-off, and comes again
//! after a second, for ever. From the fourth try on it is told to come later, before the upgrade, and then it backs
//! off. One try in [`EVERY`] is still looked at: the fault may have been our clock's.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::Address;
use super::rate::Rate;

/// Tries of one token from one address that are looked at, one after the other.
const TRIES: u32 = 3;
/// The time in which one more is.
const EVERY: Duration = Duration::from_secs(30);
/// Tokens that are remembered, some 100 KiB. Each was signed by a key of ours, and so nobody can have many.
const KEPT: usize = 4096;

const RATE: Rate = Rate::new(EVERY, TRIES);

/// The expired tokens of the last while, and how often each came from an address.
#[derive(Debug, Default)]
pub(crate) struct ExpiredTokens {
    /// With a secret of this process: what is kept tells nothing of a token, and nobody can choose two that
    /// are taken for one.
    hasher: RandomState,
    spent: HashMap<Key, Instant>,
}

/// A token and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl ExpiredTokens {
    /// What stands for `token` from `address`.
    pub(crate) fn key(&self, token: &str, address: Address) -> Key {
        Key(self.hasher.hash_one((token, address)))
    }

    /// Whether one more try is to be looked at.
    ///
    /// # Errors
    /// How long it takes until one is.
    pub(crate) fn check(&self, key: Key, now: Instant) -> Result<(), Duration> {
        match self.spent.get(&key) {
            Some(spent) => RATE.take(Some(*spent), 1, now).map(|_| ()),
            None => Ok(()),
        }
    }

    /// It was looked at, and is expired.
    pub(crate) fn add(&mut self, key: Key, now: Instant) {
        let spent = self.spent.get(&key).copied();
        // Tries that are looked at at the same time may be more than the rate has.
        let Ok(next) = RATE.take(spent, 1, now) else {
            return;
        };
        if spent.is_none() && self.spent.len() >= KEPT {
            self.forget(now);
        }
        self.spent.insert(key, next);
    }

    /// Makes room: forgets what has come seldom enough, and if there is no such, what came longest ago.
    fn forget(&mut self, now: Instant) {
        self.spent.retain(|_, spent| *spent > now);
        if self.spent.len() >= KEPT
            && let Some(oldest) = self.spent.iter().min_by_key(|(_, spent)| **spent)
        {
            let oldest = *oldest.0;
            self.spent.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> Address {
        Address::from(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    /// A try at the given second: whether it is looked at, which finds that it is expired; or how many
    /// seconds it is to wait.
    fn try_at(tokens: &mut ExpiredTokens, key: Key, start: Instant, second: u64) -> Option<u64> {
        let now = start + Duration::from_secs(second);
        let checked = tokens.check(key, now);
        if checked.is_ok() {
            tokens.add(key, now);
        }
        checked.err().map(|wait| wait.as_secs())
    }

    #[test]
    fn three_tries_are_looked_at_and_then_one_in_half_a_minute() {
        let start = Instant::now();
        let mut tokens = ExpiredTokens::default();
        let key = tokens.key("a.b.c", address(1));
        for second in 0..3 {
            assert_eq!(try_at(&mut tokens, key, start, second), None);
        }
        // Once a second for ten minutes, as without a back-off.
        for second in 3..603 {
            let waits = (30 - second % 30) % 30;
            let expected = (waits > 0).then_some(waits);
            assert_eq!(
                try_at(&mut tokens, key, start, second),
                expected,
                "{second}"
            );
        }
        // Long after, it begins anew.
        for second in 1000..1003 {
            assert_eq!(try_at(&mut tokens, key, start, second), None);
        }
        assert_eq!(try_at(&mut tokens, key, start, 1003), Some(27));
    }

    #[test]
    fn another_token_and_another_address_are_not_concerned() {
        let start = Instant::now();
        let mut tokens = ExpiredTokens::default();
        let key = tokens.key("a.b.c", address(1));
        for second in 0..4 {
            try_at(&mut tokens, key, start, second);
        }
        assert!(tokens.check(key, start).is_err());
        for other in [
            tokens.key("a.b.d", address(1)),
            tokens.key("a.b.c", address(2)),
        ] {
            assert_eq!(tokens.check(other, start), Ok(()));
        }
        // Another process has other keys.
        let other = ExpiredTokens::default();
        assert_ne!(key, other.key("a.b.c", address(1)));
    }

    #[test]
    fn a_token_that_comes_seldom_is_always_looked_at() {
        let start = Instant::now();
        let mut tokens = ExpiredTokens::default();
        let key = tokens.key("a.b.c", address(1));
        for minute in 0..1000 {
            assert_eq!(try_at(&mut tokens, key, start, minute * 60), None);
        }
    }

    #[test]
    fn so_many_are_kept_and_the_oldest_goes_first() {
        let start = Instant::now();
        let mut tokens = ExpiredTokens::default();
        let keys: Vec<Key> = (0..=5000)
            .map(|number| tokens.key("a.b.c", address(number)))
            .collect();
        for (second, key) in (0..).zip(&keys) {
            let now = start + Duration::from_millis(second);
            for _ in 0..3 {
                tokens.add(*key, now);
            }
            assert!(tokens.spent.len() <= KEPT);
        }
        let now = start + Duration::from_millis(5000);
        assert_eq!(tokens.check(keys[0], now), Ok(()));
        assert!(tokens.check(keys[5000], now).is_err());
        assert!(tokens.check(keys[5000 - KEPT + 1], now).is_err());
        // When they have come seldom enough, all of them go.
        let much_later = now + Duration::from_secs(3600);
        tokens.add(keys[0], much_later);
        assert_eq!(tokens.spent.len(), 1);
    }
}
