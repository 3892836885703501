//! One message as EVENTS stored it, however it was read: republished, direct get or leader read.

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::WorkspaceSlug;

/// A message of the stream. The server's own headers have already become fields.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The workspace of the room that read it, which is the second token of `subject`.
    pub workspace: WorkspaceSlug,
    /// The subject it was stored under: `ws.<workspace>.<category>.<name>`, not yet checked beyond
    /// its first two tokens.
    pub subject: async_nats::Subject,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the server stored it.
    pub time: DateTime<Utc>,
    /// The publisher's headers. May still hold headers that forge the server's: read none of those.
    pub headers: Option<HeaderMap>,
    /// The body.
    pub payload: Bytes,
}
