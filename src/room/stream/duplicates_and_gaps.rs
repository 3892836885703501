//! Whether an event is to be delivered, is a duplicate, or shows a gap: the pure type behind "exactly once, in order,
//! nothing missing".
//!
//! The server says of each live message which sequence its *exact subject* had before. So a loss is
//! seen per subject, and only per subject: comparing with the room's highest sequence would let a
//! later event of another subject hide it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::event::Position;

/// The watermark V and, for each subject seen above it, the last sequence delivered.
///
/// What it promises, each a property below:
/// 1. A sequence is delivered at most once.
/// 2. Within a subject, delivered sequences rise.
/// 3. While every stored message's predecessor is said truthfully, a message is delivered only
///    after all earlier ones of its subject above the starting V; otherwise the answer is a gap.
/// 4. V never falls, and entries at or below it are gone.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    /// V, and the latest store time of what is at or below it: with the clocks of more than one leader that
    /// need not be its own.
    watermark: Position,
    /// Of each the last sequence, and the latest store time.
    last_by_subject: HashMap<Box<str>, Position>,
    /// The highest known to be in the stream: delivered, or at the watermark.
    highest: Position,
}

/// What to do with a live message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Deliver it, then call [`Cursor::delivered`].
    Deliver,
    /// It was delivered before, or is from before the room.
    Duplicate,
    /// An earlier message of its subject was not seen: repair first.
    Gap,
}

impl Cursor {
    /// A cursor that knows everything up to `start_position` as delivered or absent.
    pub(super) fn new(start_position: Position) -> Self {
        Self {
            watermark: start_position,
            last_by_subject: HashMap::new(),
            highest: start_position,
        }
    }

    /// V: every event of the workspace up to it is delivered or known not to be there.
    pub(super) fn watermark(&self) -> u64 {
        self.watermark.sequence
    }

    /// The last event of the stream that is known, of whatever workspace; sequence 0 if none is.
    pub(super) fn highest(&self) -> Position {
        self.highest
    }

    /// Subjects with an entry above V: what a sweep would forget.
    pub(super) fn tracked(&self) -> usize {
        self.last_by_subject.len()
    }

    /// Whether a later event, of whatever subject, has been delivered: a delivery of `message` now
    /// would come late.
    pub(super) fn is_late(&self, message: Position) -> bool {
        message.sequence < self.highest.sequence
    }

    /// Whether `message` contradicts what is known: either the stream was rewound, or the clocks of two
    /// leaders differ.
    pub(super) fn contradicts(&self, subject: &str, message: Position) -> bool {
        let last = self.last_by_subject.get(subject);
        message.contradicts(self.watermark) || last.is_some_and(|last| message.contradicts(*last))
    }

    /// What was stored at `time` is at or below the watermark: by a clock that is ahead of its.
    pub(super) fn saw(&mut self, time: DateTime<Utc>) {
        self.watermark.time = self.watermark.time.max(time);
    }

    /// Judges a live message by where it stands and the previous sequence of its subject (0: none).
    pub(super) fn offer(&self, subject: &str, message: Position, previous: u64) -> Judgement {
        let seen = self.seen(subject);
        if message.sequence <= seen {
            Judgement::Duplicate
        } else if previous > seen {
            Judgement::Gap
        } else {
            Judgement::Deliver
        }
    }

    /// Whether a message that was read from the stream in order is still to be delivered.
    pub(super) fn is_new(&self, subject: &str, message: Position) -> bool {
        message.sequence > self.seen(subject)
    }

    /// Notes a delivery (or that nobody was there to deliver to).
    pub(super) fn delivered(&mut self, subject: &str, message: Position) {
        if message.sequence > self.highest.sequence {
            self.highest = message;
        }
        if message.sequence <= self.watermark.sequence {
            return;
        }
        match self.last_by_subject.get_mut(subject) {
            Some(last) if message.sequence > last.sequence => {
                last.sequence = message.sequence;
                last.time = last.time.max(message.time);
            }
            Some(_) => {}
            None => {
                self.last_by_subject.insert(subject.into(), message);
            }
        }
    }

    /// Moves V up to `watermark`; a lower one changes nothing.
    pub(super) fn advance(&mut self, watermark: Position) {
        if watermark.sequence <= self.watermark.sequence {
            return;
        }
        // The server's word counts more than a message's.
        if watermark.sequence >= self.highest.sequence {
            self.highest = watermark;
        }
        let mut time = watermark.time.max(self.watermark.time);
        self.last_by_subject.retain(|_, last| {
            let is_above = last.sequence > watermark.sequence;
            if !is_above {
                time = last.time.max(time);
            }
            is_above
        });
        self.watermark = Position { time, ..watermark };
    }

