//! The spans of a connection: `connection` until it is open or refused, with one for each step on the
//! way there, and `close` when it ends. In between none is open; `send` spans link to the first.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::{Clock, Tracing, builder, count, remote_span, seconds};
use crate::event::{TRACESTATE_MAX, Traceparent};

/// The steps from the accepted connection to the open socket, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// TCP, TLS and the request's head.
    Accept,
    /// Token, slug, access.
    Authenticate,
    /// Capacity, the room's activation and the floor.
    Activate,
    /// The claim.
    Claim,
    /// The place in the room, and the 101.
    Open,
}

impl Step {
    /// Its span's name and its metric's label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Authenticate => "authenticate",
            Self::Activate => "activate",
            Self::Claim => "claim",
            Self::Open => "open",
        }
    }
}

/// What a join did so far, step by step. Kept whether or not it is recorded: metrics have it, too.
#[derive(Debug)]
pub(crate) struct Steps {
    clock: Clock,
    begun: Vec<(Step, Instant)>,
    ended: Option<Instant>,
    /// The span that a proxy or the client says its request is of.
    client: Option<SpanContext>,
}

impl Steps {
    /// The steps of a request with these headers, the first on a connection that was accepted then.
    /// A later one on the same connection has no such time.
    pub(crate) fn new(headers: &HeaderMap, accepted: Option<Clock>) -> Self {
        let begun = accepted.map(|clock| (Step::Accept, clock.at));
        Self {
            clock: accepted.unwrap_or_else(Clock::now),
            begun: begun.into_iter().collect(),
            ended: None,
            client: client(headers),
        }
    }

    /// The step before ends, and this one begins.
    pub(crate) fn begin(&mut self, step: Step) {
        self.begun.push((step, Instant::now()));
    }

    /// The last step ends.
    pub(crate) fn end(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
    }

    /// Each step with its times.
    fn times(&self) -> impl Iterator<Item = (Step, Instant, Instant)> {
        let last = self.ended.unwrap_or_else(Instant::now);
        let ends = self.begun.iter().skip(1).map(|(_, at)| *at).chain([last]);
        let steps = self.begun.iter().zip(ends);
        steps.map(|((step, from), to)| (*step, *from, to))
    }

    /// What each step took, and all of them together from the request on: before it, a connection may
    /// just stand open.
    pub(crate) fn took(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let last = self.ended.unwrap_or_else(Instant::now);
        let is_of_request = |(step, _): &&(Step, Instant)| *step != Step::Accept;
        let request = self.begun.iter().find(is_of_request);
        let request = request.map_or(last, |(_, at)| *at);
        self.times()
            .map(move |(step, from, to)| (step.as_str(), since(from, to)))
            .chain([("total", since(request, last))])
    }
}

/// How a join ended.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Open {
        workspace: &'a str,
        session: String,
    },
    /// Upgraded and closed at once.
    Closed {
        code: u16,
        reason: &'static str,
    },
    /// An HTTP error.
    Refused {
        status: u16,
        reason: &'static str,
    },
}

/// The trace of a connection that is recorded.
#[derive(Debug)]
pub(crate) struct ConnectionTrace(SpanContext);

impl ConnectionTrace {
    /// What `send` spans link to.
    pub(crate) fn span(&self) -> &SpanContext {
        &self.0
    }

    /// Makes the connection's span the current one: log lines written meanwhile carry its ids.
    pub(crate) fn enter(&self) -> ContextGuard {
        self.context().attach()
    }

    fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

/// The end of a socket.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The close code of RFC 6455 section 7.4, 1006 where there was no close frame.
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) session: String,
    /// When the socket opened.
    pub(crate) opened: Instant,
    /// When the close began.
    pub(crate) began: Clock,
}

