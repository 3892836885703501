//! A browser (Chromium or Firefox, without a window) that belongs to one test.
//!
//! It is the command that `HERALD_TEST_BROWSER` or `HERALD_TEST_FIREFOX` names, or the first of [`COMMANDS`] or
//! [`FIREFOX`] on `PATH`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::nats::Guard;
use super::tls::Certificates;

/// What Chromium is called.
const COMMANDS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What Firefox is called.
const FIREFOX: [&str; 2] = ["firefox-esr", "firefox"];

/// Nothing but the page: no window, no sandbox (which needs rights that containers lack), and none of
/// what a browser otherwise fetches by itself.
const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
];

/// The browser's command; `None`, and a line that says so, where there is none to be had.
pub(crate) fn command() -> Option<PathBuf> {
    found("Chromium", "HERALD_TEST_BROWSER", &COMMANDS)
}

/// The same for Firefox.
pub(crate) fn firefox() -> Option<PathBuf> {
    found("Firefox", "HERALD_TEST_FIREFOX", &FIREFOX)
}

fn found(what: &str, variable: &str, commands: &[&str]) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(PathBuf::from(named));
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search)
        .flat_map(|folder| commands.iter().map(move |command| folder.join(command)))
        .find(|path| path.is_file());
    if found.is_none() {
        super::skipped(&format!("no {what} on PATH, and {variable} is not set"));
    }
    found
}

/// A running browser. It ends with the value, and all its processes with it.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    /// Dropped before the browser is killed: a freed process id may be another's.
    guard: Option<Guard>,
    profile: TempDir,
}

impl Browser {
    /// A browser without a page, for [`super::devtools`].
    pub(crate) fn driven(command: &Path, options: &[&str]) -> Self {
        let own = ["--remote-debugging-port=0", "about:blank"];
        let all = options.iter().chain(&own).map(|text| (*text).to_owned());
        Self::start(command, &all.collect::<Vec<_>>())
    }

    /// A Firefox without a page.
    pub(crate) fn driven_firefox(command: &Path) -> Self {
        Self::run(command, |profile| {
            let mut arguments: Vec<String> =
                ["--headless", "--no-remote", "--remote-debugging-port", "0"]
                    .map(str::to_owned)
                    .to_vec();
            arguments.extend(["--profile".to_owned(), profile, "about:blank".to_owned()]);
            arguments
        })
    }

    /// Where it listens for its test, once it does.
    pub(crate) fn devtools(&self) -> Option<String> {
        let read = |name: &str| std::fs::read_to_string(self.profile.path().join(name)).ok();
        if let Some(text) = read("WebDriverBiDiServer.json") {
            let server: serde_json::Value = serde_json::from_str(&text).ok()?;
            let port = server["ws_port"].as_u64()?;
            return Some(format!("ws://127.0.0.1:{port}/session"));
        }
        let text = read("DevToolsActivePort")?;
        let (port, path) = text.trim().split_once('\n')?;
        Some(format!("ws://127.0.0.1:{port}{path}"))
    }

    /// Sends a signal to all its processes.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let group = group.expect("a process id");
        kill_process_group(group, signal).expect("it is our child");
    }

    /// Opens `url`. It trusts the system's authorities, and the one certificate of `certificates`.
    pub(crate) fn open(command: &Path, url: &str, certificates: &Certificates) -> Self {
        let hash = STANDARD.encode(Sha256::digest(certificates.public_key()));
        let trust = format!("--ignore-certificate-errors-spki-list={hash}");
        Self::start(command, &[trust, url.to_owned()])
    }

    fn start(command: &Path, arguments: &[String]) -> Self {
        Self::run(command, |profile| {
            let mut all: Vec<String> = FLAGS.map(str::to_owned).to_vec();
            all.push(format!("--user-data-dir={profile}"));
            all.extend_from_slice(arguments);
            all
        })
    }

    fn run(command: &Path, arguments: impl FnOnce(String) -> Vec<String>) -> Self {
        let profile = tempfile::Builder::new()
            .prefix("herald-test-browser-")
            .tempdir()
            .expect("a temporary folder");
        let child = Command::new(command)
            .args(arguments(profile.path().display().to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, since it is many processes.
            .process_group(0)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => panic!("{} cannot be run: {error}", command.display()),
        };
        let remains = profile.path().display();
        let clean = format!("kill -9 -{}; rm -rf '{remains}'", child.id());
        Self {
            child,
            guard: Some(Guard::new(&clean)),
            profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.guard.take());
        // Not yet waited for, so that the group is still its own.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
