//! What the tests share: servers of their own, and waiting without sleeping for a fixed time.

#![allow(
    dead_code,
    reason = "a helper is here for any test to use, also when none does at the moment"
)]

pub(crate) mod attempt;
pub(crate) mod browser;
pub(crate) mod cable;
pub(crate) mod client;
pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod contract;
pub(crate) mod devtools;
pub(crate) mod example;
pub(crate) mod firefox;
pub(crate) mod gateway;
pub(crate) mod jaeger;
pub(crate) mod nats;
pub(crate) mod otlp;
pub(crate) mod production;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod publisher;
pub(crate) mod raw;
pub(crate) mod raw_nats;
pub(crate) mod source;
pub(crate) mod stage;
pub(crate) mod tls;
pub(crate) mod token;

use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How often a condition is looked at while it does not hold.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Long enough for anything local that works at all, also on a machine with two busy cores. A test
/// that passes never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether `condition` came to hold within `patience`. The last look begins after the patience is
/// over, so that a machine that stood still does not decide.
#[must_use = "assert that it came to hold"]
pub(crate) async fn eventually(
    patience: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> bool {
    let start = Instant::now();
    loop {
        let over = start.elapsed() >= patience;
        if condition().await {
            return true;
        }
        if over {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Most tests wait most of their time, so that more of them run at once than there are processors. A test that needs a
/// processor for itself takes this first: of these, two run at once.
pub(crate) async fn heavy_turn() -> SemaphorePermit<'static> {
    static TURNS: Semaphore = Semaphore::const_new(2);
    TURNS.acquire().await.expect("nobody closes it")
}

/// What `future` comes to, which must be within [`PATIENCE`].
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("it ends while anybody waits for it")
}

/// A program that is looked for on `PATH`: where `must` is set it must be there, else `None`, and a line that says
/// so and how to have it.
pub(crate) fn program(name: &str, must: &str, how: &str) -> Option<std::path::PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&search).map(|folder| folder.join(name));
    let found = found.find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os(must).is_none(), "no {name} on PATH");
        skipped(&format!("no {name} on PATH ({how})"));
    }
    found
}

/// Says that the test which calls this was skipped, and why: where it runs, and to `scripts/test.sh`, which counts them
/// by the file that `HERALD_TEST_SKIPPED` names.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(file) = std::env::var_os("HERALD_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).open(file);
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()));
        written.expect("the file that HERALD_TEST_SKIPPED names is there");
    }
}
