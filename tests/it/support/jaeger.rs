//! A Jaeger that belongs to one test: an OpenTelemetry Collector's receiver, which Herald has no part in, before a
//! store that answers by trace.
//!
//! It is looked for on `PATH`; where `HERALD_TEST_JAEGER` is set, it must be there.

use std::process::Stdio;

use serde_json::Value;

use super::gateway;
use super::nats::free_port;
use super::tls::Certificates;
use super::{PATIENCE, eventually, program};

/// One that takes OTLP over TLS, and ends with the value.
#[derive(Debug)]
pub(crate) struct Jaeger {
    /// Of its API.
    address: String,
    grpc: u16,
    http: u16,
    certificates: Certificates,
    _folder: tempfile::TempDir,
    _process: tokio::process::Child,
}

impl Jaeger {
    /// `None`, and a line that says so, where there is none to be had.
    pub(crate) async fn start() -> Option<Self> {
        let how = "https://www.jaegertracing.io/download";
        let command = program("jaeger", "HERALD_TEST_JAEGER", how)?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certificates = Certificates::new();
        let [api, grpc, http] = [free_port(), free_port(), free_port()];
        let (cert, key) = (certificates.certificate(), certificates.key());
        let tls = format!("tls: {{cert_file: {cert:?}, key_file: {key:?}}}");
        let config = format!(
            "service:\n  \
               extensions: [jaeger_storage, jaeger_query]\n  \
               pipelines: {{traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}}}\n  \
               telemetry: {{metrics: {{level: none}}}}\n\
             extensions:\n  \
               jaeger_query: {{storage: {{traces: memory}}, http: {{endpoint: '127.0.0.1:{api}'}}, grpc: {{endpoint: '127.0.0.1:0'}}}}\n  \
               jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 1000}}}}}}}}\n\
             receivers:\n  \
               otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{grpc}', {tls}}}, http: {{endpoint: '127.0.0.1:{http}', {tls}}}}}}}\n\
             exporters: {{jaeger_storage_exporter: {{trace_storage: memory}}}}\n"
        );
        let file = gateway::file(folder.path(), "jaeger.yaml", config);
        let process = tokio::process::Command::new(command)
            .args(["--config", &file])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let jaeger = Self {
            address: format!("127.0.0.1:{api}"),
            grpc,
            http,
            certificates,
            _folder: folder,
            _process: process,
        };
        let answers = eventually(PATIENCE, async || {
            tokio::net::TcpStream::connect(&jaeger.address)
                .await
                .is_ok()
        });
        assert!(answers.await, "Jaeger does not start");
        Some(jaeger)
    }

    /// The variables with which something exports here.
    pub(crate) fn variables(&self, protocol: &str) -> [(&'static str, String); 4] {
        let port = if protocol == "grpc" {
            self.grpc
        } else {
            self.http
        };
        [
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                match protocol {
                    "grpc" => format!("https://localhost:{port}"),
                    _ => format!("https://localhost:{port}/v1/traces"),
                },
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
            (
                "SSL_CERT_FILE",
                self.certificates.authority().display().to_string(),
            ),
        ]
    }

    /// The spans of a trace that came so far.
    pub(crate) async fn spans(&self, trace: &str) -> Vec<Value> {
        // HTTP/1.0: an answer in chunks is not taken apart here.
        let request = format!("GET /api/traces/{trace} HTTP/1.0\r\n\r\n");
        let answer = gateway::exchange(&self.address, request.as_bytes()).await;
        let answer = answer.unwrap_or_default();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let spans = answer["data"][0]["spans"].as_array();
        spans.cloned().unwrap_or_default()
    }
}
