//! A real `herald serve` process per test, at the most verbose log level, on free ports.
//!
//! All that it prints is kept; when it ends, it is searched for parts of every token that the tests
//! made (see [`super::token`]).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::Connector;

use super::cable::Cable;
use super::nats::{Guard, Nats};
use super::tls::{self, Certificates};
use super::token::{SECRET, assert_no_part_of_a_token};
use super::{PATIENCE, eventually};

/// The binary under test.
pub(crate) const HERALD: &str = env!("CARGO_BIN_EXE_herald");

/// The binary that serves: [`HERALD`], or another build of it, named by `HERALD_TEST_GATEWAY`.
fn gateway_binary() -> std::ffi::OsString {
    std::env::var_os("HERALD_TEST_GATEWAY").unwrap_or_else(|| HERALD.into())
}

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    settings: BTreeMap<String, String>,
    /// Variables that are not Herald's own settings.
    variables: BTreeMap<String, String>,
    /// The authority of its certificate, if it speaks TLS.
    authority: Option<PathBuf>,
    binary: std::ffi::OsString,
    /// Its configuration file.
    file: Option<PathBuf>,
    /// Its limits of open files, soft and hard.
    open_files: Option<(u32, u32)>,
}

/// A gateway process that belongs to one test.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    /// Ends it should the tests be killed. Gone before the process is waited for: a freed process id
    /// may be another's.
    guard: Option<Guard>,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    authority: Option<PathBuf>,
    /// `127.0.0.1:<port>` of the sockets.
    pub(crate) address: String,
    /// `127.0.0.1:<port>` of the metrics.
    pub(crate) admin: String,
    /// `127.0.0.1:<port>` of HTTP publishing; empty where it is off.
    pub(crate) publish: String,
}

impl Builder {
    /// Sets `table.key`.
    pub(crate) fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets an environment variable as it is.
    pub(crate) fn variable(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// Gives it a configuration file; what is set here wins over it.
    pub(crate) fn file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// Runs another build of Herald.
    pub(crate) fn binary(mut self, path: &Path) -> Self {
        self.binary = path.into();
        self
    }

    /// Limits its open files.
    pub(crate) fn open_files(mut self, soft: u32, hard: u32) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// Unsets `table.key`.
    pub(crate) fn unset(mut self, key: &str) -> Self {
        self.settings.remove(key);
        self
    }

    /// Has it speak TLS.
    pub(crate) fn tls(mut self, certificates: &Certificates) -> Self {
        self.authority = Some(certificates.authority());
        self.set("server.tls_cert", certificates.certificate().display())
            .set("server.tls_key", certificates.key().display())
    }

    /// The command with all settings in its environment and nothing else of ours.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.open_files {
            None => Command::new(&self.binary),
            Some((soft, hard)) => {
                let mut shell = Command::new("sh");
                let limited = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
                shell.arg("-c").arg(limited).arg(&self.binary);
                shell
            }
        };
        command.args(arguments).current_dir(std::env::temp_dir());
        if let Some(file) = &self.file {
            command.arg("--config").arg(file);
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("HERALD_") || text.starts_with("OTEL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.envs(&self.variables);
        for (key, value) in &self.settings {
            let variable = key.replace('.', "__").to_uppercase();
            command.env(format!("HERALD_{variable}"), value);
        }
        command
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self) -> Gateway {
        let mut child = self
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("herald starts");
        let output = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            keep(child.stdout.take().expect("piped"), Arc::clone(&output)),
            keep(child.stderr.take().expect("piped"), Arc::clone(&output)),
        ];
        let mut gateway = Gateway {
            guard: Some(Guard::new(&format!("kill -9 {}", child.id()))),
            child,
            output,
            readers,
            authority: self.authority,
            address: String::new(),
            admin: String::new(),
            publish: String::new(),
        };
        let line = gateway.logged("listening").await;
        gateway.address = address_in(&line, "listen");
        gateway.admin = address_in(&line, "admin_listen");
        if line.contains("\"publish_listen\"") {
            gateway.publish = address_in(&line, "publish_listen");
        }
        gateway
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn ready(self) -> Gateway {
        let gateway = self.start().await;
        let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
        assert!(ready.await, "herald is not ready:\n{}", gateway.output());
        gateway
    }
}

impl Gateway {
    /// A gateway on `nats` with the tests' HMAC secret.
    pub(crate) fn builder(nats: &Nats) -> Builder {
        Self::without_nats().set("nats.url", nats.url())
    }

