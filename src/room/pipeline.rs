//! What a room does with one event that is to be delivered: decode, project, frame; each stage timed and, where its
//! trace is recorded, with a span.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::context::RoomContext;
use super::handle::RoomHandle;
use super::members::{Addressed, FanOutRound, Members};
use super::stream::Delivery;
use crate::event::{BadEvent, Event};
use crate::projection::{EventIdentity, Notification};
use crate::setup::Setup;
use crate::socket::Frame;
use crate::telemetry::{Clock, EventFacts, EventTrace, FanOutTrace, Stage, Traffic};

/// The stages of a room's events.
pub(super) struct Pipeline {
    room: RoomHandle,
    context: Arc<RoomContext>,
    /// What the metrics by workspace count.
    traffic: Arc<Traffic>,
}

/// An event that is decoded, good or bad.
pub(super) struct Decoded<'a> {
    delivery: &'a Delivery,
    /// When the room took it.
    clock: Clock,
    /// From the store to then.
    delay: Duration,
    event: Result<Event, BadEvent>,
    identity: EventIdentity,
    /// The whole event goes by the same rules.
    setup: Arc<Setup>,
    /// When it was decoded.
    pub(super) at: Instant,
    trace: Option<EventTrace>,
}

/// What became of an event: a notification for some of the members, and its trace if that is recorded.
pub(super) type Outgoing = (Addressed, Option<(EventTrace, FanOutTrace)>);

impl Decoded<'_> {
    /// Whether its trace is recorded: then it goes out alone.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// `workspaces.event_rate`.
    pub(super) fn event_rate(&self) -> u32 {
        self.setup.config.workspaces.event_rate
    }
}

impl Pipeline {
    pub(super) fn new(room: RoomHandle, context: Arc<RoomContext>) -> Self {
        let traffic = context.metrics.room_opened(room.workspace());
        Self {
            room,
            context,
            traffic,
        }
    }

    /// Decodes an event, which says whether its trace is recorded.
    pub(super) fn decode<'a>(&self, delivery: &'a Delivery) -> Decoded<'a> {
        let clock = Clock::now();
        let message = &delivery.message;
        let metrics = &self.context.metrics;
        // Two clocks: a negative delay says that they differ.
        let delay = clock.wall.duration_since(message.time.into());
        let delay = delay.unwrap_or_default();
        metrics.received(delivery.repair);
        metrics.stage(Stage::Receive, delay);
        self.room.shared().traffic.fetch_add(1, Ordering::Relaxed);
        if delivery.is_late {
            metrics.event_late();
        }
        let setup = self.context.live.now();
        let event = setup.projector.decode(message);
        let at = Instant::now();
        metrics.stage(Stage::Decode, at - clock.at);
        let identity = setup.projector.identity(message);
        let trace = EventTrace::begin(&EventFacts {
            message,
            stream: self.context.names.events(),
            identity,
            event: event.as_ref().ok(),
            repair: delivery.repair,
            late: delivery.is_late,
            clock,
            delay,
        });
        Decoded {
            delivery,
            clock,
            delay,
            event,
            identity,
            setup,
            at,
            trace,
        }
    }

    /// Makes the notification of an event. `None` if the event is bad, which becomes a dead letter. What is late in a room
    /// that is slowed is only counted: it may be much.
    pub(super) fn project(&self, decoded: Decoded<'_>, is_slowed: bool) -> Option<Outgoing> {
        let (delivery, identity, trace) = (decoded.delivery, decoded.identity, decoded.trace);
        let (clock, at) = (decoded.clock, decoded.at);
        let message = &delivery.message;
        let _current = trace.as_ref().map(EventTrace::enter);
        if let Some(trace) = &trace {
            trace.decoded(clock.at, at);
        }
        if delivery.is_late && !is_slowed {
            warn!(
                notification = identity.notification_id(),
                workspace = %self.room.workspace(),
                sequence = message.sequence,
                "event delivered late"
            );
        }
        let projected = decoded.event.and_then(|event| {
            let span = trace.as_ref().map(EventTrace::project);
            let projected = decoded
                .setup
                .projector
                .notification(message, event, identity);
            if let Some(span) = span {
                let notification = projected.as_ref().ok();
                span.end(notification.map(|notification| notification.encoded.len()));
            }
            let projected_at = Instant::now();
            let metrics = &self.context.metrics;
            metrics.stage(Stage::Project, projected_at - at);
            Ok((projected?, projected_at))
        });
        match projected {
            Ok((notification, now)) => {
                let since = now - clock.at;
                let made = Clock {
                    at: now,
                    wall: clock.wall + since,
                };
                Some(self.frame(delivery, notification, (made, decoded.delay + since), trace))
            }
            Err(bad) => {
                self.refuse(delivery, &bad, identity, trace);
                None
            }
        }
    }

    /// Makes the frame, now, of an event of this age. It goes out with others, unless its trace is recorded.
    fn frame(
        &self,
        delivery: &Delivery,
        notification: Notification,
        (made, age): (Clock, Duration),
        trace: Option<EventTrace>,
    ) -> Outgoing {
        self.context.metrics.event_projected();
        let workspace = self.room.workspace().as_str();
        let trace = trace.map(|trace| {
            let span = trace.fan_out(workspace);
            (trace, span)
        });
        let sampled = trace.as_ref().filter(|(_, span)| span.sample() > 0);
        let frame = Frame::new(
            &notification.encoded,
            made,
            age,
            sampled.map(|(_, span)| span.send()),
            &self.context.queues,
        );
        let addressed = Addressed {
            position: delivery.message.position(),
            id: notification.id,
            recipients: notification.recipients,
            frame,
        };
        (addressed, trace)
    }

    fn refuse(
        &self,
        delivery: &Delivery,
        bad: &BadEvent,
        identity: EventIdentity,
        trace: Option<EventTrace>,
    ) {
        let workspace = self.room.workspace();
        self.context.metrics.event_bad(bad.reason);
        self.traffic.add(1, 0);
        debug!(
            notification = identity.notification_id(),
            %workspace,
            sequence = delivery.message.sequence,
            reason = bad.reason.as_str(),
            detail = %bad.detail,
            "bad event"
        );
        if let Some(trace) = &trace {
            trace.failed(bad);
        }
        self.context
            .dead_letters
            .report_traced(workspace, &delivery.message, bad, trace);
    }

    /// Records what a round of `members` did. How long the events of a room that is slowed took says nothing about the
    /// gateway.
    pub(super) fn record(&self, round: &FanOutRound, members: &Members, is_slowed: bool) {
        let metrics = &self.context.metrics;
        let FanOutRound {
            batch,
            began,
            ended,
            out,
            ..
        } = round;
        metrics.queued(out.delivered);
        metrics.written(out.written, out.bytes);
        let each = (*ended - *began) / u32::try_from(batch.len()).unwrap_or(u32::MAX);
        for one in batch {
            metrics.stage(Stage::FanOut, each);
            let frame = &one.frame;
            if !is_slowed {
                metrics.latency(frame.age + (*ended - frame.made.at));
            }
            debug!(
                notification = one.id,
                workspace = %self.room.workspace(),
                sequence = one.position.sequence,
                size = frame.len(),
                recipients = members.reached(&one.recipients),
                "event fanned out"
            );
        }
        self.traffic.add(batch.len() as u64, out.delivered);
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let metrics = &self.context.metrics;
        metrics.room_closed(self.room.workspace(), &self.traffic);
    }
}
