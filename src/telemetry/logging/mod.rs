//! Logs on standard error and, where it is asked for, over OTLP: never a dependency's frames, never
//! a flood of one warning, at a level that can be changed while the gateway runs.

mod filter;
mod format;
mod ours;
mod repeats;

use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing::{Level, Subscriber, error, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

pub use self::filter::{FILTER_BYTES_MAX, Filter, FilterError, FilterSettingError};
use self::format::Line;
use self::ours::Ours;
use self::repeats::Repeats;
pub(crate) use self::repeats::UNLIMITED;
use crate::config::{LogConfig, LogFormat};

/// A handle on what is logged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogLevel {
    /// `None` where the process' subscriber is somebody else's.
    handle: Option<reload::Handle<Targets, Registry>>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
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
        self.held().current.clone()
    }

    /// Sets another, until the next start.
    ///
    /// # Errors
    /// [`LevelError`]; the filter stays what it was.
    pub fn set(&self, text: &str) -> Result<(), LevelError> {
        self.change(&mut self.held(), &Filter::parse(text)?)
    }

    /// Goes back to what was configured.
    ///
    /// # Errors
    /// [`LevelError::Fixed`].
    pub fn reset(&self) -> Result<(), LevelError> {
        let mut held = self.held();
        let configured = held.configured.clone();
        self.change(&mut held, &configured)
    }

    /// Takes what is configured from now on. Where that is what was configured before, what [`LogLevel::set`]
    /// has set meanwhile stays.
    ///
    /// # Errors
    /// [`LevelError::Fixed`].
    pub fn configure(&self, filter: &Filter) -> Result<(), LevelError> {
        let mut held = self.held();
        if held.configured.text() == filter.text() {
            return Ok(());
        }
        held.configured = filter.clone();
        self.apply(&mut held, filter)
    }

    fn change(&self, held: &mut Held, filter: &Filter) -> Result<(), LevelError> {
        if self.handle.is_some() {
            // Before it holds: a filter such as `off` would leave it out.
            warn!(target: UNLIMITED, filter = filter.text(), "log level changed");
        }
        self.apply(held, filter)
    }

    fn apply(&self, held: &mut Held, filter: &Filter) -> Result<(), LevelError> {
        let handle = self.handle.as_ref().ok_or(LevelError::Fixed)?;
        let reloaded = handle.reload(filter.targets().clone());
        cap_the_log_crate();
        reloaded.map_err(|_| LevelError::Fixed)?;
        filter.text().clone_into(&mut held.current);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Installs the process' subscriber. Lines that repeat are counted in `suppressed`.
///
/// # Errors
/// Where the level is no filter.
pub(super) fn init(
    config: &LogConfig,
    suppressed: Arc<AtomicU64>,
    otlp: Option<&SdkLoggerProvider>,
) -> Result<LogLevel, FilterSettingError> {
    let configured = Filter::configured(config)?;
    let repeats = Repeats::new(suppressed);
    let (subscriber, handle) = subscriber(&configured, config.format, repeats.clone(), otlp);
    // A second call in one process (tests) keeps the first subscriber.
    let handle = subscriber.try_init().is_ok().then_some(handle);
    cap_the_log_crate();
    if handle.is_some() && tokio::runtime::Handle::try_current().is_ok() {
        tokio::spawn(tell(repeats));
    }
    let current = configured.text().to_owned();
    let held = Held {
        configured,
        current,
    };
    Ok(LogLevel {
        handle,
        held: Arc::new(Mutex::new(held)),
    })
}

/// One filter for all that is written to, so that what it leaves out costs a look at a number: the most
/// verbose level of a subscriber with filters for each layer is that of the most verbose of them.
fn subscriber(
    filter: &Filter,
    format: LogFormat,
    repeats: Repeats,
    otlp: Option<&SdkLoggerProvider>,
) -> (
    impl Subscriber + Send + Sync + use<>,
    reload::Handle<Targets, Registry>,
) {
    let (filter, handle) = reload::Layer::new(filter.targets().clone());
    let is_terminal = std::io::stderr().is_terminal();
    let line = match format {
        LogFormat::Json => Line::Json,
        LogFormat::Auto if !is_terminal => Line::Json,
        LogFormat::Auto | LogFormat::Text => Line::Text(fmt::format().with_ansi(is_terminal)),
    };
    let printed = fmt::layer()
        .with_ansi(is_terminal)
        .fmt_fields(DefaultFields::new())
        .event_format(line)
        .with_writer(std::io::stderr);
    let exported = otlp.map(|provider| Ours(OpenTelemetryTracingBridge::new(provider)));
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(repeats)
        .with(printed)
        .with(exported);
    (subscriber, handle)
}

/// Lowers the `log` crate's own level to that of dependencies. tracing-subscriber sets it to the most
/// verbose of Herald's; then each frame that tungstenite would print at `trace` is asked about.
fn cap_the_log_crate() {
    log::set_max_level(log::max_level().min(log::LevelFilter::Warn));
}

/// Tells of the lines that were left out, for ever.
async fn tell(repeats: Repeats) {
    loop {
        tokio::time::sleep(repeats::WINDOW).await;
        for left_out in repeats.left_out() {
            let (count, place) = (left_out.count, left_out.place);
            if left_out.level == Level::ERROR {
                error!(target: UNLIMITED, count, place, "repeated messages suppressed");
            } else {
                warn!(target: UNLIMITED, count, place, "repeated messages suppressed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;

    /// Also where records are exported: their layer takes whatever comes.
    #[test]
    fn the_most_verbose_level_is_the_filter_s_own() {
        let provider = SdkLoggerProvider::builder().build();
        for (text, level) in [
            ("off", LevelFilter::OFF),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("info,herald::room=debug", LevelFilter::DEBUG),
            ("info,tungstenite=trace", LevelFilter::INFO),
        ] {
            for otlp in [None, Some(&provider)] {
                let filter = Filter::parse(text).unwrap();
                let (subscriber, handle) =
                    subscriber(&filter, LogFormat::Json, Repeats::default(), otlp);
                assert_eq!(subscriber.max_level_hint(), Some(level), "{text}");
                let other = Filter::parse("error").unwrap();
                handle.reload(other.targets().clone()).unwrap();
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
        let level = init(&config, Arc::default(), None).unwrap();
        assert_eq!(
            tracing::level_filters::LevelFilter::current(),
            LevelFilter::TRACE
        );
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
