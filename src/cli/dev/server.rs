//! The nats-server of `herald dev`: a child process or a container. It listens on this machine only, and its store is
//! removed with it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_nats::ServerInfo;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::super::CliError;
use super::super::nats::{VERSION_MIN, is_new_enough};
use super::find::ServerProgram;

/// What Docker runs.
const IMAGE: &str = "nats:2.15-alpine";
/// How long a server may take until it greets.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between looks for the greeting.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Attempts on other ports, if another process takes the one that was free a moment ago.
const TRIES: usize = 5;
/// Lines of the server's log that are shown where it ended by itself.
const LOG_LINES: usize = 10;

/// Which port to take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Port {
    Exactly(u16),
    /// Another free one, where it is taken.
    Preferably(u16),
}

/// A nats-server that has sent its greeting. [`Server::end`] ends it. A drop does so as well, without waiting.
#[derive(Debug)]
pub(super) struct Server {
    /// The server, or the Docker client that is attached to it.
    child: Child,
    container: Option<Container>,
    /// Store and log.
    folder: TempDir,
    port: u16,
}

/// A container that is removed when the value goes.
#[derive(Debug)]
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        // Blocking for a moment is right: the process is about to end.
        let _ = std::process::Command::new("docker")
            .args(["rm", "-f", "-v", &self.0])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Server {
    /// Starts one and waits for its greeting.
    ///
    /// # Errors
    /// [`CliError::Failure`] with what the server says about it.
    pub(super) async fn start(source: &ServerProgram, wish: Port) -> Result<Self, CliError> {
        if *source == ServerProgram::Docker {
            pull().await?;
        }
        let mut failure = String::new();
        for first in std::iter::once(true).chain(std::iter::repeat_n(false, TRIES - 1)) {
            let port = match wish {
                Port::Exactly(port) if is_free(port) => port,
                Port::Exactly(port) => {
                    return Err(CliError::Failure(format!("port {port} is taken")));
                }
                Port::Preferably(port) if first && is_free(port) => port,
                Port::Preferably(_) => free_port()
                    .map_err(|error| CliError::Failure(format!("no free port: {error}")))?,
            };
            match Self::launch(source, port).await {
                Ok(server) => return Ok(server),
                Err(error) => failure = error,
            }
        }
        Err(CliError::Failure(failure))
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Waits until the server ends by itself, and says why.
    pub(super) async fn died(&mut self) -> CliError {
        let status = self.child.wait().await;
        CliError::Failure(ended(status.ok(), self.folder.path()))
    }

    /// Ends the server and removes all that it stored.
    pub(super) async fn end(mut self) {
        drop(self.container.take());
        // At once: there is nothing to keep. It may have ended already.
        let _ = self.child.kill().await;
        if let Err(error) = self.folder.close() {
            eprintln!("herald: the store of nats-server is still there: {error}");
        }
    }

    async fn launch(source: &ServerProgram, port: u16) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let name = format!("herald-dev-{}-{port}", std::process::id());
        let folder = tempfile::Builder::new().prefix("herald-dev-").tempdir();
        let folder = folder.map_err(text)?;
        let log = std::fs::File::create(folder.path().join("log")).map_err(text)?;
        let mut command = match source {
            ServerProgram::Binary(path) => binary(path, &name, port, folder.path()),
            ServerProgram::Docker => docker(&name, port),
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(text)?)
            .stderr(log)
            // Ctrl-C goes to the whole group of a terminal, and sockets are drained first.
            .process_group(0)
            .kill_on_drop(true);
        let container = (*source == ServerProgram::Docker).then(|| Container(name.clone()));
        let mut server = Self {
            child: command
                .spawn()
                .map_err(|error| format!("nats-server: {error}"))?,
            container,
            folder,
            port,
        };
        server.greeted(&name).await?;
        Ok(server)
    }

    /// Waits for the greeting of the server `name`, and for that of no other that has its port.
    async fn greeted(&mut self, name: &str) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < START_TIMEOUT {
            if let Some(greeting) = greeting(self.port).await
                && greeting.server_name == name
            {
                return if is_new_enough(&greeting.version) {
                    Ok(())
                } else {
                    Err(format!(
                        "nats-server is version {}, and Herald needs {VERSION_MIN} or newer",
                        greeting.version
                    ))
                };
            }
            match self.child.try_wait() {
                Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                status => return Err(ended(status.ok().flatten(), self.folder.path())),
            }
        }
        Err(format!(
            "nats-server does not answer within {START_TIMEOUT:?}"
        ))
    }
}

fn binary(path: &Path, name: &str, port: u16, folder: &Path) -> Command {
    // Started from a folder that is not looked up on PATH again.
    let mut command = Command::new(path);
    command
        .args([
            "-n",
            name,
            "-a",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-js",
        ])
        .arg("-sd")
        .arg(folder.join("store"));
    command
}

fn docker(name: &str, port: u16) -> Command {
    let mut command = Command::new("docker");
    command
        .args(["run", "--rm", "--name", name, "--label", "herald=dev", "-p"])
        .arg(format!("127.0.0.1:{port}:4222"))
        .args([IMAGE, "-n", name, "-js", "-sd", "/data"]);
    command
}

/// Gets the image where it is not there, and shows Docker's progress.
async fn pull() -> Result<(), CliError> {
    let run = async |arguments: [&str; 2], is_shown: bool| {
        let mut command = Command::new("docker");
        command.args(arguments).arg(IMAGE).stdin(Stdio::null());
        if !is_shown {
            command.stderr(Stdio::null());
        }
        // Standard output is for the commands that are ready to be copied.
        command.stdout(Stdio::null()).kill_on_drop(true);
        command.status().await.is_ok_and(|status| status.success())
    };
    if run(["image", "inspect"], false).await {
        return Ok(());
    }
    eprintln!("herald: getting the image {IMAGE}");
    if run(["pull", "--quiet"], true).await {
        return Ok(());
    }
    Err(CliError::Failure(format!(
        "Docker cannot get the image {IMAGE}"
    )))
}

async fn greeting(port: u16) -> Option<ServerInfo> {
    let read = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        serde_json::from_str(line.strip_prefix("INFO ")?).ok()
    };
    // Docker's proxy takes connections before the server does.
    tokio::time::timeout(Duration::from_secs(1), read)
        .await
        .ok()
        .flatten()
}

/// What is known of a server that ended.
fn ended(status: Option<ExitStatus>, folder: &Path) -> String {
    let status = status.map_or("in an unknown way".to_owned(), |status| status.to_string());
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(LOG_LINES);
    let last = lines.get(last..).unwrap_or_default().join("\n  ");
    format!("nats-server ended ({status}). The end of its log:\n  {last}")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
