//! A nats-server as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::{Guard, Settings, folder, server_name};

/// Longest wait for an orderly end; JetStream writes its state meanwhile.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// One nats-server. `child` is `None` while it is stopped.
#[derive(Debug)]
pub(super) struct Process {
    binary: PathBuf,
    port: u16,
    env: Vec<(String, String)>,
    names_store: bool,
    child: Option<Child>,
    /// Dropped before the child is killed, never after: a freed process id may be another's.
    guard: Option<Guard>,
    folder: TempDir,
}

impl Process {
    /// Starts the server and does not wait for it.
    pub(super) fn start(binary: &Path, settings: &Settings, port: u16) -> Result<Self, String> {
        let folder = folder();
        std::fs::write(folder.path().join("nats.conf"), &settings.config)
            .map_err(|error| error.to_string())?;
        let mut process = Self {
            binary: binary.to_owned(),
            port,
            env: settings.env.clone(),
            names_store: settings.config.contains("store_dir"),
            child: None,
            guard: None,
            folder,
        };
        process.start_again()?;
        Ok(process)
    }

    pub(super) fn start_again(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "it still runs");
        let at = self.folder.path();
        let store = self.store();
        let log = File::options()
            .create(true)
            .append(true)
            .open(at.join("log"))
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.binary);
        command
            .arg("-c")
            .arg(at.join("nats.conf"))
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-n", &server_name(self.port)])
            .env("NATS_STORE_DIR", &store)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log);
        if !self.names_store {
            // The server refuses the flag beside the same setting in the file.
            command.arg("-sd").arg(&store);
        }
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let remains = at.display();
        let clean = format!("kill -9 {}; rm -rf '{remains}'", child.id());
        self.guard = Some(Guard::new(&clean));
        self.child = Some(child);
        Ok(())
    }

    /// The log's end, if the server has ended by itself.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => None,
            _ => Some(self.log_end()),
        }
    }

    pub(super) async fn stop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let ended = super::super::eventually(STOP_PATIENCE, async || {
            !matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
        })
        .await;
        assert!(ended, "nats-server does not stop: {}", self.log_end());
        self.reap();
    }

    pub(super) async fn kill(&mut self) {
        self.reap();
    }

    pub(super) fn pause(&self) {
        let running = self.pid().expect("the server runs");
        self.signal(Signal::STOP);
        // The signal is sent; that all threads stand still is what the wait reports.
        let stopped = waitpid(Some(running), WaitOptions::UNTRACED);
        assert!(matches!(stopped, Ok(Some((_, status))) if status.stopped()));
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(super) fn reload(&self, config: &str) {
        std::fs::write(self.folder.path().join("nats.conf"), config).expect("it is written");
        self.signal(Signal::HUP);
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(super) async fn copy_store(&self, to: &Path) -> std::io::Result<()> {
        copy(&self.store(), to).await
    }

    pub(super) async fn put_store_back(&self, from: &Path) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.store())?;
        std::fs::create_dir(self.store())?;
        copy(from, &self.store()).await
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            kill_process(pid, signal).expect("the server gets signals");
        }
    }

    /// The server's process id, if it runs. It is not yet waited for, so that the id is still its own.
    fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id();
        i32::try_from(id).ok().and_then(Pid::from_raw)
    }

    /// Kills the server if it runs and waits for its end.
    fn reap(&mut self) -> Option<ExitStatus> {
        drop(self.guard.take());
        let mut child = self.child.take()?;
        let _ = child.kill();
        child.wait().ok()
    }

    pub(super) fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let from = log.len().saturating_sub(4096);
        String::from_utf8_lossy(&log.as_bytes()[from..]).into_owned()
    }
}

/// Copies all that is in the folder `from` to the folder `to`.
async fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut command = tokio::process::Command::new("cp");
    let status = command
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()
        .await?;
    status
        .success()
        .then_some(())
        .ok_or(std::io::ErrorKind::Other.into())
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reap();
        if std::thread::panicking() {
            eprintln!(
                "end of the log of nats-server at {}:\n{}",
                self.port,
                self.log_end()
            );
        }
    }
}
