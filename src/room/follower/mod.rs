//! What a room knows of the stream, and what it does about what it hears and reads. Pure: the time
//! comes in, and what is to be done goes out as [`Effect`]s and, one by one, as [`Delivery`]s.
//!
//! Live messages are delivered as they come. After a break of the connection they are held until a
//! sweep says what was missed; while a repair reads that from the stream, they wait behind it.

mod identity;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use self::identity::Identity;
use super::cursor::{Cursor, Offer};
use super::hold::{Hold, HoldBudget};
use super::schedule::SweepSchedule;
use crate::event::{Mark, StoredMessage};
use crate::ingest::{Last, Live, Position, RepairedBatch, Seen, StreamState};

/// Something found missing that is younger than this may still be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How long a stream may seem shorter than it was, or older, before it is believed: a leader that is
/// cut off from the others answers with what it had until it steps down, after 10 s.
const BELIEVED_AFTER: Duration = Duration::from_secs(15);
/// Events above the watermark that ask for a sweep: a repair would read them all again.
const EVENTS_MAX: u64 = 10_000;
/// Subjects tracked above the watermark that ask for a sweep, which forgets them.
const TRACKED_MAX: usize = 4096;

/// The harness of `make faults` can build a gateway that neither repairs nor sweeps, to see that its
/// auditor sees what is lost then.
const BLIND: bool = cfg!(feature = "blind");

/// Why a repair reads the stream: the `reason` of its metrics.
pub(super) type Reason = &'static str;

/// What the room is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Ask for a sweep, and whether the stream still has this event where it was.
    Sweep { urgent: bool, known: Option<Mark> },
    /// Begin to read the stream; the batches go to [`Follower::repaired`].
    Repair { from: Position, reason: Reason },
    /// Ask the repair under way for its next batch.
    NextBatch,
    /// A live message was delivered before.
    Duplicate,
    /// These sequences aged out before they could be read.
    AgedOut { from: u64, to: u64 },
    /// The stream is another one than before: sockets that are there get what was stored in it after
    /// their floor's time.
    Anew(StreamState),
}

/// One message to be delivered.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: StoredMessage,
    /// Why a repair read it, if one did.
    pub(super) repair: Option<Reason>,
    /// A later event of another subject has been delivered.
    pub(super) is_late: bool,
}

/// How live messages are treated.
#[derive(Debug)]
enum Phase {
    /// Delivered as they come.
    Live,
    /// Held until a sweep says whether something was missed.
    Suspect(Reason),
    /// Held until what was missed has been read.
    Repairing(Repairing),
}

#[derive(Debug)]
struct Repairing {
    reason: Reason,
    batch: VecDeque<StoredMessage>,
    /// The next batch has been asked for.
    asked: bool,
    /// All up to here has been read, once the batch is taken.
    end: Option<u64>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Follower {
    cursor: Cursor,
    phase: Phase,
    hold: Hold,
    /// The connection that the cursor follows without a break.
    epoch: u64,
    /// The connection broke during the repair under way.
    suspect_after_repair: bool,
    /// The incarnation of the stream that the sequences belong to.
    incarnation: Option<DateTime<Utc>>,
    /// The highest sequence heard live.
    highest_live: u64,
    /// The newest event known, heard, read or before the room.
    newest: Mark,
    /// A live message has a sequence that is taken, and a time that is later: the stream was rewound.
    is_rewound: bool,
    /// Since when the stream seems to be another one without a proof.
    unclear_since: Option<Instant>,
    /// When something was first found missing that might still be on its way.
    missing_since: Option<Instant>,
    sweep: SweepSchedule,
    /// What held when the sweep under way was asked for.
    asked: Option<Asked>,
    /// Events delivered since the watermark moved.
    events: u64,
    effects: VecDeque<Effect>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    epoch: u64,
    newest: u64,
    latest: DateTime<Utc>,
    /// The newest event is compared.
    compares: bool,
}

impl Follower {
    /// Follows the stream from `floor` on, heard on the connection `epoch`. `share` spreads the sweeps
    /// of rooms.
    pub(super) fn new(
        floor: Mark,
        epoch: u64,
        budget: HoldBudget,
        share: u16,
        now: Instant,
    ) -> Self {
        Self {
            cursor: Cursor::new(floor),
            phase: Phase::Live,
            hold: Hold::new(budget),
            epoch,
            suspect_after_repair: false,
            incarnation: None,
            highest_live: 0,
            newest: floor,
            is_rewound: false,
            unclear_since: None,
            missing_since: None,
            sweep: SweepSchedule::new(share, now),
            asked: None,
            events: 0,
            effects: VecDeque::new(),
        }
    }

    /// Every event of the workspace up to here is delivered or known not to be there.
    pub(super) fn watermark(&self) -> u64 {
        self.cursor.watermark()
    }

    /// Whether a repair is under way.
    pub(super) fn is_repairing(&self) -> bool {
        matches!(self.phase, Phase::Repairing(_))
    }

