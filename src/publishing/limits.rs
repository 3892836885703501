//! How much each token may publish: events a second, and requests at once. Pure, but for locks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::authorize::PublisherKey;
use crate::admission::{KeyGuard, KeyRates, PerKey};

/// What each token has taken of its limits. The limits are the caller's, since they change while the gateway serves.
#[derive(Debug, Default)]
pub(super) struct PublishLimits {
    rates: Mutex<KeyRates<PublisherKey>>,
    requests: Arc<PerKey<PublisherKey>>,
}

impl PublishLimits {
    /// One more request, counted until the guard is gone; `None` if there are as many as there may be.
    pub(super) fn begin(
        &self,
        key: &PublisherKey,
        concurrency: usize,
    ) -> Option<KeyGuard<PublisherKey>> {
        self.requests.take(key.clone(), concurrency)
    }

    /// Takes `events` of the rate.
    ///
    /// # Errors
    /// The time after which they may come.
    pub(super) fn take(
        &self,
        key: &PublisherKey,
        events: u32,
        rate: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.limit(rate);
        if let Some(point) = rates.next(key, events, now)? {
            rates.spend(key.clone(), point, now);
        }
        Ok(())
    }
}
