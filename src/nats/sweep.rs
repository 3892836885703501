//! The sweep: finds what was lost and nothing follows, and moves the rooms' watermarks.
//!
//! One task. Rooms whose requests come at about the same time share one read of the leader and a few batched direct
//! gets. What is found goes back to each room, which alone decides what it means.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tracing::{Instrument, debug};

use super::reads::{
    AtPosition, DirectGet, DirectGetError, Leader, LeaderError, Pending, RETRY, RequestSender,
    StreamEnd, StreamReadError, StreamState, coalesce, lasts,
};
use crate::config::names;
use crate::event::{Position, WorkspaceSlug};
use crate::telemetry::{self, Failure};

/// Rooms in one request. The answer brings the last message of each of their subjects
/// whole, so this bounds its size; the server bounds it at 1024 subjects.
const ROOMS_AT_ONCE: usize = 32;

/// A room's wish to be swept.
#[derive(Debug)]
pub struct SweepRequest {
    pub workspace: WorkspaceSlug,
    /// Where the answer goes. Unbounded, but a room has one request under way.
    pub answer: mpsc::UnboundedSender<Swept>,
    /// Events that the room has taken so far.
    pub traffic: u64,
    /// Somebody waits for it.
    pub urgent: bool,
    /// The last event that the room knows of, if it doubts that the stream still has it.
    pub known: Option<LastKnown>,
}

impl Pending for SweepRequest {
    fn is_over(&self) -> bool {
        self.answer.is_closed()
    }

    fn is_urgent(&self) -> bool {
        self.urgent
    }
}

/// The last event that a room knows of, and why it doubts that the stream still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastKnown {
    /// Mostly the connection broke after it. All rooms doubt then, and where the stream has the highest of
    /// what they know it has the rest: what it may have lost meanwhile is its end.
    BeforeBreak(Position),
    /// An event was out of place. Some rooms may know what came before that and some what came after, so
    /// each one's own counts.
    OutOfOrder(Position),
}

/// What a sweep found for one room.
#[derive(Debug)]
pub struct Swept {
    /// The stream, from a leader's read begun after the room's request. V becomes its last sequence if
    /// nothing is missing.
    pub stream: StreamState,
    /// Whether the stream has what the room knows; `None` if it did not ask.
    pub seen: Option<AtPosition>,
    /// The last message of each subject of the workspace; `None` where only a repair can tell.
    pub lasts: Option<Vec<Last>>,
}

/// The last message of a subject.
#[derive(Debug)]
pub struct Last {
    pub subject: String,
    pub position: Position,
}

/// What the sweeper reads from.
#[derive(Debug)]
pub struct Sweeper {
    pub events: Leader,
    pub direct: DirectGet,
}

/// What one round of sweeps compares rooms with.
struct Now {
    /// The stream as its leader has it.
    stream: StreamState,
    end: StreamEnd,
    /// The stream has the highest of what rooms knew before the connection broke.
    is_same: bool,
}

impl Sweeper {
    /// Where requests are sent, and the task that has to be run for it.
    pub fn start(self) -> (RequestSender<SweepRequest>, impl Future<Output = ()> + Send) {
        let (requests, inbox) = RequestSender::channel();
        (requests, self.run(inbox))
    }

    async fn run(self, mut inbox: mpsc::UnboundedReceiver<SweepRequest>) {
        let mut requests: Vec<SweepRequest> = Vec::new();
        while coalesce(&mut inbox, &mut requests).await {
            let span = telemetry::sweep(requests.len());
            self.round(&mut requests).instrument(span).await;
            if !requests.is_empty() {
                self.events.pause(RETRY).await;
            }
        }
    }

