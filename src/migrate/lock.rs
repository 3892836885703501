//! The lock that lets one process at a time change JetStream objects.
//!
//! It is a key of the ledger's bucket, and every write of it names the revision it replaces, so that
//! of two writers one fails. Whoever holds it writes it anew before each operation, which proves that
//! it is still held. One that has not changed for a while was left behind by a process that died,
//! and is taken over. How long is measured by the one that waits, on its own clock, from when it
//! first saw the revision: no clocks are compared.
//!
//! JetStream has no conditional update of a stream, so a process that stands still between the
//! proof and the operation could still act too late. Therefore a proof is good for half of the time
//! after which others take over; what an operation does beyond that would show as drift.

use std::time::{Duration, Instant};

use super::api::{Api, Written};
use super::error::MigrateError;
use super::ledger::{self, LockSeen};

/// After how long without change a lock is taken over. Holders renew it before each attempt at an
/// operation, and an attempt waits 5 s for its answer at most.
pub(super) const TAKEOVER_AFTER: Duration = Duration::from_secs(15);

/// How often a proof is tried that comes too late, before the lock counts as lost.
const PROOFS_MAX: usize = 3;

/// One who wants the lock, over several attempts.
#[derive(Debug)]
pub(super) struct Contender {
    takeover_after: Duration,
    /// The revision that somebody else holds, and since when it was seen unchanged.
    watched: Option<(u64, Instant)>,
}

/// The lock, held.
#[derive(Debug)]
pub(super) struct Lock {
    holder: String,
    revision: u64,
    /// When the write that proved it was sent, which is before anybody could see its revision.
    proven: Instant,
    good_for: Duration,
}

impl Contender {
    pub(super) fn new(takeover_after: Duration) -> Self {
        Self {
            takeover_after,
            watched: None,
        }
    }

    /// Takes the lock that was just read as `seen`, if it is free or was left behind. Nothing: wait a
    /// moment, read it and try again.
    pub(super) async fn take(
        &mut self,
        api: &Api<'_>,
        seen: Option<LockSeen>,
    ) -> Result<Option<Lock>, MigrateError> {
        let expected = match seen {
            None => 0,
            Some(seen) if !seen.held => seen.revision,
            Some(seen) => {
                let since = match self.watched {
                    Some((revision, since)) if revision == seen.revision => since,
                    _ => {
                        let now = Instant::now();
                        self.watched = Some((seen.revision, now));
                        now
                    }
                };
                if since.elapsed() < self.takeover_after {
                    return Ok(None);
                }
                tracing::warn!(
                    revision = seen.revision,
                    "taking over a migration lock left behind"
                );
                seen.revision
            }
        };
        let holder = format!(
            "herald {} {}",
            env!("CARGO_PKG_VERSION"),
            uuid::Uuid::new_v4()
        );
        let proven = Instant::now();
        let written = ledger::write_lock(api, expected, Some(&holder)).await?;
        Ok(match written {
            Written::Conflict => None,
            Written::At(revision) => Some(Lock {
                holder,
                revision,
                proven,
                good_for: self.takeover_after / 2,
            }),
        })
    }
}

impl Lock {
    /// Whether `seen` is this lock. A reader that sees it read no older state than the lock's.
    pub(super) fn is(&self, seen: Option<LockSeen>) -> bool {
        seen == Some(LockSeen {
            revision: self.revision,
            held: true,
        })
    }

    /// Proves that it is still held, for the operation that follows at once.
    ///
    /// # Errors
    /// [`MigrateError::LockLost`] where another has it, or might have before the operation begins.
    pub(super) async fn prove(&mut self, api: &Api<'_>) -> Result<(), MigrateError> {
        let mut result = Err(MigrateError::LockLost);
        // A proof that took long is of no use, but tells that the next one is worth the while.
        for _ in 0..PROOFS_MAX {
            self.proven = Instant::now();
            match ledger::write_lock(api, self.revision, Some(&self.holder)).await? {
                Written::Conflict => return Err(MigrateError::LockLost),
                Written::At(revision) => self.revision = revision,
            }
            result = self.still_good();
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Checks, without asking anybody, that the last proof is young enough to act on.
    ///
    /// # Errors
    /// [`MigrateError::LockLost`].
    pub(super) fn still_good(&self) -> Result<(), MigrateError> {
        if self.proven.elapsed() < self.good_for {
            Ok(())
        } else {
            Err(MigrateError::LockLost)
        }
    }

    /// Gives it up. Where that fails, others take it over after a while.
    pub(super) async fn release(self, api: &Api<'_>) {
        if let Err(error) = ledger::write_lock(api, self.revision, None).await {
            tracing::debug!(%error, "migration lock not released");
        }
    }
}