impl Tracing {
    /// Makes the spans of a join at `path` that has ended; `None` if it is not recorded.
    pub(crate) fn connection(
        &self,
        path: &str,
        steps: &Steps,
        outcome: &Outcome<'_>,
    ) -> Option<ConnectionTrace> {
        let is_open = matches!(outcome, Outcome::Open { .. });
        if !is_open && !self.refusals.take(Instant::now()) {
            return None;
        }
        let trace = RandomIdGenerator::default().new_trace_id();
        let origin = self.origin(None, || None, || trace)?;
        let mut builder = builder("connection", SpanKind::Server, steps.clock.wall)
            .with_attributes(attributes(path, outcome));
        // A link and not the parent: whoever connects would else decide what is recorded.
        if let Some(client) = &steps.client {
            builder = builder.with_links(vec![Link::with_context(client.clone())]);
        }
        let mut span = self.start(origin, builder);
        if let Outcome::Refused {
            status: 500..,
            reason,
        } = outcome
        {
            span.set_status(Status::error(*reason));
        }
        let context = span.span_context().clone();
        let below = Context::new().with_remote_span_context(context.clone());
        let mut end = steps.clock.at;
        for (step, from, to) in steps.times() {
            self.past(&below, step.as_str(), steps.clock, (from, to), Vec::new());
            end = to;
        }
        span.end_with_timestamp(steps.clock.wall(end));
        Some(ConnectionTrace(context))
    }

    /// Makes the span of a socket's end, which is now.
    pub(crate) fn closed(&self, connection: &ConnectionTrace, closed: &Closed) {
        let open_for = closed.began.at.saturating_duration_since(closed.opened);
        let attributes = [
            count("herald.close.code", closed.code.into()),
            KeyValue::new("herald.close.reason", closed.reason),
            KeyValue::new("herald.session.id", closed.session.clone()),
            seconds("herald.connection.duration", open_for),
        ];
        let builder = builder("close", SpanKind::Internal, closed.began.wall)
            .with_attributes(attributes)
            .with_links(vec![Link::with_context(connection.0.clone())]);
        let mut span = self
            .tracer
            .build_with_context(builder, &connection.context());
        span.end();
    }
}

/// The span that the request's headers name. Nothing else of them is looked at, and nothing of the
/// request's query, which holds the token.
fn client(headers: &HeaderMap) -> Option<SpanContext> {
    let header = |name| {
        let mut values = headers.get_all(name).into_iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    };
    let parent = header("traceparent").and_then(Traceparent::parse)?;
    let state = header("tracestate").filter(|text| text.len() <= TRACESTATE_MAX);
    Some(remote_span(parent, state))
}

fn attributes(path: &str, outcome: &Outcome<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("http.request.method", "GET"),
        KeyValue::new("http.route", path.to_owned()),
        KeyValue::new("url.path", path.to_owned()),
        KeyValue::new("network.protocol.name", "websocket"),
    ];
    let status = match outcome {
        Outcome::Open { workspace, session } => {
            attributes.push(KeyValue::new("herald.workspace", (*workspace).to_owned()));
            attributes.push(KeyValue::new("herald.session.id", session.clone()));
            101
        }
        Outcome::Closed { code, reason } => {
            attributes.push(count("herald.close.code", (*code).into()));
            attributes.push(KeyValue::new("herald.close.reason", *reason));
            101
        }
        Outcome::Refused { status, reason } => {
            attributes.push(KeyValue::new("herald.refused.reason", *reason));
            attributes.push(KeyValue::new("error.type", *reason));
            *status
        }
    };
    attributes.push(count("http.response.status_code", status.into()));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_without_a_gap() {
        let start = Clock::now();
        let mut steps = Steps::new(&HeaderMap::new(), Some(start));
        steps.begin(Step::Authenticate);
        steps.begin(Step::Activate);
        steps.end();
        let times: Vec<_> = steps.times().collect();
        let names: Vec<_> = times.iter().map(|(step, ..)| step.as_str()).collect();
        assert_eq!(names, ["accept", "authenticate", "activate"]);
        assert_eq!(times[0].1, start.at);
        for pair in times.windows(2) {
            assert_eq!(pair[0].2, pair[1].1);
        }
        let took: Vec<_> = steps.took().collect();
        assert_eq!(took.len(), 4);
        let total = took[1..3].iter().map(|(_, took)| *took).sum::<Duration>();
        assert_eq!(took[3], ("total", total));
    }
}
