//! What an operator sees: traces ([`spans`]), metrics ([`metrics`]) and logs ([`logging`]), on
//! standard error, at `/metrics` and, where `OTEL_*` variables say so ([`environment`]), over OTLP
//! ([`exports`]).

mod command;
mod environment;
mod exports;
mod logging;
mod metrics;
mod sampler;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::command::CommandTraces;
pub(crate) use self::command::trace_of;
use self::environment::{Environment, Signal};
use self::exports::Exports;
pub(crate) use self::logging::UNLIMITED;
pub use self::logging::{
    FILTER_BYTES_MAX, Filter, FilterError, FilterSettingError, LevelError, LogLevel,
};
pub use self::metrics::{Format, LiveDrop, Metrics};
pub(crate) use self::metrics::{Stage, TokenCheck, Traffic};
pub(crate) use self::spans::{
    Clock, ConnectionTrace, DeadLetterTrace, EventFacts, EventTrace, Failure, FanOutTrace,
    JoinOutcome, JoinPhase, JoinPhases, Publication, SendSpan, SendTrace, Sent, activate_room,
    check_claims, drain, migrate, publish_request, read_leader, reconnect, repair, repair_batch,
    repaired, sweep,
};
use crate::config::{LogConfig, TelemetryConfig};

/// What the `OTEL_*` variables of this process come to: a sentence, and one for each that is wrong.
pub fn check_environment() -> (String, Vec<String>) {
    let environment = Environment::of_process();
    let exported = environment.exports.iter();
    let exported: Vec<_> = exported.map(|export| export.signal.as_str()).collect();
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
    tracer: Option<SdkTracerProvider>,
    logger: Option<SdkLoggerProvider>,
    level: LogLevel,
    /// This start of this process.
    instance: Uuid,
    /// What operators call this gateway.
    name: Arc<str>,
    shutdown: Duration,
}

/// Why telemetry does not start, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` or `RUST_LOG`.
    #[error(transparent)]
    Level(#[from] FilterSettingError),
    /// The instruments cannot be read, or spans not be exported.
    #[error("{0}")]
    Sdk(#[from] OTelSdkError),
}

/// The longest name of a gateway, in bytes.
const NAME_MAX: usize = 128;

/// `set`, if it can be a name, else that of the process.
fn gateway_name(set: &str, process: Uuid) -> Arc<str> {
    let is_name = (1..=NAME_MAX).contains(&set.len()) && !set.contains(char::is_control);
    if is_name {
        set.into()
    } else {
        warn!(
            target: logging::UNLIMITED,
            "service.instance.id is no name for a gateway: it is empty, longer than {NAME_MAX} bytes, or has control characters"
        );
        process.to_string().into()
    }
}

#[cfg(test)]
impl Metrics {
    /// Exported nowhere.
    pub(crate) fn unexported() -> Self {
        let environment = Environment::read([]);
        Exports::new(environment, "herald", Uuid::nil()).metrics(0)
    }
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
        // First, since the SDK's own counters of the others are made with it.
        let metrics = exports.metrics(config.workspaces);
        opentelemetry::global::set_meter_provider(metrics.provider().clone());
        let (tracer, logger) = (exports.tracer(), exports.logger());
        let suppressed = Arc::clone(metrics.suppressed());
        let level = logging::init(log, suppressed, (logger.as_ref(), tracer.as_ref()))?;
        if tracer.is_some() {
            let sampler = exports.environment().sampler;
            spans::begin(sampler, config.send_spans, config.baggage.clone());
        }
        for warning in &exports.warnings {
            warn!(target: logging::UNLIMITED, warning, "telemetry setting not taken");
        }
        info!(
            traces = tracer.is_some(),
            metrics = exports.environment().export(Signal::Metrics).is_some(),
            logs = logger.is_some(),
            instance = %instance,
            "telemetry started"
        );
        Ok(Self {
            metrics: Arc::new(metrics),
            tracer,
            logger,
            level,
            name: gateway_name(&exports.instance_name(), instance),
            instance,
            shutdown: config.shutdown,
        })
    }

    /// The instruments.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What is logged.
    pub fn level(&self) -> &LogLevel {
        &self.level
    }

    /// This start of this process: `service.instance.id`, unless that is set.
    pub fn instance(&self) -> Uuid {
        self.instance
    }

    /// What operators call this gateway: `service.instance.id`, which is [`Telemetry::instance`] unless it is set.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Exports what waits, for `telemetry.shutdown` at the most; what is left then is lost, and a warning is logged.
    pub async fn end(&self) {
        let this = self.clone();
        let ended = exports::within(self.shutdown, move || this.flush()).await;
        if ended != Some(true) {
            warn!("telemetry not all exported at the end");
        }
    }

    /// All signals at a time, so that one that hangs takes nothing from the others. Whether the collector took
    /// all of them, as far as the SDK knows. It logs what fails.
    fn flush(&self) -> bool {
        let limit = self.shutdown;
        std::thread::scope(|scope| {
            let traces = scope.spawn(|| {
                let tracer = self.tracer.as_ref();
                tracer.is_none_or(|tracer| tracer.shutdown_with_timeout(limit).is_ok())
            });
            let logs = scope.spawn(|| {
                let logger = self.logger.as_ref();
                logger.is_none_or(|logger| logger.shutdown_with_timeout(limit).is_ok())
            });
            let metrics = self.metrics.provider().shutdown_with_timeout(limit).is_ok();
            traces.join().unwrap_or(false) & logs.join().unwrap_or(false) & metrics
        })
    }
}
