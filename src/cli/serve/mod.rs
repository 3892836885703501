//! `herald serve`.

mod reload;

use std::path::PathBuf;

use tokio::signal::unix::SignalKind;

use super::signals::{self, Stops};
use super::{CliError, blocking};
use crate::config::Config;
use crate::ops::{self, ServeError};
use crate::telemetry::Telemetry;

/// Arguments of `herald serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Connect(error) => error.into(),
            ServeError::Bind { .. }
            | ServeError::Thread(_)
            | ServeError::Migrate(_)
            | ServeError::Denied(_)
            | ServeError::Failed
            | ServeError::Lost => Self::Failure(error.to_string()),
        }
    }
}

pub(super) async fn run(_args: Args, file: Option<PathBuf>) -> Result<(), CliError> {
    // First of all: until somebody listens for it, a signal ends the process.
    let stops = Stops::hear(&[
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::quit(),
    ])?;
    let hangups = signals::hear(SignalKind::hangup())?;
    signals::ignore_others()?;
    let starting = async {
        let setup = reload::first(file.clone()).await?;
        let telemetry = telemetry(&setup.config).await?;
        Ok::<_, CliError>((setup, telemetry))
    };
    let Some(started) = stops.unless_heard(Box::pin(starting)).await else {
        return Ok(());
    };
    let (setup, telemetry) = started?;
    let serve = ops::serve(
        setup,
        telemetry.clone(),
        || stops.clone().next(),
        |reloader| reload::at_each(hangups, file, reloader),
    );
    let served = Box::pin(serve).await;
    stops.end(&telemetry).await;
    Ok(served?)
}

/// Starts telemetry, which may read files; every long-running command does it first.
pub(super) async fn telemetry(config: &Config) -> Result<Telemetry, CliError> {
    let Config { log, telemetry, .. } = config.clone();
    blocking(move || Telemetry::start(&log, &telemetry))
        .await?
        .map_err(|error| CliError::Usage(error.to_string()))
}
