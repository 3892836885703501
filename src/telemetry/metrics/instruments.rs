//! The instruments: their names, units, descriptions and buckets.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    BoundCounter, BoundHistogram, Counter, Histogram, Meter, UpDownCounter,
};

use super::LATENCY;
use super::labels::{LiveDrop, TokenCheck};
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

/// What is declared of an instrument.
struct Declaration {
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    /// Of a histogram's buckets.
    bounds: &'static [f64],
}

/// A kind of instrument. One without labels has its zero from the start, so that its first rise is one.
trait Instrument {
    fn declare(meter: &Meter, declaration: Declaration) -> Self;
}

impl Instrument for Counter<u64> {
    fn declare(meter: &Meter, declaration: Declaration) -> Self {
        let counter = meter.u64_counter(declaration.name);
        let counter = counter.with_unit(declaration.unit);
        counter.with_description(declaration.about).build()
    }
}

impl Instrument for BoundCounter<u64> {
    fn declare(meter: &Meter, declaration: Declaration) -> Self {
        let counter = Counter::declare(meter, declaration).bind(&[]);
        counter.add(0);
        counter
    }
}

impl Instrument for UpDownCounter<i64> {
    fn declare(meter: &Meter, declaration: Declaration) -> Self {
        let counter = meter.i64_up_down_counter(declaration.name);
        let counter = counter.with_unit(declaration.unit);
        let counter = counter.with_description(declaration.about).build();
        counter.add(0, &[]);
        counter
    }
}

impl Instrument for Histogram<f64> {
    fn declare(meter: &Meter, declaration: Declaration) -> Self {
        let histogram = meter.f64_histogram(declaration.name);
        let histogram = histogram.with_unit(declaration.unit);
        let histogram = histogram.with_description(declaration.about);
        histogram
            .with_boundaries(declaration.bounds.to_vec())
            .build()
    }
}

impl Instrument for BoundHistogram<f64> {
    fn declare(meter: &Meter, declaration: Declaration) -> Self {
        Histogram::declare(meter, declaration).bind(&[])
    }
}

macro_rules! instruments {
    ($( $field:ident: $kind:ty = $name:expr, $unit:literal, $about:literal $(, $bounds:ident)?; )+) => {
        /// All instruments that are written. `observed` has those that are read when somebody looks.
        #[derive(Debug)]
        pub(super) struct Instruments {
            $( pub(super) $field: $kind, )+
        }

        impl Instruments {
            pub(super) fn new(meter: &Meter) -> Self {
                Self {$(
                    $field: Instrument::declare(meter, Declaration {
                        name: $name,
                        unit: $unit,
                        about: $about,
                        bounds: instruments!(@bounds $($bounds)?),
                    }),
                )+}
            }
        }
    };
    (@bounds) => { &[] };
    (@bounds $bounds:ident) => { $bounds };
}

