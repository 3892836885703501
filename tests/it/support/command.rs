//! The `herald` binary and other commands, run to their end.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::nats::Nats;

/// Longest run of a command that ends by itself.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// What a run left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// This output of a run that must have ended well.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Runs `herald` with `arguments` at `nats`, with `environment` and no setting of the surroundings.
pub(crate) async fn herald(
    nats: &Nats,
    environment: &[(&str, &str)],
    arguments: &[&str],
) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_herald"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HERALD_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .env("HERALD_NATS__URL", nats.url())
        .envs(environment.iter().copied())
        .current_dir(folder.path());
    finish(command).await
}

/// Runs a command to its end.
pub(crate) async fn finish(command: tokio::process::Command) -> Output {
    finish_with(command, "").await
}

/// As [`finish`], with a text on its standard input.
pub(crate) async fn finish_with(mut command: tokio::process::Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("it has one");
    // It may end without having read it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(COMMAND_PATIENCE, child.wait_with_output())
        .await
        .expect("the command ends")
        .expect("its output is read");
    Output {
        code: ExitStatus::code(&output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