    /// Sweeps the rooms of `requests`, and leaves those there that could not be swept.
    async fn round(&self, requests: &mut Vec<SweepRequest>) {
        match self.now(requests).await.record_error() {
            Ok(now) => {
                // Those with the most events first: they have the most to lose.
                requests.sort_by_key(|request| std::cmp::Reverse(request.traffic));
                let mut failed = Vec::new();
                while !requests.is_empty() {
                    let rest = requests.split_off(requests.len().min(ROOMS_AT_ONCE));
                    let chunk = std::mem::replace(requests, rest);
                    failed.extend(self.sweep(&now, chunk).await);
                }
                *requests = failed;
            }
            Err(error) => debug!(%error, "sweep waits for the leader"),
        }
    }

    /// What the leader says, read after all of `requests` came.
    async fn now(&self, requests: &[SweepRequest]) -> Result<Now, LeaderError> {
        let (stream, end) = self.events.whole().await?;
        let known = requests.iter().filter_map(|request| match request.known {
            Some(LastKnown::BeforeBreak(known)) => stream.contains(known).then_some(known),
            Some(LastKnown::OutOfOrder(_)) | None => None,
        });
        let is_same = match known.max_by_key(|known| known.sequence) {
            Some(known) => self.events.at_position(known).await? == AtPosition::Same,
            None => false,
        };
        Ok(Now {
            stream,
            end,
            is_same,
        })
    }

    /// Sweeps a few rooms; returns those that could not be.
    async fn sweep(&self, now: &Now, requests: Vec<SweepRequest>) -> Vec<SweepRequest> {
        let workspaces: Vec<&WorkspaceSlug> =
            requests.iter().map(|request| &request.workspace).collect();
        let mut lasts = match self.lasts(&workspaces, &now.end).await {
            Ok(lasts) => lasts,
            Err(StreamReadError::Direct(DirectGetError::TooManyResults)) if requests.len() > 1 => {
                return Box::pin(self.sweep_halves(now, requests)).await;
            }
            // The rooms repair instead, which the leader finishes.
            Err(
                StreamReadError::Direct(DirectGetError::TooManyResults) | StreamReadError::Lagging,
            ) => HashMap::new(),
            Err(error) => {
                debug!(%error, "sweep interrupted");
                return requests;
            }
        };
        let mut requests = requests.into_iter();
        while let Some(request) = requests.next() {
            let seen = match self.still_there(now, request.known).await {
                Ok(seen) => seen,
                Err(error) => {
                    debug!(%error, "sweep interrupted");
                    return std::iter::once(request).chain(requests).collect();
                }
            };
            let lasts = lasts.remove(&request.workspace);
            // A room that has ended misses nothing.
            let _ = request.answer.send(Swept {
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
        known: Option<LastKnown>,
    ) -> Result<Option<AtPosition>, LeaderError> {
        let known = match known {
            None => return Ok(None),
            Some(LastKnown::BeforeBreak(_)) if now.is_same => return Ok(Some(AtPosition::Same)),
            Some(LastKnown::BeforeBreak(known) | LastKnown::OutOfOrder(known)) => known,
        };
        if known.sequence > 0 && !now.stream.contains(known) {
            return Ok(Some(AtPosition::Gone));
        }
        self.events.at_position(known).await.map(Some)
    }

    async fn sweep_halves(&self, now: &Now, mut requests: Vec<SweepRequest>) -> Vec<SweepRequest> {
        let second = requests.split_off(requests.len() / 2);
        let mut failed = self.sweep(now, requests).await;
        failed.extend(self.sweep(now, second).await);
        failed
    }

    /// The last message of each subject of `workspaces`, from a replica proven to know `end`.
    async fn lasts(
        &self,
        workspaces: &[&WorkspaceSlug],
        end: &StreamEnd,
    ) -> Result<HashMap<WorkspaceSlug, Vec<Last>>, StreamReadError> {
        let subjects: Vec<String> = workspaces
            .iter()
            .map(|workspace| names::event(workspace, ">"))
            .collect();
        let found = lasts(&self.direct, &self.events, &subjects, end).await?;
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
                    position: entry.position(),
                });
            }
        }
        Ok(by_workspace)
    }
}