    fn seen(&self, subject: &str) -> u64 {
        self.last_by_subject
            .get(subject)
            .map_or(0, |last| last.sequence)
            .max(self.watermark.sequence)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    /// An event's position.
    fn position(sequence: u64, time: i64) -> Position {
        Position {
            sequence,
            time: DateTime::from_timestamp_nanos(time),
        }
    }

    /// An event's position; a later one is stored a moment later.
    fn at(sequence: u64) -> Position {
        position(sequence, sequence.cast_signed())
    }

    #[test]
    fn what_was_stored_later_at_or_below_a_known_place_contradicts_it() {
        let mut cursor = Cursor::new(position(10, 10));
        // By a leader whose clock is ahead; the next leader's is not.
        cursor.delivered("a", position(12, 20));
        cursor.advance(position(13, 13));
        assert_eq!(cursor.highest(), position(13, 13));
        for (subject, message, contradicts) in [
            ("a", position(12, 20), false),
            ("b", position(11, 11), false),
            ("b", position(12, 21), true),
            ("b", position(14, 30), false),
        ] {
            let found = cursor.contradicts(subject, message);
            assert_eq!(found, contradicts, "{message:?}");
        }
    }

    #[test]
    fn a_lost_message_of_one_subject_is_not_hidden_by_another_subject() {
        let mut cursor = Cursor::new(at(10));
        // 11 of `a` is lost; 12 of `b` arrives and is in order for `b`.
        assert_eq!(cursor.offer("b", at(12), 3), Judgement::Deliver);
        cursor.delivered("b", at(12));
        assert_eq!(cursor.offer("a", at(13), 11), Judgement::Gap);
        assert!(cursor.is_new("a", at(11)));
        assert!(cursor.is_late(at(11)));
    }

    #[test]
    fn a_predecessor_from_before_the_room_is_no_gap() {
        let cursor = Cursor::new(at(10));
        assert_eq!(cursor.offer("a", at(11), 10), Judgement::Deliver);
        assert_eq!(cursor.offer("a", at(11), 0), Judgement::Deliver);
        assert_eq!(cursor.offer("a", at(10), 0), Judgement::Duplicate);
    }

    #[test]
    fn advancing_forgets_entries_and_never_falls() {
        let mut cursor = Cursor::new(at(0));
        cursor.delivered("a", at(1));
        cursor.delivered("b", at(2));
        cursor.advance(at(1));
        assert_eq!((cursor.watermark(), cursor.tracked()), (1, 1));
        cursor.advance(at(0));
        assert_eq!(cursor.watermark(), 1);
        assert_eq!(cursor.offer("a", at(1), 0), Judgement::Duplicate);
        assert_eq!(cursor.offer("b", at(2), 0), Judgement::Duplicate);
    }

    /// A stream of messages over few subjects, and for each what the network does to its republish.
    #[derive(Debug, Clone)]
    struct Run {
        subjects: Vec<u8>,
        fates: Vec<u8>,
        start: usize,
    }

    fn runs() -> impl Strategy<Value = Run> {
        (1usize..60).prop_flat_map(|length| {
            (
                proptest::collection::vec(0u8..4, length),
                proptest::collection::vec(0u8..10, length),
                0..length,
            )
                .prop_map(|(subjects, fates, start)| Run {
                    subjects,
                    fates,
                    start,
                })
        })
    }

    proptest! {
        /// With any loss and duplication of republished messages, repair on every gap and one last
        /// sweep deliver each message above the start exactly once, in order within its subject.
        #[test]
        fn every_stored_message_is_delivered_once_and_in_subject_order(run in runs()) {
            let mut previous: HashMap<u8, u64> = HashMap::new();
            let stream: Vec<(String, u64, u64)> = run.subjects.iter().enumerate().map(|(index, subject)| {
                let sequence = index as u64 + 1;
                (subject.to_string(), sequence, previous.insert(*subject, sequence).unwrap_or(0))
            }).collect();
            let start = run.start as u64;
            let mut cursor = Cursor::new(at(start));
            let mut delivered: Vec<(String, u64)> = Vec::new();
            let repair = |cursor: &mut Cursor, delivered: &mut Vec<(String, u64)>, to: u64| {
                for (subject, sequence, _) in &stream {
                    if *sequence > cursor.watermark() && *sequence <= to && cursor.is_new(subject, at(*sequence)) {
                        cursor.delivered(subject, at(*sequence));
                        delivered.push((subject.clone(), *sequence));
                    }
                }
                cursor.advance(at(to));
            };
            for ((subject, sequence, before), fate) in stream.iter().zip(&run.fates) {
                let copies = match fate { 0..=2 => 0, 3 => 2, _ => 1 };
                for _ in 0..copies {
                    match cursor.offer(subject, at(*sequence), *before) {
                        Judgement::Deliver => {
                            cursor.delivered(subject, at(*sequence));
                            delivered.push((subject.clone(), *sequence));
                        }
                        Judgement::Duplicate => {}
                        Judgement::Gap => repair(&mut cursor, &mut delivered, *sequence),
                    }
                }
            }
            let watermark = cursor.watermark();
            repair(&mut cursor, &mut delivered, stream.len() as u64);
            prop_assert!(cursor.watermark() >= watermark);
            prop_assert_eq!(cursor.tracked(), 0);

            let unique: BTreeSet<u64> = delivered.iter().map(|(_, sequence)| *sequence).collect();
            prop_assert_eq!(unique.len(), delivered.len());
            prop_assert_eq!(unique, (start + 1..=stream.len() as u64).collect::<BTreeSet<_>>());
            let mut last: HashMap<&str, u64> = HashMap::new();
            for (subject, sequence) in &delivered {
                let before = last.insert(subject, *sequence).unwrap_or(0);
                prop_assert!(before < *sequence, "{} came after {}", sequence, before);
            }
        }
    }
}
