//! Logs on standard error and, where it is asked for, over OTLP: never a dependency's frames, never
//! a flood of one warning, at a level that can be changed while the gateway runs. Here the process' one
//! subscriber is put together, also with what exports spans, which no log level has a say in.

mod filter;
mod format;
mod lines;
mod repeats;

use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber, error, warn};
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

pub use self::filter::{FILTER_BYTES_MAX, Filter, FilterError, FilterSettingError};
use self::format::LineFormat;
use self::lines::Lines;
use self::repeats::Repeats;
pub(crate) use self::repeats::UNLIMITED;
use super::spans;
use crate::config::{LogConfig, LogFormat};

/// A handle on what is logged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogLevel {
    /// `None` where the process' subscriber is somebody else's.
    lines: Option<Lines>,
    filters: Arc<Mutex<LogFilters>>,
}

#[derive(Debug)]
struct LogFilters {
    configured: Filter,
    /// The text of the filter in force.
    current: String,
}

/// A level that is not set.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    #[error("no log filter: {0}")]
    Filter(#[from] FilterError),
    #[error("this process' log level cannot be changed")]
    Fixed,
}

impl LogLevel {
    /// The filter that holds now.
    pub fn current(&self) -> String {
        self.filters().current.clone()
    }

    /// Sets another, until the next start.
    ///
    /// # Errors
    /// [`LevelError`]; the filter stays what it was.
    pub fn set(&self, text: &str) -> Result<(), LevelError> {
        self.change(&mut self.filters(), &Filter::parse(text)?)
    }

    /// Goes back to what was configured.
    ///
    /// # Errors
    /// [`LevelError::Fixed`].
    pub fn reset(&self) -> Result<(), LevelError> {
        let mut filters = self.filters();
        let configured = filters.configured.clone();
        self.change(&mut filters, &configured)
    }

    /// Takes what is configured from now on. Where that is what was configured before, what [`LogLevel::set`]
    /// has set meanwhile stays.
    ///
    /// # Errors
    /// [`LevelError::Fixed`].
    pub fn configure(&self, filter: &Filter) -> Result<(), LevelError> {
        let mut filters = self.filters();
        if filters.configured.text() == filter.text() {
            return Ok(());
        }
        filters.configured = filter.clone();
        self.apply(&mut filters, filter)
    }

    fn change(&self, filters: &mut LogFilters, filter: &Filter) -> Result<(), LevelError> {
        if self.lines.is_some() {
            // Before it holds: a filter such as `off` would leave it out.
            warn!(target: UNLIMITED, filter = filter.text(), "log level changed");
        }
        self.apply(filters, filter)
    }

    fn apply(&self, filters: &mut LogFilters, filter: &Filter) -> Result<(), LevelError> {
        let lines = self.lines.as_ref().ok_or(LevelError::Fixed)?;
        lines.set(filter.targets().clone());
        cap_the_log_crate();
        filter.text().clone_into(&mut filters.current);
        Ok(())
    }

