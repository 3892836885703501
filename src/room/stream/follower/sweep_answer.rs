//! What a sweep's answer says: whether it is of the same stream, whether something is missing, and whether
//! that may still come by itself.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::incarnation::StreamIdentity;
use super::{Effect, Follower, FollowerPhase, LOOK_AGAIN};
use crate::nats::{AtPosition, Last, StreamState};

/// Something found missing that is younger than this may still be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How long a stream may seem shorter than it was, or older, before it is believed: a leader that is
/// cut off from the others answers with what it had until it steps down, after 10 to 20 s (nats-server looks
/// each 10 s whether it has heard nobody for 10 s).
const BELIEVED_AFTER: Duration = Duration::from_secs(25);

impl Follower {
    /// A sweep's answer. `wall` is the time that events' ages are measured by, `watched` whether
    /// anybody is there to miss something.
    pub(in crate::room) fn swept(
        &mut self,
        stream: &StreamState,
        lasts: Option<&[Last]>,
        seen: Option<AtPosition>,
        watched: bool,
        (now, wall): (Instant, DateTime<Utc>),
    ) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let misplaced = lasts.and_then(|lasts| self.latest_contradiction(lasts));
        if misplaced.is_some() && !pending.compares {
            self.rewound();
        }
        match self.identity(pending, stream, seen) {
            StreamIdentity::Same => {
                self.shorter_since = None;
                // By a leader whose clock was ahead.
                if let Some(misplaced) = misplaced {
                    self.cursor.saw(misplaced.time);
                }
                if pending.epoch == self.epoch {
                    self.is_doubted &= !pending.doubts;
                    self.judge_sweep(stream, lasts, watched, (now, wall));
                } else {
                    // It says nothing about what was stored while the connection was away.
                    self.sweep.again();
                }
            }
            StreamIdentity::Other => self.restart(pending, stream, now),
            StreamIdentity::Shorter => {
                let since = *self.shorter_since.get_or_insert(now);
                if now.saturating_duration_since(since) < BELIEVED_AFTER {
                    self.sweep.look_again(now, LOOK_AGAIN);
                } else {
                    self.restart(pending, stream, now);
                }
            }
            StreamIdentity::Outdated => self.sweep.again(),
        }
        if self.sweep.take_again() {
            self.request_sweep(true, now);
        }
    }

    fn judge_sweep(
        &mut self,
        stream: &StreamState,
        lasts: Option<&[Last]>,
        watched: bool,
        (now, wall): (Instant, DateTime<Utc>),
    ) {
        if !watched {
            self.buffer.clear();
            self.phase = FollowerPhase::Live;
            self.advance(stream.last(), now);
            // Nobody was there to hear of them.
            let times = lasts
                .unwrap_or_default()
                .iter()
                .map(|last| last.position.time);
            if let Some(time) = times.max() {
                self.cursor.saw(time);
            }
            return;
        }
        let missing = lasts.map(|lasts| self.missing(lasts, wall));
        let wait = matches!(missing, Some(Some(age)) if self.may_be_on_its_way(age, now));
        match (&self.phase, missing) {
            // The repair ends further than this sweep saw.
            (FollowerPhase::Repairing(_), _) => {}
            (FollowerPhase::Suspect(_), Some(None)) => {
                self.phase = FollowerPhase::Live;
                self.advance(stream.last(), now);
            }
            (FollowerPhase::Live, Some(None)) => self.advance(stream.last(), now),
            (FollowerPhase::Live, _) if wait => self.sweep.look_again(now, ON_ITS_WAY / 10),
            (FollowerPhase::Suspect(reason), _) => {
                let reason = *reason;
                self.count_aged_out(stream);
                self.repair(reason);
            }
            (FollowerPhase::Live, _) => {
                self.count_aged_out(stream);
                self.repair("sweep");
            }
        }
    }

    /// The age of the oldest last message that was not delivered, if there is one.
    fn missing(&self, lasts: &[Last], wall: DateTime<Utc>) -> Option<Duration> {
        lasts
            .iter()
            .filter(|last| self.cursor.is_new(&last.subject, last.position))
            // A negative age (clocks differ) counts as none.
            .map(|last| (wall - last.position.time).to_std().unwrap_or_default())
            .max()
    }

    fn may_be_on_its_way(&mut self, age: Duration, now: Instant) -> bool {
        // The age compares two clocks; the time since it was first found missing does not.
        let since = *self.missing_since.get_or_insert(now);
        age < ON_ITS_WAY && now.saturating_duration_since(since) < ON_ITS_WAY
    }

    /// What aged out above the watermark while nothing was heard can never be known.
    fn count_aged_out(&mut self, stream: &StreamState) {
        let from = self.cursor.watermark() + 1;
        if stream.first_sequence > from {
            let to = stream.first_sequence - 1;
            self.effects.push_back(Effect::AgedOut { from, to });
        }
    }
}
