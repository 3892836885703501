//! How many connections each address, or each workspace, has now.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts by key, also where there is no limit: there may be one later. A key without a connection takes no room.
#[derive(Debug)]
pub(crate) struct PerKey<K>(Mutex<HashMap<K, usize>>);

/// One connection, counted; dropping it ends that.
#[derive(Debug)]
pub(crate) struct KeyGuard<K: Eq + Hash> {
    of: Arc<PerKey<K>>,
    key: K,
}

impl<K> Default for PerKey<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> PerKey<K> {
    /// Counts one more of `key`, which may have `limit` (0: any number); `None` if it has them.
    pub(crate) fn take(self: &Arc<Self>, key: K, limit: usize) -> Option<KeyGuard<K>> {
        let mut there = self.lock();
        let count = there.get(&key).copied().unwrap_or(0);
        if limit > 0 && count >= limit {
            return None;
        }
        there.insert(key.clone(), count + 1);
        drop(there);
        Some(KeyGuard {
            of: Arc::clone(self),
            key,
        })
    }
}

impl<K> PerKey<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for KeyGuard<K> {
    fn drop(&mut self) {
        let mut there = self.of.lock();
        if let Some(count) = there.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                there.remove(&self.key);
            }
        }
        // The addresses of a flood that is over take no room either.
        if there.capacity() > 1024 && there.len() < there.capacity() / 8 {
            there.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::super::Address;
    use super::*;

    fn address(number: u32) -> Address {
        Address::from(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn zero_is_no_limit_and_is_counted_all_the_same() {
        let all = Arc::new(PerKey::default());
        let places: Vec<_> = (0..10).filter_map(|_| all.take(address(1), 0)).collect();
        assert_eq!(places.len(), 10);
        assert!(all.take(address(1), 10).is_none());
        assert!(all.take(address(1), 11).is_some());
    }

    #[test]
    fn a_place_comes_back_and_is_nobody_else_s() {
        let all = Arc::new(PerKey::default());
        let first = all.take(address(1), 2).unwrap();
        let _second = all.take(address(1), 2).unwrap();
        assert!(all.take(address(1), 2).is_none());
        let _other = all.take(address(2), 2).unwrap();
        drop(first);
        let _third = all.take(address(1), 2).unwrap();
        assert!(all.take(address(1), 2).is_none());
    }

    #[test]
    fn after_a_flood_of_addresses_nothing_is_kept() {
        let all = Arc::new(PerKey::default());
        let places: Vec<_> = (0..100_000)
            .filter_map(|n| all.take(address(n), 1))
            .collect();
        assert_eq!(places.len(), 100_000);
        drop(places);
        assert!(all.lock().is_empty() && all.lock().capacity() <= 1024);
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_places_that_are_held(
            steps in prop::collection::vec((0u32..4, any::<bool>()), 0..200),
        ) {
            let all = Arc::new(PerKey::default());
            let mut held: HashMap<u32, Vec<KeyGuard<Address>>> = HashMap::new();
            for (number, comes) in steps {
                let places = held.entry(number).or_default();
                if comes {
                    let place = all.take(address(number), 3);
                    prop_assert_eq!(place.is_some(), places.len() < 3);
                    places.extend(place);
                } else {
                    places.pop();
                }
                let there = all.lock();
                for (number, places) in &held {
                    let count = there.get(&address(*number)).copied();
                    prop_assert_eq!(count.unwrap_or(0), places.len());
                    prop_assert_eq!(count.is_none(), places.is_empty());
                }
            }
        }
    }
}
