//! The stream, the way from it to a room, and the room's follower.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::Draw;
use crate::event::{Mark, StoredMessage, WorkspaceSlug};
use crate::ingest::{Last, Live, Position, RepairedBatch, Seen, StreamState};
use crate::room::follower::{Effect, Follower};
use crate::room::hold::HoldBudget;

/// An event as the stream stores it.
#[derive(Debug, Clone)]
struct Stored {
    /// Tells apart what was stored under the same sequence.
    number: usize,
    subject: usize,
    mark: Mark,
    previous: u64,
}

impl Stored {
    fn message(&self) -> StoredMessage {
        StoredMessage {
            workspace: WorkspaceSlug::parse("acme").unwrap(),
            subject: format!("ws.acme.custom.{}", self.subject).into(),
            sequence: self.mark.sequence,
            time: self.mark.time,
            headers: None,
            payload: self.number.to_string().into(),
        }
    }

    fn live(&self) -> Live {
        Live {
            message: self.message(),
            previous: self.previous,
        }
    }
}

/// The stream, the way from it to a room, and the room's follower.
pub(super) struct Stream {
    follower: Follower,
    epoch: u64,
    start: Instant,
    elapsed: Duration,
    created: DateTime<Utc>,
    stored: Vec<Stored>,
    numbers: usize,
    /// The first event of a stream that is another one is heard: it is how a room learns of that.
    is_first: bool,
    /// On the live path.
    on_its_way: Vec<Stored>,
    /// A sweep asked for, or its answer on its way.
    sweep: Option<(Option<Mark>, Option<SweepAnswer>)>,
    repair: Option<(Position, u64)>,
    wants_batch: bool,
    /// In the order of delivery: the event and whether it was said to be late.
    delivered: Vec<(Stored, bool)>,
    /// What must have been delivered at the end.
    owed: BTreeSet<usize>,
    by_number: Vec<Stored>,
}

type SweepAnswer = (StreamState, Vec<Last>, Option<Seen>);

