//! What a room knows of the stream, and what it does about what it hears and reads. Pure: the time
//! comes in, and what is to be done goes out as [`Effect`]s and, one by one, as [`Delivery`]s.
//!
//! Live messages are delivered as they come. After a break of the connection they are buffered until a
//! sweep says what was missed; while a repair reads that from the stream, they wait behind it.

mod incarnation;
mod sweep_answer;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::duplicates_and_gaps::{Cursor, Judgement};
use super::reorder_buffer::ReorderBuffer;
use crate::event::{Position, StoredMessage};
use crate::nats::{LastKnown, Repaired, StreamState};
use crate::room::ReorderBudget;
use crate::room::schedule::Schedule;

/// How often it is looked again, by all rooms, at a leader that cannot be right or is none any more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// So many events above the watermark make a sweep due: a repair would read them all again.
const EVENTS_MAX: u64 = 10_000;
/// So many subjects above the watermark make a sweep due, which forgets them.
const TRACKED_MAX: usize = 4096;

/// Why a repair reads the stream: the `reason` of its metrics.
pub(in crate::room) type RepairReason = &'static str;

/// What the room is to do.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::room) enum Effect {
    /// Request a sweep, which also looks whether the stream still has this event where it was.
    Sweep {
        urgent: bool,
        known: Option<LastKnown>,
    },
    /// Begin to read what is above this in the stream that has this event; what is read goes to [`Follower::repaired`].
    Repair {
        above: u64,
        known: Position,
        reason: RepairReason,
    },
    /// Request the next batch of the repair under way.
    NextBatch,
    /// The connection to NATS is another one: something else than events may have been missed.
    Reconnected,
    /// A live message was delivered before.
    Duplicate,
    /// These sequences aged out before they could be read.
    AgedOut { from: u64, to: u64 },
    /// The stream is another one than before, and is followed from its last message on: what was stored in it
    /// before that is not delivered.
    OtherStream(StreamState),
}

/// One message to be delivered.
#[derive(Debug)]
pub(in crate::room) struct Delivery {
    pub(in crate::room) message: StoredMessage,
    /// Why a repair read it, if one did.
    pub(in crate::room) repair: Option<RepairReason>,
    /// A later event of another subject has been delivered.
    pub(in crate::room) is_late: bool,
}

/// How live messages are treated.
#[derive(Debug)]
enum FollowerPhase {
    /// Delivered as they come.
    Live,
    /// Buffered until a sweep says whether something was missed.
    Suspect(RepairReason),
    /// Buffered until what was missed has been read.
    Repairing(Repairing),
}

#[derive(Debug)]
struct Repairing {
    reason: RepairReason,
    batch: VecDeque<StoredMessage>,
    /// The next batch has been requested.
    is_requested: bool,
    /// The last of the batch: all up to there has been read, once it is taken.
    last: Option<Position>,
    /// The same of the last batch, whose end may be further.
    end: Option<Position>,
}

/// See the module's head.
#[derive(Debug)]
pub(in crate::room) struct Follower {
    cursor: Cursor,
    phase: FollowerPhase,
    buffer: ReorderBuffer,
    /// The connection that the cursor follows without a break.
    epoch: u64,
    /// The incarnation of the stream that the sequences belong to.
    incarnation: Option<DateTime<Utc>>,
    /// The highest sequence and the latest time heard live since the room was last suspect.
    heard: Option<Position>,
    /// A message contradicts what is known, as it does where the stream was rewound.
    is_rewound: bool,
    /// A sweep is to look whether the stream still has the last event that is known of it.
    is_doubted: bool,
    /// Since when the stream seems to be shorter, or older, than it was.
    shorter_since: Option<Instant>,
    /// When something was first found missing that might still be on its way.
    missing_since: Option<Instant>,
    /// The live message before which something was found missing last.
    gap: Option<u64>,
    sweep: Schedule,
    /// What was known when the sweep under way was requested.
    pending: Option<PendingSweep>,
    /// Events delivered since the watermark moved.
    events: u64,
    effects: VecDeque<Effect>,
}

#[derive(Debug, Clone, Copy)]
struct PendingSweep {
    epoch: u64,
    newest: u64,
    /// Nothing has said since that the stream was rewound.
    compares: bool,
    /// It was to be seen whether the stream has the last that is known of it.
    doubts: bool,
    /// The highest that was delivered since.
    delivered: Option<Position>,
}