// Each instrument: its kind, its name, its unit, what it is for, and the bounds of a histogram's buckets. Bound ones
// have no labels, and save the look-up of attributes for each record.
instruments! {
    connections: UpDownCounter<i64> = "herald.connections", "{connection}",
        "Sockets open now";
    connections_opened: BoundCounter<u64> = "herald.connections.opened", "{connection}",
        "Sockets opened";
    connections_closed: Counter<u64> = "herald.connections.closed", "{connection}",
        "Sockets closed, by close code";
    connections_refused: Counter<u64> = "herald.connections.refused", "{connection}",
        "Joins refused with an HTTP error, by reason";
    rooms: UpDownCounter<i64> = "herald.rooms", "{room}",
        "Workspaces with a room now";
    joins: Histogram<f64> = "herald.join.duration", "s",
        "Time that each step of a join took", JOIN_BOUNDS;
    token_checks: Counter<u64> = "herald.token.checks", "{check}",
        "Tokens checked, by use and result";
    revoked_sockets: BoundCounter<u64> = "herald.revocations.closed", "{connection}",
        "Sockets ended because their user, token or key was revoked";
    received: Counter<u64> = "herald.events.received", "{event}",
        "Events that a room with sockets took to deliver, by source";
    projected: BoundCounter<u64> = "herald.events.projected", "{event}",
        "Events that became notifications";
    bad: Counter<u64> = "herald.events.bad", "{event}",
        "Bad events, by reason";
    repaired: Counter<u64> = "herald.events.repaired", "{event}",
        "Events that a repair read back from the stream, by its reason";
    late: BoundCounter<u64> = "herald.events.late", "{event}",
        "Events delivered after a later event of another subject";
    duplicate: BoundCounter<u64> = "herald.events.duplicate", "{event}",
        "Live messages that had been delivered already";
    lost: Counter<u64> = "herald.events.lost", "{event}",
        "Possibly lost: sequences that aged out, sockets closed without their last events, events dropped over a rate";
    live_dropped: Counter<u64> = "herald.live.dropped", "{message}",
        "Live messages dropped, by reason";
    repairs: Counter<u64> = "herald.repairs", "{repair}",
        "Repairs begun, by reason";
    sweeps: BoundCounter<u64> = "herald.sweeps", "{sweep}",
        "Rooms swept";
    queued: BoundCounter<u64> = "herald.deliveries.queued", "{notification}",
        "Notifications queued for a socket";
    deliveries: BoundCounter<u64> = "herald.deliveries", "{notification}",
        "Notifications written to a socket";
    delivery_bytes: BoundCounter<u64> = "herald.delivery.bytes", "By",
        "Bytes of notifications written to sockets";
    latency: BoundHistogram<f64> = LATENCY, "s",
        "From an event's store time to the end of its fan-out", LATENCY_BOUNDS;
    waits: BoundHistogram<f64> = "herald.delivery.wait", "s",
        "How long what was not written at once waited in its socket's queue", LATENCY_BOUNDS;
    stages: Histogram<f64> = "herald.stage.duration", "s",
        "Time that each stage took", STAGE_BOUNDS;
    workspaces_slowed: UpDownCounter<i64> = "herald.workspaces.slowed", "{workspace}",
        "Workspaces that are slowed now: more events come than workspaces.event_rate";
    workspace_limits: Counter<u64> = "herald.workspace.limits", "{event}",
        "Times that a workspace came to its limit, by limit: a join was refused, or it began to be slowed";
    reloads: Counter<u64> = "herald.configuration.reloads", "{reload}",
        "Times that settings were read again, by outcome";
    operator_requests: Counter<u64> = "herald.operator.requests", "{request}",
        "Requests to the operator service, by result";
    publish_requests: Counter<u64> = "herald.publish.requests", "{request}",
        "Requests to publish by HTTP, by class of the status and mode";
    publish_events: Counter<u64> = "herald.publish.events", "{event}",
        "Events that came by HTTP, by what became of them";
    publish_duration: BoundHistogram<f64> = "herald.publish.duration", "s",
        "From the head of a request to publish to its answer", JOIN_BOUNDS;
    publish_limited: Counter<u64> = "herald.publish.limited", "{request}",
        "Requests to publish that came to a limit of their token, by limit";
    nats_events: Counter<u64> = "herald.nats.events", "{event}",
        "What the NATS connection reported";
    nats_reconnects: BoundCounter<u64> = "herald.nats.reconnects", "{connection}",
        "Connections to NATS after the first";
    nats_slow_consumers: BoundCounter<u64> = "herald.nats.slow_consumers", "{event}",
        "Times that NATS' client dropped messages because a subscription was full";
    nats_round_trip: BoundHistogram<f64> = "herald.nats.round_trip", "s",
        "Reads of the stream's last message at its leader", JOIN_BOUNDS;
}

impl Instruments {
    /// Gives every series with labels that may come its zero.
    pub(super) fn begin_at_zero(&self) {
        let closes = CLOSE_CODES.iter().map(|code| code.label);
        let refusals = HttpRefusal::ALL.iter().map(|refusal| refusal.label());
        let repairs = ["gap", "sweep", "reconnect", "overflow", "anew"];
        for (counter, key, values) in [
            (
                &self.bad,
                "reason",
                Reason::ALL.map(Reason::as_str).to_vec(),
            ),
            (
                &self.live_dropped,
                "reason",
                LiveDrop::ALL.map(LiveDrop::as_str).to_vec(),
            ),
            (
                &self.lost,
                "reason",
                vec!["aged_out", "closed", "over_rate"],
            ),
            (
                &self.workspace_limits,
                "limit",
                vec!["connections", "joins", "events"],
            ),
            (&self.reloads, "outcome", vec!["applied", "refused"]),
            (
                &self.operator_requests,
                "result",
                vec!["ok", "refused", "busy", "not_sent"],
            ),
            (
                &self.publish_events,
                "outcome",
                vec!["stored", "duplicate", "refused", "unknown"],
            ),
            (&self.publish_limited, "limit", vec!["rate", "concurrency"]),
            (&self.repairs, "reason", repairs.to_vec()),
            (&self.repaired, "reason", repairs.to_vec()),
            (
                &self.connections_closed,
                "code",
                closes.chain([DEAD_PEER]).collect(),
            ),
            (
                &self.connections_refused,
                "reason",
                refusals.filter(|label| !label.is_empty()).collect(),
            ),
        ] {
            for value in values {
                counter.add(0, &[KeyValue::new(key, value)]);
            }
        }
        for class in ["2xx", "4xx", "5xx"] {
            for mode in ["none", "plain", "binary", "structured", "batch"] {
                let labels = [
                    KeyValue::new("status_class", class),
                    KeyValue::new("mode", mode),
                ];
                self.publish_requests.add(0, &labels);
            }
        }
        for result in TokenCheck::ALL.map(TokenCheck::as_str) {
            for usage in ["join", "refresh"] {
                let labels = [KeyValue::new("use", usage), KeyValue::new("result", result)];
                self.token_checks.add(0, &labels);
            }
        }
    }
}
