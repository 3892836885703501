//! Traces of the commands that publish and receive: on where the same `OTEL_*` variables say so that
//! a gateway looks at. A command exports no metrics and no logs.

use std::time::Duration;

use async_nats::HeaderMap;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::TelemetryError;
use super::environment::Environment;
use super::exports::{Exports, within};
use super::spans::{self, Publication};
use crate::event::{Traceparent, traceparent};

/// How long the end of a command may take to export its spans.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// The traces of one run of a command.
#[derive(Debug)]
pub struct CommandTraces {
    tracer: Option<SdkTracerProvider>,
    warnings: Vec<String>,
}

impl CommandTraces {
    /// Starts them for the command `name`, which is the service's name unless `OTEL_SERVICE_NAME` is
    /// set.
    pub fn start(name: &'static str) -> Self {
        let mut exports = Exports::new(Environment::of_process(), name, uuid::Uuid::new_v4());
        let tracer = exports.tracer();
        if let Some(tracer) = &tracer {
            let spans = spans::layer(tracer);
            // A second one in a process (tests) keeps the first subscriber.
            let _ = tracing_subscriber::registry().with(spans).try_init();
            spans::begin(exports.environment().sampler, 0, Vec::new());
        }
        Self {
            tracer,
            warnings: exports.warnings,
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
        Publication::begin(subject, size, headers)
    }

    /// Makes the span of a notification that came, the child of the `traceparent` that it brought.
    pub(crate) fn receive(&self, notification: &str, traceparent: Traceparent, size: usize) {
        spans::receive(notification, traceparent, size);
    }

    /// Exports what waits.
    ///
    /// # Errors
    /// Where the collector did not take it in time.
    pub async fn end(&self) -> Result<(), TelemetryError> {
        let Some(provider) = self.tracer.clone() else {
            return Ok(());
        };
        let ended = within(SHUTDOWN, move || provider.shutdown_with_timeout(SHUTDOWN)).await;
        Ok(ended.unwrap_or(Err(OTelSdkError::Timeout(SHUTDOWN)))?)
    }
}

/// The trace id of a `traceparent` among `headers`, if there is one.
pub(crate) fn trace_of(headers: &HeaderMap) -> Option<String> {
    let traceparent = traceparent(headers).and_then(Traceparent::parse)?;
    Some(format!("{:032x}", traceparent.trace))
}