    fn filters(&self) -> MutexGuard<'_, LogFilters> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Installs the process' subscriber. Lines that repeat are counted in `suppressed`.
///
/// # Errors
/// Where the level is no filter.
pub(super) fn init(
    config: &LogConfig,
    suppressed: Arc<AtomicU64>,
    (logger, tracer): (Option<&SdkLoggerProvider>, Option<&SdkTracerProvider>),
) -> Result<LogLevel, FilterSettingError> {
    let configured = Filter::configured(config)?;
    let repeats = Repeats::new(suppressed);
    let lines = Lines::new(configured.targets().clone());
    let subscriber = subscriber(&lines, config.format, repeats.clone(), (logger, tracer));
    // A second call in one process (tests) keeps the first subscriber.
    let lines = subscriber.try_init().is_ok().then_some(lines);
    cap_the_log_crate();
    if lines.is_some() && tokio::runtime::Handle::try_current().is_ok() {
        tokio::spawn(report_left_out(repeats));
    }
    let current = configured.text().to_owned();
    let filters = LogFilters {
        configured,
        current,
    };
    Ok(LogLevel {
        lines,
        filters: Arc::new(Mutex::new(filters)),
    })
}

/// Each layer has a filter of its own: lines are printed and exported by one, spans by another. A layer that is
/// not configured is not added, so that tracing knows the callsites that no layer wants.
fn subscriber(
    lines: &Lines,
    format: LogFormat,
    repeats: Repeats,
    (logger, tracer): (Option<&SdkLoggerProvider>, Option<&SdkTracerProvider>),
) -> impl Subscriber + Send + Sync + use<> {
    let is_terminal = std::io::stderr().is_terminal();
    let line = match format {
        LogFormat::Json => LineFormat::json(),
        LogFormat::Auto if !is_terminal => LineFormat::json(),
        LogFormat::Auto | LogFormat::Text => LineFormat::text(is_terminal),
    };
    let printed = fmt::layer()
        .with_ansi(is_terminal)
        .fmt_fields(DefaultFields::new())
        .event_format(line)
        .with_writer(std::io::stderr);
    // The first says no to a line that repeats, for all of them.
    let mut layers = vec![repeats.and_then(printed).with_filter(lines.clone()).boxed()];
    layers.extend(logger.map(|provider| {
        let exported = OpenTelemetryTracingBridge::new(provider);
        exported.with_filter(lines.ours()).boxed()
    }));
    layers.extend(tracer.map(|provider| spans::layer(provider).boxed()));
    tracing_subscriber::registry().with(layers)
}

/// Sets the `log` crate's own level: the most verbose of Herald's, but no more than a dependency may print.
/// Else each frame that tungstenite would print at `trace` is asked about.
fn cap_the_log_crate() {
    let level = LevelFilter::current().min(filter::DEPENDENCIES);
    log::set_max_level(match level.into_level() {
        None => log::LevelFilter::Off,
        Some(Level::ERROR) => log::LevelFilter::Error,
        Some(_) => log::LevelFilter::Warn,
    });
}

/// Reports the lines that were left out. Never ends.
async fn report_left_out(repeats: Repeats) {
    loop {
        tokio::time::sleep(repeats::WINDOW).await;
        for left_out in repeats.left_out() {
            let (count, callsite) = (left_out.count, left_out.callsite);
            if left_out.level == Level::ERROR {
                error!(target: UNLIMITED, count, place = callsite, "repeated messages suppressed");
            } else {
                warn!(target: UNLIMITED, count, place = callsite, "repeated messages suppressed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is exported: spans are of the least verbose level, and records go by the filter's own.
    #[test]
    fn the_most_verbose_level_is_the_filter_s_own() {
        let logger = SdkLoggerProvider::builder().build();
        let tracer = SdkTracerProvider::builder().build();
        for (text, level) in [
            ("off", LevelFilter::OFF),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("info,herald::room=debug", LevelFilter::DEBUG),
            ("info,tungstenite=trace", LevelFilter::INFO),
        ] {
            for exported in [
                (None, None),
                (Some(&logger), None),
                (None, Some(&tracer)),
                (Some(&logger), Some(&tracer)),
            ] {
                let least = exported.1.map_or(LevelFilter::OFF, |_| LevelFilter::ERROR);
                let lines = Lines::new(Filter::parse(text).unwrap().targets().clone());
                let subscriber = subscriber(&lines, LogFormat::Json, Repeats::default(), exported);
                assert_eq!(
                    subscriber.max_level_hint(),
                    Some(level.max(least)),
                    "{text}"
                );
                lines.set(Filter::parse("error").unwrap().targets().clone());
                assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::ERROR));
            }
        }
    }

    /// Frames are printed with the `log` crate: what is beyond its own level is not even formatted.
    #[test]
    fn the_log_crate_s_own_level_is_capped_at_the_start_and_after_each_change() {
        // Nothing of another test is printed for it.
        let verbose = "error,herald::telemetry::logging=trace";
        let config = LogConfig {
            level: verbose.to_owned(),
            format: LogFormat::Json,
        };
        let level = init(&config, Arc::default(), (None, None)).unwrap();
        assert_eq!(LevelFilter::current(), LevelFilter::TRACE);
        assert_eq!(log::max_level(), log::LevelFilter::Warn);
        level.set("off").unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Off);
        level.set(verbose).unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Warn);
        let other = Filter::parse("error,herald::telemetry::logging=debug").unwrap();
        level.configure(&other).unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Warn);
        // Configured again, as it is: what was set meanwhile stays.
        level.set("error").unwrap();
        level.configure(&other).unwrap();
        assert_eq!(level.current(), "error");
        level.reset().unwrap();
        assert_eq!(level.current(), other.text());
    }
}
