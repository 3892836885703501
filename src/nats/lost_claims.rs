//! The claim check: what SESSIONS holds for the sessions that a room has. It finds the claims whose republish
//! was lost, and those that SESSIONS lost.
//!
//! One task, beside the sweep's: SESSIONS may have no leader while EVENTS has one. Rooms whose requests come at about the
//! same time share one read of the leader and a few batched direct gets.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tracing::{Instrument, debug};
use uuid::Uuid;

use super::reads::{
    DirectGet, Leader, Pending, RETRY, RequestSender, StreamReadError, coalesce, lasts,
};
use super::sessions::{ClaimWriter, StoredClaim};
use crate::auth::UserKey;
use crate::config::names;
use crate::event::{StoredMessage, WorkspaceSlug};
use crate::telemetry::{self, Failure};

/// Claims in one request: with the witness, the server's bound of 1024.
const CLAIMS_AT_ONCE: usize = 1023;

/// A room's wish to have its claims checked.
#[derive(Debug)]
pub struct ClaimCheckRequest {
    pub workspace: WorkspaceSlug,
    /// Where the answer goes: for each session, in their order. Unbounded, but a room has one request under way.
    pub answer: mpsc::UnboundedSender<Vec<CheckedClaim>>,
    /// Its acknowledged sessions, as they stand when it asks.
    pub sessions: Vec<(UserKey, Uuid, u64)>,
    /// Somebody waits for it.
    pub urgent: bool,
}

impl Pending for ClaimCheckRequest {
    fn is_over(&self) -> bool {
        self.answer.is_closed()
    }

    fn is_urgent(&self) -> bool {
        self.urgent
    }
}

/// What SESSIONS holds for a session's user.
#[derive(Debug)]
pub struct CheckedClaim {
    pub user: UserKey,
    pub session: Uuid,
    /// The sequence that the session's claim had in the request.
    pub sequence: u64,
    pub last: LastClaim,
}

/// What SESSIONS holds last for a user's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastClaim {
    Nothing,
    /// A message that is no claim, with its sequence: written by hand, or by something else than Herald.
    NoClaim(u64),
    Claim(StoredClaim),
}

/// What the check reads from.
#[derive(Debug)]
pub struct ClaimChecker {
    pub leader: Leader,
    pub direct: DirectGet,
    pub claims: ClaimWriter,
}

impl ClaimChecker {
    /// Where requests are sent, and the task that has to be run for it.
    pub fn start(
        self,
    ) -> (
        RequestSender<ClaimCheckRequest>,
        impl Future<Output = ()> + Send,
    ) {
        let (requests, inbox) = RequestSender::channel();
        (requests, self.run(inbox))
    }

    async fn run(self, mut inbox: mpsc::UnboundedReceiver<ClaimCheckRequest>) {
        let mut requests: Vec<ClaimCheckRequest> = Vec::new();
        while coalesce(&mut inbox, &mut requests).await {
            let claims = requests.iter().map(|request| request.sessions.len()).sum();
            let checked = async { self.check(&requests).await.record_error() };
            match checked.instrument(telemetry::check_claims(claims)).await {
                Ok(answers) => {
                    let mut answers = answers.into_iter();
                    for request in requests.drain(..) {
                        let its = answers.by_ref().take(request.sessions.len()).collect();
                        // A room that has ended has no sessions.
                        let _ = request.answer.send(its);
                    }
                }
                Err(error) => {
                    debug!(%error, "claims not checked");
                    self.leader.pause(RETRY).await;
                }
            }
        }
    }

    /// What SESSIONS has for all sessions of `requests`, in their order.
    async fn check(
        &self,
        requests: &[ClaimCheckRequest],
    ) -> Result<Vec<CheckedClaim>, StreamReadError> {
        let sessions: Vec<_> = requests
            .iter()
            .flat_map(|request| {
                request
                    .sessions
                    .iter()
                    .map(|session| (&request.workspace, session))
            })
            .collect();
        let end = self.leader.end().await?;
        let mut answers = Vec::with_capacity(sessions.len());
        for chunk in sessions.chunks(CLAIMS_AT_ONCE) {
            let subjects: Vec<String> = chunk
                .iter()
                .map(|(workspace, (user, ..))| names::claim(workspace, user))
                .collect();
            let found: HashMap<String, StoredMessage> =
                lasts(&self.direct, &self.leader, &subjects, &end)
                    .await?
                    .into_iter()
                    .map(|entry| (entry.subject.to_string(), entry))
                    .collect();
            for (subject, (workspace, (user, session, sequence))) in subjects.iter().zip(chunk) {
                let last = found
                    .get(subject)
                    .map_or(LastClaim::Nothing, |entry| self.standing(entry, workspace));
                answers.push(CheckedClaim {
                    user: *user,
                    session: *session,
                    sequence: *sequence,
                    last,
                });
            }
        }
        Ok(answers)
    }

    fn standing(&self, entry: &StoredMessage, workspace: &WorkspaceSlug) -> LastClaim {
        let parsed = self.claims.parse(entry, workspace);
        parsed.map_or(LastClaim::NoClaim(entry.sequence), |(_, claim)| {
            LastClaim::Claim(claim)
        })
    }
}
