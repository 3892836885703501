//! What long-running commands do with signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::debug;

use super::CliError;
use crate::telemetry::Telemetry;

/// Listens for signals of this kind from now on. Without that, most kinds end the process at once.
pub(super) fn hear(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::Failure(format!("cannot listen for signals: {error}")))
}

/// Signals that mean nothing to Herald and would end the process. Those of a fault in the process (SEGV, BUS, ILL,
/// FPE, SYS, TRAP) or for a core dump (ABRT) are not among them: they end it.
const OTHERS: &[(Number, &str)] = &[
    (Number::USR1, "SIGUSR1"),
    (Number::USR2, "SIGUSR2"),
    (Number::ALARM, "SIGALRM"),
    (Number::VTALARM, "SIGVTALRM"),
    (Number::PROF, "SIGPROF"),
    (Number::IO, "SIGIO"),
    // The limit of CPU time is near. It comes again each second: the second one would end a drain. And the hard
    // limit may be hours away.
    (Number::XCPU, "SIGXCPU"),
    // The limit of a file's length, which only a log can reach. The write then fails: that costs a line, and no
    // sockets.
    (Number::XFSZ, "SIGXFSZ"),
    #[cfg(target_os = "linux")]
    (Number::POWER, "SIGPWR"),
    #[cfg(target_os = "linux")]
    (Number::STKFLT, "SIGSTKFLT"),
];
/// Linux has real-time signals up to 64. Those from 32 on that are not here are the C library's own.
#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Listens for the signals that mean nothing to Herald, and does nothing about them.
pub(super) fn ignore_others() -> Result<(), CliError> {
    for (number, name) in OTHERS {
        ignore(
            hear(SignalKind::from_raw(number.as_raw()))?,
            (*name).to_owned(),
        );
    }
    #[cfg(target_os = "linux")]
    for number in REAL_TIME {
        // The C library may keep this one for itself.
        if let Ok(signals) = signal(SignalKind::from_raw(number)) {
            ignore(signals, format!("signal {number}"));
        }
    }
    Ok(())
}

/// Logs the first one only: a line that the log's file has no room for would cause the next SIGXFSZ.
fn ignore(mut signals: Signal, name: String) {
    tokio::spawn(async move {
        signals.recv().await;
        debug!(signal = name, "signal ignored");
        while signals.recv().await.is_some() {}
    });
}

/// The signals that end the process. None is lost between two waits for one.
#[derive(Debug, Clone)]
pub(super) struct Stops {
    /// One for each signal that nobody has acted on.
    waiting: Arc<Semaphore>,
    acted_on: Arc<AtomicUsize>,
}

impl Stops {
    /// Listens for `kinds` from now on.
    pub(super) fn hear(kinds: &[SignalKind]) -> Result<Self, CliError> {
        let stops = Self {
            waiting: Arc::new(Semaphore::new(0)),
            acted_on: Arc::default(),
        };
        for kind in kinds {
            let mut signals = hear(*kind)?;
            let waiting = Arc::clone(&stops.waiting);
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    waiting.add_permits(1);
                }
            });
        }
        Ok(stops)
    }

    /// Ends with the next signal: the first drains, the second ends the drain.
    pub(super) async fn next(self) {
        match self.waiting.acquire().await {
            Ok(signal) => signal.forget(),
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
        self.acted_on.fetch_add(1, Ordering::Relaxed);
    }

    /// The result of `work`; `None` if a signal comes first.
    pub(super) async fn unless_heard<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.clone().next() => None,
        }
    }

    /// Ends telemetry, with what waits exported. One more signal ends the wait.
    pub(super) async fn end(self, telemetry: &Telemetry) {
        if self.acted_on.load(Ordering::Relaxed) < 2 {
            tokio::select! {
                () = telemetry.end() => {}
                () = self.next() => {}
            }
        }
    }
}
