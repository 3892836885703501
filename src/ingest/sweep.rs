//! The sweep: finds what was lost and nothing follows, moves the rooms' watermarks, and checks their
//! claims.
//!
//! One task. Rooms ask; those that ask about the same time share one read of the leaders and few
//! batched direct gets. What is found goes back to each room, which alone judges it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::debug;

use super::direct_get::{DirectGet, DirectGetError, LastOf};
use super::leader::{Leader, ReadError, Seen, StreamState, Tail};
use super::sessions::{self, ClaimWriter};
use crate::auth::UserKey;
use crate::event::{Mark, WorkspaceSlug};
use crate::room::{RoomHandle, SessionId, Standing};

/// Rooms asked about in one request. The answer brings the last message of each of their subjects
/// whole, so this bounds its size; the server bounds it at 1024 subjects.
const ROOMS_AT_ONCE: usize = 32;
/// Claims asked about in one request: with the witness, the server's bound of 1024.
const CLAIMS_AT_ONCE: usize = 1023;
/// How long a sweep that nobody waits for gathers company.
const GATHER: Duration = Duration::from_millis(200);
/// Pause before a sweep that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often a lagging replica is asked again before the room repairs instead, which the leader
/// finishes.
const LAG_RETRIES: usize = 5;

/// A room's wish to be swept.
#[derive(Debug)]
pub struct SweepAsk {
    pub room: RoomHandle,
    /// Its acknowledged sessions, as they stand when it asks.
    pub held: Vec<(UserKey, SessionId, u64)>,
    /// Somebody waits for it.
    pub urgent: bool,
    /// The last event that the room knows of, if it doubts that the stream still has it.
    pub known: Option<Known>,
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
    /// What SESSIONS holds for the sessions that were asked about; `None` if it did not answer.
    pub claims: Option<Vec<CheckedClaim>>,
}

/// The last message of a subject.
#[derive(Debug)]
pub struct Last {
    pub subject: String,
    pub mark: Mark,
}

/// What SESSIONS holds for a session's user.
#[derive(Debug)]
pub struct CheckedClaim {
    pub user: UserKey,
    pub session: SessionId,
    /// The sequence the session's claim had when it was asked about.
    pub asked: u64,
    pub last: Standing,
}

/// What the sweeper reads from.
#[derive(Debug)]
pub struct Sweeper {
    pub events: Leader,
    pub events_direct: DirectGet,
    pub sessions: Leader,
    pub sessions_direct: DirectGet,
    pub claims: ClaimWriter,
}

