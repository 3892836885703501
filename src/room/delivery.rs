//! Which events a room delivers, and when: it judges, holds, repairs, and proves that nothing is
//! missing. What becomes of one that is to be delivered stands in [`super::process`].

use std::time::{Duration, Instant};

use async_nats::Message;
use chrono::Utc;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::actor::{Asked, Phase, Repair, Room, SweepState};
use super::cursor::{Cursor, Offer};
use super::handle::Resync;
use crate::ingest::{Last, Live, Repaired, StreamState, SweepAsk, Swept, live_event};
use crate::telemetry::LiveDrop;

/// Each room is swept once in this time, give or take a quarter.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Something found missing that is younger than this may still be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// When to look again at what may be on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Live messages taken before a sweep's answer is judged: they may be what it finds missing.
const BEFORE_JUDGING: usize = 100_000;

impl SweepState {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            under_way: None,
            again: false,
            next: now + jittered(SWEEP_EVERY),
            missing_since: None,
            events: 0,
        }
    }
}

impl Room {
    /// A live message came.
    pub(super) fn event(&mut self, message: Message) {
        self.notice_reconnect();
        let Some(live) = live_event(message, &self.context.stream, &self.workspace) else {
            debug!(workspace = %self.workspace, "live message dropped");
            self.context.metrics.live_dropped(LiveDrop::Forged);
            return;
        };
        if matches!(self.phase, Phase::Live) && self.hold.is_empty() {
            self.judge(live);
        } else {
            self.hold.push(live);
        }
    }

