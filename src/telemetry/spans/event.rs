//! The spans of one event: `process` (semantic conventions for messaging spans) with `decode`,
//! `project` and `fan_out` below it, and for a bad one its dead letter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, TraceId, Tracer as _};
use opentelemetry::{Context, ContextGuard, KeyValue, Value};

use super::{Clock, SendTrace, Tracing, builder, count};
use crate::event::{
    BadEvent, StoredMessage, Traceparent, baggage, baggage_members, ce_traceparent, traceparent,
    tracestate,
};
use crate::projection::Identity;

/// Every subject of an event, for who groups spans by destination.
pub(in crate::telemetry) const TEMPLATE: &str = "ws.{workspace}.{category}.{name}";
const NAME: &str = "process ws.{workspace}.{category}.{name}";
/// Characters of a publisher's text in an attribute.
const CLIPPED: usize = 256;
const DEAD_TEMPLATE: &str = "dead.{workspace}.{sequence}";
const DEAD_NAME: &str = "publish dead.{workspace}.{sequence}";

/// What is known of an event when it is decided whether its trace is recorded.
#[derive(Debug)]
pub(crate) struct EventFacts<'a> {
    pub(crate) message: &'a StoredMessage,
    pub(crate) stream: &'a str,
    /// The notification's id, and the trace id where the publisher sent none.
    pub(crate) identity: Identity,
    /// `traceparent` and `tracestate` of a CloudEvent's extension. A valid header comes before them.
    pub(crate) extension: Option<(&'a str, Option<&'a str>)>,
    /// Why a repair read it, if one did.
    pub(crate) repair: Option<&'static str>,
    pub(crate) late: bool,
    /// When the room took it.
    pub(crate) clock: Clock,
    /// From the store to then.
    pub(crate) delay: Duration,
}

/// The trace of an event that is recorded.
#[derive(Debug)]
pub(crate) struct EventTrace {
    tracing: Arc<Tracing>,
    /// With the `process` span, which ends with [`EventTrace::end`].
    process: Context,
    clock: Clock,
}

impl Tracing {
    /// Begins the trace of an event; `None` if it is not recorded.
    pub(crate) fn event(self: &Arc<Self>, facts: &EventFacts<'_>) -> Option<EventTrace> {
        let headers = facts.message.headers.as_ref();
        let header = headers.and_then(traceparent);
        let (parent, extension_state) = match (header, facts.extension) {
            (Some(header), _) => (Some(header), None),
            (None, Some((traceparent, tracestate))) => (Some(traceparent), tracestate),
            // Of a bad event only the headers tell.
            (None, None) => (headers.and_then(ce_traceparent), None),
        };
        // Looked at only where the trace is recorded.
        let state = || match header.and(headers) {
            Some(headers) => tracestate(headers),
            None => extension_state.map(str::to_owned),
        };
        let derived = || TraceId::from(facts.identity.trace());
        let origin = self.origin(parent.and_then(Traceparent::parse), state, derived)?;
        let builder = builder(NAME, SpanKind::Consumer, facts.clock.wall)
            .with_attributes(self.event_attributes(facts));
        let span = self.start(origin, builder);
        Some(EventTrace {
            tracing: Arc::clone(self),
            process: Context::new().with_span(span),
            clock: facts.clock,
        })
    }

    fn event_attributes(&self, facts: &EventFacts<'_>) -> Vec<KeyValue> {
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
        let mut attributes = vec![
            KeyValue::new("messaging.system", "nats"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", message.subject.to_string()),
            KeyValue::new("messaging.destination.template", TEMPLATE),
            KeyValue::new("messaging.message.id", id),
            count("messaging.message.body.size", message.payload.len() as u64),
            KeyValue::new("messaging.nats.stream.name", (*stream).to_owned()),
            count("messaging.nats.stream.sequence", message.sequence),
            KeyValue::new("herald.workspace", message.workspace.to_string()),
            KeyValue::new("herald.notification.id", facts.identity.notification_id()),
            super::seconds("herald.event.delay", facts.delay),
        ];
        if let Some(reason) = facts.repair {
            attributes.push(KeyValue::new("herald.event.repaired", true));
            attributes.push(KeyValue::new("herald.event.repair_reason", reason));
        }
        if facts.late {
            attributes.push(KeyValue::new("herald.event.late", true));
        }
        let baggage = headers
            .filter(|_| self.propagation.baggage && !self.baggage.is_empty())
            .and_then(baggage);
        for (key, value) in baggage.as_deref().map(baggage_members).unwrap_or_default() {
            if self.baggage.contains(&key) {
                attributes.push(KeyValue::new(format!("baggage.{key}"), clipped(&value)));
            }
        }
        attributes
    }
}

impl EventTrace {
    /// Makes the event's span the current one: log lines written meanwhile carry its ids.
    pub(crate) fn enter(&self) -> ContextGuard {
        self.process.clone().attach()
    }

    pub(crate) fn decoded(&self, from: Instant, to: Instant) {
        self.tracing
            .past(&self.process, "decode", self.clock, (from, to), Vec::new());
    }

