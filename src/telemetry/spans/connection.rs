//! The spans of a connection: `connection` until it is open or refused, with one for each phase on the
//! way there, and `close` when it ends. In between none is open; `send` spans link to the first.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt};
use opentelemetry::{Context, ContextGuard};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Clock, context, count, go_on, of_our_own, past, remote_span, span, start, tracing};
use crate::event::{TRACESTATE_MAX, Traceparent};
use crate::word_enum::word_enum;

word_enum! {
    /// The phases from the accepted connection to the open socket, in their order. The words are the names of their
    /// spans, and labels.
    pub(crate) enum JoinPhase {
        /// TCP, TLS and the request's head.
        Accept = "accept",
        /// Token, slug, access.
        Authenticate = "authenticate",
        /// Capacity, the room's activation and the start position.
        Activate = "activate",
        /// The claim.
        Claim = "claim",
        /// The membership in the room, and the 101.
        Open = "open",
    }
}

/// What a join did so far, phase by phase. Kept whether or not it is recorded: metrics have it, too.
#[derive(Debug)]
pub(crate) struct JoinPhases {
    begun: Vec<(JoinPhase, Instant)>,
    ended: Option<Instant>,
    connection: ConnectionSpan,
    /// Of the phase under way.
    phase: Span,
}

impl JoinPhases {
    /// The phases of a request with these headers at `path`, the first on a connection that was accepted then.
    /// A later one on the same connection has no such time.
    pub(crate) fn new(path: &str, headers: &HeaderMap, accepted: Option<Clock>) -> Self {
        let begun = accepted.map(|clock| (JoinPhase::Accept, clock.at));
        let connection = ConnectionSpan::begin(path, headers, accepted);
        if let Some(accepted) = accepted.filter(|_| !connection.span.is_disabled()) {
            // Whether a connection asks for a socket is known when its request has come.
            let times = (accepted.at, Instant::now());
            past(&connection.phase(JoinPhase::Accept), accepted, times);
        }
        Self {
            begun: begun.into_iter().collect(),
            ended: None,
            connection,
            phase: Span::none(),
        }
    }

    /// The phase before ends, and this one begins.
    pub(crate) fn begin(&mut self, phase: JoinPhase) {
        self.begun.push((phase, Instant::now()));
        self.phase = self.connection.phase(phase);
    }

    /// The last phase ends.
    pub(crate) fn end(&mut self) {
        self.ended.get_or_insert_with(Instant::now);
        self.phase = Span::none();
    }

    /// The span of the phase under way, for what is awaited in it.
    pub(crate) fn span(&self) -> Span {
        self.phase.clone()
    }

    /// The connection's span, and how it ends.
    pub(crate) fn connection(&mut self) -> &mut ConnectionSpan {
        &mut self.connection
    }

    /// Each phase with its times.
    fn times(&self) -> impl Iterator<Item = (JoinPhase, Instant, Instant)> {
        let last = self.ended.unwrap_or_else(Instant::now);
        let ends = self.begun.iter().skip(1).map(|(_, at)| *at).chain([last]);
        let phases = self.begun.iter().zip(ends);
        phases.map(|((phase, from), to)| (*phase, *from, to))
    }

    /// What each phase took, and all of them together from the request on: before it, a connection may
    /// just stand open.
    pub(crate) fn took(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let last = self.ended.unwrap_or_else(Instant::now);
        let is_of_request = |(phase, _): &&(JoinPhase, Instant)| *phase != JoinPhase::Accept;
        let request = self.begun.iter().find(is_of_request);
        let request = request.map_or(last, |(_, at)| *at);
        self.times()
            .map(move |(phase, from, to)| (phase.as_str(), since(from, to)))
            .chain([("total", since(request, last))])
    }
}

/// How a join ended.
#[derive(Debug)]
pub(crate) enum JoinOutcome<'a> {
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

/// The span of a connection; none if it is not recorded. If the peer leaves before it has an answer, the span has no
/// status.
#[derive(Debug)]
pub(crate) struct ConnectionSpan {
    span: Span,
    is_open: bool,
}

