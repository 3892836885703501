//! What telemetry says of itself (semantic conventions for SDK metrics): what waits to be exported,
//! what was, and what was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::telemetry::otlp::{MetricsCounts, PipelineCounts};

/// The counts, kept where they arise.
#[derive(Debug, Clone, Default)]
pub(in crate::telemetry) struct SelfObserved {
    pub(in crate::telemetry) spans: Arc<PipelineCounts>,
    pub(in crate::telemetry) logs: Arc<PipelineCounts>,
    pub(in crate::telemetry) metrics: Arc<MetricsCounts>,
    /// Repeated log lines that were not printed.
    pub(in crate::telemetry) suppressed: Arc<AtomicU64>,
}

impl SelfObserved {
    pub(super) fn observe(&self, meter: &Meter) {
        for (counts, unit, [size, processed, exported]) in [
            (
                &self.spans,
                "{span}",
                [
                    "otel.sdk.processor.span.queue.size",
                    "otel.sdk.processor.span.processed",
                    "otel.sdk.exporter.span.exported",
                ],
            ),
            (
                &self.logs,
                "{log_record}",
                [
                    "otel.sdk.processor.log.queue.size",
                    "otel.sdk.processor.log.processed",
                    "otel.sdk.exporter.log.exported",
                ],
            ),
        ] {
            let queue = Arc::clone(counts);
            // The instruments live in the provider; their handles are not needed again.
            let _ = meter
                .u64_observable_gauge(size)
                .with_unit(unit)
                .with_description("Waiting to be exported")
                .with_callback(move |observer| {
                    observer.observe(queue.queued.load(Ordering::Relaxed), &[]);
                })
                .build();
            pair(
                meter,
                processed,
                unit,
                "Handed to the exporter, or dropped because the queue was full",
                "queue_full",
                {
                    let counts = Arc::clone(counts);
                    move || (load(&counts.processed), load(&counts.queue_full))
                },
            );
            pair(
                meter,
                exported,
                unit,
                "Taken by the collector, or lost because it was away, too slow or refused",
                "rejected",
                {
                    let counts = Arc::clone(counts);
                    move || (load(&counts.exported), load(&counts.failed))
                },
            );
        }
        let points = Arc::clone(&self.metrics);
        pair(
            meter,
            "otel.sdk.exporter.metric_data_point.exported",
            "{data_point}",
            "Taken by the collector, or not sent because it was away, too slow or refused",
            "rejected",
            move || (load(&points.exported), load(&points.failed)),
        );
        let suppressed = Arc::clone(&self.suppressed);
        let _ = meter
            .u64_observable_counter("herald.log.suppressed")
            .with_unit("{record}")
            .with_description("Repeated warnings and errors that were counted and not printed")
            .with_callback(move |observer| observer.observe(load(&suppressed), &[]))
            .build();
    }
}

/// A counter of what went well and, with `error.type`, of what did not.
fn pair(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    error: &'static str,
    read: impl Fn() -> (u64, u64) + Send + Sync + 'static,
) {
    let _ = meter
        .u64_observable_counter(name)
        .with_unit(unit)
        .with_description(about)
        .with_callback(move |observer| {
            let (good, bad) = read();
            observer.observe(good, &[]);
            observer.observe(bad, &[KeyValue::new("error.type", error)]);
        })
        .build();
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
