//! Each signal against a gateway with an open socket: some drain it, one reloads (`reload.rs`), and the rest do
//! nothing.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway, fifo, file, get, signal};
use crate::support::nats::{Guard, Nats};
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn term_int_and_quit_drain() {
    let nats = Nats::jetstream().await;
    for signal in ["TERM", "INT", "QUIT"] {
        let mut gateway = Gateway::builder(&nats)
            .set("server.drain", "0s")
            .ready()
            .await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        gateway.signal(signal);
        assert_eq!(ann.closed().await.0, 1012, "{signal}");
        drop(ann);
        assert_eq!(gateway.ended().await, Some(0), "{signal}");
        assert_eq!(gateway.log_lines("drained"), 1, "{signal}");
    }
}

#[tokio::test]
async fn a_second_signal_of_those_ends_at_once() {
    let nats = Nats::jetstream().await;
    for (first, second) in [("QUIT", "QUIT"), ("TERM", "QUIT"), ("QUIT", "INT")] {
        let mut gateway = Gateway::builder(&nats)
            .set("server.drain_delay", "5m")
            .ready()
            .await;
        let _ann = Client::join(&gateway, "ann", "acme").await;
        gateway.signal(first);
        assert!(eventually(PATIENCE, async || gateway.log_lines("draining") == 1).await);
        let start = Instant::now();
        gateway.signal(second);
        assert_eq!(gateway.ended().await, Some(0), "{first} {second}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// Log rotation, supervisors and curious people send them; each ended every socket with 1006.
#[tokio::test]
async fn other_signals_leave_every_socket_open() {
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let mut gateway = Gateway::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let named = [
        "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "XCPU", "XFSZ", "PWR", "STKFLT", "PIPE",
        "WINCH", "URG", "CHLD", "HUP",
    ];
    let real_time: Vec<String> = (34..=64).map(|number| number.to_string()).collect();
    for signal in named
        .into_iter()
        .chain(real_time.iter().map(String::as_str))
    {
        gateway.signal(signal);
        let heard = eventually(PATIENCE, async || {
            let output = gateway.output();
            output.contains(&format!("\"signal\":\"SIG{signal}\""))
                || output.contains(&format!("\"signal\":\"signal {signal}\""))
                || (signal == "HUP" && gateway.log_lines("configuration reloaded") == 1)
                || matches!(signal, "PIPE" | "WINCH" | "URG" | "CHLD")
        });
        assert!(heard.await, "{signal} is not heard:\n{}", gateway.output());
        publisher
            .event("acme.custom.x", &json!({ "title": signal }))
            .await;
        assert_eq!(ann.notification().await["title"], signal);
    }
    assert!(gateway.alive());
}

/// What is sent often is said once: a line that is too much for the file of the log brings the next SIGXFSZ.
#[tokio::test]
async fn an_ignored_signal_is_said_once() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    for _ in 0..5 {
        gateway.signal("XFSZ");
        gateway.get("/healthz").await;
    }
    gateway.signal("XCPU");
    let said = eventually(PATIENCE, async || gateway.output().contains("SIGXCPU"));
    assert!(said.await);
    assert_eq!(gateway.log_lines("signal ignored"), 2);
}

/// A gateway that waits for what is written into its configuration file.
struct Waiting {
    child: Child,
    _guard: Guard,
    folder: TempDir,
}

impl Waiting {
    /// Starts `herald` with this command, and waits until it hears `signal`.
    async fn new(builder: &Builder, command: &str, signal: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = fifo(folder.path(), "herald.toml");
        let child = builder
            .command(&["--config", &path, command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let guard = Guard::new(&format!("kill -9 {}", child.id()));
        let waiting = Self {
            child,
            _guard: guard,
            folder,
        };
        let hears = eventually(PATIENCE, async || waiting.hears(signal));
        assert!(hears.await, "{command} does not hear signal {signal}");
        waiting
    }

    /// Whether the process does something of its own about this signal.
    fn hears(&self, signal: u32) -> bool {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), &format!("-{name}"));
    }

    async fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        let ended = eventually(PATIENCE, async || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(ended.await, "it does not end");
        status.and_then(|status| status.code())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As a file on a mount that is dead is waited for. Both commands hear signals before they read anything.
#[tokio::test]
async fn a_start_that_waits_for_a_file_ends_when_it_is_asked_to() {
    let builder = Gateway::without_nats();
    for (command, signals) in [
        ("serve", &["TERM", "INT", "QUIT"][..]),
        ("dev", &["TERM", "HUP"]),
    ] {
        for signal in signals {
            let mut waiting = Waiting::new(&builder, command, 64).await;
            waiting.signal(signal);
            assert_eq!(waiting.ended().await, Some(0), "{command} {signal}");
        }
    }
}

#[tokio::test]
async fn other_signals_do_not_end_a_start() {
    let nats = Nats::jetstream().await;
    let admin = free_address();
    let builder = Gateway::builder(&nats).set("server.admin_listen", &admin);
    let mut waiting = Waiting::new(&builder, "serve", 64).await;
    for signal in ["HUP", "USR1", "USR2", "PWR", "34"] {
        waiting.signal(signal);
    }
    // Then it goes on.
    file(
        waiting.folder.path(),
        "herald.toml",
        "[sockets]\nping = \"7s\"\n",
    );
    let ready = eventually(PATIENCE, async || get(&admin, "/readyz").await.0 == 200);
    assert!(ready.await);
    waiting.signal("TERM");
    assert_eq!(waiting.ended().await, Some(0));
}

/// The log's file has reached the limit of a file's length, as `ulimit -f` sets it.
#[tokio::test]
async fn a_log_that_can_grow_no_more_ends_no_socket() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let public = free_address();
    let herald = Gateway::builder(&nats)
        .set("server.listen", &public)
        .command(&["serve"]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -f 16; log=$1; shift; exec \"$@\" 2>\"$log\"",
        "sh",
    ]);
    shell
        .arg(&log)
        .arg(herald.get_program())
        .args(herald.get_args());
    for (name, value) in herald.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut child = shell.stdin(Stdio::null()).spawn().expect("it starts");
    let _guard = Guard::new(&format!("kill -9 {}", child.id()));
    let ready = eventually(PATIENCE, async || get(&public, "/readyz").await.0 == 200);
    assert!(ready.await);
    let length = || std::fs::metadata(&log).map_or(0, |file| file.len());
    let mut seen = 0;
    let full = eventually(PATIENCE, async || {
        // Whatever it comes to, it is logged.
        let request = format!("ws://{public}/?token=x&workspaceSlug=acme").into_client_request();
        drop(Client::attempt_with(request.expect("a URL")).await);
        let before = std::mem::replace(&mut seen, length());
        before == seen && seen >= 8 * 1024
    });
    assert!(full.await, "{} bytes", length());
    assert_eq!(get(&public, "/readyz").await.0, 200);
    assert!(matches!(child.try_wait(), Ok(None)), "it serves on");
    signal(child.id(), "-TERM");
    let ended = eventually(PATIENCE, async || matches!(child.try_wait(), Ok(Some(_))));
    assert!(ended.await);
    assert_eq!(child.wait().expect("it is our child").code(), Some(0));
}

/// A free one, for who cannot be asked which it took.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test]
async fn signals_are_heard_before_the_gateway_is_ready() {
    let nats = Nats::jetstream().await;
    let mut gateway = Gateway::builder(&nats)
        .set("nats.migrate", false)
        .start()
        .await;
    let waits = eventually(PATIENCE, async || {
        gateway.log_lines("waiting for migrations") == 1
    });
    assert!(waits.await);
    gateway.signal("USR1");
    gateway.signal("HUP");
    let reloaded = eventually(PATIENCE, async || {
        gateway.log_lines("configuration reloaded") == 1 && gateway.log_lines("signal ignored") == 1
    });
    assert!(reloaded.await, "{}", gateway.output());
    assert!(gateway.alive());
    gateway.signal("QUIT");
    assert_eq!(gateway.ended().await, Some(0));
}

#[tokio::test]
async fn a_drain_takes_no_reload() {
    let nats = Nats::jetstream().await;
    let mut gateway = Gateway::builder(&nats)
        .set("server.drain_delay", "5m")
        .ready()
        .await;
    gateway.signal("TERM");
    assert!(eventually(PATIENCE, async || gateway.log_lines("draining") == 1).await);
    gateway.signal("HUP");
    let told = eventually(PATIENCE, async || {
        gateway.log_lines("draining, configuration not reloaded") == 1
    });
    assert!(told.await && gateway.log_lines("configuration reloaded") == 0);
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
}