    /// A message heard on another connection than the last one: what was stored between the two was
    /// not heard, so nothing is delivered before it is known what that was.
    pub(super) fn notice_reconnect(&mut self) {
        let epoch = self.context.link.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            match self.phase {
                Phase::Live => self.phase = Phase::Suspect,
                Phase::Suspect => {}
                // Its end may have been read before the break.
                Phase::Repairing(_) => self.suspect_after_repair = true,
            }
            self.ask_sweep(true);
        }
    }

    fn judge(&mut self, live: Live) {
        let subject = live.message.subject.as_str();
        if self.members.is_empty() {
            // Whoever comes later has a floor above this, so nothing below it needs repair.
            self.cursor.delivered(subject, live.message.sequence);
            return;
        }
        match self
            .cursor
            .offer(subject, live.message.sequence, live.previous)
        {
            Offer::Deliver => self.deliver(&live.message, None),
            Offer::Duplicate => self.context.metrics.event_duplicate(),
            Offer::Gap => {
                self.hold.put_back(live);
                self.repair("gap");
            }
        }
    }

    /// Begins to read everything above the watermark; live messages are held meanwhile.
    fn repair(&mut self, reason: &'static str) {
        debug!(workspace = %self.workspace, reason, "repair begun");
        self.context.metrics.repair(reason);
        let watermark = self.cursor.watermark();
        let told = self
            .context
            .repairer
            .start(self.workspace.clone(), watermark);
        self.phase = Phase::Repairing(Repair { told, reason });
    }

    pub(super) fn repaired(&mut self, repaired: Option<Repaired>) {
        match repaired {
            Some(Repaired::Message(message)) => {
                if self.cursor.is_new(&message.subject, message.sequence) {
                    let reason = match &self.phase {
                        Phase::Repairing(repair) => repair.reason,
                        // Only a repair tells of messages.
                        Phase::Live | Phase::Suspect => "gap",
                    };
                    self.deliver(&message, Some(reason));
                }
            }
            Some(Repaired::UpTo(sequence)) => {
                self.phase = Phase::Live;
                if std::mem::take(&mut self.suspect_after_repair) {
                    self.phase = Phase::Suspect;
                    self.advance(sequence);
                    self.ask_sweep(true);
                    return;
                }
                self.advance(sequence);
            }
            None => {
                // The repair ends without a word only when the gateway does.
                self.phase = Phase::Suspect;
            }
        }
    }

    /// Takes what was held while the room was not live, in order, until a gap shows or a socket is
    /// pressed. Until it is empty nothing else is taken.
    pub(super) fn release(&mut self) {
        while matches!(self.phase, Phase::Live) && self.pressed().is_none() {
            match self.hold.pop() {
                Some(live) => self.judge(live),
                None if self.hold.take_overflowed() => self.repair("overflow"),
                None => break,
            }
        }
    }

    fn advance(&mut self, sequence: u64) {
        self.cursor.advance(sequence);
        self.sweep.events = 0;
        self.sweep.missing_since = None;
        self.sweep.next = Instant::now() + jittered(SWEEP_EVERY);
        self.settle_barriers();
    }

    pub(super) fn barrier(&mut self, sequence: u64, answer: oneshot::Sender<()>) {
        self.barriers.push((sequence, answer));
        self.settle_barriers();
    }

    /// Answers barriers that are reached; asks for a sweep if some are not.
    fn settle_barriers(&mut self) {
        let reached = self.cursor.watermark();
        for (sequence, answer) in std::mem::take(&mut self.barriers) {
            if sequence <= reached {
                // Who asked may have run out of time.
                let _ = answer.send(());
            } else if !answer.is_closed() {
                self.barriers.push((sequence, answer));
            }
        }
        if !self.barriers.is_empty() && !matches!(self.phase, Phase::Repairing(_)) {
            self.ask_sweep(true);
        }
    }

    pub(super) fn resync(&mut self, why: Resync) {
        match why {
            // Each input looks for a reconnect; this one makes a room look that hears nothing else.
            Resync::Reconnected => self.notice_reconnect(),
            Resync::Doubt => self.ask_sweep(true),
        }
    }

    /// Asks for a sweep; if one is under way, for another after it.
    pub(super) fn ask_sweep(&mut self, urgent: bool) {
        if self.sweep.under_way.is_some() {
            self.sweep.again = true;
            return;
        }
        self.sweep.under_way = Some(Asked {
            epoch: self.epoch,
            watermark: self.cursor.watermark(),
        });
        self.sweep.next = Instant::now() + jittered(SWEEP_EVERY);
        self.context.sweeps.ask(SweepAsk {
            room: self.handle.clone(),
            held: self.claims.held().collect(),
            urgent,
        });
    }

    pub(super) fn swept(&mut self, swept: Swept) {
        let Some(asked) = self.sweep.under_way.take() else {
            return;
        };
        self.context.metrics.swept(1);
        if let Some(claims) = swept.claims {
            self.checked(claims);
        }
        // What the sweep finds may have come since, and wait in front of us.
        self.take_waiting_events(BEFORE_JUDGING);
        self.judge_sweep(asked, &swept.stream, swept.lasts.as_deref());
        if std::mem::take(&mut self.sweep.again) {
            self.ask_sweep(true);
        }
    }

    fn judge_sweep(&mut self, asked: Asked, stream: &StreamState, lasts: Option<&[Last]>) {
        if self.is_another_stream(asked, stream) {
            self.begin_anew(stream);
            return;
        }
        if asked.epoch != self.epoch {
            // It says nothing about what was stored while the connection was away.
            self.ask_sweep(true);
            return;
        }
        if self.members.is_empty() {
            self.hold.clear();
            self.phase = Phase::Live;
            self.advance(stream.last_sequence);
            return;
        }
        let missing = lasts.map(|lasts| self.missing(lasts));
        let wait = matches!(missing, Some(Some(age)) if self.may_be_on_its_way(age));
        match (&self.phase, missing) {
            // The repair ends further than this sweep saw.
            (Phase::Repairing(_), _) => {}
            (Phase::Suspect, Some(None)) => {
                self.phase = Phase::Live;
                self.advance(stream.last_sequence);
            }
            (Phase::Live, Some(None)) => self.advance(stream.last_sequence),
            (Phase::Live, _) if wait => {
                self.sweep.next = Instant::now() + LOOK_AGAIN;
            }
            (Phase::Suspect, _) => {
                self.count_aged_out(stream);
                self.repair("reconnect");
            }
            (Phase::Live, _) => self.repair("sweep"),
        }
    }

    /// The age of the oldest last message that was not delivered, if there is one.
    fn missing(&self, lasts: &[Last]) -> Option<Duration> {
        let now = Utc::now();
        lasts
            .iter()
            .filter(|last| self.cursor.is_new(&last.subject, last.sequence))
            // A negative age (clocks differ) counts as none.
            .map(|last| (now - last.time).to_std().unwrap_or_default())
            .max()
    }

    fn may_be_on_its_way(&mut self, age: Duration) -> bool {
        // The age compares two clocks; the time since it was first found missing does not.
        let since = *self.sweep.missing_since.get_or_insert_with(Instant::now);
        age < ON_ITS_WAY && since.elapsed() < ON_ITS_WAY
    }

    /// What aged out above the watermark while nothing was heard can never be known.
    fn count_aged_out(&self, stream: &StreamState) {
        let next = self.cursor.watermark() + 1;
        if stream.first_sequence > next {
            let sequences = stream.first_sequence - next;
            self.context.metrics.possibly_lost(sequences);
            warn!(
                workspace = %self.workspace,
                from = next,
                to = stream.first_sequence - 1,
                "events aged out before they could be read, some may be lost"
            );
        }
    }

    /// Whether the sequences are of another incarnation of the stream than the cursor's.
    fn is_another_stream(&mut self, asked: Asked, stream: &StreamState) -> bool {
        let known = *self.incarnation.get_or_insert(stream.created);
        known != stream.created || stream.last_sequence < asked.watermark
    }

    fn begin_anew(&mut self, stream: &StreamState) {
        warn!(
            workspace = %self.workspace,
            created = %stream.created,
            "stream was made anew, following it from its end"
        );
        self.incarnation = Some(stream.created);
        self.cursor = Cursor::new(stream.last_sequence);
        self.members.refloor(stream.last_sequence);
        self.hold.clear();
        self.phase = Phase::Live;
        self.suspect_after_repair = false;
        self.advance(stream.last_sequence);
        for (_, answer) in std::mem::take(&mut self.barriers) {
            // Its sequence is of the stream that is no more.
            let _ = answer.send(());
        }
        info!(workspace = %self.workspace, watermark = stream.last_sequence, "watermark set anew");
    }
}

/// `around`, give or take a quarter, so that rooms opened together do not stay together.
fn jittered(around: Duration) -> Duration {
    let quarter = around / 4;
    // The low bits of a random UUID: nothing here needs a better generator.
    let share = (uuid::Uuid::new_v4().as_u128() & 0xffff) as u32;
    around - quarter + (quarter * 2 / 0xffff) * share
}
