//! OTLP exporters, over gRPC and HTTP/protobuf, and what of them is counted.
//!
//! All of their I/O runs on a thread of its own ([`runtime`]), and the SDK's batch processors have
//! theirs: nothing on the way of an event waits for an export.

mod counted;
mod http;
mod metrics;
mod runtime;

use std::time::Duration;

use opentelemetry_otlp::Protocol as OtlpProtocol;
use opentelemetry_otlp::{
    Compression, LogExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(super) use self::counted::{
    CountedLogs, CountedSpans, PipelineCounts, QueuedLogs, QueuedSpans,
};
pub(super) use self::metrics::{MetricsCounts, MetricsExporter};
pub(super) use self::runtime::Runtime;
use super::environment::{Export, Protocol};
use crate::config::read_bounded;
use crate::json::without_mark;

/// An exporter cannot be made. Telemetry is off for its signal then, and the gateway runs.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("cannot read {path}: {source}")]
    File {
        path: String,
        source: std::io::Error,
    },
    #[error("the certificate files do not fit: {0}")]
    Tls(String),
    #[error("{0}")]
    Build(String),
}

/// How a signal is sent, made once and used by its exporter.
#[derive(Debug)]
enum Transport {
    Grpc(Channel),
    Http(Box<http::Client>),
}

impl Transport {
    fn new(export: &Export, runtime: &Runtime) -> Result<Self, ExportError> {
        match export.protocol {
            Protocol::Grpc => channel(export, runtime).map(Self::Grpc),
            Protocol::HttpProtobuf => {
                http::Client::new(export, runtime).map(|client| Self::Http(Box::new(client)))
            }
        }
    }
}

/// An exporter of spans.
///
/// # Errors
/// [`ExportError`].
pub(super) fn spans(export: &Export, runtime: &Runtime) -> Result<SpanExporter, ExportError> {
    let builder = SpanExporter::builder();
    let built = match Transport::new(export, runtime)? {
        Transport::Grpc(channel) => over_grpc(builder.with_tonic(), export, channel).build(),
        Transport::Http(client) => over_http(builder.with_http(), export, *client).build(),
    };
    built.map_err(|error| ExportError::Build(error.to_string()))
}

/// An exporter of log records.
///
/// # Errors
/// [`ExportError`].
pub(super) fn logs(export: &Export, runtime: &Runtime) -> Result<LogExporter, ExportError> {
    let builder = LogExporter::builder();
    let built = match Transport::new(export, runtime)? {
        Transport::Grpc(channel) => over_grpc(builder.with_tonic(), export, channel).build(),
        Transport::Http(client) => over_http(builder.with_http(), export, *client).build(),
    };
    built.map_err(|error| ExportError::Build(error.to_string()))
}

fn over_grpc<B: WithTonicConfig + WithExportConfig>(
    builder: B,
    export: &Export,
    channel: Channel,
) -> B {
    let builder = builder
        .with_channel(channel)
        .with_timeout(export.timeout)
        .with_metadata(metadata(export));
    if export.gzip {
        builder.with_compression(Compression::Gzip)
    } else {
        builder
    }
}

/// The headers are the client's own.
fn over_http<B: WithHttpConfig + WithExportConfig>(
    builder: B,
    export: &Export,
    client: http::Client,
) -> B {
    let builder = builder
        .with_http_client(client)
        .with_protocol(OtlpProtocol::HttpBinary)
        .with_endpoint(&export.endpoint)
        .with_timeout(export.timeout);
    if export.gzip {
        builder.with_compression(Compression::Gzip)
    } else {
        builder
    }
}

/// A connection that is made when it is first used, and again after it broke.
fn channel(export: &Export, runtime: &Runtime) -> Result<Channel, ExportError> {
    let wrong = |error: tonic::transport::Error| ExportError::Tls(error.to_string());
    let mut endpoint = Endpoint::from_shared(export.endpoint.clone())
        .map_err(wrong)?
        .timeout(export.timeout)
        .connect_timeout(export.timeout.min(Duration::from_secs(5)));
    if export.endpoint.starts_with("https:") {
        let mut tls = ClientTlsConfig::new();
        match &export.certificate {
            Some(path) => tls = tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls = tls.with_native_roots(),
        }
        if let Some((certificate, key)) = &export.client {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    let _entered = runtime.enter();
    Ok(endpoint.connect_lazy())
}

/// The headers as gRPC's metadata; what is none was warned of where it was read.
fn metadata(export: &Export) -> MetadataMap {
    let mut map = MetadataMap::new();
    for (name, value) in &export.headers {
        let name = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.expose().parse()) {
            map.insert(name, value);
        }
    }
    map
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, ExportError> {
    let bytes = read_bounded(path).map_err(|error| ExportError::File {
        path: path.display().to_string(),
        source: error.into(),
    })?;
    Ok(without_mark(&bytes).to_vec())
}
