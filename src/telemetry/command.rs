//! Traces of the commands that publish and receive: on where the same `OTEL_*` variables say so that
//! a gateway looks at. A command exports no metrics and no logs.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};

use super::TelemetryError;
use super::environment::Environment;
use super::exports::{Exports, within};
use super::otlp::Runtime;
use super::spans::{Clock, EVENT_TEMPLATE, Tracing, builder, count, inject};
use crate::event::{Traceparent, traceparent};

/// How long the end of a command may take to export its spans.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// The traces of one run of a command.
#[derive(Debug)]
pub struct CommandTraces {
    tracing: Option<(Arc<Tracing>, SdkTracerProvider)>,
    warnings: Vec<String>,
    /// Where the exporter's I/O runs.
    _runtime: Option<Runtime>,
}

/// A publication under way.
#[derive(Debug)]
pub(crate) struct Publication(Option<opentelemetry_sdk::trace::Span>);

impl CommandTraces {
    /// Starts them for the command `name`, which is the service's name unless `OTEL_SERVICE_NAME` is
    /// set.
    pub fn start(name: &'static str) -> Self {
        let mut environment = Environment::of_process();
        (environment.metrics, environment.logs) = (None, None);
        let mut exports = Exports::new(environment, name, uuid::Uuid::new_v4());
        let tracing = exports.tracer().map(|provider| {
            let tracing = exports.tracing(&provider, 0, Vec::new());
            (Arc::new(tracing), provider)
        });
        let mut warnings = exports.environment.warnings;
        warnings.extend(exports.warnings);
        Self {
            tracing,
            warnings,
            _runtime: exports.runtime,
        }
    }

    /// What was wrong with the variables, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Begins the trace of an event that is to be published on `subject`; its context goes into
    /// `headers`. Without an exporter it gets a trace of its own all the same.
    pub(crate) fn publish(
        &self,
        subject: &str,
        size: usize,
        headers: &mut HeaderMap,
    ) -> Publication {
        let ids = RandomIdGenerator::default();
        let trace = ids.new_trace_id();
        let origin = self.tracing.as_ref().map(|(tracing, _)| {
            let origin = tracing.origin(None, || None, || trace);
            (tracing, origin)
        });
        match origin {
            Some((tracing, Some(origin))) => {
                let name = format!("publish {EVENT_TEMPLATE}");
                let builder =
                    builder(name, SpanKind::Producer, Clock::now().wall).with_attributes([
                        KeyValue::new("messaging.system", "nats"),
                        KeyValue::new("messaging.operation.name", "publish"),
                        KeyValue::new("messaging.operation.type", "send"),
                        KeyValue::new("messaging.destination.name", subject.to_owned()),
                        KeyValue::new("messaging.destination.template", EVENT_TEMPLATE),
                        count("messaging.message.body.size", size as u64),
                    ]);
                let span = tracing.start(origin, builder);
                inject(span.span_context(), headers);
                Publication(Some(span))
            }
            unrecorded => {
                // Exported, but not sampled: everybody who follows leaves it out, too.
                let flags = if unrecorded.is_some() { "00" } else { "01" };
                let span = ids.new_span_id();
                headers.insert("traceparent", format!("00-{trace}-{span}-{flags}"));
                Publication(None)
            }
        }
    }

    /// Makes the span of a notification that came, the child of the `traceparent` that it brought.
    pub(crate) fn receive(&self, notification: &str, traceparent: Traceparent, size: usize) {
        let Some((tracing, _)) = &self.tracing else {
            return;
        };
        let unused = || opentelemetry::trace::TraceId::INVALID;
        if let Some(origin) = tracing.origin(Some(traceparent), || None, unused) {
            let name = "receive notification";
            let builder = builder(name, SpanKind::Consumer, Clock::now().wall).with_attributes([
                KeyValue::new("messaging.system", "herald"),
                KeyValue::new("messaging.operation.name", "receive"),
                KeyValue::new("messaging.operation.type", "receive"),
                KeyValue::new("messaging.message.id", notification.to_owned()),
                count("messaging.message.body.size", size as u64),
                KeyValue::new("network.protocol.name", "websocket"),
            ]);
            tracing.start(origin, builder).end();
        }
    }

    /// Exports what waits.
    ///
    /// # Errors
    /// Where the collector did not take it in time.
    pub async fn end(&self) -> Result<(), TelemetryError> {
        let Some((_, provider)) = self.tracing.clone() else {
            return Ok(());
        };
        let ended = within(SHUTDOWN, move || provider.shutdown_with_timeout(SHUTDOWN)).await;
        Ok(ended.unwrap_or(Err(OTelSdkError::Timeout(SHUTDOWN)))?)
    }
}

impl Publication {
    /// The event is stored at `sequence` of `stream`.
    pub(crate) fn stored(self, stream: &str, sequence: u64) {
        if let Some(mut span) = self.0 {
            span.set_attribute(KeyValue::new(
                "messaging.nats.stream.name",
                stream.to_owned(),
            ));
            span.set_attribute(count("messaging.nats.stream.sequence", sequence));
            span.end();
        }
    }

    /// It is not, as far as is known.
    pub(crate) fn failed(self, why: &str) {
        if let Some(mut span) = self.0 {
            span.set_status(Status::error(why.to_owned()));
            span.end();
        }
    }
}

/// The trace id of a `traceparent` among `headers`, if there is one.
pub(crate) fn trace_of(headers: &HeaderMap) -> Option<String> {
    let traceparent = traceparent(headers).and_then(Traceparent::parse)?;
    Some(format!("{:032x}", traceparent.trace))
}
