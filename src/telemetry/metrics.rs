//! Every instrument, declared once. Labels come from enums and fixed words only: no workspace, user
//! or session is ever a label.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter, MeterProvider, UpDownCounter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::event::Reason;
use crate::ingest::DeadLetterCounters;

/// The instruments of one gateway and the registry that `/metrics` reads.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    meter: Meter,
    /// Keeps the instruments alive; they are read through `registry`.
    _provider: SdkMeterProvider,
    sockets: UpDownCounter<i64>,
    sockets_opened: Counter<u64>,
    sockets_closed: Counter<u64>,
    joins_refused: Counter<u64>,
    rooms: UpDownCounter<i64>,
    events: Counter<u64>,
    events_bad: Counter<u64>,
    events_repaired: Counter<u64>,
    events_late: Counter<u64>,
    events_possibly_lost: Counter<u64>,
    live_dropped: Counter<u64>,
    repairs: Counter<u64>,
    sweeps: Counter<u64>,
    deliveries: Counter<u64>,
    delivered_bytes: Counter<u64>,
    nats_events: Counter<u64>,
}

/// Why a live message was dropped before its room looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveDrop {
    /// Without the server's valid Nats-Stream, Nats-Subject, Nats-Sequence.
    Forged,
    /// A claim that is not one.
    BadClaim,
}

impl LiveDrop {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::BadClaim => "bad_claim",
        }
    }
}

impl Metrics {
    /// New instruments with a registry of their own.
    ///
    /// # Errors
    /// Where the exporter cannot be registered.
    pub fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("herald");
        let counter = |name: &'static str, about: &'static str| {
            meter.u64_counter(name).with_description(about).build()
        };
        let gauge = |name: &'static str, about: &'static str| {
            meter
                .i64_up_down_counter(name)
                .with_description(about)
                .build()
        };
        Ok(Self {
            sockets: gauge("herald_sockets", "Sockets open now"),
            sockets_opened: counter("herald_sockets_opened", "Sockets opened"),
            sockets_closed: counter("herald_sockets_closed", "Sockets closed, by close code"),
            joins_refused: counter("herald_joins_refused", "Joins refused, by reason"),
            rooms: gauge("herald_rooms", "Workspaces with a room now"),
            events: counter("herald_events", "Events that rooms took from the stream"),
            events_bad: counter("herald_events_bad", "Bad events, by reason"),
            events_repaired: counter("herald_events_repaired", "Events delivered by a repair"),
            events_late: counter(
                "herald_events_late",
                "Events delivered after a later event of another subject",
            ),
            events_possibly_lost: counter(
                "herald_events_possibly_lost",
                "Sequences that aged out before a room could read them",
            ),
            live_dropped: counter("herald_live_dropped", "Live messages dropped, by reason"),
            repairs: counter("herald_repairs", "Repairs begun, by reason"),
            sweeps: counter("herald_sweeps", "Rooms swept"),
            deliveries: counter("herald_deliveries", "Notifications queued for a socket"),
            delivered_bytes: counter("herald_delivered_bytes", "Bytes queued for sockets"),
            nats_events: counter("herald_nats_events", "What the NATS connection reported"),
            registry,
            meter,
            _provider: provider,
        })
    }

    /// The Prometheus text exposition.
    ///
    /// # Errors
    /// Where a family cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    pub(crate) fn socket_opened(&self) {
        self.sockets.add(1, &[]);
        self.sockets_opened.add(1, &[]);
    }

    pub(crate) fn socket_closed(&self, code: &'static str) {
        self.sockets.add(-1, &[]);
        self.count_close(code);
    }

    /// A close that ended a handshake: the socket never counted as open.
    pub(crate) fn count_close(&self, code: &'static str) {
        self.sockets_closed.add(1, &[KeyValue::new("code", code)]);
    }

    pub(crate) fn join_refused(&self, reason: &'static str) {
        self.joins_refused
            .add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn room_opened(&self) {
        self.rooms.add(1, &[]);
    }

    pub(crate) fn room_closed(&self) {
        self.rooms.add(-1, &[]);
    }

    pub(crate) fn event(&self) {
        self.events.add(1, &[]);
    }

    pub(crate) fn event_bad(&self, reason: Reason) {
        self.events_bad
            .add(1, &[KeyValue::new("reason", reason.as_str())]);
    }

    pub(crate) fn event_repaired(&self) {
        self.events_repaired.add(1, &[]);
    }

    pub(crate) fn event_late(&self) {
        self.events_late.add(1, &[]);
    }

    pub(crate) fn possibly_lost(&self, sequences: u64) {
        self.events_possibly_lost.add(sequences, &[]);
    }

    pub(crate) fn live_dropped(&self, reason: LiveDrop) {
        self.live_dropped
            .add(1, &[KeyValue::new("reason", reason.as_str())]);
    }

    pub(crate) fn repair(&self, reason: &'static str) {
        self.repairs.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(crate) fn swept(&self, rooms: u64) {
        self.sweeps.add(rooms, &[]);
    }

    pub(crate) fn delivered(&self, sockets: u64, bytes_each: u64) {
        self.deliveries.add(sockets, &[]);
        self.delivered_bytes.add(sockets * bytes_each, &[]);
    }

    /// Shows the dead letters' own counters.
    pub(crate) fn observe_dead_letters(&self, counters: Arc<DeadLetterCounters>) {
        // The instrument lives in the provider; the handle is not needed again.
        let _instrument = self
            .meter
            .u64_observable_counter("herald_dead_letters")
            .with_description("Dead letters, by outcome")
            .with_callback(move |observer| {
                for (outcome, counter) in [
                    ("published", &counters.published),
                    ("duplicate", &counters.duplicate),
                    ("dropped", &counters.dropped),
                ] {
                    let value = counter.load(Ordering::Relaxed);
                    observer.observe(value, &[KeyValue::new("outcome", outcome)]);
                }
            })
            .build();
    }

    pub(crate) fn nats_event(&self, event: &'static str) {
        self.nats_events.add(1, &[KeyValue::new("event", event)]);
    }
}
