//! `herald serve`.

mod reload;

use std::path::Path;

use tokio::signal::unix::SignalKind;

use super::signals::{self, Stops};
use super::{CliError, check};
use crate::config::{Config, Reading};
use crate::ops::{self, Building, ServeError};
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
            | ServeError::Denied(_)
            | ServeError::Failed
            | ServeError::Lost => Self::Failure(error.to_string()),
        }
    }
}

pub(super) async fn run(
    _args: Args,
    reading: Reading,
    file: Option<&Path>,
) -> Result<(), CliError> {
    // Before anything that takes time: until it is heard, a signal ends the process.
    let stops = Stops::hear(&[
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::quit(),
    ])?;
    let hangups = signals::hear(SignalKind::hangup())?;
    signals::ignore_others()?;
    let built = Building::of(reading.config.clone());
    let wrong = check::wrong_settings(&reading, &built).await;
    if !wrong.is_empty() {
        return Err(CliError::Usage(wrong.join("\n")));
    }
    let telemetry = telemetry(&reading.config)?;
    let serve = ops::serve(
        reading.config,
        telemetry.clone(),
        || stops.clone().next(),
        |reloader| reload::at_each(hangups, file, reloader),
    );
    let served = Box::pin(serve).await;
    stops.end(&telemetry).await;
    Ok(served?)
}

/// Starts telemetry; every long-running command does it first.
pub(super) fn telemetry(config: &Config) -> Result<Telemetry, CliError> {
    Telemetry::start(&config.log, &config.telemetry)
        .map_err(|error| CliError::Usage(error.to_string()))
}
