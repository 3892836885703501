//! Claims on their way into SESSIONS, and back from `live.session.`.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use async_nats::jetstream::{Context, message::PublishMessage};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::live;
use crate::auth::UserKey;
use crate::event::WorkspaceSlug;
use crate::room::{Claim, SessionId};

/// The stream of claims.
pub const STREAM: &str = "SESSIONS";
/// All its subjects.
pub const SUBJECTS: &str = "session.>";

/// How long an acknowledgement may take before the claim is sent again under the same id.
const ACK_TIMEOUT: Duration = Duration::from_millis(700);

/// A claim was not stored, or it is not known whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No acknowledgement until the deadline.
    #[error("no acknowledgement in time")]
    Unacknowledged,
    /// Someone else's claim came between: the subject's last sequence is not the expected one.
    #[error("another claim came between")]
    Overtaken,
}

/// What a claim says.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
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
    context: Context,
    gateway: String,
    /// Names this process, new with each start: which claims are its own.
    process: String,
}

impl ClaimWriter {
    /// Claims in the name of `gateway`, the instance's id.
    pub fn new(client: Client, gateway: &str) -> Self {
        let context = ContextBuilder::new()
            .ack_timeout(ACK_TIMEOUT)
            .backpressure_on_inflight(true)
            .build(client);
        Self {
            context,
            gateway: gateway.to_owned(),
            process: Uuid::new_v4().simple().to_string(),
        }
    }

    /// Stores a claim and returns its sequence. Until `deadline`, an unknown outcome is tried again
    /// with the same message id, so that the claim is stored once and keeps its first place.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim(
        &self,
        workspace: &WorkspaceSlug,
        user: UserKey,
        session: SessionId,
        expected_last: Option<u64>,
        deadline: Instant,
    ) -> Result<u64, ClaimError> {
        let body = serde_json::to_vec(&Body {
            session: session.to_string(),
            gateway: self.gateway.clone(),
            process: self.process.clone(),
        })
        .map_err(|_| ClaimError::Unacknowledged)?;
        loop {
            let mut message = PublishMessage::build().payload(body.clone().into());
            message = match expected_last {
                None => message.message_id(session.to_string()),
                // A claim made again must not be taken for the first one's duplicate.
                Some(last) => message
                    .message_id(format!("{session}:{last}"))
                    .expected_last_subject_sequence(last),
            };
            let attempt = async {
                let sent = self.context.send_publish(subject(workspace, user), message);
                match sent.await {
                    Ok(acknowledged) => acknowledged.await,
                    Err(error) => Err(error),
                }
            };
            match timeout_at(deadline, attempt).await {
                Ok(Ok(ack)) => return Ok(ack.sequence),
                Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    return Err(ClaimError::Overtaken);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "claim not acknowledged");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(_) => return Err(ClaimError::Unacknowledged),
            }
        }
    }

    /// Reads a claim that was republished on `live.session.<workspace>.<user>`.
    pub fn parse_live(
        &self,
        message: async_nats::Message,
        workspace: &WorkspaceSlug,
    ) -> Option<(UserKey, Claim)> {
        let raw = live::republished(message, STREAM)?;
        self.parse(
            &raw.subject,
            workspace,
            (raw.sequence, raw.time),
            &raw.payload,
        )
    }

    /// Reads a stored claim.
    pub fn parse(
        &self,
        stored: &str,
        workspace: &WorkspaceSlug,
        (sequence, time): (u64, DateTime<Utc>),
        payload: &[u8],
    ) -> Option<(UserKey, Claim)> {
        let user = stored
            .strip_prefix("session.")?
            .strip_prefix(workspace.as_str())?
            .strip_prefix('.')?;
        let body: Body = serde_json::from_slice(payload).ok()?;
        Some((
            UserKey::parse(user)?,
            Claim {
                session: SessionId::parse(&body.session)?,
                sequence,
                time: Some(time),
                own: body.process == self.process,
            },
        ))
    }
}

/// The subject of a user's claims in a workspace.
pub fn subject(workspace: &WorkspaceSlug, user: UserKey) -> String {
    format!("session.{workspace}.{user}")
}
