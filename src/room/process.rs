//! What a room does with one event that is to be delivered: decode, project, fan out, each stage
//! timed and, where its trace is recorded, with a span.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::SessionId;
use super::actor::Room;
use super::fan_out::{Addressed, FanOutRound};
use super::follower::Delivery;
use super::shards::Shards;
use crate::event::{BadEvent, Event, StoredMessage};
use crate::projection::{EventIdentity, Notification};
use crate::socket::Frame;
use crate::telemetry::{Clock, EventFacts, EventTrace, Stage};

/// Events that are sent together, at most. As many frames go to the kernel at once.
const BATCH: usize = 64;

/// What is known of an event before it is decoded.
struct Received<'a> {
    message: &'a StoredMessage,
    /// Why a repair read it, if one did.
    repair: Option<&'static str>,
    is_late: bool,
    clock: Clock,
    /// From the store to the room.
    delay: Duration,
}

impl Room {
    /// Delivers an event to the members that it is for.
    pub(super) fn deliver(&mut self, delivery: &Delivery) {
        let clock = Clock::now();
        let message = &delivery.message;
        let received = Received {
            message,
            repair: delivery.repair,
            is_late: delivery.is_late,
            clock,
            // Two clocks: a negative delay says that they differ.
            delay: clock
                .wall
                .duration_since(message.time.into())
                .unwrap_or_default(),
        };
        self.note(&received);
        // Once: the whole event goes by the same rules.
        let setup = self.context.live.now();
        let decoded = setup.projector.decode(message);
        let decoded_at = Instant::now();
        self.context
            .metrics
            .stage(Stage::Decode, decoded_at - clock.at);
        let identity = setup.projector.identity(message);
        let trace = self.begin_trace(&received, &decoded, identity);
        if trace.is_some() {
            // What came before goes first, and is not told of in this trace.
            self.flush(decoded_at);
        }
        let _current = trace.as_ref().map(EventTrace::enter);
        if let Some(trace) = &trace {
            trace.decoded(clock.at, decoded_at);
        }
        if received.is_late {
            warn!(
                notification = identity.notification_id(),
                workspace = %self.workspace,
                sequence = message.sequence,
                "event delivered late"
            );
        }
        let event = match decoded {
            Ok(event) => event,
            Err(bad) => return self.refuse(&received, &bad, identity, trace),
        };
        let span = trace.as_ref().map(EventTrace::project);
        let projected = setup.projector.notification(message, event, identity);
        if let Some(span) = span {
            let notification = projected.as_ref().ok();
            span.end(notification.map(|notification| notification.encoded.len()));
        }
        let projected_at = Instant::now();
        let metrics = &self.context.metrics;
        metrics.stage(Stage::Project, projected_at - decoded_at);
        match projected {
            Ok(notification) => self.frame(&received, notification, projected_at, trace),
            Err(bad) => self.refuse(&received, &bad, identity, trace),
        }
    }

    /// What the room keeps of every event, good or bad.
    fn note(&self, received: &Received<'_>) {
        let metrics = &self.context.metrics;
        metrics.received(received.repair);
        metrics.stage(Stage::Receive, received.delay);
        self.shared.traffic.fetch_add(1, Ordering::Relaxed);
        if received.is_late {
            metrics.event_late();
        }
    }

    fn begin_trace(
        &self,
        received: &Received<'_>,
        decoded: &Result<Event, BadEvent>,
        identity: EventIdentity,
    ) -> Option<EventTrace> {
        EventTrace::begin(&EventFacts {
            message: received.message,
            stream: self.context.names.events(),
            identity,
            event: decoded.as_ref().ok(),
            repair: received.repair,
            late: received.is_late,
            clock: received.clock,
            delay: received.delay,
        })
    }

