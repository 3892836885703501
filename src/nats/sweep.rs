//! The sweep: finds what was lost and nothing follows, and moves the rooms' watermarks.
//!
//! One task. Rooms ask; those that ask about the same time share one read of the leader and few
//! batched direct gets. What is found goes back to each room, which alone judges it.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tracing::{Instrument, debug};

use super::direct_get::{DirectGet, DirectGetError};
use super::gather::{Ask, RETRY, gather};
use super::leader::{Leader, ReadError, Seen, StreamState, Tail};
use super::proven::{self, ProofError};
use crate::config::names;
use crate::event::{Mark, WorkspaceSlug};
use crate::telemetry::{self, Failure};

/// Rooms asked about in one request. The answer brings the last message of each of their subjects
/// whole, so this bounds its size; the server bounds it at 1024 subjects.
const ROOMS_AT_ONCE: usize = 32;

/// A room's wish to be swept.
#[derive(Debug)]
pub struct SweepAsk {
    pub workspace: WorkspaceSlug,
    /// Where the answer goes. Unbounded, but a room has one ask under way.
    pub answer: mpsc::UnboundedSender<Swept>,
    /// Events that the room has taken so far.
    pub traffic: u64,
    /// Somebody waits for it.
    pub urgent: bool,
    /// The last event that the room knows of, if it doubts that the stream still has it.
    pub known: Option<Known>,
}

impl Ask for SweepAsk {
    fn is_over(&self) -> bool {
        self.answer.is_closed()
    }

    fn is_urgent(&self) -> bool {
        self.urgent
    }
}

/// The last event that a room knows of, and why it doubts that the stream still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Mostly the connection broke after it. All rooms doubt then, and where the stream has the highest of
    /// what they know it has the rest: what it may have lost meanwhile is its end.
    BeforeBreak(Mark),
    /// An event was out of place. Some rooms may know what came before that and some what came after, so
    /// each one's own counts.
    OutOfPlace(Mark),
}

/// What a sweep found for one room.
#[derive(Debug)]
pub struct Swept {
    /// The stream, from a leader's read begun after the room asked. V becomes its last sequence if
    /// nothing is missing.
    pub stream: StreamState,
    /// Whether the stream has what the room knows; `None` if it did not ask.
    pub seen: Option<Seen>,
    /// The last message of each subject of the workspace; `None` where only a repair can tell.
    pub lasts: Option<Vec<Last>>,
}

/// The last message of a subject.
#[derive(Debug)]
pub struct Last {
    pub subject: String,
    pub mark: Mark,
}

/// What the sweeper reads from.
#[derive(Debug)]
pub struct Sweeper {
    pub events: Leader,
    pub direct: DirectGet,
}

/// A cheap handle for asking.
#[derive(Debug, Clone)]
pub struct SweepHandle {
    /// The other end is the task of [`Sweeper::start`]. Unbounded, but a room has one ask under way.
    asks: mpsc::UnboundedSender<SweepAsk>,
}

impl SweepHandle {
    /// Asks for a sweep. A room asks again only after its answer, so the queue holds at most one
    /// entry a room.
    pub fn ask(&self, ask: SweepAsk) {
        // The task is gone only when the gateway is ending.
        let _ = self.asks.send(ask);
    }
}

/// What one round of sweeps goes by.
struct Now {
    /// The stream as its leader has it.
    stream: StreamState,
    tail: Tail,
    /// The stream has the highest of what rooms knew before the connection broke.
    is_same: bool,
}

impl Sweeper {
    /// A handle, and the task that has to be run for it.
    pub fn start(self) -> (SweepHandle, impl Future<Output = ()> + Send) {
        let (asks, inbox) = mpsc::unbounded_channel();
        (SweepHandle { asks }, self.run(inbox))
    }

    async fn run(self, mut inbox: mpsc::UnboundedReceiver<SweepAsk>) {
        let mut asking: Vec<SweepAsk> = Vec::new();
        while gather(&mut inbox, &mut asking).await {
            let span = telemetry::sweep(asking.len());
            self.round(&mut asking).instrument(span).await;
            if !asking.is_empty() {
                self.events.pause(RETRY).await;
            }
        }
    }

    /// Sweeps the rooms that ask; those that could not be ask on.
    async fn round(&self, asking: &mut Vec<SweepAsk>) {
        match self.now(asking).await.told() {
            Ok(now) => {
                // The busiest first: they have the most to lose.
                asking.sort_by_key(|ask| std::cmp::Reverse(ask.traffic));
                let mut failed = Vec::new();
                while !asking.is_empty() {
                    let rest = asking.split_off(asking.len().min(ROOMS_AT_ONCE));
                    let chunk = std::mem::replace(asking, rest);
                    failed.extend(self.sweep(&now, chunk).await);
                }
                *asking = failed;
            }
            Err(error) => debug!(%error, "sweep waits for the leader"),
        }
    }

