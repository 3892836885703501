//! Traces: an event from the broker to the sockets, a connection from its accept to its close, and the
//! gateway's own work.
//! It is decided before the first span whether a trace is recorded ([`Tracing::origin`]). If it is not, no span is opened. Spans are `tracing`'s, and `tracing-opentelemetry` makes OpenTelemetry's of
//! them; the log never sees one. They are of the least verbose level, so that they have no line asked about
//! that the log leaves out, and all have one target, which keeps those of dependencies out.

mod connection;
mod delivery;
mod event;
mod published;
mod work;

use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, Tracer,
    TracerProvider as _,
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

pub(crate) use self::connection::{ConnectionTrace, JoinOutcome, JoinPhase, JoinPhases};
pub(crate) use self::delivery::{SendSpan, SendTrace, Sent};
pub(crate) use self::event::{DeadLetterTrace, EventFacts, EventTrace, FanOutTrace};
pub(super) use self::published::receive;
pub(crate) use self::published::{Publication, publish_request};
pub(crate) use self::work::{
    Failure, activate_room, check_claims, drain, migrate, read_leader, reconnect, repair,
    repair_batch, repaired, sweep,
};
use super::sampler::Sampler;
use crate::event::Traceparent;

/// The target of all spans.
const TARGET: &str = "herald::span";

/// Opens a span below another one, or `None` for one that begins a trace or whose parent is set.
macro_rules! span {
    ($parent:expr, $name:expr $(, $($field:tt)+)?) => {
        tracing::span!(
            target: $crate::telemetry::spans::TARGET,
            parent: $parent,
            tracing::Level::ERROR,
            $name
            $(, $($field)+)?
        )
    };
}
use span;

/// What decides on spans. There is none where traces are not exported.
#[derive(Debug)]
struct Tracing {
    sampler: Sampler,
    /// `telemetry.send_spans`.
    send_spans: usize,
    /// `telemetry.baggage`.
    baggage: Vec<String>,
    /// For the connections that are refused.
    refusals: RefusalBudget,
}

/// One for the process, as the subscriber of its spans is.
static TRACING: OnceLock<Tracing> = OnceLock::new();

/// `None` where traces are not exported: then no span is opened.
fn tracing() -> Option<&'static Tracing> {
    TRACING.get()
}

/// Spans are opened from now on. To be called once their subscriber is there; a second call changes nothing.
pub(super) fn begin(sampler: Sampler, send_spans: usize, baggage: Vec<String>) {
    TRACING.get_or_init(|| Tracing {
        sampler,
        send_spans,
        baggage,
        refusals: RefusalBudget::default(),
    });
}

/// The layer that makes OpenTelemetry's spans of ours.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == TARGET;
    tracing_opentelemetry::layer()
        .with_tracer(Starting(provider.tracer("herald")))
        // What a span says is what `docs/observability.md` lists.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(is_ours).with_max_level_hint(LevelFilter::ERROR))
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
struct RefusalBudget(Mutex<Option<(Instant, u32)>>);

impl RefusalBudget {
    const A_SECOND: u32 = 10;

    /// How many of this second there were, after `more` of them.
    fn count(&self, now: Instant, more: u32) -> u32 {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, used) = window.get_or_insert((now, 0));
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *used) = (now, 0);
        }
        *used = used.saturating_add(more);
        *used
    }

    fn take(&self, now: Instant) {
        self.count(now, 1);
    }

    fn is_left(&self, now: Instant) -> bool {
        self.count(now, 0) < Self::A_SECOND
    }
}

thread_local! {
    /// The trace id of the root that is started next on this thread: the SDK asks its generator for one,
    /// and its builder takes none.
    static ROOT: Cell<Option<TraceId>> = const { Cell::new(None) };
    /// When the span that is started next on this thread began: `tracing` has spans begin as they are opened.
    static BEGAN: Cell<Option<SystemTime>> = const { Cell::new(None) };
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

/// The SDK's tracer, but for a span whose beginning is given.
struct Starting(SdkTracer);

impl Tracer for Starting {
    type Span = opentelemetry_sdk::trace::Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Self::Span {
        if let Some(began) = BEGAN.take() {
            builder.start_time = Some(began);
        }
        self.0.build_with_context(builder, parent)
    }
}

/// Whom a span continues: a remote parent, or a trace that begins with it.
enum Origin {
    Parent(Box<SpanContext>),
    Root(TraceId),
}

impl Tracing {
    /// The origin of what `parent` or, without one, `root` identifies; `None` if it is not recorded.
    fn origin(
        &self,
        parent: Option<Traceparent>,
        tracestate: impl FnOnce() -> Option<String>,
        root: impl FnOnce() -> TraceId,
    ) -> Option<Origin> {
        let Some(parent) = parent else {
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
}

/// The origin of a trace of our own; `None` if it is not recorded.
fn of_our_own(tracing: &Tracing) -> Option<Origin> {
    let trace = || RandomIdGenerator::default().new_trace_id();
    tracing.origin(None, || None, trace)
}

/// Starts `span`, which has just been opened, as one that goes on from `origin` and began at `began`.
fn start(span: &Span, origin: Origin, began: Option<SystemTime>) {
    match origin {
        Origin::Parent(parent) => go_on(span, &parent),
        Origin::Root(trace) => ROOT.set(Some(trace)),
    }
    BEGAN.set(began);
    // It starts now, and takes both.
    context(span);
    // Unless there is no layer for it.
    ROOT.take();
    BEGAN.take();
}

/// `span` is below `parent`, which is another process', or has ended.
fn go_on(span: &Span, parent: &SpanContext) {
    // It fails only for a span that is started, or that no layer takes. Then there is no trace to continue.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent.clone()));
}

/// `span` is of what was over before it could be decided whether it is recorded.
fn past(span: &Span, clock: Clock, (from, to): (Instant, Instant)) {
    BEGAN.set(Some(clock.wall(from)));
    let context = span.context();
    BEGAN.take();
    context.span().end_with_timestamp(clock.wall(to));
}

/// The ids of `span`.
fn context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
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

/// A count as an attribute; OpenTelemetry's integers are signed.
fn count(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_for_a_second_and_then_new() {
        let budget = RefusalBudget::default();
        let start = Instant::now();
        let taken = |at| {
            let left = (0..50).take_while(|_| {
                let is_left = budget.is_left(at);
                budget.take(at);
                is_left
            });
            left.count()
        };
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start + Duration::from_millis(999)), 0);
        assert_eq!(taken(start + Duration::from_secs(1)), 10);
    }
}
