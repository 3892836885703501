//! The spans of those that publish and receive: commands, and HTTP publishing.

use async_nats::HeaderMap;
use opentelemetry::trace::{Status, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing::span::Id;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::event::{TEMPLATE, inject};
use super::{context, count, of_our_own, span, start, tracing};
use crate::event::{Traceparent, traceparent, tracestate};

/// A publication under way.
#[derive(Debug)]
pub(crate) struct Publication(Span);

impl Publication {
    /// Begins the trace of an event that is to be published on `subject`; its context goes into
    /// `headers`. Without an exporter it gets a trace of its own all the same.
    pub(in crate::telemetry) fn begin(subject: &str, size: usize, headers: &mut HeaderMap) -> Self {
        let Some(origin) = tracing().and_then(of_our_own) else {
            let ids = RandomIdGenerator::default();
            let (trace, span) = (ids.new_trace_id(), ids.new_span_id());
            // Exported, but not sampled: everybody who follows leaves it out, too.
            let flags = if tracing().is_some() { "00" } else { "01" };
            headers.insert("traceparent", format!("00-{trace}-{span}-{flags}"));
            return Self(Span::none());
        };
        let span = Self::span(None, subject, size);
        start(&span, origin, None);
        inject(&context(&span), headers);
        Self(span)
    }

    /// The same below the span of a request. If that is not recorded, the headers stay as its sender gave them.
    pub(crate) fn below(
        request: &Span,
        subject: &str,
        size: usize,
        headers: &mut HeaderMap,
    ) -> Self {
        if request.is_disabled() {
            return Self(Span::none());
        }
        let span = Self::span(request.id(), subject, size);
        inject(&context(&span), headers);
        Self(span)
    }

    fn span(parent: Option<Id>, subject: &str, size: usize) -> Span {
        span!(
            parent,
            "publish ws.{workspace}.{category}.{name}",
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.operation.name = "publish",
            messaging.operation.type = "send",
            messaging.destination.name = subject,
            messaging.destination.template = TEMPLATE,
            messaging.message.body.size = count(size),
        )
    }

    /// The event is stored at `sequence` of `stream`.
    pub(crate) fn stored(self, stream: &str, sequence: u64) {
        let Self(span) = self;
        span.set_attribute("messaging.nats.stream.name", stream.to_owned());
        span.set_attribute("messaging.nats.stream.sequence", count(sequence));
    }

    /// It is not, as far as is known.
    pub(crate) fn failed(self, why: &str) {
        self.0.set_status(Status::error(why.to_owned()));
    }
}

/// The span of a request to publish by HTTP that has these headers for NATS: below its sender's, if that is recorded.
pub(crate) fn publish_request(headers: &HeaderMap) -> Span {
    let parent = traceparent(headers).and_then(Traceparent::parse);
    let root = || RandomIdGenerator::default().new_trace_id();
    let origin = tracing().and_then(|tracing| tracing.origin(parent, || tracestate(headers), root));
    let Some(origin) = origin else {
        return Span::none();
    };
    let span = span!(
        None,
        "POST /v1/workspaces/{workspace}/events/{event}",
        otel.kind = "server",
        http.request.method = "POST",
        http.route = "/v1/workspaces/{workspace}/events/{event}",
    );
    start(&span, origin, None);
    span
}

/// Makes the span of a notification that came, the child of the `traceparent` that it brought.
pub(in crate::telemetry) fn receive(notification: &str, traceparent: Traceparent, size: usize) {
    let no_root = || TraceId::INVALID;
    let origin = tracing().and_then(|tracing| tracing.origin(Some(traceparent), || None, no_root));
    if let Some(origin) = origin {
        let span = span!(
            None,
            "receive notification",
            otel.kind = "consumer",
            messaging.system = "herald",
            messaging.operation.name = "receive",
            messaging.operation.type = "receive",
            messaging.message.id = notification,
            messaging.message.body.size = count(size),
            network.protocol.name = "websocket",
        );
        start(&span, origin, None);
    }
}
