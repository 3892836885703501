//! What became of the bad events that were reported: counted, and the dropped ones logged, seldom.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::event::WorkspaceSlug;
use crate::word_enum::word_enum;

/// Drops are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// So long after the first drop, so that a line is about a flood and not about its first event.
const LOG_AFTER: Duration = Duration::from_secs(1);

/// Workspaces that a line names: those that lost the most.
const NAMED: usize = 8;

/// Workspaces that are counted between two lines.
const COUNTED: usize = 1024;

word_enum! {
    /// Why a letter was dropped. The words are labels, stable across versions.
    pub enum DropReason {
        /// More waited than may, and its workspace had the most.
        QueueFull = "queue_full",
        /// Its workspace has as much of DEAD as one may have.
        ShareUsedUp = "share_used_up",
        /// DEAD is full.
        StreamFull = "stream_full",
        /// NATS did not acknowledge it: it is away, or DEAD has no leader, is missing, or refuses.
        Nats = "nats",
        /// The gateway ended.
        Shutdown = "shutdown",
    }
}

/// What became of the bad events that were reported.
#[derive(Debug, Default)]
pub struct DeadLetterCounters {
    /// Stored in DEAD by this gateway.
    pub published: AtomicU64,
    /// In DEAD already: another gateway was first.
    pub duplicate: AtomicU64,
    /// Given up, in the order of [`DropReason::ALL`].
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl DeadLetterCounters {
    /// Those given up for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let counter = self.dropped.get(reason as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub(super) fn count_dropped(&self, reason: DropReason) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The drops that no line has named yet.
#[derive(Debug, Default)]
pub(super) struct DropLog {
    unlogged: Mutex<Unlogged>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Unlogged {
    all: u64,
    reasons: [u64; DropReason::ALL.len()],
    workspaces: HashMap<WorkspaceSlug, u64>,
}

impl DropLog {
    pub(super) fn note(&self, workspace: &WorkspaceSlug, reason: DropReason) {
        let mut unlogged = self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.all += 1;
        if let Some(count) = unlogged.reasons.get_mut(reason as usize) {
            *count += 1;
        }
        if let Some(count) = unlogged.workspaces.get_mut(workspace) {
            *count += 1;
        } else if unlogged.workspaces.len() < COUNTED {
            unlogged.workspaces.insert(workspace.clone(), 1);
        }
        drop(unlogged);
        self.some.notify_one();
    }

    /// Logs drops, for ever.
    pub(super) async fn keep_logging(&self) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(LOG_AFTER).await;
            self.log();
            tokio::time::sleep(LOG_EVERY - LOG_AFTER).await;
        }
    }

    /// Logs what was dropped since the last time, if anything was.
    pub(super) fn log(&self) {
        let unlogged =
            std::mem::take(&mut *self.unlogged.lock().unwrap_or_else(PoisonError::into_inner));
        if unlogged.all > 0 {
            tracing::warn!(
                dropped = unlogged.all,
                reasons = unlogged.reasons(),
                workspaces = unlogged.workspaces(),
                "bad events were not stored as dead letters"
            );
        }
    }
}

impl Unlogged {
    /// `queue_full=7 nats=1`.
    fn reasons(&self) -> String {
        let counts = DropReason::ALL.into_iter().zip(self.reasons);
        let counts = counts.filter(|(_, count)| *count > 0);
        joined(counts.map(|(reason, count)| (reason.as_str(), count)))
    }

    /// `acme=7 globex=1`, and how many more workspaces there are.
    fn workspaces(&self) -> String {
        let mut counts: Vec<(&str, u64)> = self
            .workspaces
            .iter()
            .map(|(workspace, count)| (workspace.as_str(), *count))
            .collect();
        counts.sort_unstable_by_key(|(workspace, count)| (std::cmp::Reverse(*count), *workspace));
        let more = counts.len().saturating_sub(NAMED);
        let mut text = joined(counts.into_iter().take(NAMED));
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    }
}

fn joined<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let counts: Vec<String> = counts
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    counts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_reasons_and_the_workspaces_that_lost_the_most() {
        let log = DropLog::default();
        for number in 0..2000 {
            let workspace = WorkspaceSlug::parse(&format!("w{number}")).unwrap();
            log.note(&workspace, DropReason::Nats);
            if number < 9 {
                log.note(&workspace, DropReason::QueueFull);
            }
        }
        let unlogged = log.unlogged.lock().unwrap();
        assert_eq!(unlogged.all, 2009);
        assert_eq!(unlogged.reasons(), "queue_full=9 nats=2000");
        assert_eq!(
            unlogged.workspaces(),
            "w0=2 w1=2 w2=2 w3=2 w4=2 w5=2 w6=2 w7=2 and 1016 more"
        );
    }

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let counters = DeadLetterCounters::default();
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            for _ in 0..=times {
                counters.count_dropped(reason);
            }
        }
        assert_eq!(
            DropReason::ALL.map(|reason| counters.dropped(reason)),
            [1, 2, 3, 4, 5]
        );
    }
}
