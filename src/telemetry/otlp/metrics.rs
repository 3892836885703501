//! The exporter of metrics. The SDK records no exemplars (0.33), and its data has no place to put
//! one in; so the request is made here, with the SDK's own conversion, and exemplars are added to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{Request, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_http::HttpClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, exemplar, metric};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use prost::Message;
use tonic::codec::CompressionEncoding;

use super::{Export, ExportError, Runtime, Transport, metadata};
use crate::telemetry::metrics::{Exemplars, LATENCY};

/// Attempts to send one request. The next interval brings the sums anyway.
const ATTEMPTS: u32 = 3;

/// Sends metrics with their exemplars.
#[derive(Debug)]
pub(in crate::telemetry) struct MetricsExporter {
    transport: Transport,
    export: Export,
    temporality: Temporality,
    exemplars: Arc<Exemplars>,
    counts: Arc<MetricsCounts>,
    ended: AtomicBool,
    runtime: Runtime,
}

/// Data points that were sent, and that were not.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct MetricsCounts {
    pub(in crate::telemetry) exported: AtomicU64,
    pub(in crate::telemetry) failed: AtomicU64,
}

impl MetricsExporter {
    /// # Errors
    /// [`ExportError`].
    pub(in crate::telemetry) fn new(
        export: Export,
        temporality: Temporality,
        exemplars: Arc<Exemplars>,
        counts: Arc<MetricsCounts>,
        runtime: &Runtime,
    ) -> Result<Self, ExportError> {
        Ok(Self {
            transport: Transport::new(&export, runtime)?,
            export,
            temporality,
            exemplars,
            counts,
            ended: AtomicBool::new(false),
            runtime: runtime.clone(),
        })
    }

    fn request(&self, metrics: &ResourceMetrics) -> ExportMetricsServiceRequest {
        let mut request = ExportMetricsServiceRequest::from(metrics);
        let all = request
            .resource_metrics
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_metrics)
            .flat_map(|scope| &mut scope.metrics);
        for metric in all.filter(|metric| metric.name == LATENCY) {
            add(metric, &self.exemplars);
        }
        request
    }

    async fn send(&self, request: &ExportMetricsServiceRequest) -> Result<(), String> {
        match &self.transport {
            Transport::Grpc(channel) => {
                let mut client = MetricsServiceClient::new(channel.clone());
                if self.export.gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                let mut message = tonic::Request::new(request.clone());
                *message.metadata_mut() = metadata(&self.export);
                let sent = client.export(message).await;
                // The message of a status is the collector's, which may quote a header.
                sent.map(drop).map_err(|status| status.code().to_string())
            }
            Transport::Http(client) => {
                let mut builder = Request::post(&self.export.endpoint)
                    .header(header::CONTENT_TYPE, "application/x-protobuf");
                let mut body = request.encode_to_vec();
                if self.export.gzip {
                    builder = builder.header(header::CONTENT_ENCODING, "gzip");
                    body = gzip(&body).map_err(|error| error.to_string())?;
                }
                let message = builder
                    .body(Bytes::from(body))
                    .map_err(|error| error.to_string())?;
                match client.send_bytes(message).await {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    Ok(answer) => Err(format!("HTTP status {}", answer.status().as_u16())),
                    Err(_) => Err("network error".to_owned()),
                }
            }
        }
    }
}

impl PushMetricExporter for MetricsExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        if self.ended.load(Ordering::Relaxed) {
            return Err(OTelSdkError::AlreadyShutdown);
        }
        let request = self.request(metrics);
        let points = points(&request);
        let mut pause = Duration::from_millis(100);
        let mut attempt = 1;
        let result = loop {
            match self.send(&request).await {
                Err(_) if attempt < ATTEMPTS => {}
                result => break result,
            }
            attempt += 1;
            // The timer is made there: on the reader's thread there is no runtime that would have one.
            let sleep = async move { tokio::time::sleep(pause).await };
            // The thread ends only after this exporter.
            let _ = self.runtime.handle().spawn(sleep).await;
            pause *= 4;
        };
        let counter = match result {
            Ok(()) => &self.counts.exported,
            Err(_) => &self.counts.failed,
        };
        counter.fetch_add(points, Ordering::Relaxed);
        result.map_err(OTelSdkError::InternalFailure)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        self.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Adds the exemplars to the one histogram that has some.
fn add(metric: &mut Metric, exemplars: &Exemplars) {
    let Some(metric::Data::Histogram(histogram)) = &mut metric.data else {
        return;
    };
    if let Some(point) = histogram.data_points.first_mut() {
        point.exemplars = exemplars
            .all()
            .into_iter()
            .flatten()
            .map(|found| Exemplar {
                filtered_attributes: Vec::new(),
                time_unix_nano: nanos(found.time),
                span_id: found.span.to_bytes().to_vec(),
                trace_id: found.trace.to_bytes().to_vec(),
                value: Some(exemplar::Value::AsDouble(found.value)),
            })
            .collect();
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn points(request: &ExportMetricsServiceRequest) -> u64 {
    let all = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics);
    all.map(|metric| match &metric.data {
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len() as u64,
        Some(metric::Data::Sum(sum)) => sum.data_points.len() as u64,
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len() as u64,
        _ => 0,
    })
    .sum()
}