    fn refuse(
        &self,
        received: &Received<'_>,
        bad: &BadEvent,
        identity: EventIdentity,
        trace: Option<EventTrace>,
    ) {
        self.context.metrics.event_bad(bad.reason);
        self.traffic.add(1, 0);
        debug!(
            notification = identity.notification_id(),
            workspace = %self.workspace,
            sequence = received.message.sequence,
            reason = bad.reason.as_str(),
            detail = %bad.detail,
            "bad event"
        );
        if let Some(trace) = &trace {
            trace.failed(bad);
        }
        self.context
            .dead_letters
            .report_traced(&self.workspace, received.message, bad, trace);
    }

    /// Makes the frame, at this moment. It goes out with the next ones, unless its trace is recorded.
    fn frame(
        &mut self,
        received: &Received<'_>,
        notification: Notification,
        now: Instant,
        trace: Option<EventTrace>,
    ) {
        self.context.metrics.event_projected();
        let since = now - received.clock.at;
        let began = Clock {
            at: now,
            wall: received.clock.wall + since,
        };
        let span = trace
            .as_ref()
            .map(|trace| trace.fan_out(self.workspace.as_str()));
        let sample = span.as_ref().map_or(0, |span| span.sample());
        let frame = Frame::new(
            &notification.encoded,
            began,
            received.delay + since,
            span.as_ref().filter(|_| sample > 0).map(|span| span.send()),
            &self.context.queues,
        );
        let addressed = Addressed {
            position: received.message.position(),
            id: notification.id,
            recipients: notification.recipients,
            frame,
        };
        if let (Some(trace), Some(span)) = (trace, span) {
            self.fan_out(FanOutRound::new(vec![addressed], Some((trace, span)), now));
            return;
        }
        let is_for_all = addressed.is_for_all();
        if self
            .batch
            .last()
            .is_some_and(|last| last.is_for_all() != is_for_all)
        {
            self.flush(now);
        }
        self.batch.push(addressed);
        let bytes = self.batch.iter().map(|one| one.frame.len()).sum();
        if self.batch.len() >= BATCH || self.members.is_pressed_by(bytes) {
            self.flush(now);
        }
    }

    /// Sends what waits to be sent together, from `began` on.
    pub(super) fn flush(&mut self, began: Instant) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.fan_out(FanOutRound::new(batch, None, began));
        }
    }

    fn fan_out(&mut self, round: FanOutRound) {
        if self.members.want_shards() {
            self.members.stand_in(Shards::start(self.rooms.workers()));
        }
        if let Some(round) = self.members.fan_out(round) {
            self.turn.spend(round.out.writes);
            self.fanned_out(round);
        }
    }

    /// Tells of what a round did, and does what follows from it.
    pub(super) fn fanned_out(&mut self, round: FanOutRound) {
        let FanOutRound {
            mut batch,
            trace,
            began,
            ended,
            out,
            answers,
        } = round;
        let current = trace.as_ref().map(|(trace, _)| trace.enter());
        let metrics = &self.context.metrics;
        metrics.queued(out.delivered);
        metrics.written(out.written, out.bytes);
        self.affinity.wrote(out.writes, out.bytes);
        let each = (ended - began) / u32::try_from(batch.len()).unwrap_or(u32::MAX);
        for one in &batch {
            metrics.stage(Stage::FanOut, each);
            let frame = &one.frame;
            metrics.latency(frame.age + (ended - frame.made.at));
            debug!(
                notification = one.id,
                workspace = %self.workspace,
                sequence = one.position.sequence,
                size = frame.len(),
                recipients = self.members.reached(&one.recipients),
                "event fanned out"
            );
        }
        self.traffic.add(batch.len() as u64, out.delivered);
        self.close_slow(&out.slow);
        drop(current);
        if let Some((_, span)) = trace {
            span.end(out.delivered, out.slow.len(), ended);
        }
        for answer in answers {
            // Who asked may have run out of time.
            let _ = answer.send(());
        }
        if self.batch.capacity() == 0 {
            batch.clear();
            self.batch = batch;
        }
    }

    fn close_slow(&mut self, slow: &[SessionId]) {
        for session in slow {
            if let Some(member) = self.members.get(*session) {
                debug!(%session, "socket too slow");
                self.left(member.user, *session);
            }
        }
    }
}
