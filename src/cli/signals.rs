//! What long-running commands do with signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::debug;

use super::CliError;
use crate::telemetry::Telemetry;

/// Hears signals of this kind from now on; unheard, most kinds end the process at once.
pub(super) fn hear(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::Failure(format!("cannot listen for signals: {error}")))
}

/// Signals that ask for nothing here and would end the process. Those that tell of a fault in the process (SEGV,
/// BUS, ILL, FPE, SYS, TRAP) or ask for a core (ABRT) are none of them: they end it.
const OTHERS: &[(Number, &str)] = &[
    (Number::USR1, "SIGUSR1"),
    (Number::USR2, "SIGUSR2"),
    (Number::ALARM, "SIGALRM"),
    (Number::VTALARM, "SIGVTALRM"),
    (Number::PROF, "SIGPROF"),
    (Number::IO, "SIGIO"),
    // The limit of CPU time is near. It comes again each second, so that as a request for the end it would soon
    // be the second one; and what is left until the hard limit may be hours.
    (Number::XCPU, "SIGXCPU"),
    // The limit of a file's length, which here only a log can reach. The write then fails: a line is lost, and not
    // all sockets.
    (Number::XFSZ, "SIGXFSZ"),
    #[cfg(target_os = "linux")]
    (Number::POWER, "SIGPWR"),
    #[cfg(target_os = "linux")]
    (Number::STKFLT, "SIGSTKFLT"),
];
/// Linux has real-time signals up to 64. Those from 32 on that are not here are the C library's own.
#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Hears those that ask for nothing here and would end the process, and does nothing about them.
pub(super) fn ignore_others() -> Result<(), CliError> {
    for (number, name) in OTHERS {
        ignore(
            hear(SignalKind::from_raw(number.as_raw()))?,
            (*name).to_owned(),
        );
    }
    #[cfg(target_os = "linux")]
    for number in REAL_TIME {
        // The C library may want this one, too, and then keeps it from everybody else.
        if let Ok(signals) = signal(SignalKind::from_raw(number)) {
            ignore(signals, format!("signal {number}"));
        }
    }
    Ok(())
}

/// Says so of the first one only: a line that is too much for the log's file would bring the next SIGXFSZ.
fn ignore(mut signals: Signal, name: String) {
    tokio::spawn(async move {
        signals.recv().await;
        debug!(signal = name, "signal ignored");
        while signals.recv().await.is_some() {}
    });
}

/// The signals that ask for the end. None is lost between two waits for one.
#[derive(Debug, Clone)]
pub(super) struct Stops {
    /// One for each signal that nobody has acted on.
    waiting: Arc<Semaphore>,
    acted_on: Arc<AtomicUsize>,
}

impl Stops {
    /// Hears `kinds` from now on.
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

    /// What `work` comes to; `None` if the end is asked for before.
    pub(super) async fn unless_heard<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.clone().next() => None,
        }
    }

    /// Ends telemetry, with what waits exported, unless somebody has no patience for it.
    pub(super) async fn end(self, telemetry: &Telemetry) {
        if self.acted_on.load(Ordering::Relaxed) < 2 {
            tokio::select! {
                () = telemetry.end() => {}
                () = self.next() => {}
            }
        }
    }
}
