//! What long-running commands do with signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::debug;

use super::CliError;
use crate::telemetry::Telemetry;

/// Hears signals of this kind from now on; unheard, most kinds end the process at once.
pub(super) fn hear(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::Failure(format!("cannot hear signals: {error}")))
}

/// Hears those that ask for nothing here and would end the process, and does nothing about them.
pub(super) fn ignore_others() -> Result<(), CliError> {
    for (kind, signal) in [
        (SignalKind::user_defined1(), "SIGUSR1"),
        (SignalKind::user_defined2(), "SIGUSR2"),
        (SignalKind::alarm(), "SIGALRM"),
        (SignalKind::io(), "SIGIO"),
    ] {
        let mut signals = hear(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                debug!(signal, "signal ignored");
            }
        });
    }
    Ok(())
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
            let mut signals = hear(*kind)?;
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