impl ConnectionSpan {
    /// It is decided now whether it is recorded, before its end is known. None is recorded in a second in which many were
    /// refused.
    fn begin(path: &str, headers: &HeaderMap, accepted: Option<Clock>) -> Self {
        let origin = tracing()
            .filter(|tracing| tracing.refusals.is_left(Instant::now()))
            .and_then(of_our_own);
        let Some(origin) = origin else {
            return Self {
                span: Span::none(),
                is_open: false,
            };
        };
        let span = span!(
            None,
            "connection",
            otel.kind = "server",
            http.request.method = "GET",
            http.route = path,
            url.path = path,
            network.protocol.name = "websocket",
        );
        // A link and not the parent. Else a client would decide what is recorded.
        if let Some(client) = client(headers) {
            span.add_link(client);
        }
        start(&span, origin, accepted.map(|clock| clock.wall));
        Self {
            span,
            is_open: false,
        }
    }

    fn phase(&self, phase: JoinPhase) -> Span {
        let parent = &self.span;
        if parent.is_disabled() {
            return Span::none();
        }
        match phase {
            JoinPhase::Accept => span!(parent, "accept"),
            JoinPhase::Authenticate => span!(parent, "authenticate"),
            JoinPhase::Activate => span!(parent, "activate"),
            JoinPhase::Claim => span!(parent, "claim"),
            JoinPhase::Open => span!(parent, "open"),
        }
    }

    /// The span, for what belongs to no phase.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Notes how it ended.
    pub(crate) fn ended(&mut self, outcome: &JoinOutcome<'_>) {
        let span = &self.span;
        if span.is_disabled() {
            return;
        }
        let status = match outcome {
            JoinOutcome::Open { workspace, session } => {
                self.is_open = true;
                span.set_attribute("herald.workspace", (*workspace).to_owned());
                span.set_attribute("herald.session.id", session.clone());
                101
            }
            JoinOutcome::Closed { code, reason } => {
                span.set_attribute("herald.close.code", count(*code));
                span.set_attribute("herald.close.reason", *reason);
                101
            }
            JoinOutcome::Refused { status, reason } => {
                span.set_attribute("herald.refused.reason", *reason);
                span.set_attribute("error.type", *reason);
                if *status >= 500 {
                    span.set_status(Status::error(*reason));
                }
                *status
            }
        };
        span.set_attribute("http.response.status_code", count(status));
    }

    /// What remains of it once it is open, if it is recorded.
    pub(crate) fn trace(&self) -> Option<Box<ConnectionTrace>> {
        let is_recorded = !self.span.is_disabled();
        is_recorded.then(|| Box::new(ConnectionTrace(context(&self.span))))
    }
}

impl Drop for ConnectionSpan {
    fn drop(&mut self) {
        if let (false, false, Some(tracing)) = (self.is_open, self.span.is_disabled(), tracing()) {
            tracing.refusals.take(Instant::now());
        }
    }
}

/// The trace of a connection that is recorded and open. Its span has ended: none is open for hours.
#[derive(Debug)]
pub(crate) struct ConnectionTrace(SpanContext);

impl ConnectionTrace {
    /// What `send` spans link to.
    pub(crate) fn span(&self) -> &SpanContext {
        &self.0
    }

    /// Makes the connection's span the current one: log lines written meanwhile carry its ids.
    pub(crate) fn enter(&self) -> ContextGuard {
        Context::new()
            .with_remote_span_context(self.0.clone())
            .attach()
    }

    /// Begins the end of its socket, which was open for so long. `code` is the close code of RFC 6455 section
    /// 7.4, 1006 where there is no close frame.
    pub(crate) fn close(
        &self,
        (code, reason): (u16, &'static str),
        session: &str,
        open_for: Duration,
    ) -> Span {
        let span = span!(
            None,
            "close",
            herald.close.code = count(code),
            herald.close.reason = reason,
            herald.session.id = session,
            herald.connection.duration = open_for.as_secs_f64(),
        );
        go_on(&span, &self.0);
        span.add_link(self.0.clone());
        span
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_without_a_gap() {
        let start = Clock::now();
        let mut phases = JoinPhases::new("/", &HeaderMap::new(), Some(start));
        phases.begin(JoinPhase::Authenticate);
        phases.begin(JoinPhase::Activate);
        phases.end();
        let times: Vec<_> = phases.times().collect();
        let names: Vec<_> = times.iter().map(|(phase, ..)| phase.as_str()).collect();
        assert_eq!(names, ["accept", "authenticate", "activate"]);
        assert_eq!(times[0].1, start.at);
        for pair in times.windows(2) {
            assert_eq!(pair[0].2, pair[1].1);
        }
        let took: Vec<_> = phases.took().collect();
        assert_eq!(took.len(), 4);
        let total = took[1..3].iter().map(|(_, took)| *took).sum::<Duration>();
        assert_eq!(took[3], ("total", total));
    }
}
