//! The instruments that are read where their values are kept, when somebody looks: those of values that are kept here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use opentelemetry::KeyValue;

use super::{Metrics, top_k};

/// The name that all workspaces without a series of their own share; no slug begins with `_`.
const OTHERS: &str = "_other";

impl Metrics {
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
        type Pick = fn(&top_k::TrafficCounts) -> u64;
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
            let top_k = Arc::clone(&self.top_k);
            let _instrument = self
                .meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| {
                    let (shown, others) = top_k.collect(Instant::now());
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
}
