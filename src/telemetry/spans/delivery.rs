//! The `send` span of one notification to one socket: from the queue to the kernel.

use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Clock, count, go_on, span};

/// Whom the `send` spans of a notification are below. Only its ids: the span itself, which some sockets may
/// outlive for long, is to end with the fan-out.
#[derive(Debug)]
pub(crate) struct SendTrace {
    pub(super) fan_out: SpanContext,
}

/// A notification that waits for one socket. Where that ends before it is written, the span says no
/// `herald.send.write_time`.
#[derive(Debug, Clone)]
pub(crate) struct SendSpan(Span);

/// One notification that was written.
#[derive(Debug)]
pub(crate) struct Sent<'a> {
    /// The socket's session.
    pub(crate) session: String,
    /// The socket's own span, if that is recorded.
    pub(crate) connection: Option<&'a SpanContext>,
    /// Bytes of its text.
    pub(crate) size: usize,
    /// When it came into the queue.
    pub(crate) queued: Clock,
    /// When its writing began.
    pub(crate) taken: Instant,
    /// When the kernel had all of it.
    pub(crate) written: Instant,
}

impl SendTrace {
    /// It comes into a socket's queue.
    pub(crate) fn queued(&self) -> SendSpan {
        let span = span!(
            None,
            "send",
            otel.kind = "producer",
            network.protocol.name = "websocket"
        );
        go_on(&span, &self.fan_out);
        SendSpan(span)
    }
}

impl SendSpan {
    /// Ends it, and says which one it is.
    pub(crate) fn sent(self, sent: Sent<'_>) -> SpanContext {
        let since = |later: Instant, earlier: Instant| {
            later.saturating_duration_since(earlier).as_secs_f64()
        };
        let wait = since(sent.taken, sent.queued.at);
        let write = since(sent.written, sent.taken);
        // Looked up once: each look goes through all layers of the subscriber.
        let context = self.0.context();
        let span = context.span();
        span.set_attributes([
            KeyValue::new("herald.session.id", sent.session),
            KeyValue::new("herald.notification.size", count(sent.size)),
            KeyValue::new("herald.send.queue_wait", wait),
            KeyValue::new("herald.send.write_time", write),
        ]);
        if let Some(connection) = sent.connection {
            span.add_link(connection.clone(), Vec::new());
        }
        span.span_context().clone()
    }
}