impl Stream {
    pub(super) fn new() -> Self {
        let start = Instant::now();
        let created = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let floor = Mark {
            sequence: 0,
            time: created,
        };
        Self {
            follower: Follower::new(floor, 0, HoldBudget::default(), 0, start),
            epoch: 0,
            start,
            elapsed: Duration::ZERO,
            created,
            stored: Vec::new(),
            numbers: 0,
            is_first: false,
            on_its_way: Vec::new(),
            sweep: None,
            repair: None,
            wants_batch: false,
            delivered: Vec::new(),
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

    pub(super) fn step(&mut self, draw: &mut Draw) {
        match draw.below(16) {
            0..=4 => self.publish(draw),
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
                        let now = self.now();
                        self.follower.heard(event.live(), self.epoch, now);
                        self.settle();
                    }
                }
            }
            9 => drop(draw.take(&mut self.on_its_way)),
            10 => {
                self.epoch += 1;
                self.on_its_way.clear();
                let now = self.now();
                self.follower.connection(self.epoch, now);
            }
            11 => self.read_sweep(),
            12 => self.answer_sweep(),
            13 => self.answer_repair(1 + draw.below(4)),
            14 => {
                self.elapsed += Duration::from_millis(1 + draw.below(3000) as u64);
                let now = self.now();
                self.follower.time(now);
            }
            _ => match draw.below(12) {
                0 => self.restore(draw),
                1 => self.make_anew(),
                _ => {
                    let now = self.now();
                    self.follower.doubt(now);
                }
            },
        }
        self.settle();
    }

    fn publish(&mut self, draw: &mut Draw) {
        let subject = draw.below(3);
        let previous = self
            .stored
            .iter()
            .rev()
            .find(|event| event.subject == subject);
        let previous = previous.map_or(0, |event| event.mark.sequence);
        self.numbers += 1;
        let event = Stored {
            number: self.by_number.len(),
            subject,
            mark: Mark {
                sequence: self.stored.len() as u64 + 1,
                time: self.wall(),
            },
            previous,
        };
        self.owed.insert(event.number);
        self.by_number.push(event.clone());
        self.stored.push(event.clone());
        if std::mem::take(&mut self.is_first) {
            let now = self.now();
            self.follower.heard(event.live(), self.epoch, now);
        } else {
            self.on_its_way.push(event);
        }
    }

    /// The stream is restored from a backup: it lacks its last events, and goes on from there. What it
    /// lost is owed to nobody any more. Only what was on its way may still come.
    fn restore(&mut self, draw: &mut Draw) {
        let kept = draw.below(self.stored.len() + 1);
        self.lose(kept);
    }

    fn make_anew(&mut self) {
        self.lose(0);
        self.numbers += 1;
        self.created = self.wall();
    }

    /// It takes a while, in which nobody answers and nothing new comes; what was read before has come.
    fn lose(&mut self, kept: usize) {
        self.quiesce();
        for lost in self.stored.drain(kept..) {
            self.owed.remove(&lost.number);
        }
        self.is_first = true;
    }

    /// A replica answers a sweep: the answer is on its way from then.
    fn read_sweep(&mut self) {
        let Some((known, answer @ None)) = &mut self.sweep else {
            return;
        };
        let mut lasts: BTreeMap<usize, &Stored> = BTreeMap::new();
        for event in &self.stored {
            lasts.insert(event.subject, event);
        }
        let state = StreamState {
            created: self.created,
            first_sequence: 1,
            last_sequence: self.stored.len() as u64,
            last_time: self
                .stored
                .last()
                .map_or(self.created, |event| event.mark.time),
        };
        let seen = known.map(|known| {
            let there = self
                .stored
                .iter()
                .find(|event| event.mark.sequence == known.sequence);
            match there {
                Some(event) if event.mark == known => Seen::Same,
                Some(_) => Seen::Other,
                None => Seen::Gone,
            }
        });
        let lasts = lasts.into_values().map(|event| Last {
            subject: event.message().subject.to_string(),
            mark: event.mark,
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
        let Some((from, end)) = self.repair.filter(|_| self.wants_batch) else {
            return;
        };
        let wanted = |event: &&Stored| match from {
            Position::Above(done) => event.mark.sequence > done,
            Position::Since(time) => event.mark.time >= time,
        };
        let read: Vec<&Stored> = self
            .stored
            .iter()
            .filter(wanted)
            .filter(|event| event.mark.sequence <= end)
            .take(most)
            .collect();
        let is_last = read.len() < most;
        if let Some(last) = read.last() {
            self.repair = Some((Position::Above(last.mark.sequence), end));
        }
        let batch = RepairedBatch {
            messages: read.iter().map(|event| event.message()).collect(),
            end: is_last.then_some(end),
        };
        self.wants_batch = false;
        if is_last {
            self.repair = None;
        }
        self.follower.repaired(Some(batch));
    }

    /// What the room does after each input.
    fn settle(&mut self) {
        let now = self.now();
        while let Some(delivery) = self.follower.deliver(true, now) {
            let number: usize = std::str::from_utf8(&delivery.message.payload)
                .unwrap()
                .parse()
                .unwrap();
            self.delivered
                .push((self.by_number[number].clone(), delivery.is_late));
        }
        while let Some(effect) = self.follower.effect() {
            match effect {
                Effect::Sweep { known, .. } => self.sweep = Some((known, None)),
                Effect::Repair { from, .. } => {
                    self.repair = Some((from, self.stored.len() as u64));
                    self.wants_batch = true;
                }
                Effect::NextBatch => self.wants_batch = self.repair.is_some(),
                Effect::Duplicate | Effect::AgedOut { .. } | Effect::Anew(_) => {}
            }
        }
    }

    /// The faults end: all that is under way comes to its end, a few minutes pass.
    pub(super) fn quiesce(&mut self) {
        for _ in 0..200 {
            self.on_its_way.clear();
            self.read_sweep();
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
            .map(|(event, _)| event.number)
            .collect();
        let unique: BTreeSet<usize> = numbers.iter().copied().collect();
        prop_assert_eq!(
            unique.len(),
            numbers.len(),
            "something came twice: {:?}",
            numbers
        );
        let missing: Vec<_> = self.owed.difference(&unique).collect();
        prop_assert!(
            missing.is_empty(),
            "{:?} did not come; {:?} did",
            missing,
            numbers
        );
        let mut highest = 0;
        let mut by_subject: BTreeMap<usize, usize> = BTreeMap::new();
        for (event, is_late) in &self.delivered {
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
        Ok(())
    }
}
