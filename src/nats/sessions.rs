//! Claims on their way into SESSIONS, and back from `live.session.`.

use std::time::Duration;

use async_nats::{HeaderMap, header};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use tracing::debug;

use super::connection::Connection;
use super::live;
use super::publish::{PublishError, publish};
use super::reads::{Leader, LeaderError};
use crate::auth::UserKey;
use crate::config::{Names, names};
use crate::event::{StoredMessage, WorkspaceSlug};

/// How long an acknowledgement may take before it is looked whether the claim is stored.
const ACK_TIMEOUT: Duration = Duration::from_millis(700);
/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// A claim was not stored, or it is not known whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No acknowledgement until the deadline.
    #[error("no acknowledgement in time")]
    Unacknowledged,
    /// Someone else's claim came between: the subject's last sequence is not the expected one.
    #[error("another claim came between")]
    Overtaken,
    /// SESSIONS has no room for it. Claims that replace others are taken.
    #[error("the stream of claims is full")]
    Full,
    /// The account, or the server's storage, has no room for anything.
    #[error("the NATS account, or its server's storage, has no room")]
    AccountFull,
}

impl ClaimError {
    /// Why it is of no use to send a claim again, where that is what `error` says.
    fn lasting(error: &PublishError) -> Option<Self> {
        match error {
            PublishError::StreamFull(_) => Some(Self::Full),
            PublishError::AccountFull(_) => Some(Self::AccountFull),
            _ => None,
        }
    }
}

/// A claim as SESSIONS holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredClaim {
    pub session: Uuid,
    pub sequence: u64,
    /// When the server stored it.
    pub time: DateTime<Utc>,
    /// Whether this process published it.
    pub own: bool,
}

/// What a claim says.
#[derive(Debug, Serialize, Deserialize)]
struct ClaimBody {
    session: String,
    /// The instance's id, for people who read claims. Two gateways may have the same by mistake.
    gateway: String,
    /// The process. Gateways of before this field leave it out.
    #[serde(default)]
    process: String,
}

/// Publishes this gateway's claims.
#[derive(Debug, Clone)]
pub struct ClaimWriter {
    connection: Connection,
    names: Names,
    leader: Leader,
    gateway: String,
    /// Names this process, new with each start: which claims are its own.
    process: String,
}

impl ClaimWriter {
    /// Claims in the name of `gateway`, the instance's id; `leader` is that of SESSIONS.
    pub fn new(connection: &Connection, names: Names, leader: Leader, gateway: &str) -> Self {
        Self {
            connection: connection.clone(),
            names,
            leader,
            gateway: gateway.to_owned(),
            process: Uuid::new_v4().simple().to_string(),
        }
    }

    /// The sequence of the last claim of `user`, 0 if there is none; for [`ClaimWriter::claim`].
    ///
    /// # Errors
    /// Where the leader of SESSIONS does not answer.
    pub async fn last(&self, workspace: &WorkspaceSlug, user: UserKey) -> Result<u64, LeaderError> {
        let last = self.leader.last(&names::claim(workspace, user)).await?;
        Ok(last.map_or(0, |last| last.sequence))
    }

