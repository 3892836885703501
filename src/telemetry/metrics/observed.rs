//! The instruments that are read where their values are kept, when somebody looks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use opentelemetry::KeyValue;

use super::{Metrics, busiest};
use crate::ingest::{DeadLetterCounters, DropReason, Intake, Readable, UnroutableCounts};
use crate::socket::QueueDepth;

/// The name that all workspaces without a series of their own share; no slug begins with `_`.
const OTHERS: &str = "_other";

impl Metrics {
    pub(super) fn observe_queues(&self) {
        // The instruments live in the provider; their handles are not needed again, here and below.
        type Look = fn(&QueueDepth) -> i64;
        let all: [(_, _, _, Look); 3] = [
            (
                "herald.queue.notifications",
                "{notification}",
                "Notifications waiting for all sockets",
                |depth| depth.now().0,
            ),
            (
                "herald.queue.bytes",
                "By",
                "Bytes waiting for all sockets, as sockets.queue_bytes counts them",
                |depth| depth.now().1,
            ),
            (
                "herald.queue.memory",
                "By",
                "Memory of what waits for all sockets, as sockets.queue_bytes_total counts it",
                |depth| i64::try_from(depth.memory()).unwrap_or(i64::MAX),
            ),
        ];
        for (name, unit, about, look) in all {
            let depth = Arc::clone(&self.depth);
            let _instrument = self
                .meter
                .i64_observable_gauge(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| observer.observe(look(&depth), &[]))
                .build();
        }
        let depth = Arc::clone(&self.depth);
        let _instrument = self
            .meter
            .u64_observable_counter("herald.deliveries.dropped")
            .with_unit("{notification}")
            .with_description("Notifications queued and not written, by reason")
            .with_callback(move |observer| {
                let (slow, closed) = depth.not_written();
                for (reason, value) in [("slow", slow), ("closed", closed)] {
                    observer.observe(value, &[KeyValue::new("reason", reason)]);
                }
            })
            .build();
    }

    pub(super) fn observe_suppressed(&self) {
        let suppressed = Arc::clone(&self.suppressed);
        let _instrument = self
            .meter
            .u64_observable_counter("herald.log.suppressed")
            .with_unit("{record}")
            .with_description("Repeated warnings and errors that were counted and not printed")
            .with_callback(move |observer| {
                observer.observe(suppressed.load(Ordering::Relaxed), &[]);
            })
            .build();
    }

    pub(super) fn observe_workspaces(&self) {
        type Pick = fn(&busiest::Counts) -> u64;
        let both: [(_, _, _, Pick); 2] = [
            (
                "herald.workspace.events",
                "{event}",
                "Events of the workspaces with the most events",
                |counts| counts.events,
            ),
            (
                "herald.workspace.deliveries",
                "{notification}",
                "Notifications queued in the workspaces with the most events",
                |counts| counts.deliveries,
            ),
        ];
        for (name, unit, about, pick) in both {
            let busiest = Arc::clone(&self.busiest);
            let _instrument = self
                .meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| {
                    let (shown, others) = busiest.collect(Instant::now());
                    for (workspace, counts) in shown {
                        observer.observe(
                            pick(&counts),
                            &[KeyValue::new("workspace", workspace.to_string())],
                        );
                    }
                    observer.observe(pick(&others), &[KeyValue::new("workspace", OTHERS)]);
                })
                .build();
        }
    }

    pub(super) fn observe_nats(&self) {
        let nats = Arc::clone(&self.nats);
        let _instrument = self
            .meter
            .u64_observable_gauge("herald.nats.connected")
            .with_description("Whether NATS is connected: 1 or 0")
            .with_callback(move |observer| {
                observer.observe(nats.connected.load(Ordering::Relaxed).into(), &[]);
            })
            .build();
        let nats = Arc::clone(&self.nats);
        let _instrument = self
            .meter
            .u64_observable_gauge("herald.stream.lag")
            .with_unit("{message}")
            .with_description(
                "The stream's last sequence minus the lowest watermark of the rooms with sockets",
            )
            .with_callback(move |observer| observer.observe(nats.lag.load(Ordering::Relaxed), &[]))
            .build();
        let _instrument = self
            .meter
            .u64_observable_gauge("herald.build.info")
            .with_description("The version that runs: always 1")
            .with_callback(|observer| {
                observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]);
            })
            .build();
    }

    /// Shows how busy the thread is that reads from NATS.
    pub(crate) fn observe_intake(&self, intake: Intake) {
        let _instrument = self
            .meter
            .f64_observable_gauge("herald.intake.utilization")
            .with_unit("1")
            .with_description("How busy the thread is that reads from NATS: 0 to 1")
            .with_callback(move |observer| {
                observer.observe(f64::from(intake.busy_percent()) / 100.0, &[]);
            })
            .build();
    }

    /// Shows which streams can be read, and how much is denied.
    pub(crate) fn observe_readable(&self, readable: Readable) {
        let denials = readable.clone();
        let _instrument = self
            .meter
            .u64_observable_gauge("herald.nats.denied")
            .with_description("Subjects that NATS denies this gateway")
            .with_callback(move |observer| observer.observe(denials.denied() as u64, &[]))
            .build();
        let _instrument = self
            .meter
            .u64_observable_gauge("herald.stream.readable")
            .with_description("Whether the last check of a stream got an answer: 1 or 0")
            .with_callback(move |observer| {
                for (stream, way, works) in readable.all() {
                    let labels = [
                        KeyValue::new("stream", stream.to_owned()),
                        KeyValue::new("read", way.as_str()),
                    ];
                    observer.observe(works.into(), &labels);
                }
            })
            .build();
    }

    /// Shows what the stream holds that no room can take.
    pub(crate) fn observe_unroutable(&self, counts: Arc<UnroutableCounts>) {
        let _instrument = self
            .meter
            .u64_observable_gauge("herald.events.unroutable")
            .with_unit("{event}")
            .with_description("Events in the stream whose subject no room can take, by reason")
            .with_callback(move |observer| {
                for (reason, events) in counts.all() {
                    observer.observe(events, &[KeyValue::new("reason", reason.as_str())]);
                }
            })
            .build();
    }

    /// Shows the dead letters' own counters.
    pub(crate) fn observe_dead_letters(&self, counters: Arc<DeadLetterCounters>) {
        let _instrument = self
            .meter
            .u64_observable_counter("herald.dead_letters")
            .with_unit("{event}")
            .with_description("Dead letters, by outcome")
            .with_callback(move |observer| {
                for (outcome, counter) in [
                    ("published", &counters.published),
                    ("duplicate", &counters.duplicate),
                ] {
                    let value = counter.load(Ordering::Relaxed);
                    observer.observe(value, &[KeyValue::new("outcome", outcome)]);
                }
                for reason in DropReason::ALL {
                    let labels = [
                        KeyValue::new("outcome", "dropped"),
                        KeyValue::new("reason", reason.as_str()),
                    ];
                    observer.observe(counters.dropped(reason), &labels);
                }
            })
            .build();
    }
}