    /// What the leader says, asked after all of `asking`.
    async fn now(&self, asking: &[SweepAsk]) -> Result<Now, ReadError> {
        let (stream, tail) = self.events.whole().await?;
        let known = asking.iter().filter_map(|ask| match ask.known {
            Some(Known::BeforeBreak(known)) => stream.holds(known).then_some(known),
            Some(Known::OutOfPlace(_)) | None => None,
        });
        let is_same = match known.max_by_key(|known| known.sequence) {
            Some(known) => self.events.seen(known).await? == Seen::Same,
            None => false,
        };
        Ok(Now {
            stream,
            tail,
            is_same,
        })
    }

    /// Sweeps a few rooms; returns those that could not be.
    async fn sweep(&self, now: &Now, asking: Vec<SweepAsk>) -> Vec<SweepAsk> {
        let workspaces: Vec<&WorkspaceSlug> = asking.iter().map(|ask| &ask.workspace).collect();
        let mut lasts = match self.lasts(&workspaces, &now.tail).await {
            Ok(lasts) => lasts,
            Err(ProofError::Direct(DirectGetError::TooManyResults)) if asking.len() > 1 => {
                return Box::pin(self.sweep_halves(now, asking)).await;
            }
            // The rooms repair instead, which the leader finishes.
            Err(ProofError::Direct(DirectGetError::TooManyResults) | ProofError::Lagging) => {
                HashMap::new()
            }
            Err(error) => {
                debug!(%error, "sweep interrupted");
                return asking;
            }
        };
        let mut asking = asking.into_iter();
        while let Some(ask) = asking.next() {
            let seen = match self.still_there(now, ask.known).await {
                Ok(seen) => seen,
                Err(error) => {
                    debug!(%error, "sweep interrupted");
                    return std::iter::once(ask).chain(asking).collect();
                }
            };
            let lasts = lasts.remove(&ask.workspace);
            // A room that has ended misses nothing.
            let _ = ask.answer.send(Swept {
                stream: now.stream,
                seen,
                lasts,
            });
        }
        Vec::new()
    }

    /// Whether the stream has what a room knows.
    async fn still_there(
        &self,
        now: &Now,
        known: Option<Known>,
    ) -> Result<Option<Seen>, ReadError> {
        let known = match known {
            None => return Ok(None),
            Some(Known::BeforeBreak(_)) if now.is_same => return Ok(Some(Seen::Same)),
            Some(Known::BeforeBreak(known) | Known::OutOfPlace(known)) => known,
        };
        if known.sequence > 0 && !now.stream.holds(known) {
            return Ok(Some(Seen::Gone));
        }
        self.events.seen(known).await.map(Some)
    }

    async fn sweep_halves(&self, now: &Now, mut asking: Vec<SweepAsk>) -> Vec<SweepAsk> {
        let second = asking.split_off(asking.len() / 2);
        let mut failed = self.sweep(now, asking).await;
        failed.extend(self.sweep(now, second).await);
        failed
    }

    /// The last message of each subject of `workspaces`, from a replica proven to know `tail`.
    async fn lasts(
        &self,
        workspaces: &[&WorkspaceSlug],
        tail: &Tail,
    ) -> Result<HashMap<WorkspaceSlug, Vec<Last>>, ProofError> {
        let subjects: Vec<String> = workspaces
            .iter()
            .map(|workspace| names::event(workspace, ">"))
            .collect();
        let found = proven::lasts(&self.direct, &self.events, &subjects, tail).await?;
        let mut by_workspace: HashMap<WorkspaceSlug, Vec<Last>> = workspaces
            .iter()
            .map(|workspace| ((*workspace).clone(), Vec::new()))
            .collect();
        for entry in found {
            let workspace = entry
                .subject
                .split('.')
                .nth(1)
                .and_then(|token| WorkspaceSlug::parse(token).ok());
            if let Some(lasts) = workspace.and_then(|workspace| by_workspace.get_mut(&workspace)) {
                lasts.push(Last {
                    subject: entry.subject.to_string(),
                    mark: Mark {
                        sequence: entry.sequence,
                        time: entry.time,
                    },
                });
            }
        }
        Ok(by_workspace)
    }
}
