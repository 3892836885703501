//! SIGHUP: reads the settings and their files again, as `herald check` does, and puts them in force if nothing is
//! wrong.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::super::{CliError, blocking, config_file};
use crate::config::{Config, LoadedConfig, must_be_regular};
use crate::ops::Reloader;
use crate::setup::{Building, Setup};
use crate::telemetry::UNLIMITED;

/// Pause after a reload. All signals that come meanwhile count as one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longer than any disk that works takes.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Files that have changed so long after they were read were being written. A writer rarely pauses longer.
const SETTLED: Duration = Duration::from_millis(200);
/// Reads that may hang at the same time, each with a thread. After so many the files are not read until one ends.
const READS_MAX: usize = 8;

/// Reads for a start, when a configuration may come from a FIFO, such as a shell's `<(…)`.
pub(super) async fn first(file: Option<PathBuf>) -> Result<Setup, CliError> {
    let reading = move || {
        let reading = Config::read(config_file(file).as_deref())?;
        Ok::<_, CliError>(Building::of(reading))
    };
    finish(blocking(reading).await??, Vec::new())
        .await
        .map_err(|wrong| CliError::Usage(wrong.join("\n")))
}

/// Reloads with each of `signals`, from `file`, else from the usual one.
pub(super) async fn at_each(
    mut signals: Signal,
    file: Option<PathBuf>,
    reloader: Reloader,
) -> Infallible {
    let reads = Arc::new(Semaphore::new(READS_MAX));
    while signals.recv().await.is_some() {
        if reloader.is_draining() {
            info!(target: UNLIMITED, "draining, configuration not reloaded");
        } else {
            match timeout(TIMEOUT, read(file.clone(), &reloader, &reads)).await {
                Ok(Ok(setup)) => reloader.apply(setup),
                Ok(Err(problems)) => reloader.refuse(&problems),
                Err(_) => reloader.refuse(&[format!(
                    "the files cannot be read within {TIMEOUT:?}: is one of them on a disk that does not answer?"
                )]),
            }
        }
        sleep(PAUSE).await;
    }
    // Signals do not end.
    std::future::pending().await
}

/// What a gateway that starts now would run with, or all that is wrong with it.
async fn read(
    file: Option<PathBuf>,
    reloader: &Reloader,
    reads: &Arc<Semaphore>,
) -> Result<Setup, Vec<String>> {
    let built = limited(reads, move || {
        let reading = read_again(config_file(file).as_deref())?;
        Ok::<_, String>(Building::of(reading))
    });
    let built = built.await?.map_err(|error| vec![error])?;
    let suspect = reloader.half_written(&built);
    let mut setup = finish(built, suspect).await?;
    reloader.fetch_keys(&mut setup).await?;
    sleep(SETTLED).await;
    let setup = limited(reads, move || match setup.changed_files() {
        changed if changed.is_empty() => Ok(setup),
        changed => Err(changed),
    });
    setup.await?.map_err(|changed| {
        let again = |file| format!("{file} changed while it was read: send HUP again");
        changed.into_iter().map(again).collect()
    })
}

fn read_again(path: Option<&Path>) -> Result<LoadedConfig, String> {
    if let Some(path) = path
        && let Err(error) = must_be_regular(path)
    {
        let path = path.display();
        return Err(format!("cannot read configuration file {path}: {error}"));
    }
    Config::read(path).map_err(|error| error.to_string())
}

/// As [`blocking`], with at most [`READS_MAX`] at the same time.
async fn limited<T: Send + 'static>(
    reads: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Vec<String>> {
    let Ok(slot) = Arc::clone(reads).try_acquire_owned() else {
        return Err(vec![format!(
            "{READS_MAX} earlier reloads still wait for their files: start the gateway again"
        )]);
    };
    let work = move || {
        let result = work();
        drop(slot);
        result
    };
    blocking(work)
        .await
        .map_err(|error| vec![error.to_string()])
}

/// The whole setup, if nothing is wrong with it. `wrong` is known to be.
async fn finish(built: Building, mut wrong: Vec<String>) -> Result<Setup, Vec<String>> {
    wrong.extend(built.all_problems().await);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    built.finish().map_err(|error| vec![error])
}
