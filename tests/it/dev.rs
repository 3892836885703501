//! Verifies that `herald dev` prints commands that show a first notification when they are run as they
//! are printed, that all of it ends together, and that a nats-server that will not do is named.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::gateway::{HERALD, get, signal};
use crate::support::nats::{self, Choice};
use crate::support::publisher::Publisher;
use crate::support::token::{assert_no_part_of_a_token, remember};
use crate::support::{PATIENCE, eventually, soon};

/// A command in a folder, whose output goes to files there. Its process group goes with the value.
pub(crate) struct Running {
    child: Child,
    folder: std::path::PathBuf,
    name: &'static str,
}

impl Running {
    fn start(mut command: Command, folder: &Path, name: &'static str) -> Self {
        use std::os::unix::process::CommandExt as _;
        let file = |end: &str| std::fs::File::create(folder.join(format!("{name}.{end}"))).unwrap();
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HERALD_") || variable == "RUST_LOG" {
                command.env_remove(variable);
            }
        }
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            child,
            folder: folder.to_owned(),
            name,
        }
    }

    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.out", self.name))).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.err", self.name))).unwrap()
    }

    pub(crate) async fn says(&self, what: &str) {
        let said = eventually(PATIENCE, async || (self.out() + &self.err()).contains(what));
        assert!(said.await, "{what}: {} {}", self.out(), self.err());
    }

    async fn ended(&mut self) -> Option<i32> {
        let mut status: Option<ExitStatus> = None;
        let ended = eventually(PATIENCE, async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended.await, "it does not end: {}", self.err());
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// The default ports that were free, taken for as long as the tests run: what `herald dev` then does with
/// them does not depend on what else runs here.
pub(crate) fn taken_ports() -> Vec<u16> {
    static TAKEN: OnceLock<Vec<TcpListener>> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| {
        let ports = [4222, 8080, 9090].map(|port| TcpListener::bind(("127.0.0.1", port)));
        ports.into_iter().flatten().collect()
    });
    let ports = taken.iter().map(|listener| listener.local_addr().unwrap());
    ports.map(|address| address.port()).collect()
}

/// A folder that is alone on `PATH`, with links to `programs`.
fn path_with(programs: &[(&str, &Path)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in programs {
        std::os::unix::fs::symlink(file, folder.path().join(name)).unwrap();
    }
    folder
}

/// `herald dev` with `path` as its PATH and `folder` for itself.
pub(crate) fn dev(folder: &Path, path: &Path, arguments: &[&str]) -> Running {
    let temporary = folder.join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(HERALD);
    command.arg("dev").args(arguments);
    command
        .env("PATH", path)
        .env("TMPDIR", temporary)
        .env("HERALD_LOG__LEVEL", "trace");
    Running::start(command, folder, "dev")
}

/// The PATH on which `herald dev` finds the backend of this test run, and nothing else.
pub(crate) fn path_of_backend() -> TempDir {
    match nats::choice() {
        Choice::Binary(file) => path_with(&[("nats-server", &file.canonicalize().unwrap())]),
        Choice::Docker => {
            let search = std::env::var_os("PATH").unwrap();
            let docker = std::env::split_paths(&search)
                .map(|folder| folder.join("docker"))
                .find(|file| file.is_file());
            path_with(&[("docker", &docker.unwrap())])
        }
    }
}

fn shell(line: &str, folder: &Path, name: &'static str) -> Running {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    Running::start(command, folder, name)
}

/// The printed command with `word` in it.
fn command_with<'a>(printed: &'a str, word: &str) -> &'a str {
    let mut indented = printed.lines().filter(|line| line.starts_with("    "));
    indented.find(|line| line.contains(word)).unwrap()
}

