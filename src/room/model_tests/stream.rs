//! The stream, the way from it to a room, and the room's follower and pace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::Draw;
use crate::event::{Position, StoredMessage};
use crate::nats::{AtPosition, Last, LastKnown, Repaired, RepairedBatch, StreamState};
use crate::room::ReorderBudget;
use crate::room::pace::{EventPace, LATE_MAX};
use crate::room::stream::follower::{Effect, Follower};

/// What stands for the subjects of all other workspaces: their events take sequences, and no more.
const OTHERS: usize = 3;
/// The subject of what was deleted and still has its sequence.
const DELETED: usize = 4;

/// An event as the stream stores it.
#[derive(Debug, Clone)]
struct Stored {
    /// Tells apart what was stored under the same sequence.
    number: usize,
    subject: usize,
    position: Position,
    previous: u64,
    /// When it was stored.
    elapsed: Duration,
}

impl Stored {
    fn message(&self) -> StoredMessage {
        StoredMessage {
            subject: format!("ws.acme.custom.{}", self.subject).into(),
            sequence: self.position.sequence,
            time: self.position.time,
            last_sequence: Some(self.previous),
            headers: None,
            payload: self.number.to_string().into(),
        }
    }
}

/// The stream, the way from it to a room, and the room's follower.
pub(super) struct StreamModel {
    follower: Follower,
    epoch: u64,
    start: Instant,
    elapsed: Duration,
    created: DateTime<Utc>,
    /// The clocks of the leaders differ by so much. Only where they do not is the stream created again or
    /// restored: the times say what was delivered then, and which leader is to be believed. Nor is anything
    /// deleted there: whether the stream is another one is seen by what it has.
    skew: Duration,
    is_replicated: bool,
    /// The leader's clock is ahead of the others'.
    is_ahead: bool,
    stored: Vec<Stored>,
    numbers: usize,
    /// How often the stream was created again or restored.
    incarnations: usize,
    /// The first event of a stream that is another one is heard: it is how a room learns of that.
    is_first: bool,
    /// On the live path.
    on_its_way: Vec<Stored>,
    /// A sweep that is wanted, or its answer on its way.
    sweep: Option<(Option<LastKnown>, Option<SweepAnswer>)>,
    repair: Option<Repair>,
    wants_batch: bool,
    /// In the order of delivery: the event, whether it was said to be late, and when.
    delivered: Vec<(Stored, bool, Duration)>,
    pace: EventPace,
    /// Events a second; 0: without a limit.
    rate: u32,
    /// What came too late because of the pace.
    dropped: BTreeSet<usize>,
    /// What must have been delivered at the end.
    owed: BTreeSet<usize>,
    by_number: Vec<Stored>,
}

/// A repair under way.
struct Repair {
    above: u64,
    known: Option<Position>,
    /// Read with the first batch.
    end: Option<Position>,
}

type SweepAnswer = (StreamState, Vec<Last>, Option<AtPosition>);

