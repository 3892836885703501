//! What a room knows of the stream. It hears the events of its workspace, has what is missing looked for and read, and
//! gives out one event after the other.
//!
//! [`follower`] is the pure machine that decides; here its effects are carried out.

mod duplicates_and_gaps;
pub(super) mod follower;
mod reorder_buffer;

use std::sync::Arc;
use std::time::Instant;

use async_nats::{Message, Subscriber};
use chrono::Utc;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;
use tracing::{debug, warn};

pub(super) use self::follower::Delivery;
use self::follower::{Effect, Follower};
use super::context::RoomContext;
use super::handle::RoomHandle;
use crate::event::Position;
use crate::nats::{Repair, Repaired, SweepRequest, Swept, live_event};
use crate::telemetry::LiveDrop;

/// A room's view of the stream.
pub(super) struct StreamView {
    room: RoomHandle,
    context: Arc<RoomContext>,
    events: Subscriber,
    follower: Follower,
    /// The repair under way.
    repair: Option<Repair>,
    /// Each request for a sweep takes the sender along.
    sweeps: (mpsc::UnboundedSender<Swept>, mpsc::UnboundedReceiver<Swept>),
    barriers: Vec<Barrier>,
    /// The watermark at which the barriers were looked at last. `None`: they, or the stream, are others since.
    barriers_at: Option<u64>,
}

/// Somebody waits until everything up to a sequence is given out.
struct Barrier {
    sequence: u64,
    answer: oneshot::Sender<()>,
}

/// One thing that a room hears of the stream.
pub(super) enum StreamInput {
    /// A live message.
    Event(Message),
    Swept(Swept),
    Repaired(Option<Repaired>),
}

/// What others of the room have to do about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamChange {
    /// The connection to NATS is another one: something else than events may have been missed.
    Reconnected,
    /// The stream is another one, and is followed from its last message on.
    OtherStream,
}

impl StreamView {
    /// Follows the stream from `start` on, heard by `events` on the connection `epoch`. `share` spreads the sweeps of
    /// rooms.
    pub(super) fn new(
        room: RoomHandle,
        context: Arc<RoomContext>,
        events: Subscriber,
        (start, epoch): (Position, u64),
        (share, now): (u16, Instant),
    ) -> Self {
        let budget = context.reorder_budget.clone();
        Self {
            follower: Follower::new(start, epoch, budget, share, now),
            room,
            context,
            events,
            repair: None,
            sweeps: mpsc::unbounded_channel(),
            barriers: Vec::new(),
            barriers_at: None,
        }
    }

    /// The next input; a live message only if `with_events`. `None` when the connection is ending. Cancel safe.
    pub(super) async fn next(&mut self, with_events: bool) -> Option<StreamInput> {
        // What is buffered is bounded, so it may always come. What is delivered may not outrun the sockets.
        let with_events = with_events || !self.is_live();
        tokio::select! {
            // Live messages last: they wait for what the others bring anyway.
            biased;
            swept = self.sweeps.1.recv() => swept.map(StreamInput::Swept),
            repaired = next_batch(&mut self.repair) => Some(StreamInput::Repaired(repaired)),
            event = self.events.next(), if with_events => event.map(StreamInput::Event),
        }
    }

    /// A live message that has come already.
    pub(super) fn waiting_event(&mut self) -> Option<Message> {
        // The runtime's budget for a task would say that nothing is there after some hundred.
        unconstrained(self.events.next()).now_or_never().flatten()
    }

    /// Looks for a reconnect: each input does, since a message may come before any notice of it.
    pub(super) fn notice_reconnect(&mut self, now: Instant) {
        let epoch = self.context.nats.epoch();
        self.follower.connection(epoch, now);
    }

    /// Takes a live message, in a room that is slowed or not; whether it is an event of the workspace.
    pub(super) fn heard(&mut self, message: Message, is_slowed: bool, now: Instant) -> bool {
        let workspace = self.room.workspace();
        let Some(event) = live_event(message, &self.context.names, workspace) else {
            debug!(%workspace, "live message dropped");
            self.context.metrics.live_dropped(LiveDrop::Forged);
            return false;
        };
        let epoch = self.context.nats.epoch();
        self.follower.heard(event, epoch, is_slowed, now);
        true
    }

    /// Takes a sweep's answer; `watched` says whether the room has sockets. Live messages that have come before are to
    /// be taken before.
    pub(super) fn swept(&mut self, swept: &Swept, watched: bool) {
        self.context.metrics.swept(1);
        self.follower.swept(
            &swept.stream,
            swept.lasts.as_deref(),
            swept.seen,
            watched,
            (Instant::now(), Utc::now()),
        );
    }