    /// `size` is that of the encoded notification; there is none of a bad event.
    pub(crate) fn projected(&self, from: Instant, to: Instant, size: Option<usize>) {
        let size = size.map(|size| count("herald.notification.size", size as u64));
        let times = (from, to);
        self.tracing.past(
            &self.process,
            "project",
            self.clock,
            times,
            size.into_iter().collect(),
        );
    }

    /// Begins the fan-out.
    pub(crate) fn fan_out(&self, workspace: &str, from: Instant) -> FanOutTrace {
        let builder = builder("fan_out", SpanKind::Internal, self.clock.wall(from))
            .with_attributes([KeyValue::new("herald.workspace", workspace.to_owned())]);
        let span = self
            .tracing
            .tracer
            .build_with_context(builder, &self.process);
        FanOutTrace {
            tracing: Arc::clone(&self.tracing),
            span,
            clock: self.clock,
        }
    }

    /// Notes what is wrong with the event.
    pub(crate) fn failed(&self, bad: &BadEvent) {
        let span = self.process.span();
        span.set_attribute(KeyValue::new("error.type", bad.reason.as_str()));
        span.set_status(Status::error(bad.detail.clone()));
    }

    /// Begins to publish the event's dead letter; its span's context goes into `headers`.
    pub(crate) fn dead_letter(
        self,
        at: Instant,
        headers: &mut HeaderMap,
        subject: &str,
    ) -> DeadLetterTrace {
        let attributes = [
            KeyValue::new("messaging.system", "nats"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", subject.to_owned()),
            KeyValue::new("messaging.destination.template", DEAD_TEMPLATE),
            KeyValue::new("messaging.nats.stream.name", "DEAD"),
        ];
        let builder =
            builder(DEAD_NAME, SpanKind::Producer, self.clock.wall(at)).with_attributes(attributes);
        let span = self
            .tracing
            .tracer
            .build_with_context(builder, &self.process);
        inject(span.span_context(), headers);
        DeadLetterTrace {
            process: self,
            processed: at,
            span,
        }
    }

    /// Ends the event's span where its dead letter is not sent.
    pub(crate) fn letter_dropped(self, at: Instant) {
        let process = self.process.span();
        process.set_attribute(KeyValue::new("herald.dead_letter.outcome", "dropped"));
        self.end(at);
    }

    /// Ends the event's span.
    pub(crate) fn end(self, at: Instant) {
        self.process.span().end_with_timestamp(self.clock.wall(at));
    }
}

/// The beginning of a publisher's text: many spans may wait for a collector, and none is to hold more
/// than it says.
fn clipped(text: &str) -> String {
    text.chars().take(CLIPPED).collect()
}

/// Writes a span's context as headers (W3C Trace Context).
pub(in crate::telemetry) fn inject(
    span: &opentelemetry::trace::SpanContext,
    headers: &mut HeaderMap,
) {
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

/// A fan-out under way.
#[derive(Debug)]
pub(crate) struct FanOutTrace {
    tracing: Arc<Tracing>,
    span: opentelemetry_sdk::trace::Span,
    clock: Clock,
}

impl FanOutTrace {
    /// How many of the event's sockets get a `send` span.
    pub(crate) fn sample(&self) -> usize {
        self.tracing.send_spans
    }

    /// What such a socket's span is made with.
    pub(crate) fn send(&self) -> SendTrace {
        SendTrace::new(Arc::clone(&self.tracing), self.span.span_context())
    }

    /// Ends it: so many sockets have it in their queue, and so many were too slow for it.
    pub(crate) fn end(mut self, recipients: u64, slow: usize, at: Instant) {
        self.span
            .set_attribute(count("herald.fan_out.recipients", recipients));
        self.span
            .set_attribute(count("herald.fan_out.slow", slow as u64));
        self.span.end_with_timestamp(self.clock.wall(at));
    }
}

/// A dead letter under way. The event's own span is kept until it is known what became of it, and
/// ends with the time at which the event was done with.
#[derive(Debug)]
pub(crate) struct DeadLetterTrace {
    process: EventTrace,
    processed: Instant,
    span: opentelemetry_sdk::trace::Span,
}

impl DeadLetterTrace {
    /// `sequence` is where the letter stands in DEAD, if that is known.
    pub(crate) fn end(mut self, outcome: &'static str, sequence: Option<u64>) {
        let process = self.process.process.span();
        process.set_attribute(KeyValue::new("herald.dead_letter.outcome", outcome));
        if let Some(sequence) = sequence {
            process.set_attribute(count("herald.dead_letter.sequence", sequence));
            self.span
                .set_attribute(count("messaging.nats.stream.sequence", sequence));
        }
        if outcome == "dropped" {
            self.span
                .set_attribute(KeyValue::new("error.type", outcome));
            self.span
                .set_status(Status::error("the dead letter was not stored"));
        }
        self.span.set_attribute(KeyValue::new(
            "herald.dead_letter.outcome",
            Value::from(outcome),
        ));
        self.span.end();
        self.process.end(self.processed);
    }
}
