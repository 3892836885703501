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

/// A place in the stream: a sequence, and when the server stored what has it. The time tells apart
/// what a stream that was restored from a backup stores under a sequence that was given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub sequence: u64,
    pub time: DateTime<Utc>,
}

impl Position {
    /// Whether not both can be of one stream: this was stored later than `known`, at or below its place.
    /// By the clocks of two leaders it may only seem so.
    pub fn contradicts(self, known: Self) -> bool {
        self.sequence <= known.sequence && self.time > known.time
    }
}

impl StoredMessage {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position {
            sequence: self.sequence,
            time: self.time,
        }
    }
}
