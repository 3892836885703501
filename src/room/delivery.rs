//! What a room does for its [`super::follower`]: sweeps and repairs are asked for, events delivered.
//! What becomes of an event that is to be delivered stands in [`super::process`].

use std::time::Instant;

use async_nats::Message;
use chrono::Utc;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tracing::{debug, warn};

use super::actor::{Room, Until};
use super::follower::Effect;
use super::shards::ShardReport;
use crate::nats::{Repaired, SUBSCRIPTION_CAPACITY, StreamState, SweepRequest, Swept, live_event};
use crate::telemetry::LiveDrop;

/// Live messages taken before a sweep's answer is judged: they may be what it finds missing. A subscription
/// holds no more, and one is being filled meanwhile.
const BEFORE_JUDGING: usize = 2 * SUBSCRIPTION_CAPACITY;

impl Room {
    /// A live message came.
    pub(super) fn event(&mut self, message: Message, now: Instant) {
        let Some(live) = live_event(message, &self.context.names, &self.workspace) else {
            debug!(workspace = %self.workspace, "live message dropped");
            self.context.metrics.live_dropped(LiveDrop::Forged);
            return;
        };
        self.affinity.took_event();
        let epoch = self.context.nats.epoch();
        self.follower.heard(live, epoch, now);
    }

    /// Looks for a reconnect: each input does, since a message may come before anyone tells of it.
    pub(super) fn notice_reconnect(&mut self, now: Instant) {
        let epoch = self.context.nats.epoch();
        self.follower.connection(epoch, now);
    }

    /// Delivers what can be, until a socket is pressed, and does what the follower asks for. Whether nothing is left
    /// that could be. `now` is when it begins, which is near enough for when to look again.
    pub(super) fn proceed(&mut self, until: Until, now: Instant) -> bool {
        let before = self.follower.watermark();
        let mut is_done = false;
        while (until == Until::End || !self.turn.is_over()) && self.pressed().is_none() {
            let watched = !self.members.is_empty();
            match self.follower.deliver(watched, now) {
                Some(delivery) => self.deliver(&delivery),
                None => {
                    is_done = true;
                    break;
                }
            }
        }
        if let Some(last) = self.batch.last() {
            let made_at = last.frame.made.at;
            self.flush(made_at);
        }
        if self.follower.watermark() != before {
            self.settle_barriers();
        }
        if !self.follower.is_repairing() {
            self.repair = None;
        }
        while let Some(effect) = self.follower.effect() {
            self.act(&effect);
        }
        is_done
    }

    fn act(&mut self, effect: &Effect) {
        match *effect {
            Effect::Sweep { urgent, known } => {
                self.context.sweeps.send(SweepRequest {
                    workspace: self.workspace.clone(),
                    answer: self.swept.sender.clone(),
                    traffic: self.handle.traffic(),
                    urgent,
                    known,
                });
            }
            // It may have lost claims too.
            Effect::Reconnected => self.doubt_claims(Instant::now()),
            Effect::Repair {
                above,
                known,
                reason,
            } => {
                debug!(workspace = %self.workspace, reason, "repair begun");
                self.context.metrics.repair(reason);
                let workspace = self.workspace.clone();
                let repairer = &self.context.repairer;
                self.repair = Some(repairer.start(workspace, (above, known), reason));
            }
            Effect::NextBatch => {
                if let Some(repair) = &mut self.repair {
                    repair.request_next();
                }
            }
            Effect::Duplicate => self.context.metrics.event_duplicate(),
            Effect::AgedOut { from, to } => {
                self.context.metrics.possibly_lost(to - from + 1);
                warn!(
                    workspace = %self.workspace,
                    from,
                    to,
                    "events aged out before they could be read, some may be lost"
                );
            }
            Effect::OtherStream(ref stream) => self.follow_other(stream),
        }
    }

    fn follow_other(&mut self, stream: &StreamState) {
        warn!(
            workspace = %self.workspace,
            created = %stream.created,
            last_sequence = stream.last_sequence,
            "stream was re-created or restored, following it from its last message; events stored in it before \
                may be missing"
        );
        self.members.forget_start_positions(Instant::now());
        // Theirs may be of the stream that is no more: what there is now will be delivered.
        for (sequence, _) in &mut self.barriers {
            *sequence = stream.last_sequence;
        }
        self.settle_barriers();
    }

    /// Takes up to `most` live messages that have already come, and delivers them together, as long as no socket is
    /// pressed.
    pub(super) fn take_waiting_events(&mut self, most: usize, until: Until, now: Instant) {
        let mut is_empty = false;
        let mut bytes = 0;
        for _ in 0..most {
            if self.members.is_pressed_by(bytes) {
                break;
            }
            // The runtime's budget for a task would say that nothing is there after some hundred.
            match unconstrained(self.subscriptions.events.next()).now_or_never() {
                Some(Some(message)) => {
                    bytes += message.payload.len();
                    self.event(message, now);
                }
                Some(None) | None => {
                    is_empty = true;
                    break;
                }
            }
        }
        let is_done = self.proceed(until, now);
        if is_empty && is_done && self.follower.is_live() {
            self.members.caught_up();
        }
    }

    /// A shard is through with its part of a round.
    pub(super) fn reported(&mut self, report: ShardReport) {
        self.members.reported(report);
        while let Some(round) = self.members.finished() {
            self.fanned_out(round);
        }
    }

    pub(super) fn repaired(&mut self, repaired: Option<Repaired>) {
        if !repaired.as_ref().is_some_and(Repaired::goes_on) {
            self.repair = None;
        }
        self.follower.repaired(repaired, Instant::now());
    }

    pub(super) fn swept(&mut self, swept: &Swept) {
        self.context.metrics.swept(1);
        // What the sweep finds may have come since, and wait in front of us.
        self.take_waiting_events(BEFORE_JUDGING, Until::End, Instant::now());
        let before = self.follower.watermark();
        self.follower.swept(
            &swept.stream,
            swept.lasts.as_deref(),
            swept.seen,
            !self.members.is_empty(),
            (Instant::now(), Utc::now()),
        );
        if self.follower.watermark() != before {
            self.settle_barriers();
        }
    }

    /// Looks whether something was missed. A reconnect each input looks for; this one makes a room look
    /// that hears nothing else.
    pub(super) fn resync(&mut self) {
        let is_doubted = self.shared.take_resync();
        debug!(workspace = %self.workspace, is_doubted, "looking for what was missed");
        if is_doubted {
            let now = Instant::now();
            self.follower.doubt(now);
            self.doubt_claims(now);
        }
    }

    pub(super) fn barrier(&mut self, sequence: u64, answer: oneshot::Sender<()>) {
        self.barriers.push((sequence, answer));
        self.settle_barriers();
    }

    /// Answers barriers that are reached, once all shards are through with what they have; asks for a sweep if some
    /// are not.
    fn settle_barriers(&mut self) {
        let reached = self.follower.watermark();
        for (sequence, answer) in std::mem::take(&mut self.barriers) {
            if sequence <= reached {
                self.members.when_written(answer);
            } else if !answer.is_closed() {
                self.barriers.push((sequence, answer));
            }
        }
        if !self.barriers.is_empty() && !self.follower.is_repairing() {
            self.follower.request_sweep(true, Instant::now());
        }
    }
}
