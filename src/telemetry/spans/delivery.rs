//! The `send` span of one notification to one socket: from the queue to the kernel.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry::trace::{Link, Span as _, SpanContext, SpanKind, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};

use super::{Clock, Tracing, builder, count, seconds};

/// What a `send` span is made with, when the bytes are the kernel's. Shared by all sockets of a
/// notification.
#[derive(Debug)]
pub(crate) struct SendTrace {
    tracing: Arc<Tracing>,
    fan_out: Context,
}

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
    pub(super) fn new(tracing: Arc<Tracing>, fan_out: &SpanContext) -> Self {
        Self {
            tracing,
            fan_out: Context::new().with_remote_span_context(fan_out.clone()),
        }
    }

    /// Makes the span, and says which one it is.
    pub(crate) fn sent(&self, sent: Sent<'_>) -> SpanContext {
        let since = |later: Instant, earlier: Instant| later.saturating_duration_since(earlier);
        let attributes = [
            KeyValue::new("network.protocol.name", "websocket"),
            KeyValue::new("herald.session.id", sent.session),
            count("herald.notification.size", sent.size as u64),
            seconds("herald.send.queue_wait", since(sent.taken, sent.queued.at)),
            seconds("herald.send.write_time", since(sent.written, sent.taken)),
        ];
        let mut builder =
            builder("send", SpanKind::Producer, sent.queued.wall).with_attributes(attributes);
        if let Some(connection) = sent.connection {
            builder = builder.with_links(vec![Link::with_context(connection.clone())]);
        }
        let mut span = self
            .tracing
            .tracer
            .build_with_context(builder, &self.fan_out);
        span.end_with_timestamp(sent.queued.wall(sent.written));
        span.span_context().clone()
    }
}
