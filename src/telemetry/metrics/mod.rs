//! Every instrument, declared once, and what reads them: `/metrics` and, where it is asked for, OTLP.
//!
//! Labels come from enums and fixed words, so that the number of series is bounded: no user and no
//! session is ever a label, and a workspace only if it is one of the busiest. What each instrument is
//! for stands in `docs/observability.md`, which a test compares with what is here.

mod exemplars;
mod exposition;
mod instruments;
mod labels;
mod observed;
#[cfg(target_os = "linux")]
mod process;
mod record;
mod top_k;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, BoundHistogram, Meter, MeterProvider};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    InstrumentKind, ManualReader, PeriodicReader, Pipeline, SdkMeterProvider, Temporality,
};

use self::exemplars::Exemplars;
pub use self::exposition::Format;
use self::instruments::{Instruments, LATENCY_BOUNDS};
pub use self::labels::LiveDrop;
pub(crate) use self::labels::{Stage, TokenCheck};
use self::top_k::TopK;
pub(crate) use self::top_k::Traffic;
use super::TelemetryError;

/// The histogram that has exemplars.
const LATENCY: &str = "herald.event.latency";

/// The instruments of one gateway and their reader.
#[derive(Debug)]
pub struct Metrics {
    reader: SharedReader,
    provider: SdkMeterProvider,
    meter: Meter,
    exemplars: Arc<Exemplars>,
    top_k: Arc<TopK>,
    nats: Arc<NatsState>,
    /// Repeated log lines that were not printed.
    suppressed: Arc<AtomicU64>,
    instruments: Instruments,
    received_live: BoundCounter<u64>,
    received_repair: BoundCounter<u64>,
    stages: [BoundHistogram<f64>; Stage::ALL.len()],
}

#[derive(Debug, Default)]
struct NatsState {
    connected: AtomicBool,
    lag: AtomicU64,
}

/// A reader that is both the provider's and ours.
#[derive(Debug, Clone)]
struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// What the metrics of a process are made with.
pub(super) struct Parts {
    pub(super) resource: opentelemetry_sdk::Resource,
    /// `telemetry.workspaces`.
    pub(super) workspaces: usize,
    pub(super) exemplars: bool,
}

impl Metrics {
    /// New instruments, read by `/metrics` and by `periodic`.
    pub(super) fn new(parts: Parts, periodic: Option<PeriodicReader<MetricExporter>>) -> Self {
        let exemplars = Arc::new(Exemplars::new(LATENCY_BOUNDS, parts.exemplars));
        let reader = SharedReader(Arc::new(ManualReader::builder().build()));
        let mut provider = SdkMeterProvider::builder()
            .with_resource(parts.resource)
            .with_reader(reader.clone());
        if let Some(periodic) = periodic {
            provider = provider.with_reader(periodic);
        }
        let provider = provider.build();
        let meter = provider.meter("herald");
        let instruments = Instruments::new(&meter);
        let received = |source: &'static str| {
            let counter = instruments
                .received
                .bind(&[KeyValue::new("source", source)]);
            counter.add(0);
            counter
        };
        let stage = |stage: Stage| {
            let label = KeyValue::new("stage", stage.as_str());
            instruments.stages.bind(&[label])
        };
        let metrics = Self {
            received_live: received("live"),
            received_repair: received("repair"),
            stages: Stage::ALL.map(stage),
            instruments,
            nats: Arc::default(),
            suppressed: Arc::default(),
            top_k: Arc::new(TopK::new(parts.workspaces)),
            reader,
            provider,
            meter,
            exemplars,
        };
        metrics.instruments.begin_at_zero();
        metrics.observe_workspaces();
        metrics.observe_nats();
        #[cfg(target_os = "linux")]
        process::observe(&metrics.meter);
        metrics.observe_suppressed();
        metrics
    }

    /// The exposition in `format`. Takes some 100 µs: not for the threads of the gateway's sockets.
    ///
    /// # Errors
    /// Where the instruments cannot be read any more.
    pub fn render(&self, format: Format) -> Result<String, TelemetryError> {
        let mut metrics = ResourceMetrics::default();
        self.reader.collect(&mut metrics)?;
        Ok(exposition::write(
            &metrics,
            format,
            LATENCY,
            &self.exemplars.all(),
        ))
    }

    pub(super) fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// Where repeated log lines are counted that are not printed.
    pub(super) fn suppressed(&self) -> &Arc<AtomicU64> {
        &self.suppressed
    }

    /// Resident memory of the process, in bytes, where that can be read.
    pub(crate) fn resident_memory() -> Option<u64> {
        #[cfg(target_os = "linux")]
        return process::resident_memory();
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// For instruments of what other parts count.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }
}
