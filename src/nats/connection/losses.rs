//! What live messages may be lost since the last look. However often the same happens meanwhile, it counts once,
//! so that an overload makes no queue of its own.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The losses that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct LossLog {
    losses: Mutex<Losses>,
    some: Notify,
}

/// How live messages may have been lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// There is a connection again. What was stored meanwhile did not come.
    pub reconnected: bool,
    /// The subscriptions that were full, so that the client dropped messages of them.
    pub full: BTreeSet<u64>,
}

impl LossLog {
    pub(super) fn reconnected(&self) {
        self.lock().reconnected = true;
        self.some.notify_one();
    }

    pub(super) fn full(&self, subscription: u64) {
        self.lock().full.insert(subscription);
        self.some.notify_one();
    }

    /// Waits for a loss and takes all that there are. For one task.
    pub(super) async fn next(&self) -> Losses {
        loop {
            self.some.notified().await;
            let losses = std::mem::take(&mut *self.lock());
            if losses != Losses::default() {
                return losses;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Losses> {
        // No code that holds the lock can panic half-way through a change.
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_of_the_same_is_one() {
        let log = LossLog::default();
        for _ in 0..10_000 {
            log.full(7);
            log.reconnected();
        }
        log.full(8);
        let losses = log.next().await;
        assert!(losses.reconnected);
        assert_eq!(losses.full, BTreeSet::from([7, 8]));
        let next = log.next();
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        log.full(9);
        assert_eq!(next.await.full, BTreeSet::from([9]));
    }
}