    /// Takes what a repair has read.
    pub(super) fn repaired(&mut self, repaired: Option<Repaired>) {
        if !repaired.as_ref().is_some_and(Repaired::goes_on) {
            self.repair = None;
        }
        self.follower.repaired(repaired, Instant::now());
    }

    /// Something may be missing, though most is not.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.follower.doubt(now);
    }

    /// Does what is due.
    pub(super) fn time(&mut self, now: Instant) {
        self.follower.time(now);
    }

    /// When [`StreamView::time`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.follower.deadline()
    }

    /// Every event of the workspace up to here is delivered or known not to be there.
    pub(super) fn watermark(&self) -> u64 {
        self.follower.watermark()
    }

    /// Whether live messages are delivered as they come.
    pub(super) fn is_live(&self) -> bool {
        self.follower.is_live()
    }

    /// Whether nothing is delivered before a sweep has answered.
    pub(super) fn is_suspect(&self) -> bool {
        self.follower.is_suspect()
    }

    /// The next event to be delivered, if there is one; `watched` says whether the room has sockets.
    pub(super) fn deliver(&mut self, watched: bool, now: Instant) -> Option<Delivery> {
        self.follower.deliver(watched, now)
    }

    /// Carries out what the follower wants, up to the next thing that others have to do.
    pub(super) fn carry_out(&mut self) -> Option<StreamChange> {
        if !self.follower.is_repairing() {
            self.repair = None;
        }
        while let Some(effect) = self.follower.effect() {
            let change = self.act(&effect);
            if change.is_some() {
                return change;
            }
        }
        None
    }

    fn act(&mut self, effect: &Effect) -> Option<StreamChange> {
        let workspace = self.room.workspace();
        match *effect {
            Effect::Sweep { urgent, known } => self.context.sweeps.send(SweepRequest {
                workspace: workspace.clone(),
                answer: self.sweeps.0.clone(),
                traffic: self.room.traffic(),
                urgent,
                known,
            }),
            Effect::Repair {
                above,
                known,
                reason,
            } => {
                debug!(%workspace, reason, "repair begun");
                self.context.metrics.repair(reason);
                let repairer = &self.context.repairer;
                let has_rate = self.context.live.now().config.workspaces.event_rate > 0;
                let from = (above, known);
                self.repair = Some(repairer.start(workspace.clone(), from, reason, has_rate));
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
                    %workspace,
                    from,
                    to,
                    "events aged out before they could be read, some may be lost"
                );
            }
            Effect::Reconnected => return Some(StreamChange::Reconnected),
            Effect::OtherStream(ref stream) => {
                warn!(
                    %workspace,
                    created = %stream.created,
                    last_sequence = stream.last_sequence,
                    "stream was re-created or restored, following it from its last message; events stored in it \
                        before may be missing"
                );
                // Theirs may be of the stream that is no more: what there is now will be delivered.
                for barrier in &mut self.barriers {
                    barrier.sequence = stream.last_sequence;
                }
                self.barriers_at = None;
                return Some(StreamChange::OtherStream);
            }
        }
        None
    }

    /// Somebody waits until everything up to `sequence` is given out.
    pub(super) fn add_barrier(&mut self, sequence: u64, answer: oneshot::Sender<()>) {
        self.barriers.push(Barrier { sequence, answer });
        self.barriers_at = None;
    }

    /// Those who wait for what has been delivered. If others still wait, a sweep looks for what is missing.
    pub(super) fn reached_barriers(&mut self, now: Instant) -> Vec<oneshot::Sender<()>> {
        let reached = self.follower.watermark();
        if self.barriers_at.replace(reached) == Some(reached) || self.barriers.is_empty() {
            return Vec::new();
        }
        self.barriers.retain(|barrier| !barrier.answer.is_closed());
        let is_reached = |barrier: &mut Barrier| barrier.sequence <= reached;
        let answers = self.barriers.extract_if(.., is_reached);
        let answers = answers.map(|barrier| barrier.answer).collect();
        if !self.barriers.is_empty() && !self.follower.is_repairing() {
            self.follower.request_sweep(true, now);
        }
        answers
    }
}

/// What comes of the repair under way; waits for ever if there is none.
async fn next_batch(repair: &mut Option<Repair>) -> Option<Repaired> {
    match repair {
        Some(repair) => repair.next().await,
        None => std::future::pending().await,
    }
}
