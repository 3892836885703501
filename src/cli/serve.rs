//! `herald serve`.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{CliError, check};
use crate::config::{Config, Reading};
use crate::ops::{self, ServeError};
use crate::telemetry;

/// Arguments of `herald serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Configuration(_) => Self::Usage(error.to_string()),
            ServeError::Connect(error) => error.into(),
            ServeError::Bind { .. }
            | ServeError::Migrate(_)
            | ServeError::Read(_)
            | ServeError::Denied(_)
            | ServeError::Lost => Self::Failure(error.to_string()),
        }
    }
}

pub(super) async fn run(_args: Args, reading: Reading) -> Result<(), CliError> {
    let wrong = check::wrong_settings(&reading).await;
    if !wrong.is_empty() {
        return Err(CliError::Usage(wrong.join("\n")));
    }
    let config = reading.config;
    init_logs(&config)?;
    let stops = stops(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    Box::pin(ops::serve(config, || next_stop(stops.clone()))).await?;
    Ok(())
}

/// Starts logging; every long-running command does it first.
pub(super) fn init_logs(config: &Config) -> Result<(), CliError> {
    telemetry::init(&config.log)
        .map_err(|error| CliError::Usage(format!("log.level (or RUST_LOG) is no filter: {error}")))
}

/// Changes with every signal of `kinds`.
pub(super) fn stops(kinds: &[SignalKind]) -> Result<watch::Receiver<u32>, CliError> {
    let (count, stops) = watch::channel(0u32);
    for kind in kinds {
        let mut signals = signal(*kind)
            .map_err(|error| CliError::Failure(format!("cannot hear signals: {error}")))?;
        let count = count.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                count.send_modify(|count| *count += 1);
            }
        });
    }
    Ok(stops)
}

/// Ends with the next signal. Only one from now on counts: the first drains, the second ends the drain.
pub(super) fn next_stop(mut stops: watch::Receiver<u32>) -> impl Future<Output = ()> {
    stops.mark_unchanged();
    async move {
        // The sender lives as long as the process.
        let _ = stops.changed().await;
    }
}
