//! The exporters of one process, as the environment asks for them: each signal's provider, its queue
//! and what is counted of it.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder as LogBatchConfig, BatchLogProcessor, SdkLoggerProvider,
};
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder as SpanBatchConfig, BatchSpanProcessor, SdkTracerProvider,
};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::Metrics;
use super::environment::{Batch, Environment};
use super::metrics::{Parts, SelfObserved};
use super::otlp::{
    self, CountedLogs, CountedSpans, MetricsExporter, QueuedLogs, QueuedSpans, Runtime,
};
use super::spans::{Budget, Ids, Tracing};

/// What makes the exporters, where some are wanted.
pub(super) struct Exports {
    pub(super) environment: Environment,
    resource: Resource,
    pub(super) runtime: Option<Runtime>,
    pub(super) observed: SelfObserved,
    pub(super) warnings: Vec<String>,
}

impl Exports {
    pub(super) fn new(environment: Environment, service: &'static str, instance: Uuid) -> Self {
        let resource = resource(&environment, service, instance);
        let mut warnings = Vec::new();
        let is_wanted = !environment.exported().is_empty();
        let runtime = is_wanted.then(Runtime::start).transpose();
        let runtime = runtime.unwrap_or_else(|error| {
            warnings.push(format!("nothing is exported: {error}"));
            None
        });
        Self {
            environment,
            resource,
            runtime,
            observed: SelfObserved::default(),
            warnings,
        }
    }

    pub(super) fn tracer(&mut self) -> Option<SdkTracerProvider> {
        let (export, runtime) = (self.environment.traces.as_ref()?, self.runtime.as_ref()?);
        let exporter = otlp::spans(export, runtime)
            .map_err(|error| {
                self.warnings
                    .push(format!("traces are not exported: {error}"))
            })
            .ok()?;
        let Batch {
            delay,
            queue,
            batch,
        } = self.environment.span_batch;
        let counts = &self.observed.spans;
        let config = SpanBatchConfig::default()
            .with_max_queue_size(queue)
            .with_max_export_batch_size(batch)
            .with_scheduled_delay(delay)
            .build();
        let exporter = CountedSpans {
            exporter,
            counts: Arc::clone(counts),
        };
        let mut provider = SdkTracerProvider::builder()
            .with_span_processor(QueuedSpans {
                batches: BatchSpanProcessor::new(exporter, config),
                counts: Arc::clone(counts),
                limit: queue as u64,
            })
            .with_sampler(self.environment.sampler)
            .with_id_generator(Ids::default())
            .with_resource(self.resource.clone());
        let limits = self.environment.span_limits;
        if let Some(attributes) = limits.attributes {
            provider = provider.with_max_attributes_per_span(attributes);
        }
        if let Some(events) = limits.events {
            provider = provider.with_max_events_per_span(events);
        }
        if let Some(links) = limits.links {
            provider = provider.with_max_links_per_span(links);
        }
        Some(provider.build())
    }

    /// What makes spans with the provider that [`Exports::tracer`] made.
    pub(super) fn tracing(
        &self,
        provider: &SdkTracerProvider,
        send_spans: usize,
        baggage: Vec<String>,
    ) -> Tracing {
        Tracing {
            tracer: provider.tracer("herald"),
            sampler: self.environment.sampler,
            propagation: self.environment.propagation,
            send_spans,
            baggage,
            refusals: Budget::default(),
        }
    }

    pub(super) fn logger(&mut self) -> Option<SdkLoggerProvider> {
        let (export, runtime) = (self.environment.logs.as_ref()?, self.runtime.as_ref()?);
        let exporter = otlp::logs(export, runtime)
            .map_err(|error| {
                self.warnings
                    .push(format!("logs are not exported: {error}"))
            })
            .ok()?;
        let Batch {
            delay,
            queue,
            batch,
        } = self.environment.log_batch;
        let counts = &self.observed.logs;
        let config = LogBatchConfig::default()
            .with_max_queue_size(queue)
            .with_max_export_batch_size(batch)
            .with_scheduled_delay(delay)
            .build();
        let exporter = CountedLogs {
            exporter,
            counts: Arc::clone(counts),
        };
        let provider = SdkLoggerProvider::builder()
            .with_log_processor(QueuedLogs {
                batches: BatchLogProcessor::builder(exporter)
                    .with_batch_config(config)
                    .build(),
                counts: Arc::clone(counts),
                limit: queue as u64,
            })
            .with_resource(self.resource.clone());
        Some(provider.build())
    }

    pub(super) fn metrics(&mut self, workspaces: usize) -> Metrics {
        let parts = Parts {
            resource: self.resource.clone(),
            workspaces,
            exemplars: self.environment.exemplars,
            observed: self.observed.clone(),
        };
        let environment = &self.environment;
        let export = environment.metrics.clone().zip(self.runtime.as_ref());
        let warnings = &mut self.warnings;
        let counts = Arc::clone(&self.observed.metrics);
        Metrics::new(parts, |exemplars| {
            let (export, runtime) = export?;
            let exemplars = Arc::clone(exemplars);
            let temporality = environment.temporality;
            let exporter = MetricsExporter::new(export, temporality, exemplars, counts, runtime)
                .map_err(|error| warnings.push(format!("metrics are not exported: {error}")))
                .ok()?;
            let reader =
                PeriodicReader::builder(exporter).with_interval(environment.metric_interval);
            Some(reader.build())
        })
    }
}

/// What `work` comes to, if it does within `limit`. It has a thread of its own, since the SDK blocks when
/// it ends, and the runtime would wait for that at its own end.
pub(super) async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("herald-otlp-end".to_owned())
        .spawn(move || {
            // Nobody waits any more after the limit.
            let _ = tell.send(work());
        });
    if let Err(error) = spawned {
        warn!(%error, "telemetry not exported at the end");
        return None;
    }
    timeout(limit, told).await.ok()?.ok()
}

/// Who exports: `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win.
fn resource(environment: &Environment, service: &'static str, instance: Uuid) -> Resource {
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([
            KeyValue::new("service.name", service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_string()),
        ])
        .with_attributes(environment.resource.clone())
        .build()
}
