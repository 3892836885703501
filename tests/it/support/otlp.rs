//! A collector that takes OTLP over gRPC and HTTP, and shows what came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mock_collector::{MockCollector, MockServer, Protocol, ServerHandle};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::RwLock;

use super::gateway::Builder;
use super::{PATIENCE, eventually};

/// A running collector, one store behind both transports.
#[derive(Debug)]
pub(crate) struct Collector {
    store: Arc<RwLock<MockCollector>>,
    grpc: ServerHandle,
    http: ServerHandle,
}

/// A span as it came, with the service that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) service: String,
    pub(crate) span: Span,
}

impl Seen {
    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// Empty of a root.
    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// An attribute as text; empty if it is not there.
    pub(crate) fn attribute(&self, key: &str) -> String {
        attribute(&self.span.attributes, key)
    }

    /// The attribute as a number.
    pub(crate) fn number(&self, key: &str) -> f64 {
        let text = self.attribute(key);
        text.parse()
            .unwrap_or_else(|_| panic!("{key} is {text:?} in {self:#?}"))
    }

    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.span.end_time_unix_nano - self.span.start_time_unix_nano)
    }

    /// The ids of the spans that it links to.
    pub(crate) fn links(&self) -> Vec<String> {
        self.span
            .links
            .iter()
            .map(|link| hex(&link.span_id))
            .collect()
    }
}

impl Collector {
    /// Starts one on free ports.
    pub(crate) async fn start() -> Self {
        Self::on(0, 0).await
    }

    /// Starts one on these ports.
    pub(crate) async fn on(grpc: u16, http: u16) -> Self {
        let store = Arc::new(RwLock::new(MockCollector::new()));
        let server = async |protocol, port| {
            MockServer::with_collector(protocol, port, Arc::clone(&store))
                .start()
                .await
                .expect("a collector")
        };
        Self {
            grpc: server(Protocol::Grpc, grpc).await,
            http: server(Protocol::HttpBinary, http).await,
            store,
        }
    }

    /// The ports of both transports.
    pub(crate) fn ports(&self) -> (u16, u16) {
        (self.grpc.addr().port(), self.http.addr().port())
    }

    /// Where OTLP/HTTP is taken.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.http.addr())
    }

    /// The variables with which a gateway exports here at once.
    pub(crate) fn exported(&self, gateway: Builder, protocol: &str) -> Builder {
        let endpoint = match protocol {
            "grpc" => format!("http://{}", self.grpc.addr()),
            _ => self.http(),
        };
        gateway
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .variable("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .variable("OTEL_BSP_SCHEDULE_DELAY", 50)
            .variable("OTEL_BLRP_SCHEDULE_DELAY", 50)
            .variable("OTEL_METRIC_EXPORT_INTERVAL", 200)
    }

    /// Ends it: whoever exports finds nobody there.
    pub(crate) async fn stop(self) {
        // It is the last test's to see that nothing listens any more.
        let _ = self.grpc.shutdown().await;
        let _ = self.http.shutdown().await;
    }

    /// All spans that came so far.
    pub(crate) async fn spans(&self) -> Vec<Seen> {
        let store = self.store.read().await;
        let seen = store.spans().iter().map(|span| Seen {
            service: attribute(span.resource_attrs(), "service.name"),
            span: span.span().clone(),
        });
        seen.collect()
    }

    /// Waits for the first span that `wanted` takes.
    pub(crate) async fn span(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut found = None;
        let came = eventually(PATIENCE, async || {
            found = self.spans().await.into_iter().find(|span| wanted(span));
            found.is_some()
        });
        if !came.await {
            let names: Vec<_> = self
                .spans()
                .await
                .into_iter()
                .map(|seen| seen.span.name)
                .collect();
            panic!("{what} does not come; these did: {names:?}");
        }
        found.expect("just found")
    }

    /// The resource of the first span that came.
    pub(crate) async fn resource(&self, service: &str) -> BTreeMap<String, String> {
        let store = self.store.read().await;
        let span = store
            .spans()
            .iter()
            .find(|span| attribute(span.resource_attrs(), "service.name") == service)
            .expect("a span of the service");
        let pairs = span.resource_attrs().iter();
        pairs
            .map(|pair| {
                (
                    pair.key.clone(),
                    attribute(span.resource_attrs(), &pair.key),
                )
            })
            .collect()
    }

    /// All log records that came so far.
    pub(crate) async fn logs(&self) -> Vec<LogRecord> {
        let store = self.store.read().await;
        store
            .logs()
            .iter()
            .map(|log| log.log_record().clone())
            .collect()
    }

    /// The latest of each metric of that name: the last of what was exported.
    pub(crate) async fn metric(&self, name: &str) -> Option<Metric> {
        let store = self.store.read().await;
        let mut found = store.metrics().iter().rev().map(|metric| metric.metric());
        found.find(|metric| metric.name == name).cloned()
    }

    /// The sum of a counter over all its labels, as it was last exported.
    pub(crate) async fn sum(&self, name: &str) -> f64 {
        let Some(metric) = self.metric(name).await else {
            return 0.0;
        };
        let Some(metric::Data::Sum(sum)) = metric.data else {
            panic!("{name} is no sum");
        };
        sum.data_points
            .iter()
            .map(|point| match point.value {
                Some(number_data_point::Value::AsInt(value)) => value as f64,
                Some(number_data_point::Value::AsDouble(value)) => value,
                None => 0.0,
            })
            .sum()
    }
}

/// An attribute as text; empty if it is not there.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    match found.and_then(|pair| pair.value.as_ref()?.value.clone()) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(is)) => is.to_string(),
        _ => String::new(),
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
