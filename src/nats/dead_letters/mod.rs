//! Dead letters: bad events go to the stream DEAD, in the background and within bounds.
//!
//! A room reports and goes on. Letters wait in a queue that is fair by workspace ([`queue`]); one task
//! sends them at its own pace ([`publisher`]), and no workspace may fill DEAD for the others ([`share`]).
//! What cannot be kept is counted with a reason and logged ([`drops`]): a dead letter must never be in the
//! way of an event.

mod drops;
mod letter;
mod publisher;
mod queue;
mod report;
mod share;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::drops::DropLog;
pub use self::drops::{DeadLetterCounters, DropReason};
use self::letter::{CUT, Letter, PAYLOAD_MAX};
use self::publisher::Publisher;
use self::queue::FairQueue;
pub(crate) use self::report::DeadLetterReport;
use crate::config::Names;
use crate::event::{BadEvent, StoredMessage, WorkspaceSlug};
use crate::nats::connection::Connection;
use crate::telemetry::{DeadLetterTrace, EventTrace};

/// Memory that letters may take which wait, in bytes, of all workspaces together. A small one takes some
/// 500, so that a burst of 10,000 of up to 2 KiB each is kept, and of 60,000 small ones.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Once so much waits for one workspace, its letters are cut before they wait: a burst of large ones
/// has 32 of the largest whole, and 20,000 in all.
const WHOLE_BYTES: usize = QUEUE_BYTES / 8;

/// Where bad events are reported. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// The task works on it as well.
    outbox: Arc<Outbox>,
    task: TaskTracker,
}

#[derive(Debug)]
struct Outbox {
    /// A lock for a moment: rooms that report must not wait for the task.
    state: Mutex<OutboxState>,
    /// Wakes the task when a letter came.
    some: Notify,
    counters: Arc<DeadLetterCounters>,
    drops: DropLog,
    /// What waits is to be sent at once.
    ending: CancellationToken,
    /// What waits is to be dropped.
    over: CancellationToken,
}

#[derive(Debug)]
struct OutboxState {
    queue: FairQueue<Letter>,
    is_closed: bool,
}

/// What became of a letter, and where it stands.
#[derive(Debug, Clone, Copy)]
enum LetterOutcome {
    Published(u64),
    /// Where the first one stands, as long as the stream remembers its id.
    Duplicate(Option<u64>),
    Dropped(DropReason),
}

impl DeadLetters {
    /// Where to report, and the task that publishes over `connection`, which has to be run until
    /// [`DeadLetters::end`].
    pub fn start<C: Into<Connection>>(
        connection: C,
        names: Names,
    ) -> (Self, impl Future<Output = ()> + Send + use<C>) {
        let outbox = Arc::new(Outbox {
            state: Mutex::new(OutboxState {
                queue: FairQueue::new(QUEUE_BYTES),
                is_closed: false,
            }),
            some: Notify::new(),
            counters: Arc::default(),
            drops: DropLog::default(),
            ending: CancellationToken::new(),
            over: CancellationToken::new(),
        });
        let publisher = Publisher::new(connection.into(), names, Arc::clone(&outbox));
        let task = TaskTracker::new();
        let run = task.track_future({
            let outbox = Arc::clone(&outbox);
            async move {
                tokio::select! {
                    () = publisher.run() => {}
                    () = outbox.drops.keep_logging() => {}
                }
            }
        });
        task.close();
        (Self { outbox, task }, run)
    }

    /// Sends what waits as fast as it goes, for `limit` at most. What is left then, and what is reported
    /// later, is dropped, counted and logged; so is all that waits where the task has failed.
    pub async fn end(&self, limit: Duration) {
        self.outbox.ending.cancel();
        if timeout(limit, self.task.wait()).await.is_err() {
            self.outbox.over.cancel();
            self.task.wait().await;
        }
        self.outbox.close();
        self.outbox.drops.log();
    }

    /// Hands a bad event over. Never waits: where there is no room for it, a letter is dropped and counted.
    pub fn report(&self, workspace: &WorkspaceSlug, message: &StoredMessage, bad: &BadEvent) {
        self.report_traced(workspace, message, bad, None);
    }

    /// The same of an event that was found in the stream, and that a room may have reported long ago: only a
    /// letter that is new is counted.
    pub(super) fn report_found(
        &self,
        workspace: &WorkspaceSlug,
        message: &StoredMessage,
        bad: &BadEvent,
    ) {
        let letter = |most| Letter::new(message, bad, most, None).found();
        self.take(workspace, letter);
    }

    /// The same of an event whose trace is recorded; it ends when it is known what became of the
    /// letter.
    pub(crate) fn report_traced(
        &self,
        workspace: &WorkspaceSlug,
        message: &StoredMessage,
        bad: &BadEvent,
        trace: Option<EventTrace>,
    ) {
        self.take(workspace, |most| Letter::new(message, bad, most, trace));
    }

    /// Takes the letter that `make` makes with so many bytes of the payload.
    fn take(&self, workspace: &WorkspaceSlug, make: impl FnOnce(usize) -> Letter) {
        let waits = self.outbox.lock().queue.cost_of(workspace);
        let most = if waits < WHOLE_BYTES {
            PAYLOAD_MAX
        } else {
            CUT
        };
        let letter = make(most);
        let cost = letter.cost();
        let mut state = self.outbox.lock();
        let (gone, reason) = if state.is_closed {
            (vec![(workspace.clone(), letter)], DropReason::Shutdown)
        } else {
            let gone = state.queue.push(workspace, cost, letter);
            (gone, DropReason::QueueFull)
        };
        drop(state);
        self.outbox.some.notify_one();
        for (workspace, letter) in gone {
            letter.dropped();
            self.outbox.count_dropped(&workspace, reason);
        }
    }

    /// The counters, which live as long as anybody has them.
    pub fn counters(&self) -> Arc<DeadLetterCounters> {
        Arc::clone(&self.outbox.counters)
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().queue.peek().is_none()
    }

    /// Counts what became of a letter, and ends its trace.
    fn settle(
        &self,
        workspace: &WorkspaceSlug,
        is_found: bool,
        trace: Option<DeadLetterTrace>,
        outcome: LetterOutcome,
    ) {
        let (label, sequence) = match outcome {
            LetterOutcome::Duplicate(_) if is_found => return,
            LetterOutcome::Published(sequence) => {
                self.counters.published.fetch_add(1, Ordering::Relaxed);
                ("published", Some(sequence))
            }
            LetterOutcome::Duplicate(sequence) => {
                self.counters.duplicate.fetch_add(1, Ordering::Relaxed);
                ("duplicate", sequence)
            }
            LetterOutcome::Dropped(reason) => {
                self.count_dropped(workspace, reason);
                ("dropped", None)
            }
        };
        if let Some(trace) = trace {
            trace.end(label, sequence);
        }
    }

    fn count_dropped(&self, workspace: &WorkspaceSlug, reason: DropReason) {
        self.counters.count_dropped(reason);
        self.drops.note(workspace, reason);
    }

    /// Takes no more letters, and drops those that wait.
    fn close(&self) {
        self.lock().is_closed = true;
        loop {
            let Some((workspace, letter)) = self.lock().queue.pop() else {
                break;
            };
            letter.dropped();
            self.count_dropped(&workspace, DropReason::Shutdown);
        }
    }
}
