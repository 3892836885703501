//! The spans of one event: `process` (semantic conventions for messaging spans) with `decode`,
//! `project` and `fan_out` below it, and for a bad one its dead letter.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt, TraceId};
use tracing::Span;
use tracing::span::EnteredSpan;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Clock, SendTrace, Tracing, context, count, past, span, start, tracing};
use crate::event::{
    BadEvent, Event, StoredMessage, Traceparent, baggage, baggage_members, ce_traceparent,
    traceparent, tracestate,
};
use crate::projection::EventIdentity;

/// Every subject of an event, for who groups spans by destination.
pub(super) const TEMPLATE: &str = "ws.{workspace}.{category}.{name}";
/// Characters of a publisher's text in an attribute.
const CLIPPED: usize = 256;
const DEAD_TEMPLATE: &str = "dead.{workspace}.{sequence}";

/// What is known of an event when it is decided whether its trace is recorded.
#[derive(Debug)]
pub(crate) struct EventFacts<'a> {
    pub(crate) message: &'a StoredMessage,
    pub(crate) stream: &'a str,
    /// The notification's id, and the trace id where the publisher sent none.
    pub(crate) identity: EventIdentity,
    /// What it was decoded to, unless it is bad.
    pub(crate) event: Option<&'a Event>,
    /// Why a repair read it, if one did.
    pub(crate) repair: Option<&'static str>,
    pub(crate) late: bool,
    /// When the room took it.
    pub(crate) clock: Clock,
    /// From the store to then.
    pub(crate) delay: Duration,
}

/// The trace of an event that is recorded. Its `process` span ends as the event was last entered, also where
/// its dead letter is still under way.
#[derive(Debug)]
pub(crate) struct EventTrace {
    process: Span,
    clock: Clock,
}

impl EventTrace {
    /// Begins the trace of an event; `None` if it is not recorded.
    pub(crate) fn begin(facts: &EventFacts<'_>) -> Option<Self> {
        let tracing = tracing()?;
        let headers = facts.message.headers.as_ref();
        let parent = match facts.event {
            Some(event) => event.traceparent.as_deref(),
            // Of a bad event only the headers are known.
            None => headers.and_then(|headers| traceparent(headers).or(ce_traceparent(headers))),
        };
        // Looked at only where the trace is recorded. That of the headers belongs to their own parent.
        let state = || match headers.filter(|headers| traceparent(headers).is_some()) {
            Some(headers) => tracestate(headers),
            None => facts.event?.tracestate.clone(),
        };
        let derived = || TraceId::from(facts.identity.trace());
        let origin = tracing.origin(parent.and_then(Traceparent::parse), state, derived)?;
        let process = tracing.process(facts);
        start(&process, origin, Some(facts.clock.wall));
        Some(Self {
            process,
            clock: facts.clock,
        })
    }

    /// Makes the event's span the current one: log lines written meanwhile carry its ids.
    pub(crate) fn enter(&self) -> EnteredSpan {
        self.process.clone().entered()
    }

    /// Where the event's parent may stand in its payload, it is decoded before it is known whether it is recorded.
    pub(crate) fn decoded(&self, from: Instant, to: Instant) {
        past(&span!(&self.process, "decode"), self.clock, (from, to));
    }

    /// Begins to make the notification.
    pub(crate) fn project(&self) -> ProjectTrace {
        ProjectTrace(span!(&self.process, "project"))
    }

    /// Begins the fan-out.
    pub(crate) fn fan_out(&self, workspace: &str) -> FanOutTrace {
        FanOutTrace {
            span: span!(&self.process, "fan_out", herald.workspace = workspace),
            clock: self.clock,
        }
    }

    /// Notes what is wrong with the event.
    pub(crate) fn failed(&self, bad: &BadEvent) {
        self.process
            .set_attribute("error.type", bad.reason.as_str());
        self.process.set_status(Status::error(bad.detail.clone()));
    }

    /// Begins to publish the event's dead letter; its span's context goes into `headers`.
    pub(crate) fn dead_letter(self, headers: &mut HeaderMap, subject: &str) -> DeadLetterTrace {
        let span = span!(
            &self.process,
            "publish dead.{workspace}.{sequence}",
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.operation.name = "publish",
            messaging.operation.type = "send",
            messaging.destination.name = subject,
            messaging.destination.template = DEAD_TEMPLATE,
            messaging.nats.stream.name = "DEAD",
        );
        inject(&context(&span), headers);
        DeadLetterTrace {
            process: self.process,
            span,
        }
    }