    /// Settings without a NATS.
    pub(crate) fn without_nats() -> Builder {
        Builder {
            settings: BTreeMap::new(),
            variables: BTreeMap::new(),
            authority: None,
            binary: gateway_binary(),
            file: None,
            open_files: None,
        }
        .set("server.listen", "127.0.0.1:0")
        .set("server.admin_listen", "127.0.0.1:0")
        .set("auth.hmac_secret", SECRET)
        .set("log.level", "trace")
        .set("log.format", "json")
    }

    /// A gateway that reaches `nats` by a cable.
    pub(crate) async fn behind_a_cable(nats: &Nats) -> (Cable, Self) {
        let cable = Cable::to(nats.port()).await;
        let gateway = Self::without_nats()
            .set("nats.url", cable.url())
            .ready()
            .await;
        (cable, gateway)
    }

    /// A ready gateway on `nats`.
    pub(crate) async fn on(nats: &Nats) -> Self {
        Self::builder(nats).ready().await
    }

    /// Everything printed so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }

    /// The first log line with exactly this message, as soon as it is there: what it tells is seen elsewhere earlier.
    pub(crate) async fn logged(&self, message: &str) -> String {
        self.prints(&message_field(message)).await;
        self.log_line(message).expect("just seen")
    }

    /// Waits until it has printed this.
    pub(crate) async fn prints(&self, text: &str) {
        let printed = eventually(PATIENCE, async || self.output().contains(text)).await;
        assert!(printed, "nowhere {text:?}: {}", self.output());
    }

    /// Waits until it has printed a line with all of `words`.
    pub(crate) async fn prints_line(&self, words: &[&str]) {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        let printed = eventually(PATIENCE, async || self.output().lines().any(has_all)).await;
        assert!(printed, "no line with {words:?}: {}", self.output());
    }

    /// The first log line with exactly this message, of those so far.
    pub(crate) fn log_line(&self, message: &str) -> Option<String> {
        let wanted = message_field(message);
        self.output()
            .lines()
            .find(|line| line.contains(&wanted))
            .map(str::to_owned)
    }

    /// `GET` on the sockets' port: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = request(&self.address, path);
        let Some(authority) = &self.authority else {
            return answer(exchange(&self.address, &request)).await;
        };
        answer(async {
            let stream = tls::connect(&self.address, authority).await?;
            exchange_on(stream, &request).await
        })
        .await
    }

    /// `ws://` or `wss://` and where the sockets are.
    pub(crate) fn url(&self) -> String {
        match self.authority {
            None => format!("ws://{}", self.address),
            Some(_) => format!("wss://localhost:{}", self.port()),
        }
    }

    /// What a client needs to trust its certificate.
    pub(crate) fn connector(&self) -> Connector {
        match &self.authority {
            None => Connector::Plain,
            Some(authority) => Connector::Rustls(tls::client(authority)),
        }
    }

    /// The port of the sockets.
    pub(crate) fn port(&self) -> u16 {
        let (_, port) = self.address.rsplit_once(':').expect("an address");
        port.parse().expect("a port")
    }

    /// The exposition in the text format, or as `accept` prefers.
    pub(crate) async fn metrics(&self, accept: &str) -> String {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        let (status, body) = answer(exchange(&self.admin, request.as_bytes())).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Sends a request to the admin port: status and body.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        answer(self.admin_with("", method, path, body)).await
    }

