//! What an operator sees: traces ([`spans`]), metrics ([`metrics`]) and logs ([`logging`]), on
//! standard error, at `/metrics` and, where `OTEL_*` variables say so ([`environment`]), over OTLP
//! ([`otlp`]), which [`exports`] puts together.

mod command;
mod environment;
mod exports;
mod logging;
mod metrics;
mod otlp;
mod sampler;
mod spans;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::command::CommandTraces;
pub(crate) use self::command::trace_of;
use self::environment::Environment;
use self::exports::Exports;
pub(crate) use self::logging::UNLIMITED;
pub use self::logging::{
    FILTER_BYTES_MAX, Filter, FilterError, FilterSettingError, LevelError, LogLevel,
};
use self::metrics::SelfObserved;
pub use self::metrics::{Format, LiveDrop, Metrics};
pub(crate) use self::metrics::{Stage, Traffic};
use self::otlp::Runtime;
pub(crate) use self::spans::{
    Clock, Closed, ConnectionTrace, DeadLetterTrace, EventFacts, EventTrace, FanOutTrace, Outcome,
    SendTrace, Sent, Step, Steps, Tracing,
};
use crate::config::{LogConfig, TelemetryConfig};

/// What the `OTEL_*` variables of this process come to: a sentence, and one for each that is wrong.
pub fn check_environment() -> (String, Vec<String>) {
    let environment = Environment::of_process();
    let exported = environment.exported();
    let sentence = if exported.is_empty() {
        "nothing is exported over OTLP".to_owned()
    } else {
        format!("over OTLP go {}", exported.join(", "))
    };
    (sentence, environment.warnings)
}

/// All telemetry of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    tracing: Option<Arc<Tracing>>,
    tracer: Option<SdkTracerProvider>,
    logger: Option<SdkLoggerProvider>,
    level: LogLevel,
    /// This start of this process.
    instance: Uuid,
    observed: SelfObserved,
    shutdown: Duration,
    /// Where the exporters' I/O runs, as long as there are any.
    _runtime: Option<Runtime>,
}

/// What cannot go on without telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` or `RUST_LOG`.
    #[error(transparent)]
    Level(#[from] FilterSettingError),
    /// The instruments cannot be read, or spans not be exported.
    #[error("{0}")]
    Sdk(#[from] OTelSdkError),
}

impl Telemetry {
    /// Starts logging, metrics and, as far as the `OTEL_*` variables ask for it, the exporters. What is
    /// wrong with those is warned of, and their defaults hold.
    ///
    /// # Errors
    /// [`TelemetryError::Level`].
    pub fn start(log: &LogConfig, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let instance = Uuid::new_v4();
        let mut exports = Exports::new(Environment::of_process(), "herald", instance);
        let tracer = exports.tracer();
        let logger = exports.logger();
        let metrics = exports.metrics(config.workspaces);
        let tracing = tracer.as_ref().map(|provider| {
            let baggage = config.baggage.clone();
            Arc::new(exports.tracing(provider, config.send_spans, baggage))
        });
        let Exports {
            environment,
            observed,
            warnings,
            runtime,
            ..
        } = exports;
        let level = logging::init(log, Arc::clone(&observed.suppressed), logger.as_ref())?;
        for warning in environment.warnings.iter().chain(&warnings) {
            warn!(target: logging::UNLIMITED, warning, "telemetry setting not taken");
        }
        info!(
            traces = tracing.is_some(),
            metrics = environment.metrics.is_some(),
            logs = logger.is_some(),
            instance = %instance,
            "telemetry started"
        );
        Ok(Self {
            metrics: Arc::new(metrics),
            tracing,
            tracer,
            logger,
            level,
            instance,
            observed,
            shutdown: config.shutdown,
            _runtime: runtime,
        })
    }

    /// The instruments.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What makes spans; `None` where traces are not exported.
    pub(crate) fn tracing(&self) -> Option<&Arc<Tracing>> {
        self.tracing.as_ref()
    }

    /// What is logged.
    pub fn level(&self) -> &LogLevel {
        &self.level
    }

    /// This start of this process: `service.instance.id`, unless that is set.
    pub fn instance(&self) -> Uuid {
        self.instance
    }

    /// Exports what waits, for `telemetry.shutdown` at the most; what is left then is lost, and told.
    pub async fn end(&self) {
        let this = self.clone();
        let ended = exports::within(self.shutdown, move || this.flush()).await;
        let left = self.observed.spans.queued.load(Ordering::Relaxed)
            + self.observed.logs.queued.load(Ordering::Relaxed);
        if ended.is_none() && left > 0 {
            warn!(left, "telemetry not all exported at the end");
        }
    }

    /// All signals at a time, so that one that hangs takes nothing from the others.
    fn flush(&self) {
        let limit = self.shutdown;
        std::thread::scope(|scope| {
            // What fails has been counted and, by the SDK, logged.
            scope.spawn(|| {
                self.tracer
                    .as_ref()
                    .map(|tracer| tracer.shutdown_with_timeout(limit).ok())
            });
            scope.spawn(|| {
                self.logger
                    .as_ref()
                    .map(|logger| logger.shutdown_with_timeout(limit).ok())
            });
            scope.spawn(|| self.metrics.provider().shutdown_with_timeout(limit).ok());
        });
    }
}
