//! The instruments: their names, units, descriptions and buckets.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::labels::{Stage, TokenCheck};
use super::top_k::TopK;
use super::{Exemplars, LATENCY, Metrics, SharedReader};
use crate::codes::{CLOSE_CODES, DEAD_PEER, HttpRefusal};
use crate::event::Reason;

/// From a quarter of a millisecond, the best that store, republish and write take together, to the
/// minute after which a sweep has found whatever was lost.
pub(super) const LATENCY_BOUNDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// From a microsecond, which decoding takes, to the seconds for which a slow socket holds a queue.
const STAGE_BOUNDS: &[f64] = &[
    0.000_001, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001,
    0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
];
/// From a tenth of a millisecond to the three seconds after which a join is given up, and more.
const JOIN_BOUNDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

impl Metrics {
    #[expect(
        clippy::too_many_lines,
        reason = "a list, one line for each instrument"
    )]
    pub(super) fn declare(
        reader: SharedReader,
        provider: SdkMeterProvider,
        meter: Meter,
        exemplars: Arc<Exemplars>,
        top_k: Arc<TopK>,
    ) -> Self {
        let counter = |name: &'static str, unit: &'static str, about: &'static str| {
            meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(about)
                .build()
        };
        let now = |name: &'static str, unit: &'static str, about: &'static str| {
            meter
                .i64_up_down_counter(name)
                .with_unit(unit)
                .with_description(about)
                .build()
        };
        let times = |name: &'static str, about: &'static str, bounds: &[f64]| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(about)
                .with_boundaries(bounds.to_vec())
                .build()
        };
        let received = counter(
            "herald.events.received",
            "{event}",
            "Events that a room with sockets took to deliver, by source",
        );
        let of = |source: &'static str| received.bind(&[KeyValue::new("source", source)]);
        let stages = times(
            "herald.stage.duration",
            "Time that each stage took",
            STAGE_BOUNDS,
        );
        Self {
            connections: now("herald.connections", "{connection}", "Sockets open now"),
            connections_opened: counter(
                "herald.connections.opened",
                "{connection}",
                "Sockets opened",
            ),
            connections_closed: counter(
                "herald.connections.closed",
                "{connection}",
                "Sockets closed, by close code",
            ),
            connections_refused: counter(
                "herald.connections.refused",
                "{connection}",
                "Joins refused with an HTTP error, by reason",
            ),
            rooms: now("herald.rooms", "{room}", "Workspaces with a room now"),
            joins: times(
                "herald.join.duration",
                "Time that each step of a join took",
                JOIN_BOUNDS,
            ),
            token_checks: counter(
                "herald.token.checks",
                "{check}",
                "Tokens checked, by use and result",
            ),
            received_live: of("live"),
            received_repair: of("repair"),
            projected: counter(
                "herald.events.projected",
                "{event}",
                "Events that became notifications",
            )
            .bind(&[]),
            bad: counter("herald.events.bad", "{event}", "Bad events, by reason"),
            repaired: counter(
                "herald.events.repaired",
                "{event}",
                "Events that a repair read back from the stream, by its reason",
            ),
            late: counter(
                "herald.events.late",
                "{event}",
                "Events delivered after a later event of another subject",
            ),
            duplicate: counter(
                "herald.events.duplicate",
                "{event}",
                "Live messages that had been delivered already",
            )
            .bind(&[]),
            lost: counter(
                "herald.events.lost",
                "{event}",
                "Possibly lost: sequences that aged out before a room could read them, and sockets closed while NATS was silent",
            ),
            live_dropped: counter(
                "herald.live.dropped",
                "{message}",
                "Live messages dropped, by reason",
            ),
            repairs: counter("herald.repairs", "{repair}", "Repairs begun, by reason"),
            sweeps: counter("herald.sweeps", "{sweep}", "Rooms swept"),
            queued: counter(
                "herald.deliveries.queued",
                "{notification}",
                "Notifications queued for a socket",
            )
            .bind(&[]),
            deliveries: counter(
                "herald.deliveries",
                "{notification}",
                "Notifications written to a socket",
            )
            .bind(&[]),
            delivery_bytes: counter(
                "herald.delivery.bytes",
                "By",
                "Bytes of notifications written to sockets",
            )
            .bind(&[]),
            latency: times(
                LATENCY,
                "From an event's store time to the end of its fan-out",
                LATENCY_BOUNDS,
            )
            .bind(&[]),
            waits: times(
                "herald.delivery.wait",
                "How long what was not written at once waited in its socket's queue",
                LATENCY_BOUNDS,
            )
            .bind(&[]),
            stages: Stage::ALL.map(|stage| stages.bind(&[KeyValue::new("stage", stage.as_str())])),
            reloads: counter(
                "herald.configuration.reloads",
                "{reload}",
                "Times that settings were read again, by outcome",
            ),
            nats_events: counter(
                "herald.nats.events",
                "{event}",
                "What the NATS connection reported",
            ),
            nats_reconnects: counter(
                "herald.nats.reconnects",
                "{connection}",
                "Connections to NATS after the first",
            ),
            nats_slow_consumers: counter(
                "herald.nats.slow_consumers",
                "{event}",
                "Times that NATS' client dropped messages because a subscription was full",
            ),
            nats_round_trip: times(
                "herald.nats.round_trip",
                "Reads of the stream's last message at its leader",
                JOIN_BOUNDS,
            )
            .bind(&[]),
            nats: Arc::default(),
            suppressed: Arc::default(),
            reader,
            provider,
            meter,
            exemplars,
            top_k,
        }
    }

    /// Gives every series that may come its zero, so that its first rise is one.
    pub(super) fn begin_at_zero(&self) {
        self.connections.add(0, &[]);
        self.rooms.add(0, &[]);
        for counter in [
            &self.connections_opened,
            &self.late,
            &self.sweeps,
            &self.nats_reconnects,
            &self.nats_slow_consumers,
        ] {
            counter.add(0, &[]);
        }
        for counter in [
            &self.received_live,
            &self.received_repair,
            &self.projected,
            &self.duplicate,
            &self.queued,
            &self.deliveries,
            &self.delivery_bytes,
        ] {
            counter.add(0);
        }
        for reason in Reason::ALL {
            self.bad.add(0, &[KeyValue::new("reason", reason.as_str())]);
        }
        for (counter, key, values) in [
            (&self.live_dropped, "reason", &["forged", "bad_claim"]),
            (&self.lost, "reason", &["aged_out", "closed"]),
            (&self.reloads, "outcome", &["applied", "refused"]),
        ] {
            for value in values {
                counter.add(0, &[KeyValue::new(key, *value)]);
            }
        }
        let closes = CLOSE_CODES.iter().map(|code| code.label);
        for code in closes.chain([DEAD_PEER]) {
            let label = KeyValue::new("code", code);
            self.connections_closed.add(0, &[label]);
        }
        let refusals = HttpRefusal::ALL.iter().map(|refusal| refusal.label());
        for reason in refusals.filter(|label| !label.is_empty()) {
            let label = KeyValue::new("reason", reason);
            self.connections_refused.add(0, &[label]);
        }
        for result in TokenCheck::ALL.map(TokenCheck::as_str) {
            for usage in ["join", "refresh"] {
                let labels = [KeyValue::new("use", usage), KeyValue::new("result", result)];
                self.token_checks.add(0, &labels);
            }
        }
        for reason in ["gap", "sweep", "reconnect", "overflow", "anew"] {
            let label = [KeyValue::new("reason", reason)];
            self.repairs.add(0, &label);
            self.repaired.add(0, &label);
        }
    }
}