    /// As [`Gateway::admin`], with the token of an administrator.
    pub(crate) async fn admin_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String) {
        let header = format!("Authorization: Bearer {token}\r\n");
        answer(self.admin_with(&header, method, path, body)).await
    }

    /// The whole answer to a request with these header lines to the admin port.
    pub(crate) async fn admin_with(
        &self,
        headers: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Option<String> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.admin,
            body.len()
        );
        exchange(&self.admin, request.as_bytes()).await
    }

    /// The value of a metric, summed over its labels that contain `label`; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = get(&self.admin, "/metrics").await;
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn metric_becomes(&self, name: &str, label: &str, value: f64) {
        let reached = eventually(PATIENCE, async || {
            (self.metric(name, label).await - value).abs() < 0.5
        });
        assert!(
            reached.await,
            "{name}{{{label}}} is {} and not {value}",
            self.metric(name, label).await
        );
    }

    /// The process' id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), &format!("-{name}"));
    }

    /// How many log lines there are with exactly this message.
    pub(crate) fn log_lines(&self, message: &str) -> usize {
        self.output().matches(&message_field(message)).count()
    }

    /// Sends SIGHUP and returns the line with `message` that follows.
    pub(crate) async fn hang_up(&self, message: &str) -> Value {
        let before = self.log_lines(message);
        self.signal("HUP");
        let told = eventually(PATIENCE, async || self.log_lines(message) > before);
        assert!(told.await, "no `{message}`:\n{}", self.output());
        let wanted = message_field(message);
        let output = self.output();
        let last = output.lines().rfind(|line| line.contains(&wanted));
        serde_json::from_str(last.expect("just seen")).expect("JSON")
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end and returns its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        drop(self.guard.take());
        let mut status = None;
        let ended = eventually(PATIENCE, async || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(ended.await, "herald does not end:\n{}", self.output());
        status.and_then(|status| status.code())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.guard.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let output = self.output();
        if std::thread::panicking() {
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                eprintln!("herald: {line}");
            }
        } else {
            assert_no_part_of_a_token(&output);
        }
    }
}

/// Sends a signal by `kill`, to this process only.
pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "kill {signal} {pid}");
}

/// Runs a command to its end: exit code, standard output, standard error.
pub(crate) fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Writes a file into `dir` and returns its path as text.
pub(crate) fn file(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("a temporary file can be written");
    path.display().to_string()
}

/// Makes a FIFO in `dir` and returns its path as text. Whoever opens it waits for the other side.
pub(crate) fn fifo(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo runs").success(), "{}", path.display());
    path.display().to_string()
}

fn keep(source: impl Read + Send + 'static, output: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).into_owned();
            output.lock().expect("no reader panics").push_str(&text);
            line.clear();
        }
    })
}

/// The field of a log line with exactly this message.
fn message_field(message: &str) -> String {
    format!("\"message\":\"{message}\"")
}

fn address_in(line: &str, field: &str) -> String {
    let value: Value = serde_json::from_str(line).expect("logs are JSON");
    value[field].as_str().expect("an address").to_owned()
}

/// A plain HTTP/1.1 `GET`: status and body; status 0 if nothing answers.
pub(crate) async fn get(address: &str, path: &str) -> (u16, String) {
    answer(exchange(address, &request(address, path))).await
}

fn request(address: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Status and body of what comes; status 0 if nothing does.
async fn answer(coming: impl Future<Output = Option<String>>) -> (u16, String) {
    let response = tokio::time::timeout(Duration::from_secs(20), coming);
    let text = response.await.ok().flatten().unwrap_or_default();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = text
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned());
    (status, body)
}

/// Sends bytes and reads until the peer ends the connection.
pub(crate) async fn exchange(address: &str, request: &[u8]) -> Option<String> {
    exchange_on(tokio::net::TcpStream::connect(address).await.ok()?, request).await
}

async fn exchange_on(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Option<String> {
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut answer).await;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
