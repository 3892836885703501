//! What a room does with one event that is to be delivered: decode, project, fan out, each stage
//! timed and, where its trace is recorded, with a span.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::actor::Room;
use super::follower::Delivery;
use crate::event::{BadEvent, Event, StoredMessage};
use crate::projection::{Identity, Notification};
use crate::socket::Frame;
use crate::telemetry::{Clock, EventFacts, EventTrace, Stage};

/// What is known of an event before it is decoded.
struct Arrival<'a> {
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
        let arrival = Arrival {
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
        self.note(&arrival);
        // Once: the whole event goes by the same rules.
        let setup = self.context.live.now();
        let decoded = setup.projector.decode(message);
        let decoded_at = Instant::now();
        let metrics = &self.context.metrics;
        metrics.stage(Stage::Decode, decoded_at - clock.at);
        let identity = setup.projector.identity(message);
        let trace = self.begin_trace(&arrival, &decoded, identity);
        let _current = trace.as_ref().map(EventTrace::enter);
        if let Some(trace) = &trace {
            trace.decoded(clock.at, decoded_at);
        }
        if arrival.is_late {
            warn!(
                notification = identity.notification_id(),
                workspace = %self.workspace,
                sequence = message.sequence,
                "event delivered late"
            );
        }
        let event = match decoded {
            Ok(event) => event,
            Err(bad) => return self.refuse(&arrival, &bad, identity, trace),
        };
        let projected = setup.projector.notification(message, event, identity);
        let projected_at = Instant::now();
        metrics.stage(Stage::Project, projected_at - decoded_at);
        let size = projected
            .as_ref()
            .ok()
            .map(|notification| notification.encoded.len());
        if let Some(trace) = &trace {
            trace.projected(decoded_at, projected_at, size);
        }
        match projected {
            Ok(notification) => self.fan_out(&arrival, &notification, trace),
            Err(bad) => self.refuse(&arrival, &bad, identity, trace),
        }
    }

    /// What the room keeps of every event, good or bad.
    fn note(&self, arrival: &Arrival<'_>) {
        let metrics = &self.context.metrics;
        metrics.received(arrival.repair);
        metrics.stage(Stage::Receive, arrival.delay);
        self.shared.traffic.fetch_add(1, Ordering::Relaxed);
        if arrival.is_late {
            metrics.event_late();
        }
    }

    fn begin_trace(
        &self,
        arrival: &Arrival<'_>,
        decoded: &Result<Event, BadEvent>,
        identity: Identity,
    ) -> Option<EventTrace> {
        let tracing = self.context.tracing.as_ref()?;
        let event = decoded.as_ref().ok();
        tracing.event(&EventFacts {
            message: arrival.message,
            stream: self.context.names.events(),
            identity,
            extension: event.and_then(|event| {
                let traceparent = event.traceparent.as_deref()?;
                Some((traceparent, event.tracestate.as_deref()))
            }),
            repair: arrival.repair,
            late: arrival.is_late,
            clock: arrival.clock,
            delay: arrival.delay,
        })
    }

    fn refuse(
        &self,
        arrival: &Arrival<'_>,
        bad: &BadEvent,
        identity: Identity,
        trace: Option<EventTrace>,
    ) {
        self.context.metrics.event_bad(bad.reason);
        self.traffic.add(0);
        debug!(
            notification = identity.notification_id(),
            workspace = %self.workspace,
            sequence = arrival.message.sequence,
            reason = bad.reason.as_str(),
            detail = %bad.detail,
            "bad event"
        );
        if let Some(trace) = &trace {
            trace.failed(bad);
        }
        self.context
            .dead_letters
            .report_traced(arrival.message, bad, trace);
    }

    fn fan_out(
        &mut self,
        arrival: &Arrival<'_>,
        notification: &Notification,
        trace: Option<EventTrace>,
    ) {
        let metrics = &self.context.metrics;
        metrics.event_projected();
        let began = Clock::now();
        let span = trace
            .as_ref()
            .map(|trace| trace.fan_out(self.workspace.as_str(), began.at));
        let sample = span.as_ref().map_or(0, |span| span.sample());
        let size = notification.encoded.len();
        let frame = Frame::new(
            &notification.encoded,
            began,
            arrival.delay + (began.at - arrival.clock.at),
            span.as_ref().filter(|_| sample > 0).map(|span| span.send()),
            metrics.depth(),
        );
        let mark = arrival.message.mark();
        let out = self
            .members
            .fan_out(mark, &notification.recipients, &frame, sample);
        let ended = Instant::now();
        metrics.queued(out.delivered);
        metrics.written(out.written, out.written * size as u64);
        metrics.stage(Stage::FanOut, ended - began.at);
        metrics.latency(arrival.delay + (ended - arrival.clock.at));
        self.traffic.add(out.delivered);
        if let Some(span) = span {
            span.end(out.delivered, out.slow.len(), ended);
        }
        debug!(
            notification = notification.id,
            workspace = %self.workspace,
            sequence = mark.sequence,
            size,
            recipients = out.delivered,
            "event fanned out"
        );
        for (session, member) in out.slow {
            debug!(%session, notification = notification.id, "socket too slow");
            self.left(member.user, session);
        }
        if let Some(trace) = trace {
            trace.end(ended);
        }
    }
}
