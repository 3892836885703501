//! The exporters of one process. The SDK and opentelemetry-otlp read their `OTEL_*` variables themselves:
//! endpoint, protocol, headers, time limit, compression, queues and limits. Their batch processors have a
//! bounded queue and a thread each, and what finds the queue full is dropped and counted: nothing on the way
//! of an event waits for an export.

use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::Metrics;
use super::environment::{Environment, Export, OtlpTransport, Signal};
use super::metrics::Parts;
use super::spans::Ids;

/// What makes the exporters, where some are wanted.
pub(super) struct Exports {
    environment: Environment,
    resource: Resource,
    /// One sentence for each variable that is wrong, and for what is not exported although it is asked for.
    pub(super) warnings: Vec<String>,
}

/// An exporter of `$kind` over this transport.
macro_rules! exporter {
    ($kind:ident, $export:expr) => {
        match $export.transport {
            OtlpTransport::HttpProtobuf => {
                let http = $kind::builder().with_http();
                http.with_protocol(Protocol::HttpBinary).build()
            }
            OtlpTransport::Grpc { is_tls: false } => $kind::builder().with_tonic().build(),
            OtlpTransport::Grpc { is_tls: true } => {
                let roots = ClientTlsConfig::new().with_enabled_roots();
                $kind::builder().with_tonic().with_tls_config(roots).build()
            }
        }
    };
}

impl Exports {
    pub(super) fn new(environment: Environment, service: &'static str, instance: Uuid) -> Self {
        Self {
            resource: resource(&environment, service, instance),
            warnings: environment.warnings.clone(),
            environment,
        }
    }

    /// `service.instance.id`, as it is set or else made here.
    pub(super) fn instance_name(&self) -> String {
        let name = self.resource.get(&Key::new("service.instance.id"));
        name.map_or_else(String::new, |name| name.as_str().into_owned())
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Nothing is sampled by it: a span is opened only where [`super::sampler`] said that it is recorded.
    pub(super) fn tracer(&mut self) -> Option<SdkTracerProvider> {
        let exporter = self.exporter(Signal::Traces, |export| exporter!(SpanExporter, export))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(Ids::default())
            .with_resource(self.resource.clone());
        Some(provider.build())
    }

    pub(super) fn logger(&mut self) -> Option<SdkLoggerProvider> {
        let exporter = self.exporter(Signal::Logs, |export| exporter!(LogExporter, export))?;
        let provider = SdkLoggerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(self.resource.clone());
        Some(provider.build())
    }

    pub(super) fn metrics(&mut self, workspaces: usize) -> Metrics {
        let exporter = self.exporter(Signal::Metrics, |export| exporter!(MetricExporter, export));
        Metrics::new(
            Parts {
                resource: self.resource.clone(),
                workspaces,
                exemplars: self.environment.exemplars,
            },
            exporter.map(|exporter| PeriodicReader::builder(exporter).build()),
        )
    }

    fn exporter<E>(
        &mut self,
        signal: Signal,
        build: impl FnOnce(Export) -> Result<E, ExporterBuildError>,
    ) -> Option<E> {
        let export = self.environment.export(signal)?;
        build(export)
            .map_err(|error| {
                // Only the name of what is wrong: an endpoint may hold a password.
                let message = error.to_string();
                let parts: Vec<&str> = message.split(": ").take(2).collect();
                let (signal, message) = (signal.as_str(), parts.join(": "));
                self.warnings
                    .push(format!("{signal} are not exported: {message}"));
            })
            .ok()
    }
}

/// What `work` comes to, if it does within `limit`. It has a thread of its own, since the SDK blocks when
/// it ends, and the runtime would wait for that at its own end.
pub(super) async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("herald-otlp-end".to_owned())
        .spawn(move || {
            // Nobody waits any more after the limit.
            let _ = sender.send(work());
        });
    if let Err(error) = spawned {
        warn!(%error, "telemetry not exported at the end");
        return None;
    }
    timeout(limit, receiver).await.ok()?.ok()
}

/// Who exports: `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win.
fn resource(environment: &Environment, service: &'static str, instance: Uuid) -> Resource {
    let named = environment.service.clone();
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([
            KeyValue::new("service.name", service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_string()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(named.map(|name| KeyValue::new("service.name", name)))
        .build()
}