impl StreamModel {
    pub(super) fn new(draw: &mut Draw) -> Self {
        let (skew, is_replicated) = [(0, false), (0, true), (10, true)][draw.below(3)];
        let start = Instant::now();
        let created = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let start_position = Position {
            sequence: 0,
            time: created,
        };
        Self {
            follower: Follower::new(start_position, 0, ReorderBudget::default(), 0, start),
            epoch: 0,
            start,
            elapsed: Duration::ZERO,
            created,
            skew: Duration::from_secs(skew),
            is_replicated,
            is_ahead: false,
            stored: Vec::new(),
            numbers: 0,
            incarnations: 0,
            is_first: false,
            on_its_way: Vec::new(),
            sweep: None,
            repair: None,
            wants_batch: false,
            delivered: Vec::new(),
            pace: EventPace::default(),
            rate: [0, 0, 0, 1][draw.below(4)],
            dropped: BTreeSet::new(),
            owed: BTreeSet::new(),
            by_number: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn wall(&self) -> DateTime<Utc> {
        // Each stored event is a moment later than the one before.
        DateTime::from_timestamp(1_000_000, 0).unwrap()
            + self.elapsed
            + Duration::from_millis(self.numbers as u64)
    }

    pub(super) fn advance(&mut self, draw: &mut Draw) {
        match draw.below(16) {
            0..=4 => {
                // More than the rate.
                let most = if self.rate > 0 { 8 } else { 1 };
                for _ in 0..1 + draw.below(most) {
                    self.publish(draw);
                }
            }
            5..=8 => {
                // From the front mostly: the live path keeps its order but where a leader changes.
                let reorders = draw.below(4) == 0;
                let index = if reorders {
                    draw.below(self.on_its_way.len())
                } else {
                    0
                };
                if index < self.on_its_way.len() {
                    let event = self.on_its_way.remove(index);
                    let copies = if draw.below(8) == 0 { 2 } else { 1 };
                    for _ in 0..copies {
                        self.hear(&event);
                        self.settle();
                    }
                }
            }
            9 => drop(draw.take(&mut self.on_its_way)),
            10 => {
                self.on_its_way.clear();
                self.reconnect();
            }
            11 => {
                // Now and then it is one that is cut off from the others.
                let is_behind = !self.skew.is_zero() && draw.below(8) == 0;
                self.read_sweep(if is_behind { draw.below(4) } else { 0 });
            }
            12 => self.answer_sweep(),
            13 => self.answer_repair(1 + draw.below(4)),
            14 => {
                self.elapsed += Duration::from_millis(1 + draw.below(3000) as u64);
                let now = self.now();
                self.follower.time(now);
            }
            _ => match draw.below(8) {
                0..=1 if !self.skew.is_zero() => self.is_ahead = !self.is_ahead,
                2 if !self.skew.is_zero() => self.purge(draw),
                0 if self.may_change() => self.restore(draw),
                1 if self.may_change() => self.recreate(draw),
                2 if self.may_change() => self.restore_unseen(draw),
                _ => {
                    let now = self.now();
                    self.follower.doubt(now);
                }
            },
        }
        self.settle();
    }

    fn publish(&mut self, draw: &mut Draw) {
        let subject = draw.below(OTHERS + 1);
        let previous = self
            .stored
            .iter()
            .rev()
            .find(|event| event.subject == subject);
        let previous = previous.map_or(0, |event| event.position.sequence);
        self.numbers += 1;
        let event = Stored {
            number: self.by_number.len(),
            subject,
            position: Position {
                sequence: self.stored.len() as u64 + 1,
                time: self.wall() + self.skew * u32::from(self.is_ahead),
            },
            previous,
            elapsed: self.elapsed,
        };
        self.by_number.push(event.clone());
        self.stored.push(event.clone());
        if subject == OTHERS {
            return;
        }
        self.owed.insert(event.number);
        if std::mem::take(&mut self.is_first) {
            self.hear(&event);
        } else {
            self.on_its_way.push(event);
        }
    }

    /// All of a subject is purged.
    fn purge(&mut self, draw: &mut Draw) {
        let subject = draw.below(OTHERS + 1);
        for event in &mut self.stored {
            if event.subject == subject {
                event.subject = DELETED;
                self.owed.remove(&event.number);
            }
        }
    }

    /// The stream is restored from a backup: it lacks its last events, and goes on from there. What it
    /// lost is owed to nobody any more.
    fn restore(&mut self, draw: &mut Draw) {
        let kept = draw.below(self.stored.len() + 1);
        self.lose(kept, draw);
        self.is_first = true;
    }

    /// The same while the connection is away, and so is what is stored before it is back.
    fn restore_unseen(&mut self, draw: &mut Draw) {
        let kept = draw.below(self.stored.len() + 1);
        self.lose(kept, draw);
        self.is_first = false;
        for _ in 0..draw.below(6) {
            self.publish(draw);
        }
        self.on_its_way.clear();
        self.reconnect();
    }

    fn recreate(&mut self, draw: &mut Draw) {
        self.lose(0, draw);
        self.is_first = true;
        self.numbers += 1;
        self.created = self.wall();
    }

    fn hear(&mut self, event: &Stored) {
        let (is_slowed, now) = (self.pace.is_pending(), self.now());
        let message = event.message();
        self.follower.heard(message, self.epoch, is_slowed, now);
    }

    fn reconnect(&mut self) {
        self.epoch += 1;
        let now = self.now();
        self.follower.connection(self.epoch, now);
    }

    /// Whether the stream may become another one: not a third time, while a room may still read the first.
    fn may_change(&self) -> bool {
        self.incarnations < 2
    }

    /// It takes a while, in which nobody answers and nothing new comes; what was answered before has
    /// come, and what was on its way, or it is lost.
    fn lose(&mut self, kept: usize, draw: &mut Draw) {
        for event in std::mem::take(&mut self.on_its_way) {
            if draw.below(2) == 0 {
                self.hear(&event);
                self.settle();
            }
        }
        self.answer_sweep();
        self.settle();
        self.incarnations += 1;
        for lost in self.stored.drain(kept..) {
            self.owed.remove(&lost.number);
        }
        self.elapsed += Duration::from_secs(1);
    }

    /// A leader that lacks the last `behind` events answers a sweep: the answer is on its way from then.
    fn read_sweep(&mut self, behind: usize) {
        let Some((known, answer @ None)) = &mut self.sweep else {
            return;
        };
        let stored = &self.stored[..self.stored.len().saturating_sub(behind)];
        let mut lasts: BTreeMap<usize, &Stored> = BTreeMap::new();
        for event in stored.iter().filter(|event| event.subject < OTHERS) {
            lasts.insert(event.subject, event);
        }
        let state = StreamState {
            created: self.created,
            first_sequence: 1,
            last_sequence: stored.len() as u64,
            last_time: stored
                .last()
                .map_or(self.created, |event| event.position.time),
            is_replicated: self.is_replicated,
        };
        let seen = known.map(|known| match known {
            LastKnown::BeforeBreak(known) | LastKnown::OutOfOrder(known) => seen(stored, known),
        });
        let lasts = lasts.into_values().map(|event| Last {
            subject: event.message().subject.to_string(),
            position: event.position,
        });
        *answer = Some((state, lasts.collect(), seen));
    }

    fn answer_sweep(&mut self) {
        if let Some((_, Some(_))) = &self.sweep
            && let Some((_, Some((state, lasts, seen)))) = self.sweep.take()
        {
            let at = (self.now(), self.wall());

            self.follower.swept(&state, Some(&lasts), seen, true, at);
        }
    }

    fn answer_repair(&mut self, most: usize) {
        let Some(mut repair) = self.repair.take_if(|_| self.wants_batch) else {
            return;
        };
        self.wants_batch = false;

        let last = self.stored.iter().rfind(|event| event.subject != DELETED);
        let end = *repair.end.get_or_insert(last.map_or(
            Position {
                sequence: self.stored.len() as u64,
                time: self.created,
            },
            |event| event.position,
        ));
        let read: Vec<&Stored> = self
            .stored
            .iter()
            .filter(|event| event.subject < OTHERS)
            .filter(|event| event.position.sequence > repair.above)
            .filter(|event| event.position.sequence <= end.sequence)
            .take(most)
            .collect();
        let now = self.now();
        for known in repair.known.take().into_iter().chain([end]) {
            let is_shorter = (self.stored.len() as u64) < known.sequence;
            let other = match seen(&self.stored, known) {
                AtPosition::Other => Some(Repaired::OtherStream),
                AtPosition::Gone if is_shorter => Some(Repaired::ShorterStream),
                AtPosition::Same | AtPosition::Gone => None,
            };
            if other.is_some() {
                return self.follower.repaired(other, now);
            }
        }
        let is_last = read.len() < most;
        let batch = RepairedBatch {
            messages: read.iter().map(|event| event.message()).collect(),
            end: is_last.then_some(end),
        };
        if let Some(last) = read.last() {
            repair.above = last.position.sequence;
        }
        if !is_last {
            self.repair = Some(repair);
        }
        self.follower.repaired(Some(Repaired::Batch(batch)), now);
    }

    /// What the room does after each input.
    fn settle(&mut self) {
        let now = self.now();
        while self.pace.until(|| now).is_none() {
            let Some(delivery) = self.follower.deliver(true, now) else {
                if self.follower.is_live() && self.on_its_way.is_empty() {
                    self.pace.caught_up();
                }
                break;
            };
            let number: usize = std::str::from_utf8(&delivery.message.payload)
                .unwrap()
                .parse()
                .unwrap();
            let event = self.by_number[number].clone();
            if self.pace.is_too_late(event.position.time, now) {
                // Each stored event is a moment later than the one before: less than a second in all.
                let age = self.elapsed - event.elapsed + self.skew + Duration::from_secs(1);
                assert!(age > LATE_MAX, "{number} was dropped after {age:?}");
                self.dropped.insert(number);
                continue;
            }
            self.pace.limit(self.rate);
            self.pace.gave(event.position.time, now);
            self.delivered.push((event, delivery.is_late, self.elapsed));
        }
        while let Some(effect) = self.follower.effect() {
            match effect {
                Effect::Sweep { known, .. } => self.sweep = Some((known, None)),
                Effect::Repair { above, known, .. } => {
                    self.repair = Some(Repair {
                        above,
                        known: Some(known),
                        end: None,
                    });
                    self.wants_batch = true;
                }
                Effect::NextBatch => self.wants_batch = self.repair.is_some(),
                Effect::OtherStream(_) => {
                    self.pace.interrupted();
                    assert!(self.incarnations > 0, "the stream is the same");
                    // What was stored before it was found may be missing.
                    let found = self.follower.watermark();
                    for event in &self.stored {
                        if event.position.sequence <= found {
                            self.owed.remove(&event.number);
                        }
                    }
                }
                Effect::Reconnected => self.pace.interrupted(),
                Effect::Duplicate | Effect::AgedOut { .. } => {}
            }
        }
    }

    /// The faults end: all that is under way comes to its end, a few minutes pass.
    pub(super) fn quiesce(&mut self) {
        for _ in 0..200 {
            self.on_its_way.clear();
            self.read_sweep(0);
            self.answer_sweep();
            self.settle();
            self.answer_repair(3);
            self.settle();
            self.elapsed += Duration::from_secs(2);
            let now = self.now();
            self.follower.time(now);
            self.settle();
        }
    }

    pub(super) fn judge(&self) -> Result<(), TestCaseError> {
        let numbers: Vec<usize> = self
            .delivered
            .iter()
            .map(|(event, ..)| event.number)
            .collect();
        let unique: BTreeSet<usize> = numbers.iter().copied().collect();
        prop_assert_eq!(
            unique.len(),
            numbers.len(),
            "something came twice: {:?}",
            numbers
        );
        let given = &unique | &self.dropped;
        prop_assert_eq!(given.len(), unique.len() + self.dropped.len());
        prop_assert!(self.rate > 0 || self.dropped.is_empty());
        let missing: Vec<_> = self.owed.difference(&given).collect();
        prop_assert!(
            missing.is_empty(),
            "{:?} did not come; {:?} did",
            missing,
            numbers
        );
        let mut highest = 0;
        let mut by_subject: BTreeMap<usize, usize> = BTreeMap::new();
        for (event, is_late, _) in &self.delivered {
            let before = by_subject.insert(event.subject, event.number);
            prop_assert!(
                before.is_none_or(|before| before < event.number),
                "{:?}",
                numbers
            );
            // A number is never given twice, so it is also the order across incarnations.
            prop_assert!(
                *is_late || event.number >= highest,
                "{} came late unseen",
                event.number
            );
            highest = highest.max(event.number);
        }
        self.judge_pace()
    }

    /// A second's worth may come at once, and then the rate.
    fn judge_pace(&self) -> Result<(), TestCaseError> {
        prop_assert!(!self.pace.is_slowed(), "the room has not caught up");
        let rate = f64::from(self.rate);
        let (mut left, mut before) = (rate, Duration::ZERO);
        // The first one says what the rate is.
        for (_, _, at) in self.delivered.iter().skip(1).filter(|_| self.rate > 0) {
            left = rate.min(left + (*at - before).as_secs_f64() * rate) - 1.0;
            before = *at;
            prop_assert!(left > -0.001, "more than {rate} a second");
        }
        Ok(())
    }
}

/// What the stream has where `known` was.
fn seen(stored: &[Stored], known: Position) -> AtPosition {
    if known.sequence == 0 {
        return AtPosition::Same;
    }
    let there = stored
        .iter()
        .find(|event| event.position.sequence == known.sequence);
    match there {
        Some(event) if event.subject == DELETED => AtPosition::Gone,
        Some(event) if event.position == known => AtPosition::Same,
        Some(_) => AtPosition::Other,
        None => AtPosition::Gone,
    }
}