/// A cheap handle for asking.
#[derive(Debug, Clone)]
pub struct SweepHandle {
    /// The other end is the task of [`Sweeper::start`].
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

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Leader(#[from] ReadError),
    #[error(transparent)]
    Direct(#[from] DirectGetError),
    #[error("the replica that answered lags")]
    Lagging,
}

impl Sweeper {
    /// A handle, and the task that has to be run for it.
    pub fn start(self) -> (SweepHandle, impl Future<Output = ()> + Send) {
        let (asks, inbox) = mpsc::unbounded_channel();
        (SweepHandle { asks }, self.run(inbox))
    }

    async fn run(self, mut inbox: mpsc::UnboundedReceiver<SweepAsk>) {
        let mut asking: Vec<SweepAsk> = Vec::new();
        loop {
            if asking.is_empty() {
                let Some(first) = inbox.recv().await else {
                    return;
                };
                asking.push(first);
            }
            gather(&mut inbox, &mut asking).await;
            match self.now(&asking).await {
                Ok(now) => {
                    // The busiest first: they have the most to lose.
                    asking.sort_by_key(|ask| std::cmp::Reverse(ask.room.traffic()));
                    let mut claims = self.checked_claims(&asking).await;
                    let mut failed = Vec::new();
                    while !asking.is_empty() {
                        let rest = asking.split_off(asking.len().min(ROOMS_AT_ONCE));
                        let chunk = std::mem::replace(&mut asking, rest);
                        failed.extend(self.sweep(&now, chunk, &mut claims).await);
                    }
                    asking = failed;
                }
                Err(error) => debug!(%error, "sweep waits for the leader"),
            }
            if !asking.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
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
    async fn sweep(
        &self,
        now: &Now,
        asking: Vec<SweepAsk>,
        claims: &mut ClaimAnswers,
    ) -> Vec<SweepAsk> {
        let workspaces: Vec<&WorkspaceSlug> =
            asking.iter().map(|ask| ask.room.workspace()).collect();
        let mut lasts = match self.lasts(&workspaces, &now.tail).await {
            Ok(lasts) => lasts,
            Err(SweepError::Direct(DirectGetError::TooManyResults)) if asking.len() > 1 => {
                return Box::pin(self.sweep_halves(now, asking, claims)).await;
            }
            Err(SweepError::Direct(DirectGetError::TooManyResults) | SweepError::Lagging) => {
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
            let claims = claims
                .as_mut()
                .map(|claims| claims.remove(ask.room.workspace()).unwrap_or_default());
            let lasts = lasts.remove(ask.room.workspace());
            ask.room.swept(Swept {
                stream: now.stream,
                seen,
                lasts,
                claims,
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

    async fn sweep_halves(
        &self,
        now: &Now,
        mut asking: Vec<SweepAsk>,
        claims: &mut ClaimAnswers,
    ) -> Vec<SweepAsk> {
        let second = asking.split_off(asking.len() / 2);
        let mut failed = self.sweep(now, asking, claims).await;
        failed.extend(self.sweep(now, second, claims).await);
        failed
    }

    /// The last message of each subject of `workspaces`, from a replica proven to know `tail`.
    async fn lasts(
        &self,
        workspaces: &[&WorkspaceSlug],
        tail: &Tail,
    ) -> Result<HashMap<WorkspaceSlug, Vec<Last>>, SweepError> {
        let subjects: Vec<String> = workspaces
            .iter()
            .map(|workspace| format!("ws.{workspace}.>"))
            .collect();
        let found = proven(&self.events_direct, &subjects, tail).await?;
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

    /// What SESSIONS holds for all sessions asked about, by workspace; `None` if it cannot be read.
    async fn checked_claims(&self, asking: &[SweepAsk]) -> ClaimAnswers {
        let held: Vec<(&WorkspaceSlug, UserKey, SessionId, u64)> = asking
            .iter()
            .flat_map(|ask| {
                let workspace = ask.room.workspace();
                ask.held
                    .iter()
                    .map(move |(user, session, asked)| (workspace, *user, *session, *asked))
            })
            .collect();
        if held.is_empty() {
            return Some(HashMap::new());
        }
        match self.claims_of(&held).await {
            Ok(answers) => Some(answers),
            Err(error) => {
                debug!(%error, "claims not checked");
                None
            }
        }
    }

    async fn claims_of(
        &self,
        held: &[(&WorkspaceSlug, UserKey, SessionId, u64)],
    ) -> Result<HashMap<WorkspaceSlug, Vec<CheckedClaim>>, SweepError> {
        let tail = self.sessions.tail().await?;
        let mut answers: HashMap<WorkspaceSlug, Vec<CheckedClaim>> = HashMap::new();
        for chunk in held.chunks(CLAIMS_AT_ONCE) {
            let subjects: Vec<String> = chunk
                .iter()
                .map(|(workspace, user, ..)| sessions::subject(workspace, *user))
                .collect();
            let found: HashMap<String, LastOf> = proven(&self.sessions_direct, &subjects, &tail)
                .await?
                .into_iter()
                .map(|entry| (entry.subject.to_string(), entry))
                .collect();
            for (subject, (workspace, user, session, asked)) in subjects.iter().zip(chunk) {
                let last = found.get(subject).map_or(Standing::Nothing, |entry| {
                    let stored = (entry.sequence, entry.time);
                    let parsed =
                        self.claims
                            .parse(&entry.subject, workspace, stored, &entry.payload);
                    parsed.map_or(Standing::NoClaim(entry.sequence), |(_, claim)| {
                        Standing::Claim(claim)
                    })
                });
                answers
                    .entry((*workspace).clone())
                    .or_default()
                    .push(CheckedClaim {
                        user: *user,
                        session: *session,
                        asked: *asked,
                        last,
                    });
            }
        }
        Ok(answers)
    }
}

type ClaimAnswers = Option<HashMap<WorkspaceSlug, Vec<CheckedClaim>>>;

/// Takes what else is asked by now, waiting a little for it if nobody waits for us.
async fn gather(inbox: &mut mpsc::UnboundedReceiver<SweepAsk>, asking: &mut Vec<SweepAsk>) {
    let until = tokio::time::Instant::now() + GATHER;
    while !asking.iter().any(|ask| ask.urgent) {
        match tokio::time::timeout_at(until, inbox.recv()).await {
            Ok(Some(more)) => asking.push(more),
            Ok(None) | Err(_) => break,
        }
    }
    while let Ok(more) = inbox.try_recv() {
        asking.push(more);
    }
}

/// The last messages of `subjects`, from a replica that says it knows everything up to `tail`.
///
/// A 404 ("none of them has a message") carries no such word. So the subject of the stream's last
/// message is asked for too: there is always an answer then, and always the word at its end. The
/// answer may hold that message beyond what was asked.
async fn proven(
    direct: &DirectGet,
    subjects: &[String],
    tail: &Tail,
) -> Result<Vec<LastOf>, SweepError> {
    let Some(witness) = &tail.subject else {
        // The leader's own word that the stream holds nothing.
        return Ok(Vec::new());
    };
    let mut asked = subjects.to_vec();
    if !asked.contains(witness) {
        asked.push(witness.clone());
    }
    for attempt in 0..LAG_RETRIES {
        let (found, end) = direct.multi_last(&asked).await?;
        // The server ends an answer that grows too large, and then says so at its end: the newest are missing.
        if end.pending > 0 {
            return Err(DirectGetError::TooManyResults.into());
        }
        if end
            .up_to_sequence
            .is_some_and(|upto| upto >= tail.mark.sequence)
        {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
    }
    Err(SweepError::Lagging)
}