impl Follower {
    /// Follows the stream from `start_position` on, heard on the connection `epoch`. `share` spreads the sweeps
    /// of rooms.
    pub(in crate::room) fn new(
        start_position: Position,
        epoch: u64,
        budget: ReorderBudget,
        share: u16,
        now: Instant,
    ) -> Self {
        Self {
            cursor: Cursor::new(start_position),
            phase: FollowerPhase::Live,
            buffer: ReorderBuffer::new(budget),
            epoch,
            incarnation: None,
            heard: None,
            is_rewound: false,
            is_doubted: false,
            shorter_since: None,
            missing_since: None,
            gap: None,
            sweep: Schedule::new(share, now),
            pending: None,
            events: 0,
            effects: VecDeque::new(),
        }
    }

    /// Every event of the workspace up to here is delivered or known not to be there.
    pub(in crate::room) fn watermark(&self) -> u64 {
        self.cursor.watermark()
    }

    /// Whether a repair is under way.
    pub(in crate::room) fn is_repairing(&self) -> bool {
        matches!(self.phase, FollowerPhase::Repairing(_))
    }

    /// Whether nothing is delivered before a sweep has answered.
    pub(in crate::room) fn is_suspect(&self) -> bool {
        matches!(self.phase, FollowerPhase::Suspect(_))
    }

    /// Whether live messages are delivered as they come.
    pub(in crate::room) fn is_live(&self) -> bool {
        matches!(self.phase, FollowerPhase::Live)
    }