    /// Stores the claim of a join and returns its sequence. It is stored only as the successor of the
    /// user's claim that was last before (`last`, if it has been read): one that was given up and is
    /// stored late, by a gateway that was cut off or a leader that was, replaces nobody who came after
    /// it. Until `deadline` it is tried again whenever another came between.
    ///
    /// # Errors
    /// [`ClaimError::Unacknowledged`], [`ClaimError::Full`], [`ClaimError::AccountFull`].
    pub async fn claim(
        &self,
        workspace: &WorkspaceSlug,
        user: UserKey,
        session: Uuid,
        mut last: Option<u64>,
        deadline: Instant,
    ) -> Result<u64, ClaimError> {
        let subject = names::claim(workspace, user);
        let attempts = async {
            loop {
                if last.is_none() {
                    match self.leader.last(&subject).await {
                        Ok(Some(stored)) if self.is_of(&stored, workspace, session) => {
                            return Ok(stored.sequence);
                        }
                        Ok(stored) => last = Some(stored.map_or(0, |stored| stored.sequence)),
                        Err(error) => debug!(%error, "claim waits for the leader"),
                    }
                }
                if let Some(expected) = last.take() {
                    match self.publish(&subject, session, expected).await {
                        Ok(sequence) => return Ok(sequence),
                        // Another's claim came between, or ours was stored and its answer lost: the next
                        // look tells.
                        Err(PublishError::Overtaken) => continue,
                        Err(error) => match ClaimError::lasting(&error) {
                            Some(full) => return Err(full),
                            None => debug!(%error, "claim not acknowledged"),
                        },
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let attempted = timeout_at(deadline, attempts).await;
        attempted.unwrap_or(Err(ClaimError::Unacknowledged))
    }

    /// Stores a claim again that SESSIONS has lost, as the successor of `last`; returns its sequence.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim_again(
        &self,
        workspace: &WorkspaceSlug,
        user: UserKey,
        session: Uuid,
        last: u64,
        deadline: Instant,
    ) -> Result<u64, ClaimError> {
        let subject = names::claim(workspace, user);
        loop {
            match timeout_at(deadline, self.publish(&subject, session, last)).await {
                Ok(Ok(sequence)) => return Ok(sequence),
                Ok(Err(PublishError::Overtaken)) => return Err(ClaimError::Overtaken),
                Ok(Err(error)) => match ClaimError::lasting(&error) {
                    Some(full) => return Err(full),
                    None => debug!(%error, "claim not acknowledged"),
                },
                Err(_) => return Err(ClaimError::Unacknowledged),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Publishes once; the same claim after the same `last` is stored once.
    async fn publish(&self, subject: &str, session: Uuid, last: u64) -> Result<u64, PublishError> {
        let body = ClaimBody {
            session: session.simple().to_string(),
            gateway: self.gateway.clone(),
            process: self.process.clone(),
        };
        let body = serde_json::to_vec(&body);
        let body = body.map_err(|error| PublishError::Refused(error.to_string()))?;
        // As many digits however high the number: a full stream takes a claim that replaces another, if it is no
        // larger than that.
        let last = format!("{last:020}");
        let mut headers = HeaderMap::new();
        headers.insert(
            header::NATS_MESSAGE_ID,
            format!("{}:{last}", session.simple()),
        );
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last);
        let subject = self.names.subject(subject);
        let client = self.connection.client();
        let sent = publish(client, subject, headers, body.into(), ACK_TIMEOUT);
        Ok(sent.await?.sequence)
    }

    fn is_of(&self, stored: &StoredMessage, workspace: &WorkspaceSlug, session: Uuid) -> bool {
        let claim = self.parse(stored, workspace);
        claim.is_some_and(|(_, claim)| claim.session == session)
    }

    /// Reads a claim that was republished on `live.session.<workspace>.<user>`.
    pub fn parse_live(
        &self,
        message: async_nats::Message,
        workspace: &WorkspaceSlug,
    ) -> Option<(UserKey, StoredClaim)> {
        let stored = live::republished(message, &self.names, self.names.sessions())?;
        self.parse(&stored, workspace)
    }

    /// Reads a stored claim.
    pub fn parse(
        &self,
        stored: &StoredMessage,
        workspace: &WorkspaceSlug,
    ) -> Option<(UserKey, StoredClaim)> {
        let user = stored
            .subject
            .strip_prefix("session.")?
            .strip_prefix(workspace.as_str())?
            .strip_prefix('.')?;
        let body: ClaimBody = serde_json::from_slice(&stored.payload).ok()?;
        Some((
            UserKey::parse(user)?,
            StoredClaim {
                session: Uuid::try_parse(&body.session).ok()?,
                sequence: stored.sequence,
                time: stored.time,
                own: body.process == self.process,
            },
        ))
    }
}