    /// Its dead letter is not sent.
    pub(crate) fn letter_dropped(self) {
        self.process
            .set_attribute("herald.dead_letter.outcome", "dropped");
    }
}

impl Tracing {
    fn process(&self, facts: &EventFacts<'_>) -> Span {
        let EventFacts {
            message, stream, ..
        } = facts;
        let headers = message.headers.as_ref();
        let id = headers
            .and_then(|headers| headers.get("Nats-Msg-Id"))
            .map_or_else(
                || format!("{stream}:{}", message.sequence),
                |id| clipped(id.as_str()),
            );
        let span = span!(
            None,
            "process ws.{workspace}.{category}.{name}",
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = message.subject.as_str(),
            messaging.destination.template = TEMPLATE,
            messaging.message.id = id,
            messaging.message.body.size = count(message.payload.len()),
            messaging.nats.stream.name = stream,
            messaging.nats.stream.sequence = count(message.sequence),
            herald.workspace = message.workspace(),
            herald.notification.id = facts.identity.notification_id(),
            herald.event.delay = facts.delay.as_secs_f64(),
            herald.event.repaired = facts.repair.map(|_| true),
            herald.event.repair_reason = facts.repair,
            herald.event.late = facts.late.then_some(true),
        );
        let baggage = headers
            .filter(|_| !self.baggage.is_empty())
            .and_then(baggage);
        for (key, value) in baggage.as_deref().map(baggage_members).unwrap_or_default() {
            if self.baggage.contains(&key) {
                span.set_attribute(format!("baggage.{key}"), clipped(&value));
            }
        }
        span
    }
}

/// The beginning of a publisher's text: many spans may wait for a collector, and none is to hold more
/// than it says.
fn clipped(text: &str) -> String {
    text.chars().take(CLIPPED).collect()
}

/// Writes a span's context as headers (W3C Trace Context).
pub(super) fn inject(span: &SpanContext, headers: &mut HeaderMap) {
    let traceparent = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags().to_u8() & 1
    );
    headers.insert("traceparent", traceparent);
    let state = span.trace_state().header();
    if let Ok(state) = state.parse::<async_nats::HeaderValue>()
        && !state.as_str().is_empty()
    {
        headers.insert("tracestate", state);
    }
}

/// A notification that is being made.
#[derive(Debug)]
pub(crate) struct ProjectTrace(Span);

impl ProjectTrace {
    /// Ends it. `size` is that of the encoded notification; there is none of a bad event.
    pub(crate) fn end(self, size: Option<usize>) {
        if let Some(size) = size {
            self.0
                .set_attribute("herald.notification.size", count(size));
        }
    }
}

/// A fan-out under way.
#[derive(Debug)]
pub(crate) struct FanOutTrace {
    span: Span,
    clock: Clock,
}

impl FanOutTrace {
    /// How many of the event's sockets get a `send` span.
    pub(crate) fn sample(&self) -> usize {
        tracing().map_or(0, |tracing| tracing.send_spans)
    }

    /// What such a socket's span is made with.
    pub(crate) fn send(&self) -> SendTrace {
        SendTrace {
            fan_out: context(&self.span),
        }
    }

    /// It ended then: so many sockets have it in their queue, and so many were too slow for it.
    pub(crate) fn end(self, recipients: u64, slow: usize, at: Instant) {
        let context = self.span.context();
        let span = context.span();
        span.set_attributes([
            KeyValue::new("herald.fan_out.recipients", count(recipients)),
            KeyValue::new("herald.fan_out.slow", count(slow)),
        ]);
        // The room's shards may have ended before the room hears of it.
        span.end_with_timestamp(self.clock.wall(at));
    }
}

/// A dead letter under way. The event's own span is kept until it is known what became of it.
#[derive(Debug)]
pub(crate) struct DeadLetterTrace {
    process: Span,
    span: Span,
}

impl DeadLetterTrace {
    /// `sequence` is where the letter stands in DEAD, if that is known.
    pub(crate) fn end(self, outcome: &'static str, sequence: Option<u64>) {
        let Self { process, span } = self;
        process.set_attribute("herald.dead_letter.outcome", outcome);
        if let Some(sequence) = sequence.map(count) {
            process.set_attribute("herald.dead_letter.sequence", sequence);
            span.set_attribute("messaging.nats.stream.sequence", sequence);
        }
        if outcome == "dropped" {
            span.set_attribute("error.type", outcome);
            span.set_status(Status::error("the dead letter was not stored"));
        }
        span.set_attribute("herald.dead_letter.outcome", outcome);
    }
}