/// The port behind `before` in `text`.
fn port_after(text: &str, before: &str) -> u16 {
    let (_, rest) = text.split_once(before).unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[tokio::test]
async fn the_printed_commands_show_a_first_notification_and_all_ends_together() {
    let taken = taken_ports();
    let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
    let mut dev = dev(folder.path(), path.path(), &[]);
    dev.says("Ctrl-C ends all of this").await;
    let printed = dev.out();
    let nats_port = port_after(&printed, "nats://127.0.0.1:");
    let socket_port = port_after(&printed, "ws://127.0.0.1:");
    let admin_port = port_after(&printed, "http://127.0.0.1:");
    for port in [nats_port, socket_port, admin_port] {
        assert!(!taken.contains(&port), "{printed}");
    }

    let listen = shell(command_with(&printed, " listen "), folder.path(), "listen");
    listen.says("connected to").await;
    let mut publish = shell(
        command_with(&printed, " publish "),
        folder.path(),
        "publish",
    );
    assert_eq!(publish.ended().await, Some(0), "{}", publish.err());
    assert_eq!(publish.out(), "EVENTS 1\n");
    listen.says("notif_").await;
    let notification: Value = serde_json::from_str(&listen.out()).unwrap();
    assert_eq!(notification["metadata"]["event"], "record.created");

    // First of all stands where the page is.
    let address = printed.lines().next().unwrap();
    assert_eq!(address, format!("http://127.0.0.1:{admin_port}/console"));
    let (status, page) = get(&format!("127.0.0.1:{admin_port}"), "/console").await;
    assert!(status == 200 && page.contains("<title>Herald"), "{page}");
    assert_eq!(printed.lines().count(), 6, "{printed}");

    let pid = dev.child.id();
    signal(pid, "-TERM");
    assert_eq!(dev.ended().await, Some(0), "{}", dev.err());
    assert!(TcpListener::bind(("127.0.0.1", nats_port)).is_ok());
    assert_eq!(
        std::fs::read_dir(folder.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    assert_no_token_in_the_log(&printed, &dev.err());
    if *nats::choice() == Choice::Docker {
        let filter = format!("name=herald-dev-{pid}-");
        let list = Command::new("docker")
            .args(["ps", "-aq", "--filter", &filter])
            .output();
        assert!(list.unwrap().stdout.is_empty());
    }
}

#[tokio::test]
async fn the_log_does_not_hide_the_address() {
    let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
    let mut command = Command::new(HERALD);
    command.arg("dev");
    command
        .env("PATH", path.path())
        .env("TMPDIR", folder.path());
    let mut dev = Running::start(command, folder.path(), "dev");
    dev.says("Ctrl-C ends all of this").await;
    assert!(!dev.err().contains("INFO"), "{}", dev.err());
    signal(dev.child.id(), "-TERM");
    assert_eq!(dev.ended().await, Some(0));
}

#[tokio::test]
async fn the_printed_url_has_the_configured_path() {
    let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
    std::fs::write(
        folder.path().join("herald.toml"),
        "[server]\npath = \"/live\"\n",
    )
    .unwrap();
    let dev = dev(folder.path(), path.path(), &[]);
    dev.says("Ctrl-C ends all of this").await;
    let printed = dev.out();
    let listen = shell(command_with(&printed, " listen "), folder.path(), "listen");
    listen.says("connected to").await;
    assert!(printed.contains("/live --workspace acme"), "{printed}");
    assert_no_token_in_the_log(&printed, &dev.err());
}

/// For the tests of an application: all that they need, and nothing else on standard output.
#[tokio::test]
async fn with_json_a_program_gets_its_addresses_and_a_token_in_one_line() {
    taken_ports();
    let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
    let settings = "[server]\npath = \"/live\"\n";
    std::fs::write(folder.path().join("herald.toml"), settings).unwrap();
    let mut dev = dev(folder.path(), path.path(), &["--json"]);
    let printed = eventually(PATIENCE, async || dev.out().ends_with('\n'));
    assert!(printed.await, "{}", dev.err());
    let told: Value = serde_json::from_str(&dev.out()).unwrap();
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();

    // All of it is there, at once.
    let url = text("url");
    assert!(url.starts_with("ws://127.0.0.1:"), "{told}");
    assert!(url.ends_with("/live"), "{told}");
    let (token, workspace) = (text("token"), text("workspace"));
    let url = format!("{url}?token={token}&workspaceSlug={workspace}");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let admin = text("admin");
    assert_eq!(text("page"), format!("{admin}/console"));
    let (status, metrics) = get(admin.strip_prefix("http://").unwrap(), "/metrics").await;
    assert_eq!(status, 200, "{admin}");
    assert!(metrics.contains("herald_connections"), "{metrics}");
    let nats = async_nats::connect(text("nats")).await.unwrap();
    let event = serde_json::json!({ "title": "Seen", "recipients": [text("user")] });
    let subject = format!("ws.{workspace}.custom.hello");
    Publisher::over(nats)
        .event(subject.trim_start_matches("ws."), &event)
        .await;
    let notification = soon(socket.next()).await.unwrap().unwrap();
    let notification: Value = serde_json::from_str(notification.to_text().unwrap()).unwrap();
    assert_eq!(notification["title"], "Seen");
    // A token for somebody else is made with its key.
    let line = format!(
        "{HERALD} token --user grace --workspace {workspace} --secret {}",
        text("secret")
    );
    let mut grace = shell(&line, folder.path(), "token");
    assert_eq!(grace.ended().await, Some(0), "{}", grace.err());

    // It stays until it is told otherwise, and prints nothing more.
    assert!(dev.child.try_wait().unwrap().is_none());
    signal(dev.child.id(), "-TERM");
    assert_eq!(dev.ended().await, Some(0), "{}", dev.err());
    assert_eq!(dev.out().lines().count(), 1, "{}", dev.out());
    assert!(!dev.err().contains(&text("secret")), "{}", dev.err());
    remember(token);
    assert_no_part_of_a_token(&dev.err());
}

/// What is printed for the user stands nowhere in the log.
fn assert_no_token_in_the_log(printed: &str, log: &str) {
    let listen = command_with(printed, " listen ");
    let (_, token) = listen.split_once("--token ").unwrap();
    remember(token.trim().to_owned());
    assert_no_part_of_a_token(log);
}

#[tokio::test]
async fn ctrl_c_and_a_closed_terminal_end_it_too() {
    taken_ports();
    let path = path_of_backend();
    for how in ["-INT", "-HUP", "-QUIT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut dev = dev(folder.path(), path.path(), &[]);
        dev.says("Ctrl-C ends all of this").await;
        let nats_port = port_after(&dev.out(), "nats://127.0.0.1:");
        // Nothing is asked of it with these; ending at once would leave the nats-server behind.
        for other in ["-USR1", "-USR2", "-ALRM", "-IO"] {
            signal(dev.child.id(), other);
        }
        signal(dev.child.id(), how);
        assert_eq!(dev.ended().await, Some(0), "{how}: {}", dev.err());
        assert!(TcpListener::bind(("127.0.0.1", nats_port)).is_ok());
    }
}

#[tokio::test]
async fn it_fails_when_its_nats_server_dies() {
    taken_ports();
    let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
    let mut dev = dev(folder.path(), path.path(), &[]);
    dev.says("Ctrl-C ends all of this").await;
    signal(child_of(&dev), "-TERM");
    assert_eq!(dev.ended().await, Some(1), "{}", dev.err());
    assert!(dev.err().contains("nats-server ended"), "{}", dev.err());
    assert_eq!(
        std::fs::read_dir(folder.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
}

/// The one child of `dev`, whatever thread started it.
fn child_of(dev: &Running) -> u32 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", dev.child.id())).unwrap();
    let child = threads.flatten().find_map(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    });
    child.expect("a nats-server")
}

/// A program that says it is a nats-server of `version`.
fn pretender(folder: &Path, version: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.join("nats-server");
    std::fs::write(&file, format!("#!/bin/sh\necho nats-server: v{version}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[tokio::test]
async fn a_nats_server_that_will_not_do_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let file = pretender(old.path(), "2.9.10").display().to_string();
    let empty = tempfile::tempdir().unwrap();
    for (path, arguments, code, want) in [
        (
            old.path(),
            &[][..],
            1,
            "is version 2.9.10, and Herald needs 2.11 or newer",
        ),
        (
            old.path(),
            &["--nats-server", &file],
            2,
            "is version 2.9.10",
        ),
        (
            empty.path(),
            &[],
            1,
            "no other nats-server is on PATH or in .tools/",
        ),
        (
            empty.path(),
            &["--nats-server", "/absent"],
            2,
            "/absent cannot be run",
        ),
    ] {
        let mut dev = dev(folder.path(), path, arguments);
        assert_eq!(dev.ended().await, Some(code), "{}", dev.err());
        assert!(dev.err().contains(want), "{want}: {}", dev.err());
        assert!(dev.out().is_empty(), "{}", dev.out());
    }
}

#[tokio::test]
async fn a_port_that_was_asked_for_is_not_replaced() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
    for (option, want) in [
        ("--nats-port", format!("port {port} is taken")),
        ("--port", "cannot listen on server.listen".to_owned()),
    ] {
        let mut dev = dev(folder.path(), path.path(), &[option, &port]);
        assert_eq!(dev.ended().await, Some(1), "{}", dev.err());
        assert!(dev.err().contains(&want), "{want}: {}", dev.err());
    }
}
