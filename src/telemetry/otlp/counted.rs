//! What becomes of spans and log records after they end: the SDK's batch processors drop what their
//! queue has no room for, and count it for nobody. Here it is decided before them, and counted, as
//! the semantic conventions for SDK metrics have it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    BatchLogProcessor, LogBatch, LogExporter, LogProcessor, SdkLogRecord,
};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

/// The counts of one signal's way out.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct PipelineCounts {
    /// In the queue now, or in the export under way.
    pub(in crate::telemetry) queued: AtomicU64,
    /// Handed to the exporter.
    pub(in crate::telemetry) processed: AtomicU64,
    /// Dropped: the queue was full.
    pub(in crate::telemetry) queue_full: AtomicU64,
    /// Taken by the collector.
    pub(in crate::telemetry) exported: AtomicU64,
    /// Lost: the collector was away, too slow, or refused them.
    pub(in crate::telemetry) failed: AtomicU64,
}

impl PipelineCounts {
    /// Takes a place in a queue of `limit`; `false` if it is full.
    fn enter(&self, limit: u64) -> bool {
        if self.queued.fetch_add(1, Ordering::Relaxed) < limit {
            return true;
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queue_full.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn exported(&self, count: u64, result: &OTelSdkResult) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
        self.processed.fetch_add(count, Ordering::Relaxed);
        let counter = match result {
            Ok(()) => &self.exported,
            Err(_) => &self.failed,
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A span exporter that counts.
#[derive(Debug)]
pub(in crate::telemetry) struct CountedSpans<E> {
    pub(in crate::telemetry) exporter: E,
    pub(in crate::telemetry) counts: Arc<PipelineCounts>,
}

impl<E: SpanExporter> SpanExporter for CountedSpans<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        self.counts.exported(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A batch processor behind a counted queue.
#[derive(Debug)]
pub(in crate::telemetry) struct QueuedSpans {
    pub(in crate::telemetry) batches: BatchSpanProcessor,
    pub(in crate::telemetry) counts: Arc<PipelineCounts>,
    pub(in crate::telemetry) limit: u64,
}

impl SpanProcessor for QueuedSpans {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.counts.enter(self.limit) {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// A log exporter that counts.
#[derive(Debug)]
pub(in crate::telemetry) struct CountedLogs<E> {
    pub(in crate::telemetry) exporter: E,
    pub(in crate::telemetry) counts: Arc<PipelineCounts>,
}

impl<E: LogExporter> LogExporter for CountedLogs<E> {
    fn export(&self, batch: LogBatch<'_>) -> impl Future<Output = OTelSdkResult> + Send {
        let count = batch.iter().count() as u64;
        async move {
            let result = self.exporter.export(batch).await;
            self.counts.exported(count, &result);
            result
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.exporter.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A batch processor behind a counted queue.
#[derive(Debug)]
pub(in crate::telemetry) struct QueuedLogs {
    pub(in crate::telemetry) batches: BatchLogProcessor,
    pub(in crate::telemetry) counts: Arc<PipelineCounts>,
    pub(in crate::telemetry) limit: u64,
}

impl LogProcessor for QueuedLogs {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.counts.enter(self.limit) {
            self.batches.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.batches.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}
