//! Whether the stream is the one that a room's sequences belong to, and what follows where it is not.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{Asked, Effect, Follower};
use crate::event::Mark;
use crate::ingest::{Last, Position, Seen, StreamState};

/// What a sweep's answer says of the stream's identity.
pub(super) enum Identity {
    Same,
    Other,
    /// Either another stream, or the word of a leader that is none any more.
    Unclear,
    /// It was asked before there was a doubt.
    Outdated,
}

impl Follower {
    /// The latest store time of a message that is no news by its sequence, if it is later than that of
    /// any event known.
    pub(super) fn later(&self, lasts: &[Last]) -> Option<DateTime<Utc>> {
        lasts
            .iter()
            .filter(|last| !self.cursor.is_new(&last.subject, last.mark))
            .map(|last| last.mark.time)
            .filter(|time| *time > self.cursor.latest())
            .max()
    }

    /// Whether the stream that was swept is the one that the sequences belong to. One that is made
    /// again has a later time of creation; one that is restored from a backup keeps its own, and gives
    /// sequences a second time.
    pub(super) fn identity(
        &mut self,
        asked: Asked,
        stream: &StreamState,
        seen: Option<Seen>,
    ) -> Identity {
        let known = *self.incarnation.get_or_insert(stream.created);
        if stream.created > known {
            return Identity::Other;
        }
        let is_shorter = stream.last_sequence < asked.newest;
        if self.is_rewound {
            if is_shorter || seen == Some(Seen::Other) || self.newest.sequence == 0 {
                return Identity::Other;
            }
            if !asked.compares {
                return Identity::Outdated;
            }
            self.is_rewound = false;
        }
        if stream.created == known && !is_shorter {
            Identity::Same
        } else {
            Identity::Unclear
        }
    }

    pub(super) fn begin_anew(&mut self, asked: Asked, stream: &StreamState, now: Instant) {
        let since = self.cursor.begin_anew(asked.latest, stream.last_time);
        self.incarnation = Some(stream.created);
        self.newest = Mark {
            sequence: 0,
            time: since,
        };
        self.highest_live = 0;
        self.is_rewound = false;
        self.unclear_since = None;
        self.suspect_after_repair = false;
        // The repair reads them: it begins after they were heard.
        self.hold.clear();
        self.effects.push_back(Effect::Anew(*stream));
        self.read(Position::Since(since), "anew");
        self.sweep.done(now);
    }
}
