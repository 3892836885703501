//! How many connections each address has now.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Address;

/// Counts by address, up to one limit for each. An address without a connection takes no room.
#[derive(Debug)]
pub(crate) struct PerAddress {
    limit: NonZeroUsize,
    there: Mutex<HashMap<Address, usize>>,
}

/// The place of one connection; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<PerAddress>,
    address: Address,
}

impl PerAddress {
    /// At most `limit` for each address; `None` where it is 0, which is no limit.
    pub(crate) fn new(limit: usize) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            limit: NonZeroUsize::new(limit)?,
            there: Mutex::default(),
        }))
    }

    /// A place for one more of `address`; `None` where all are taken.
    pub(crate) fn take(self: &Arc<Self>, address: Address) -> Option<Place> {
        let mut there = self.lock();
        let count = there.get(&address).copied().unwrap_or(0);
        if count >= self.limit.get() {
            return None;
        }
        there.insert(address, count + 1);
        drop(there);
        Some(Place {
            of: Arc::clone(self),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, usize>> {
        // Nothing that holds the lock can panic half-way.
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut there = self.of.lock();
        if let Entry::Occupied(mut count) = there.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
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

    use super::*;

    fn address(number: u32) -> Address {
        Address::from(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(PerAddress::new(0).is_none());
    }

    #[test]
    fn a_place_comes_back_and_is_nobody_else_s() {
        let all = PerAddress::new(2).unwrap();
        let first = all.take(address(1)).unwrap();
        let _second = all.take(address(1)).unwrap();
        assert!(all.take(address(1)).is_none());
        let _other = all.take(address(2)).unwrap();
        drop(first);
        let _third = all.take(address(1)).unwrap();
        assert!(all.take(address(1)).is_none());
    }

    #[test]
    fn after_a_flood_of_addresses_nothing_is_kept() {
        let all = PerAddress::new(1).unwrap();
        let places: Vec<_> = (0..100_000).filter_map(|n| all.take(address(n))).collect();
        assert_eq!(places.len(), 100_000);
        drop(places);
        assert!(all.lock().is_empty() && all.lock().capacity() <= 1024);
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_places_that_are_held(
            steps in prop::collection::vec((0u32..4, any::<bool>()), 0..200),
        ) {
            let all = PerAddress::new(3).unwrap();
            let mut held: HashMap<u32, Vec<Place>> = HashMap::new();
            for (number, comes) in steps {
                let places = held.entry(number).or_default();
                if comes {
                    let place = all.take(address(number));
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