    /// Whether live messages are delivered as they come.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// The next thing to do.
    pub(super) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Follower::time`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.is_none().then(|| self.sweep.next())
    }

    /// A live message, heard on the connection `epoch`.
    pub(super) fn heard(&mut self, live: Live, epoch: u64, now: Instant) {
        self.connection(epoch, now);
        let message = live.message.mark();
        let is_rewound = message.time > self.cursor.latest()
            && !self.cursor.is_new(&live.message.subject, message);
        if (is_rewound || message.sequence <= self.highest_live) && !BLIND {
            // The live path is in stream order: this is the second time, or of another stream.
            self.is_rewound |= is_rewound;
            if matches!(self.phase, Phase::Live) {
                self.phase = Phase::Suspect("sweep");
            }
            self.ask_sweep(true, now);
        }
        self.highest_live = self.highest_live.max(message.sequence);
        self.hold.push(live);
    }

    /// Compares the connection with the one that the cursor follows. What was stored between the two
    /// was not heard, so nothing is delivered before it is known what that was.
    pub(super) fn connection(&mut self, epoch: u64, now: Instant) {
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        if BLIND {
            return;
        }
        match self.phase {
            Phase::Live => self.phase = Phase::Suspect("reconnect"),
            Phase::Suspect(_) => {}
            // Its end may have been read before the break.
            Phase::Repairing(_) => self.suspect_after_repair = true,
        }
        self.doubt(now);
    }

    /// Something may be missing: looks now, and again a little later. The first look may come before
    /// the last of what was stored can be read, or, in a cluster, before every server knows again what
    /// this one subscribes to.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.sweep.follow_up(now);
        self.ask_sweep(true, now);
    }

    /// Something did not come out right: a sweep a little later, and another.
    pub(super) fn look_later(&mut self, now: Instant) {
        self.sweep.follow_up(now);
    }

    /// Asks for a sweep; if one is under way, for another after it.
    pub(super) fn ask_sweep(&mut self, urgent: bool, now: Instant) {
        if BLIND {
            self.sweep.asked(now);
            return;
        }
        if self.asked.is_some() {
            self.sweep.again();
            return;
        }
        self.asked = Some(Asked {
            epoch: self.epoch,
            newest: self.newest.sequence,
            latest: self.cursor.latest(),
            compares: self.is_rewound,
        });
        self.sweep.asked(now);
        let known = self.is_rewound.then_some(self.newest);
        self.effects.push_back(Effect::Sweep { urgent, known });
    }

    /// Does what the time asks for.
    pub(super) fn time(&mut self, now: Instant) {
        if self.asked.is_none() && now >= self.sweep.next() {
            let urgent = !self.is_live() || self.missing_since.is_some();
            self.ask_sweep(urgent, now);
        }
    }

    /// A sweep's answer. `wall` is the time that events' ages are measured by, `watched` whether
    /// anybody is there to miss something.
    pub(super) fn swept(
        &mut self,
        stream: &StreamState,
        lasts: Option<&[Last]>,
        seen: Option<Seen>,
        watched: bool,
        (now, wall): (Instant, DateTime<Utc>),
    ) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let later = lasts.and_then(|lasts| self.later(lasts));
        self.is_rewound |= later.is_some();
        match self.identity(asked, stream, seen) {
            Identity::Same => {
                self.unclear_since = None;
                // By a leader whose clock was behind; or nobody was there to hear of it.
                if let Some(time) = later {
                    self.cursor.saw(time);
                }
                if asked.epoch == self.epoch {
                    self.judge_sweep(stream, lasts, watched, (now, wall));
                } else {
                    // It says nothing about what was stored while the connection was away.
                    self.sweep.again();
                }
            }
            Identity::Other => self.begin_anew(asked, stream, now),
            Identity::Unclear => {
                let since = *self.unclear_since.get_or_insert(now);
                if now.saturating_duration_since(since) < BELIEVED_AFTER {
                    self.sweep.look_again(now);
                } else {
                    self.begin_anew(asked, stream, now);
                }
            }
            Identity::Outdated => self.sweep.again(),
        }
        if self.sweep.take_again() {
            self.ask_sweep(true, now);
        }
    }

    /// A batch of the repair under way; `None` if it ended without an end, as it does with the gateway.
    pub(super) fn repaired(&mut self, batch: Option<RepairedBatch>) {
        match (&mut self.phase, batch) {
            (Phase::Repairing(repairing), Some(batch)) => {
                repairing.asked = false;
                repairing.end = batch.end;
                repairing.batch = batch.messages.into();
            }
            (phase @ Phase::Repairing(_), None) => *phase = Phase::Suspect("reconnect"),
            (Phase::Live | Phase::Suspect(_), _) => {}
        }
    }

    /// The next message to be delivered. To be called while the sockets have room; `watched` says
    /// whether there are any.
    pub(super) fn deliver(&mut self, watched: bool, now: Instant) -> Option<Delivery> {
        loop {
            match &mut self.phase {
                Phase::Suspect(_) => return None,
                Phase::Repairing(repairing) => match repairing.batch.pop_front() {
                    Some(message) => {
                        let reason = repairing.reason;
                        if self.cursor.is_new(&message.subject, message.mark()) {
                            return Some(self.delivery(message, Some(reason), now));
                        }
                    }
                    None => match repairing.end {
                        Some(end) => self.end_repair(end, now),
                        None => {
                            if !std::mem::replace(&mut repairing.asked, true) {
                                self.effects.push_back(Effect::NextBatch);
                            }
                            return None;
                        }
                    },
                },
                Phase::Live => match self.hold.pop() {
                    Some(live) => {
                        if let Some(delivery) = self.judge(live, watched, now) {
                            return Some(delivery);
                        }
                    }
                    None if self.hold.take_overflowed() => self.repair("overflow"),
                    None => return None,
                },
            }
        }
    }

    fn judge(&mut self, live: Live, watched: bool, now: Instant) -> Option<Delivery> {
        let subject = live.message.subject.as_str();
        if !watched {
            // Whoever comes later has a floor above this, so nothing below it needs repair.
            self.note(&live.message, now);
            return None;
        }
        match self
            .cursor
            .offer(subject, live.message.mark(), live.previous)
        {
            Offer::Deliver => return Some(self.delivery(live.message, None, now)),
            Offer::Duplicate => self.effects.push_back(Effect::Duplicate),
            Offer::Gap if BLIND => return Some(self.delivery(live.message, None, now)),
            Offer::Gap => {
                self.hold.put_back(live);
                self.repair("gap");
            }
        }
        None
    }

    fn delivery(
        &mut self,
        message: StoredMessage,
        repair: Option<Reason>,
        now: Instant,
    ) -> Delivery {
        let is_late = self.cursor.is_late(message.mark());
        self.note(&message, now);
        Delivery {
            message,
            repair,
            is_late,
        }
    }

    fn note(&mut self, message: &StoredMessage, now: Instant) {
        self.cursor.delivered(&message.subject, message.mark());
        if message.sequence > self.newest.sequence {
            self.newest = message.mark();
        }
        self.events += 1;
        // A repair ends where a sweep would begin.
        let is_full = self.events >= EVENTS_MAX || self.cursor.tracked() > TRACKED_MAX;
        if is_full && !self.is_repairing() {
            self.sweep.soon(now);
        }
    }

    /// Begins to read everything above the watermark; live messages are held meanwhile.
    fn repair(&mut self, reason: Reason) {
        self.read(Position::Above(self.cursor.watermark()), reason);
    }

    fn read(&mut self, from: Position, reason: Reason) {
        self.phase = Phase::Repairing(Repairing {
            reason,
            batch: VecDeque::new(),
            asked: true,
            end: None,
        });
        self.effects.push_back(Effect::Repair { from, reason });
    }

    fn end_repair(&mut self, end: u64, now: Instant) {
        self.advance(end, now);
        self.phase = Phase::Live;
        if std::mem::take(&mut self.suspect_after_repair) {
            self.phase = Phase::Suspect("reconnect");
            self.ask_sweep(true, now);
        }
    }

    fn advance(&mut self, watermark: u64, now: Instant) {
        self.cursor.advance(watermark);
        self.events = 0;
        self.missing_since = None;
        self.sweep.done(now);
    }

    fn judge_sweep(
        &mut self,
        stream: &StreamState,
        lasts: Option<&[Last]>,
        watched: bool,
        (now, wall): (Instant, DateTime<Utc>),
    ) {
        if !watched {
            self.hold.clear();
            self.phase = Phase::Live;
            self.advance(stream.last_sequence, now);
            return;
        }
        let missing = lasts.map(|lasts| self.missing(lasts, wall));
        let wait = matches!(missing, Some(Some(age)) if self.may_be_on_its_way(age, now));
        match (&self.phase, missing) {
            // The repair ends further than this sweep saw.
            (Phase::Repairing(_), _) => {}
            (Phase::Suspect(_), Some(None)) => {
                self.phase = Phase::Live;
                self.advance(stream.last_sequence, now);
            }
            (Phase::Live, Some(None)) => self.advance(stream.last_sequence, now),
            (Phase::Live, _) if wait => self.sweep.look_again(now),
            (Phase::Suspect(reason), _) => {
                let reason = *reason;
                self.count_aged_out(stream);
                self.repair(reason);
            }
            (Phase::Live, _) => {
                self.count_aged_out(stream);
                self.repair("sweep");
            }
        }
    }

    /// The age of the oldest last message that was not delivered, if there is one.
    fn missing(&self, lasts: &[Last], wall: DateTime<Utc>) -> Option<Duration> {
        lasts
            .iter()
            .filter(|last| self.cursor.is_new(&last.subject, last.mark))
            // A negative age (clocks differ) counts as none.
            .map(|last| (wall - last.mark.time).to_std().unwrap_or_default())
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
