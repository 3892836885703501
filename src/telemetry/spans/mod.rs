//! Traces: an event from the broker to the sockets, a connection from its accept to its close.
//!
//! A span is made when all that it says is known, with the times at which it began and ended: what is
//! not recorded costs the decision alone, and no span is open for longer than what it times. Spans are
//! made with OpenTelemetry's own API and not through `tracing`'s, which would collect the data of
//! each before anybody decides whether it is recorded.

mod connection;
mod delivery;
mod event;

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, Span};

pub(crate) use self::connection::{Closed, ConnectionTrace, Outcome, Step, Steps};
pub(crate) use self::delivery::{SendTrace, Sent};
pub(crate) use self::event::{DeadLetterTrace, EventFacts, EventTrace, FanOutTrace};
pub(super) use self::event::{TEMPLATE as EVENT_TEMPLATE, inject};
use super::environment::Propagation;
use super::sampler::Sampler;
use crate::event::Traceparent;

/// Makes spans. There is none where traces are not exported.
#[derive(Debug)]
pub(crate) struct Tracing {
    pub(super) tracer: SdkTracer,
    pub(super) sampler: Sampler,
    pub(super) propagation: Propagation,
    /// `telemetry.send_spans`.
    pub(super) send_spans: usize,
    /// `telemetry.baggage`.
    pub(super) baggage: Vec<String>,
    /// For the connections that are refused.
    pub(super) refusals: Budget,
}

/// A moment by both clocks: spans have times of day, durations are by the clock that never jumps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
}

impl Clock {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The time of day at `at`.
    fn wall(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.at) {
            Some(later) => self.wall + later,
            None => self.wall - self.at.saturating_duration_since(at),
        }
    }
}

/// So many in a second: what anybody can bring about without a token is not to push what matters out
/// of the queue.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Option<(Instant, u32)>>);

impl Budget {
    const A_SECOND: u32 = 10;

    /// Whether one more is in it.
    fn take(&self, now: Instant) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = Duration::from_secs(1);
        match &mut *window {
            Some((since, used)) if now.saturating_duration_since(*since) < second => {
                *used = used.saturating_add(1);
                *used <= Self::A_SECOND
            }
            _ => {
                *window = Some((now, 1));
                true
            }
        }
    }
}

thread_local! {
    /// The trace id of the root that is made next on this thread: the SDK asks its generator for one,
    /// and its builder takes none.
    static ROOT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Random ids, but for a root whose trace id is given.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        ROOT.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// Whom a span continues: a remote parent, or a trace that begins with it.
pub(super) enum Origin {
    Parent(Box<SpanContext>),
    Root(TraceId),
}

impl Tracing {
    /// The origin of what `parent` or, without one, `root` identifies; `None` if it is not recorded.
    pub(super) fn origin(
        &self,
        parent: Option<Traceparent>,
        tracestate: impl FnOnce() -> Option<String>,
        root: impl FnOnce() -> TraceId,
    ) -> Option<Origin> {
        let Some(parent) = parent.filter(|_| self.propagation.trace_context) else {
            let trace = root();
            return self
                .sampler
                .records(None, trace)
                .then_some(Origin::Root(trace));
        };
        let trace = TraceId::from(parent.trace);
        if !self.sampler.records(Some(parent.sampled), trace) {
            return None;
        }
        let parent = remote_span(parent, tracestate().as_deref());
        Some(Origin::Parent(Box::new(parent)))
    }

    pub(super) fn start(&self, origin: Origin, builder: SpanBuilder) -> Span {
        match origin {
            Origin::Parent(parent) => {
                let parent = Context::new().with_remote_span_context(*parent);
                self.tracer.build_with_context(builder, &parent)
            }
            Origin::Root(trace) => {
                ROOT.set(Some(trace));
                let span = self.tracer.build_with_context(builder, &Context::new());
                // The SDK has taken it, unless it is shut down.
                ROOT.take();
                span
            }
        }
    }

    /// A span that began and ended.
    fn past(
        &self,
        parent: &Context,
        name: &'static str,
        clock: Clock,
        (from, to): (Instant, Instant),
        attributes: Vec<KeyValue>,
    ) {
        let builder =
            builder(name, SpanKind::Internal, clock.wall(from)).with_attributes(attributes);
        let mut span = self.tracer.build_with_context(builder, parent);
        span.end_with_timestamp(clock.wall(to));
    }
}

/// Somebody else's span. A `tracestate` that is malformed is dropped alone (W3C Trace Context,
/// section 3.3).
fn remote_span(parent: Traceparent, tracestate: Option<&str>) -> SpanContext {
    let state = tracestate
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let flags = TraceFlags::default().with_sampled(parent.sampled);
    let (trace, span) = (TraceId::from(parent.trace), SpanId::from(parent.span));
    SpanContext::new(trace, span, flags, true, state)
}

pub(super) fn builder(
    name: impl Into<std::borrow::Cow<'static, str>>,
    kind: SpanKind,
    start: SystemTime,
) -> SpanBuilder {
    SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_start_time(start)
}

/// A duration as an attribute, in seconds.
fn seconds(key: &'static str, duration: Duration) -> KeyValue {
    KeyValue::new(key, duration.as_secs_f64())
}

/// A count as an attribute; OpenTelemetry's integers are signed.
pub(super) fn count(key: &'static str, count: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_for_a_second_and_then_new() {
        let budget = Budget::default();
        let start = Instant::now();
        let taken = |at| (0..50).filter(|_| budget.take(at)).count();
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start + Duration::from_millis(999)), 0);
        assert_eq!(taken(start + Duration::from_secs(1)), 10);
    }
}
