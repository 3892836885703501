//! What happened to the connection since it was looked at last. However often a thing happens meanwhile, it
//! is one, so that an overload makes no queue of its own.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What happened and has not been looked at.
#[derive(Debug, Default)]
pub struct Disturbances {
    happened: Mutex<Happened>,
    changed: Notify,
}

/// What rooms need to know of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// There is a connection again: what was stored meanwhile was not heard.
    pub reconnected: bool,
    /// The subscriptions that were full, so that messages were dropped on our side. No more than there are
    /// subscriptions.
    pub full: BTreeSet<u64>,
}

impl Disturbances {
    pub(super) fn reconnected(&self) {
        self.lock().reconnected = true;
        self.changed.notify_one();
    }

    pub(super) fn full(&self, subscription: u64) {
        self.lock().full.insert(subscription);
        self.changed.notify_one();
    }

    /// Waits for something to happen and takes all that has. For one task.
    pub async fn next(&self) -> Happened {
        loop {
            self.changed.notified().await;
            let happened = std::mem::take(&mut *self.lock());
            if happened != Happened::default() {
                return happened;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Happened> {
        // No code that holds the lock can panic half-way through a change.
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_the_same_is_one() {
        let disturbances = Disturbances::default();
        for _ in 0..10_000 {
            disturbances.full(7);
            disturbances.reconnected();
        }
        disturbances.full(8);
        let happened = disturbances.next().await;
        assert!(happened.reconnected);
        assert_eq!(happened.full, BTreeSet::from([7, 8]));
        let next = disturbances.next();
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        disturbances.full(9);
        assert_eq!(next.await.full, BTreeSet::from([9]));
    }
}