    /// The next thing to do.
    pub(in crate::room) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Follower::time`] is due.
    pub(in crate::room) fn deadline(&self) -> Option<Instant> {
        self.pending.is_none().then(|| self.sweep.next())
    }

    /// A live message, heard on the connection `epoch`, in a room that is slowed or not.
    pub(in crate::room) fn heard(
        &mut self,
        live: StoredMessage,
        epoch: u64,
        is_slowed: bool,
        now: Instant,
    ) {
        self.connection(epoch, now);
        let message = live.position();
        let is_again = self
            .heard
            .is_some_and(|heard| message.sequence <= heard.sequence);
        let is_rewound = self.contradicts(&live.subject, message);
        if is_rewound || is_again {
            // The live path is in stream order: this is the second time, or of another stream.
            if is_rewound {
                self.rewound();
            }
            if matches!(self.phase, FollowerPhase::Live) {
                self.phase = FollowerPhase::Suspect("sweep");
            }
            self.request_sweep(true, now);
        }
        let heard = self.heard.get_or_insert(message);
        heard.sequence = heard.sequence.max(message.sequence);
        heard.time = heard.time.max(message.time);
        self.buffer.push(live, is_slowed);
    }

    /// Compares the connection with the one that the cursor follows. What was stored between the two
    /// was not heard, so nothing is delivered before it is known what that was.
    pub(in crate::room) fn connection(&mut self, epoch: u64, now: Instant) {
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        self.suspect("reconnect");
        self.effects.push_back(Effect::Reconnected);
        self.doubt(now);
    }

    /// Delivers nothing more before a sweep has said what the stream has. What is buffered or being read is
    /// dropped: it may be of an incarnation that is no more. If it is not, a repair reads it again.
    fn suspect(&mut self, reason: RepairReason) {
        let reason = match &self.phase {
            FollowerPhase::Live => reason,
            FollowerPhase::Suspect(reason) => reason,
            FollowerPhase::Repairing(repairing) => repairing.reason,
        };
        self.phase = FollowerPhase::Suspect(reason);
        self.is_doubted = true;
        self.buffer.clear();
        self.heard = None;
    }

    /// Something may be missing: looks now, and again a little later. The first look may come before
    /// the last of what was stored can be read, or, in a cluster, before every server knows again what
    /// this one subscribes to.
    pub(in crate::room) fn doubt(&mut self, now: Instant) {
        self.sweep.follow_up(now);
        self.request_sweep(true, now);
    }

    /// Requests a sweep; if one is under way, another one after it.
    pub(in crate::room) fn request_sweep(&mut self, urgent: bool, now: Instant) {
        if self.pending.is_some() {
            self.sweep.again();
            return;
        }
        self.pending = Some(PendingSweep {
            epoch: self.epoch,
            newest: self
                .heard
                .map_or(0, |heard| heard.sequence)
                .max(self.cursor.highest().sequence),
            compares: self.is_rewound,
            doubts: self.is_doubted,
            delivered: None,
        });
        self.sweep.requested(now);
        let known = self.known();
        self.effects.push_back(Effect::Sweep { urgent, known });
    }

    /// Does what is due.
    pub(in crate::room) fn time(&mut self, now: Instant) {
        if self.pending.is_none() && now >= self.sweep.next() {
            let urgent = !self.is_live() || self.missing_since.is_some();
            self.request_sweep(urgent, now);
        }
    }

    /// What comes of the repair under way; `None` if it ended without an end, as it does with the gateway.
    pub(in crate::room) fn repaired(&mut self, repaired: Option<Repaired>, now: Instant) {
        let FollowerPhase::Repairing(repairing) = &mut self.phase else {
            return;
        };
        match repaired {
            Some(Repaired::Batch(batch)) => {
                repairing.is_requested = false;
                repairing.end = batch.end;
                repairing.last = batch.messages.last().map(StoredMessage::position);
                repairing.batch = batch.messages.into();
            }
            Some(Repaired::OtherStream) => {
                self.rewound();
                self.request_sweep(true, now);
            }
            Some(Repaired::ShorterStream) => {
                self.phase = FollowerPhase::Suspect(repairing.reason);
                self.is_doubted = true;
                self.request_sweep(true, now);
            }
            None => self.phase = FollowerPhase::Suspect("reconnect"),
        }
    }

    /// The next message to be delivered. To be called while the sockets have room; `watched` says
    /// whether there are any.
    pub(in crate::room) fn deliver(&mut self, watched: bool, now: Instant) -> Option<Delivery> {
        loop {
            match &mut self.phase {
                FollowerPhase::Suspect(_) => return None,
                FollowerPhase::Repairing(repairing) => match repairing.batch.pop_front() {
                    Some(message) => {
                        let reason = repairing.reason;
                        if self.cursor.is_new(&message.subject, message.position()) {
                            return Some(self.delivery(message, Some(reason), now));
                        }
                    }
                    None => match repairing.end {
                        Some(end) => self.end_repair(end, now),
                        None => {
                            if let Some(last) = repairing.last.take() {
                                self.cursor.advance(last);
                            }
                            if !std::mem::replace(&mut repairing.is_requested, true) {
                                self.effects.push_back(Effect::NextBatch);
                            }
                            return None;
                        }
                    },
                },
                FollowerPhase::Live => match self.buffer.pop() {
                    Some(live) => {
                        if let Some(delivery) = self.judge(live, watched, now) {
                            return Some(delivery);
                        }
                    }
                    None if self.buffer.take_overflowed() => self.repair("overflow"),
                    None => return None,
                },
            }
        }
    }

    fn judge(&mut self, live: StoredMessage, watched: bool, now: Instant) -> Option<Delivery> {
        let subject = live.subject.as_str();
        if !watched {
            // A socket that joins later starts above this, so nothing below it needs repair.
            self.note(&live, now);
            return None;
        }
        match self.cursor.offer(
            subject,
            live.position(),
            live.last_sequence.unwrap_or_default(),
        ) {
            Judgement::Deliver => return Some(self.delivery(live, None, now)),
            Judgement::Duplicate => self.effects.push_back(Effect::Duplicate),
            Judgement::Gap => {
                let is_again = self.gap.replace(live.sequence) == Some(live.sequence);
                self.buffer.put_back(live);
                if is_again {
                    // What was read ends before what this message follows: by a leader that was
                    // replaced. Or the rest was deleted, or the message is not of the stream.
                    self.gap = None;
                    self.phase = FollowerPhase::Suspect("gap");
                    self.sweep.look_again(now, LOOK_AGAIN);
                } else {
                    self.repair("gap");
                }
            }
        }
        None
    }

    fn delivery(
        &mut self,
        message: StoredMessage,
        repair: Option<RepairReason>,
        now: Instant,
    ) -> Delivery {
        let is_late = self.cursor.is_late(message.position());
        self.note(&message, now);
        Delivery {
            message,
            repair,
            is_late,
        }
    }

    fn note(&mut self, message: &StoredMessage, now: Instant) {
        self.cursor.delivered(&message.subject, message.position());
        if let Some(pending) = &mut self.pending {
            let delivered = pending.delivered.get_or_insert(message.position());
            if message.sequence > delivered.sequence {
                *delivered = message.position();
            }
        }
        self.events += 1;
        // A repair ends where a sweep would begin.
        let is_full = self.events >= EVENTS_MAX || self.cursor.tracked() > TRACKED_MAX;
        if is_full && !self.is_repairing() {
            self.sweep.soon(now);
        }
    }

    /// Begins to read everything that is not delivered; live messages are buffered meanwhile.
    fn repair(&mut self, reason: RepairReason) {
        let known = self.cursor.highest();
        self.phase = FollowerPhase::Repairing(Repairing {
            reason,
            batch: VecDeque::new(),
            is_requested: true,
            last: None,
            end: None,
        });
        self.effects.push_back(Effect::Repair {
            above: self.cursor.watermark(),
            known,
            reason,
        });
    }

    fn end_repair(&mut self, end: Position, now: Instant) {
        self.advance(end, now);
        self.phase = FollowerPhase::Live;
    }

    fn advance(&mut self, watermark: Position, now: Instant) {
        self.cursor.advance(watermark);
        self.events = 0;
        self.missing_since = None;
        self.sweep.done(now);
    }
}
