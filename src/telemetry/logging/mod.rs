//! Logs on standard error and, where it is asked for, over OTLP: never a dependency's frames, never
//! a flood of one warning, at a level that can be changed while the gateway runs.

mod format;
mod repeats;

use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing::{Level, error, warn};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use self::format::Line;
use self::repeats::Repeats;
pub(super) use self::repeats::UNLIMITED;
use crate::config::{LogConfig, LogFormat};

/// A filter's text is at most so long; one with every target of the gateway is a tenth of it.
pub const FILTER_BYTES_MAX: usize = 4096;

/// A handle on what is logged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogLevel {
    /// `None` where the process' subscriber is somebody else's.
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    configured: Arc<str>,
    current: Arc<Mutex<String>>,
}

/// A filter that is none.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    #[error("no filter such as debug or info,herald::room=debug: {0}")]
    Parse(#[from] ParseError),
    #[error("the filter is over {FILTER_BYTES_MAX} bytes")]
    TooLong,
    #[error("this process' log level cannot be changed")]
    Fixed,
}

impl LogLevel {
    /// The filter that holds now.
    pub fn current(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Sets another, until the next start.
    ///
    /// # Errors
    /// [`LevelError`]; the filter stays what it was.
    pub fn set(&self, text: &str) -> Result<(), LevelError> {
        let text = text.trim();
        if text.len() > FILTER_BYTES_MAX {
            return Err(LevelError::TooLong);
        }
        let filter = parse(text)?;
        let handle = self.filter.as_ref().ok_or(LevelError::Fixed)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it holds: a filter such as `off` would leave it out.
        warn!(target: UNLIMITED, filter = text, "log level changed");
        handle.reload(filter).map_err(|_| LevelError::Fixed)?;
        text.clone_into(&mut current);
        Ok(())
    }

    /// Goes back to what was configured.
    ///
    /// # Errors
    /// [`LevelError::Fixed`].
    pub fn reset(&self) -> Result<(), LevelError> {
        self.set(&self.configured)
    }
}

/// Installs the process' subscriber. `RUST_LOG`, where set, wins over `log.level`. Lines that repeat
/// are counted in `suppressed`.
///
/// # Errors
/// Where the level is not a tracing filter.
pub(super) fn init(
    config: &LogConfig,
    suppressed: Arc<AtomicU64>,
    otlp: Option<&SdkLoggerProvider>,
) -> Result<LogLevel, ParseError> {
    let asked = asked(config);
    let (filter, handle) = reload::Layer::new(parse(&asked)?);
    let is_terminal = std::io::stderr().is_terminal();
    let line = match config.format {
        LogFormat::Json => Line::Json,
        LogFormat::Auto if !is_terminal => Line::Json,
        LogFormat::Auto | LogFormat::Text => Line::Text(fmt::format().with_ansi(is_terminal)),
    };
    let printed = fmt::layer()
        .with_ansi(is_terminal)
        .fmt_fields(DefaultFields::new())
        .event_format(line)
        .with_writer(std::io::stderr)
        .with_filter(dependencies_capped());
    // Only our own records go to the collector: those of the exporter would make more of themselves.
    let exported = otlp.map(|provider| {
        let ours = Targets::new().with_target("herald", Level::TRACE);
        OpenTelemetryTracingBridge::new(provider).with_filter(ours)
    });
    let repeats = Repeats::new(suppressed);
    let installed = tracing_subscriber::registry()
        .with(filter)
        .with(repeats.clone())
        .with(printed)
        .with(exported)
        .try_init();
    // A second call in one process (tests) keeps the first subscriber.
    let filter = installed.is_ok().then_some(handle);
    if filter.is_some() && tokio::runtime::Handle::try_current().is_ok() {
        tokio::spawn(tell(repeats));
    }
    Ok(LogLevel {
        filter,
        configured: asked.as_str().into(),
        current: Arc::new(Mutex::new(asked)),
    })
}

/// Whether [`init`] would take the level; installs nothing.
///
/// # Errors
/// As [`init`].
pub fn check(config: &LogConfig) -> Result<(), ParseError> {
    parse(&asked(config)).map(drop)
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

fn asked(config: &LogConfig) -> String {
    std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| config.level.clone())
}

fn parse(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(text)
}

/// Our own targets at any level, everyone else's at `info` whatever level is asked: tungstenite
/// prints frames and hyper request lines beyond it, and both hold tokens.
fn dependencies_capped() -> Targets {
    Targets::new()
        .with_target("herald", Level::TRACE)
        .with_default(Level::INFO)
}
