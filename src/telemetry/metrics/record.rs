//! One method for each thing that is counted or measured, so that no other module knows a name or a label.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;

use super::exemplars::Exemplar;
use super::{LiveDrop, Metrics, Stage, TokenCheck, Traffic};
use crate::codes::HttpRefusal;
use crate::event::{Reason, WorkspaceSlug};

impl Metrics {
    pub(crate) fn connection_opened(&self) {
        self.instruments.connections.add(1, &[]);
        self.instruments.connections_opened.add(1);
    }

    pub(crate) fn connection_closed(&self, code: &'static str) {
        self.instruments.connections.add(-1, &[]);
        self.count_close(code);
    }

    /// A close that ended a handshake: the socket never counted as open.
    pub(crate) fn count_close(&self, code: &'static str) {
        self.instruments
            .connections_closed
            .add(1, &[KeyValue::new("code", code)]);
    }

    pub(crate) fn join_refused(&self, reason: HttpRefusal) {
        match reason {
            HttpRefusal::WorkspaceFull => self.workspace_limit("connections"),
            HttpRefusal::WorkspaceRate => self.workspace_limit("joins"),
            _ => {}
        }
        self.instruments
            .connections_refused
            .add(1, &[KeyValue::new("reason", reason.label())]);
    }

    pub(crate) fn join_phase(&self, phase: &'static str, took: Duration) {
        self.instruments
            .joins
            .record(took.as_secs_f64(), &[KeyValue::new("step", phase)]);
    }

    pub(crate) fn token_check(&self, usage: &'static str, result: TokenCheck) {
        let labels = [
            KeyValue::new("use", usage),
            KeyValue::new("result", result.as_str()),
        ];
        self.instruments.token_checks.add(1, &labels);
    }

    pub(crate) fn operator_request(&self, result: &'static str) {
        self.instruments
            .operator_requests
            .add(1, &[KeyValue::new("result", result)]);
    }

    pub(crate) fn room_opened(&self, workspace: &WorkspaceSlug) -> Arc<Traffic> {
        self.instruments.rooms.add(1, &[]);
        self.top_k.open(workspace)
    }

    pub(crate) fn room_closed(&self, workspace: &WorkspaceSlug, traffic: &Arc<Traffic>) {
        self.instruments.rooms.add(-1, &[]);
        self.top_k.close(workspace, traffic);
    }

    pub(crate) fn received(&self, repair: Option<&'static str>) {
        match repair {
            None => self.received_live.add(1),
            Some(reason) => {
                self.received_repair.add(1);
                self.instruments
                    .repaired
                    .add(1, &[KeyValue::new("reason", reason)]);
            }
        }
    }

    pub(crate) fn event_projected(&self) {
        self.instruments.projected.add(1);
    }

    pub(crate) fn event_bad(&self, reason: Reason) {
        self.instruments
            .bad
            .add(1, &[KeyValue::new("reason", reason.as_str())]);
    }

    pub(crate) fn event_late(&self) {
        self.instruments.late.add(1);
    }

    pub(crate) fn event_duplicate(&self) {
        self.instruments.duplicate.add(1);
    }

    pub(crate) fn possibly_lost(&self, sequences: u64) {
        self.instruments
            .lost
            .add(sequences, &[KeyValue::new("reason", "aged_out")]);
    }

    /// Sockets that were ended because something of them was revoked.
    pub(crate) fn revoked_sockets(&self, sockets: u64) {
        self.instruments.revoked_sockets.add(sockets);
    }

    /// Sockets that were closed without what was stored last for them.
    pub(crate) fn closed_behind(&self, sockets: u64) {
        self.instruments
            .lost
            .add(sockets, &[KeyValue::new("reason", "closed")]);
    }

    /// An event was dropped, since its workspace has more than its rate.
    pub(crate) fn dropped_over_rate(&self) {
        self.instruments
            .lost
            .add(1, &[KeyValue::new("reason", "over_rate")]);
    }

    /// A workspace begins to be slowed.
    pub(crate) fn workspace_slowed(&self) {
        self.workspace_limit("events");
        self.instruments.workspaces_slowed.add(1, &[]);
    }

    /// It is slowed no more.
    pub(crate) fn workspace_not_slowed(&self) {
        self.instruments.workspaces_slowed.add(-1, &[]);
    }

    fn workspace_limit(&self, limit: &'static str) {
        self.instruments
            .workspace_limits
            .add(1, &[KeyValue::new("limit", limit)]);
    }

    pub(crate) fn live_dropped(&self, reason: LiveDrop) {
        self.instruments
            .live_dropped
            .add(1, &[KeyValue::new("reason", reason.as_str())]);
    }

    pub(crate) fn repair(&self, reason: &'static str) {
        self.instruments
            .repairs
            .add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn swept(&self, rooms: u64) {
        self.instruments.sweeps.add(rooms);
    }

    pub(crate) fn queued(&self, sockets: u64) {
        self.instruments.queued.add(sockets);
    }

    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        if let Some(histogram) = self.stages.get(stage as usize) {
            histogram.record(took.as_secs_f64());
        }
    }

    /// Notifications whose bytes the kernel has.
    pub(crate) fn written(&self, notifications: u64, bytes: u64) {
        self.instruments.deliveries.add(notifications);
        self.instruments.delivery_bytes.add(bytes);
    }

    /// The first of the notifications written together waited so long in its socket's queue.
    pub(crate) fn waited(&self, time: Duration) {
        self.instruments.waits.record(time.as_secs_f64());
    }

    /// Of an event.
    pub(crate) fn latency(&self, latency: Duration) {
        self.instruments.latency.record(latency.as_secs_f64());
    }

    /// Remembers `span` as an example of this latency.
    pub(crate) fn exemplar(&self, latency: Duration, span: &SpanContext) {
        self.exemplars.record(Exemplar {
            value: latency.as_secs_f64(),
            time: SystemTime::now(),
            trace: span.trace_id(),
            span: span.span_id(),
        });
    }

    pub(crate) fn reloaded(&self, outcome: &'static str) {
        self.instruments
            .reloads
            .add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn publish_request(&self, class: &'static str, mode: &'static str) {
        let labels = [
            KeyValue::new("status_class", class),
            KeyValue::new("mode", mode),
        ];
        self.instruments.publish_requests.add(1, &labels);
    }

    pub(crate) fn publish_event(&self, outcome: &'static str) {
        self.instruments
            .publish_events
            .add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn publish_took(&self, took: Duration) {
        self.instruments.publish_duration.record(took.as_secs_f64());
    }

    pub(crate) fn publish_limited(&self, limit: &'static str) {
        self.instruments
            .publish_limited
            .add(1, &[KeyValue::new("limit", limit)]);
    }

    pub(crate) fn nats_event(&self, event: &'static str) {
        self.instruments
            .nats_events
            .add(1, &[KeyValue::new("event", event)]);
    }

    pub(crate) fn nats_connected(&self, connected: bool) {
        self.nats.connected.store(connected, Ordering::Relaxed);
    }

    pub(crate) fn nats_reconnected(&self) {
        self.instruments.nats_reconnects.add(1);
    }

    pub(crate) fn nats_slow_consumer(&self) {
        self.instruments.nats_slow_consumers.add(1);
    }

    pub(crate) fn nats_round_trip(&self, took: Duration) {
        self.instruments.nats_round_trip.record(took.as_secs_f64());
    }

    pub(crate) fn stream_lag(&self, messages: u64) {
        self.nats.lag.store(messages, Ordering::Relaxed);
    }
}
