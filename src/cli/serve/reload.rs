//! SIGHUP: reads the settings and their files again, as `herald check` does, and has the gateway take
//! them where nothing is wrong.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::super::{check, config_file};
use crate::config::Config;
use crate::ops::{Building, Reloader, Setup};
use crate::telemetry::UNLIMITED;

/// After a reload, the next one waits so long. All signals that come meanwhile are one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longer than any disk that works takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reloads with each of `signals`, from `file` or else where a file is found.
pub(super) async fn at_each(
    mut signals: Signal,
    file: Option<&Path>,
    reloader: Reloader,
) -> Infallible {
    while signals.recv().await.is_some() {
        if reloader.is_draining() {
            info!(target: UNLIMITED, "draining, configuration not reloaded");
        } else {
            let read = timeout(PATIENCE, read(file.map(Path::to_owned)));
            match read.await {
                Ok(Ok(setup)) => reloader.apply(setup),
                Ok(Err(problems)) => reloader.refuse(&problems),
                Err(_) => reloader.refuse(&["the files cannot be read in time".to_owned()]),
            }
        }
        sleep(PAUSE).await;
    }
    // Signals do not end.
    std::future::pending().await
}

/// What a gateway that starts now would be made of, or all that is wrong with it.
async fn read(file: Option<PathBuf>) -> Result<Setup, Vec<String>> {
    let built = tokio::task::spawn_blocking(move || {
        let reading = Config::read(config_file(file).as_deref());
        let reading = reading.map_err(|error| vec![error.to_string()])?;
        let built = Building::of(reading.config.clone());
        Ok::<_, Vec<String>>((reading, built))
    });
    let (reading, built) = built.await.map_err(|error| vec![error.to_string()])??;
    let wrong = check::wrong_settings(&reading, &built).await;
    if !wrong.is_empty() {
        return Err(wrong);
    }
    built.finish().map_err(|error| vec![error])
}
