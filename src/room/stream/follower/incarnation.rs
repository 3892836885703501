//! Whether the stream is the one that a room's sequences belong to, and what follows where it is not.

use std::time::Instant;

use super::{Cursor, Effect, Follower, PendingSweep};
use crate::event::Position;
use crate::nats::{AtPosition, Last, LastKnown, StreamState};

/// What a sweep's answer says of the stream's identity.
pub(super) enum StreamIdentity {
    Same,
    Other,
    /// Shorter or older: either another one, or as a leader has it that is none any more.
    Shorter,
    /// The sweep was requested before there was a doubt.
    Outdated,
}

impl Follower {
    /// Whether a message contradicts what was delivered or heard.
    pub(super) fn contradicts(&self, subject: &str, message: Position) -> bool {
        self.cursor.contradicts(subject, message)
            || self.heard.is_some_and(|heard| message.contradicts(heard))
    }

    /// The latest of the messages that contradict what is known.
    pub(super) fn latest_contradiction(&self, lasts: &[Last]) -> Option<Position> {
        lasts
            .iter()
            .filter(|last| self.contradicts(&last.subject, last.position))
            .map(|last| last.position)
            .max_by_key(|position| position.time)
    }

    /// Something says that the stream was rewound: sequences are given a second time.
    pub(super) fn rewound(&mut self) {
        self.is_rewound = true;
        if let Some(pending) = &mut self.pending {
            pending.compares = false;
        }
        self.suspect("sweep");
    }

    /// What a sweep is to look for in the stream. Nothing is delivered until it has answered.
    pub(super) fn known(&self) -> Option<LastKnown> {
        let known = self.cursor.highest();
        if !self.is_doubted {
            return None;
        }
        Some(if self.is_rewound {
            LastKnown::OutOfOrder(known)
        } else {
            LastKnown::BeforeBreak(known)
        })
    }

    /// Whether the stream that was swept is the one that the sequences belong to. One that is made
    /// again has a later time of creation; one that is restored from a backup keeps its own, and gives
    /// sequences a second time.
    pub(super) fn identity(
        &mut self,
        pending: PendingSweep,
        stream: &StreamState,
        seen: Option<AtPosition>,
    ) -> StreamIdentity {
        let known = *self.incarnation.get_or_insert(stream.created);
        let is_other = stream.created == known && seen == Some(AtPosition::Other);
        if stream.created > known || is_other {
            return StreamIdentity::Other;
        }
        if stream.created < known || stream.last_sequence < pending.newest {
            return if stream.is_replicated {
                StreamIdentity::Shorter
            } else {
                StreamIdentity::Other
            };
        }
        if self.is_rewound && !pending.compares {
            return StreamIdentity::Outdated;
        }
        self.is_rewound = false;
        StreamIdentity::Same
    }

    /// Follows another stream, from its last message on.
    pub(super) fn restart(&mut self, pending: PendingSweep, stream: &StreamState, now: Instant) {
        let last = stream.last();
        // What fitted in was delivered meanwhile. The repair finds out if it was of the stream before.
        let is_newer =
            |position: &Position| position.sequence > last.sequence && position.time > last.time;
        self.cursor = Cursor::new(pending.delivered.filter(is_newer).unwrap_or(last));
        self.incarnation = Some(stream.created);
        self.heard = None;
        self.is_rewound = false;
        self.is_doubted = false;
        self.shorter_since = None;
        // The repair reads what of it is of this stream: it begins after they were heard.
        self.buffer.clear();
        self.effects.push_back(Effect::OtherStream(*stream));
        self.repair("anew");
        self.sweep.done(now);
    }
}
