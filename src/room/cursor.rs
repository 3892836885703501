//! What a room has delivered: the pure type behind "exactly once, in order, nothing missing".
//!
//! The server says of each live message which sequence its *exact subject* had before. So a loss is
//! seen per subject, and only per subject: comparing with the room's highest sequence would let a
//! later event of another subject hide it.

use std::collections::HashMap;

/// The watermark V and, for each subject seen above it, the last sequence delivered.
///
/// Laws, each a property below:
/// 1. A sequence is delivered at most once.
/// 2. Within a subject, delivered sequences rise.
/// 3. While every stored message's predecessor chain is told truthfully, a message is delivered only
///    after all earlier ones of its subject above the starting V; otherwise the answer is a gap.
/// 4. V never falls, and entries at or below it are gone.
#[derive(Debug, Clone)]
pub struct Cursor {
    watermark: u64,
    last_by_subject: HashMap<Box<str>, u64>,
    highest: u64,
}

/// What to do with a live message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Deliver it, then call [`Cursor::delivered`].
    Deliver,
    /// It was delivered before, or is from before the room.
    Duplicate,
    /// An earlier message of its subject was not seen: repair first.
    Gap,
}

impl Cursor {
    /// A cursor that knows everything up to `watermark` as delivered or absent.
    pub fn new(watermark: u64) -> Self {
        Self {
            watermark,
            last_by_subject: HashMap::new(),
            highest: watermark,
        }
    }

    /// V: every event of the workspace up to it is delivered or known not to be there.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Subjects with an entry above V: what a sweep would forget.
    pub fn tracked(&self) -> usize {
        self.last_by_subject.len()
    }

    /// Whether a later event, of whatever subject, has been delivered: a delivery of `sequence` now
    /// would come late.
    pub fn is_late(&self, sequence: u64) -> bool {
        sequence < self.highest
    }

    /// Judges a live message by its own sequence and the previous one of its subject (0: none).
    pub fn offer(&self, subject: &str, sequence: u64, previous: u64) -> Offer {
        let seen = self.seen(subject);
        if sequence <= seen {
            Offer::Duplicate
        } else if previous > seen {
            Offer::Gap
        } else {
            Offer::Deliver
        }
    }

    /// Whether a message that was read from the stream in order is still to be delivered.
    pub fn is_new(&self, subject: &str, sequence: u64) -> bool {
        sequence > self.seen(subject)
    }

    /// Notes a delivery (or that nobody was there to deliver to).
    pub fn delivered(&mut self, subject: &str, sequence: u64) {
        self.highest = self.highest.max(sequence);
        if sequence <= self.watermark {
            return;
        }
        match self.last_by_subject.get_mut(subject) {
            Some(last) => *last = sequence.max(*last),
            None => {
                self.last_by_subject.insert(subject.into(), sequence);
            }
        }
    }

    /// Moves V up to `watermark`; a lower one changes nothing.
    pub fn advance(&mut self, watermark: u64) {
        if watermark > self.watermark {
            self.watermark = watermark;
            self.highest = self.highest.max(watermark);
            self.last_by_subject.retain(|_, last| *last > watermark);
        }
    }

    fn seen(&self, subject: &str) -> u64 {
        self.last_by_subject
            .get(subject)
            .map_or(self.watermark, |last| (*last).max(self.watermark))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lost_message_of_one_subject_is_not_hidden_by_another_subject() {
        let mut cursor = Cursor::new(10);
        // 11 of `a` is lost; 12 of `b` arrives and is in order for `b`.
        assert_eq!(cursor.offer("b", 12, 3), Offer::Deliver);
        cursor.delivered("b", 12);
        assert_eq!(cursor.offer("a", 13, 11), Offer::Gap);
        assert!(cursor.is_new("a", 11));
        assert!(cursor.is_late(11));
    }

    #[test]
    fn a_predecessor_from_before_the_room_is_no_gap() {
        let cursor = Cursor::new(10);
        assert_eq!(cursor.offer("a", 11, 10), Offer::Deliver);
        assert_eq!(cursor.offer("a", 11, 0), Offer::Deliver);
        assert_eq!(cursor.offer("a", 10, 0), Offer::Duplicate);
    }

    #[test]
    fn advancing_forgets_entries_and_never_falls() {
        let mut cursor = Cursor::new(0);
        cursor.delivered("a", 1);
        cursor.delivered("b", 2);
        cursor.advance(1);
        assert_eq!((cursor.watermark(), cursor.tracked()), (1, 1));
        cursor.advance(0);
        assert_eq!(cursor.watermark(), 1);
        assert_eq!(cursor.offer("a", 1, 0), Offer::Duplicate);
        assert_eq!(cursor.offer("b", 2, 0), Offer::Duplicate);
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
            let mut cursor = Cursor::new(start);
            let mut delivered: Vec<(String, u64)> = Vec::new();
            let repair = |cursor: &mut Cursor, delivered: &mut Vec<(String, u64)>, to: u64| {
                for (subject, sequence, _) in &stream {
                    if *sequence > cursor.watermark() && *sequence <= to && cursor.is_new(subject, *sequence) {
                        cursor.delivered(subject, *sequence);
                        delivered.push((subject.clone(), *sequence));
                    }
                }
                cursor.advance(to);
            };
            for ((subject, sequence, before), fate) in stream.iter().zip(&run.fates) {
                let copies = match fate { 0..=2 => 0, 3 => 2, _ => 1 };
                for _ in 0..copies {
                    match cursor.offer(subject, *sequence, *before) {
                        Offer::Deliver => {
                            cursor.delivered(subject, *sequence);
                            delivered.push((subject.clone(), *sequence));
                        }
                        Offer::Duplicate => {}
                        Offer::Gap => repair(&mut cursor, &mut delivered, *sequence),
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
