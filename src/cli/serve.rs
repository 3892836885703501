//! `herald serve`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

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
            | ServeError::Denied(_)
            | ServeError::Failed
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
    let stops = Stops::hear(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let serve = ops::serve(config, telemetry.clone(), || stops.clone().next());
    let served = Box::pin(serve).await;
    stops.end(&telemetry).await;
    Ok(served?)
}

/// Starts telemetry; every long-running command does it first.
pub(super) fn telemetry(config: &Config) -> Result<Telemetry, CliError> {
    Telemetry::start(&config.log, &config.telemetry)
        .map_err(|error| CliError::Usage(error.to_string()))
}

/// The signals that ask for the end. None is lost between two waits for one.
#[derive(Debug, Clone)]
pub(super) struct Stops(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// A permit for each signal that nobody has acted on.
    waiting: Semaphore,
    acted_on: AtomicUsize,
}

impl Stops {
    /// Hears `kinds` from now on.
    pub(super) fn hear(kinds: &[SignalKind]) -> Result<Self, CliError> {
        let stops = Self(Arc::new(Inner {
            waiting: Semaphore::new(0),
            acted_on: AtomicUsize::new(0),
        }));
        for kind in kinds {
            let mut signals = signal(*kind)
                .map_err(|error| CliError::Failure(format!("cannot hear signals: {error}")))?;
            let stops = stops.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    stops.0.waiting.add_permits(1);
                }
            });
        }
        Ok(stops)
    }

    /// Ends with the next signal: the first drains, the second ends the drain.
    pub(super) async fn next(self) {
        match self.0.waiting.acquire().await {
            Ok(permit) => permit.forget(),
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
        self.0.acted_on.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends telemetry, with what waits exported, unless somebody has no patience for it.
    pub(super) async fn end(self, telemetry: &Telemetry) {
        if self.0.acted_on.load(Ordering::Relaxed) < 2 {
            tokio::select! {
                () = telemetry.end() => {}
                () = self.next() => {}
            }
        }
    }
}
