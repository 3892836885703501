//! `herald serve`.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{CliError, check};
use crate::config::{Config, Reading};
use crate::ops::{self, ServeError};
use crate::telemetry::Telemetry;

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
    let telemetry = telemetry(&config)?;
    let stops = stops(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let serve = ops::serve(config, telemetry.clone(), || next_stop(stops.clone()));
    let served = Box::pin(serve).await;
    telemetry.end().await;
    Ok(served?)
}

/// Starts telemetry; every long-running command does it first.
pub(super) fn telemetry(config: &Config) -> Result<Telemetry, CliError> {
    Telemetry::start(&config.log, &config.telemetry)
        .map_err(|error| CliError::Usage(error.to_string()))
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
