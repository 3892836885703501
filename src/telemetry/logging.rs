//! Logs on standard error: text for people, JSON for machines, never a dependency's frames.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogConfig, LogFormat};

/// Installs the process' subscriber. `RUST_LOG`, where set, wins over `log.level`.
///
/// # Errors
/// Where the level is not a tracing filter.
pub fn init(config: &LogConfig) -> Result<(), ParseError> {
    let filter = filter(config)?;
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = if json {
        layer.json().flatten_event(true).boxed()
    } else {
        layer.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(dependencies_capped()))
        .with(filter)
        // A second call in one process (tests) keeps the first subscriber.
        .try_init()
        .ok();
    Ok(())
}

/// Whether [`init`] would take the level; installs nothing.
///
/// # Errors
/// As [`init`].
pub fn check(config: &LogConfig) -> Result<(), ParseError> {
    filter(config).map(drop)
}

fn filter(config: &LogConfig) -> Result<EnvFilter, ParseError> {
    let asked = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| config.level.clone());
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&asked)
}

/// Our own targets at any level, everyone else's at `info` whatever level is asked: tungstenite
/// prints frames and hyper request lines beyond it, and both hold tokens.
fn dependencies_capped() -> Targets {
    Targets::new()
        .with_target("herald", Level::TRACE)
        .with_default(Level::INFO)
}
