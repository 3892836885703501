//! Expired tokens that come again and again: a client that has its token from a cache. Pure: the time is
//! given.
//!
//! The contract wants 4003 for them, and so its client sees `open`, forgets its back-off, and comes again
//! after a second, for ever. From the fourth try within [`WINDOW`] on it gets "later" before the upgrade,
//! and then it backs off. One try in that time is still looked at: the fault may have been our clock's.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::Address;

/// Tries of one token from one address within [`WINDOW`] that are all looked at.
const TRIES: usize = 3;
/// Beyond these one is looked at in this time.
const WINDOW: Duration = Duration::from_secs(30);
/// Tokens and addresses that are remembered, some 300 KiB.
const KEPT: usize = 4096;

/// The expired tokens of the last while, and how often each came from an address.
#[derive(Debug, Default)]
pub(crate) struct ExpiredTokens {
    /// With a secret of this process: what is kept reveals nothing of a token, and no client can make two tokens that are
    /// taken for one.
    hasher: RandomState,
    tried: HashMap<TokenKey, Tried>,
}

/// How often a token came from an address.
#[derive(Debug, Clone, Copy)]
struct Tried {
    /// The last tries, the oldest first; `None` where there were not so many.
    last: [Option<Instant>; TRIES],
    /// When one was looked at last.
    looked_at: Instant,
}

/// A token and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey(u64);

impl ExpiredTokens {
    /// What stands for `token` from `address`.
    pub(crate) fn key(&self, token: &str, address: Address) -> TokenKey {
        TokenKey(self.hasher.hash_one((token, address)))
    }

    /// One more try: whether it is to be looked at.
    ///
    /// # Errors
    /// How long it takes until one is.
    pub(crate) fn check(&mut self, key: TokenKey, now: Instant) -> Result<(), Duration> {
        let Some(tried) = self.tried.get_mut(&key) else {
            return Ok(());
        };
        let wait = tried.wait(now);
        tried.last.rotate_left(1);
        if let Some(last) = tried.last.last_mut() {
            *last = Some(now);
        }
        wait.map_or(Ok(()), Err)
    }

    /// It was looked at, and is expired.
    pub(crate) fn add(&mut self, key: TokenKey, now: Instant) {
        if self.tried.len() >= KEPT && !self.tried.contains_key(&key) {
            self.forget(now);
        }
        let first = Tried {
            last: [None, None, Some(now)],
            looked_at: now,
        };
        self.tried.entry(key).or_insert(first).looked_at = now;
    }

    /// Makes room: forgets what no longer matters, and if that is little, the eighth that came longest ago. Each
    /// look goes through all of them.
    fn forget(&mut self, now: Instant) {
        self.tried.retain(|_, tried| now < tried.newest() + WINDOW);
        if self.tried.len() < KEPT / 8 * 7 {
            return;
        }
        let mut times: Vec<Instant> = self.tried.values().map(Tried::newest).collect();
        let (_, oldest, _) = times.select_nth_unstable(KEPT / 8);
        let oldest = *oldest;
        self.tried.retain(|_, tried| tried.newest() > oldest);
    }
}

impl Tried {
    /// How long one more try comes too early.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let [oldest, ..] = self.last;
        let free = oldest?.min(self.looked_at) + WINDOW;
        free.checked_duration_since(now)
            .filter(|wait| !wait.is_zero())
    }

    fn newest(&self) -> Instant {
        let tries = self.last.iter().flatten();
        tries.fold(self.looked_at, |newest, at| newest.max(*at))
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
    fn try_at(
        tokens: &mut ExpiredTokens,
        key: TokenKey,
        start: Instant,
        second: u64,
    ) -> Option<u64> {
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
        // Once a second for ten minutes, as without a back-off. Who waits is told the shorter of two times: until
        // one in half a minute is looked at, or until it came less than three times in that.
        for second in 3..603 {
            let waits = (30 - (second - 2) % 30) % 30;
            let expected = (waits > 0).then_some(waits.min(27));
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
        // Three tries in half a minute, again and again.
        for number in 0..1000 {
            assert_eq!(try_at(&mut tokens, key, start, 100_000 + 11 * number), None);
        }
    }

    #[test]
    fn so_many_are_kept_and_the_oldest_goes_first() {
        let start = Instant::now();
        let mut tokens = ExpiredTokens::default();
        let keys: Vec<TokenKey> = (0..=5000)
            .map(|number| tokens.key("a.b.c", address(number)))
            .collect();
        for (second, key) in (0..).zip(&keys) {
            let now = start + Duration::from_millis(second);
            for _ in 0..3 {
                assert_eq!(tokens.check(*key, now), Ok(()));
                tokens.add(*key, now);
            }
            assert!(tokens.tried.len() <= KEPT);
        }
        let now = start + Duration::from_millis(5000);
        assert_eq!(tokens.check(keys[0], now), Ok(()));
        assert!(tokens.check(keys[5000], now).is_err());
        assert!(tokens.check(keys[5000 - KEPT / 8 * 7 + 1], now).is_err());
        // When they have come seldom enough, all of them go.
        let much_later = now + Duration::from_secs(3600);
        tokens.forget(much_later);
        assert!(tokens.tried.is_empty());
    }
}
