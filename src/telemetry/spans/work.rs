//! The spans of the gateway's own work, that no event and no client asks for by itself: each is a trace of its
//! own. What is done for it, or for a join, has a span below it where that is recorded, and none where it is not.

use opentelemetry::trace::Status;
use tracing::Span;
use tracing::span::Id;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{count, of_our_own, span, start, tracing};
use crate::event::WorkspaceSlug;

/// A trace of its own, if that is recorded: `open` opens its span below the parent that it is given, which is none.
fn work(open: impl FnOnce(Option<Id>) -> Span) -> Span {
    let Some(origin) = tracing().and_then(of_our_own) else {
        return Span::none();
    };
    let span = open(None);
    start(&span, origin, None);
    span
}

/// A part of what the current span is of, if that is recorded.
fn part(open: impl FnOnce(Option<Id>) -> Span) -> Span {
    let whole = Span::current();
    if whole.is_disabled() {
        return whole;
    }
    open(whole.id())
}

/// What can go wrong with work.
pub(crate) trait Failure {
    /// Says in the current span that it went wrong, and how.
    fn record_error(self) -> Self;
}

impl<T, E: std::fmt::Display> Failure for Result<T, E> {
    fn record_error(self) -> Self {
        if let Err(error) = &self {
            let span = Span::current();
            if !span.is_disabled() {
                span.set_status(Status::error(error.to_string()));
            }
        }
        self
    }
}

/// A room subscribes and reads where the stream ends, as often as it takes.
pub(crate) fn activate_room(workspace: &WorkspaceSlug) -> Span {
    work(|parent| {
        span!(
            parent,
            "activate_room",
            herald.workspace = workspace.as_str()
        )
    })
}

/// `rooms` are compared with the stream.
pub(crate) fn sweep(rooms: usize) -> Span {
    work(|parent| span!(parent, "sweep", herald.sweep.rooms = count(rooms)))
}

/// A room reads back what it may have missed.
pub(crate) fn repair(workspace: &WorkspaceSlug, reason: &'static str) -> Span {
    work(|parent| {
        span!(
            parent,
            "repair",
            herald.workspace = workspace.as_str(),
            herald.repair.reason = reason
        )
    })
}

/// One read of the repair whose span is current.
pub(crate) fn repair_batch() -> Span {
    part(|repair| span!(repair, "repair_batch"))
}

/// The batch whose span is current has so many messages.
pub(crate) fn repaired(messages: usize) {
    let batch = Span::current();
    if !batch.is_disabled() {
        batch.set_attribute("herald.repair.messages", count(messages));
    }
}

/// `claims` are compared with what SESSIONS holds.
pub(crate) fn check_claims(claims: usize) -> Span {
    work(|parent| span!(parent, "check_claims", herald.claims = count(claims)))
}

/// A request to `api` of JetStream at the leader of `stream`: for the current span, or for many at once.
pub(crate) fn read_leader(stream: &str, api: &str, is_for_many: bool) -> Span {
    let open = |parent| {
        span!(
            parent,
            "read_leader",
            otel.kind = "client",
            messaging.system = "nats",
            messaging.nats.stream.name = stream,
            herald.leader.api = api
        )
    };
    if is_for_many { work(open) } else { part(open) }
}

/// The migrations are applied, or looked at.
pub(crate) fn migrate() -> Span {
    work(|parent| span!(parent, "migrate"))
}

/// The gateway drains.
pub(crate) fn drain(sockets: usize) -> Span {
    work(|parent| span!(parent, "drain", herald.drain.sockets = count(sockets)))
}

/// The connection to NATS is gone. It ends when there is another.
pub(crate) fn reconnect() -> Span {
    work(|parent| {
        span!(
            parent,
            "reconnect",
            otel.kind = "client",
            messaging.system = "nats"
        )
    })
}
