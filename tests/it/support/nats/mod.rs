//! A real nats-server per test, as a process or as a Docker container.
//!
//! Docker is used where an engine answers (image [`IMAGE`]), the binary otherwise, which is looked for
//! in `HERALD_TEST_NATS_SERVER`, in `.tools/` and on `PATH`. `HERALD_TEST_NATS=docker` or `=binary`
//! forces one. Each server has a free port and a store of its own; it goes when the value is
//! dropped, also by a panic, and a guard process removes it should the tests themselves be killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectError, ConnectOptions};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use self::container::Container;
use self::process::Process;

pub(crate) mod cluster;
mod container;
mod process;

/// The image of the Docker backend.
const IMAGE: &str = "nats:2.15-alpine";

/// How long a server may take until it greets; a container on a busy machine takes seconds.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A configuration with JetStream and nothing else.
pub(crate) const JETSTREAM: &str = "jetstream: enabled\n";

/// Where a nats-server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    Docker,
    Binary(PathBuf),
}

/// What one server is started with.
#[derive(Debug, Clone, Default)]
struct Settings {
    config: String,
    env: Vec<(String, String)>,
    /// The Docker network and the server's name in it.
    network: Option<(String, String)>,
}

/// One running, paused or stopped server.
#[derive(Debug)]
enum Backend {
    Process(Process),
    Container(Container),
}

/// A nats-server that belongs to one test.
#[derive(Debug)]
pub(crate) struct Nats {
    backend: Backend,
    port: u16,
}

/// A server about to be started.
#[derive(Debug)]
pub(crate) struct Builder(Settings);

impl Builder {
    /// Sets an environment variable, which a configuration reads as `$NAME`.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it greets.
    pub(crate) async fn start(self) -> Nats {
        let choice = choice();
        let mut last = String::new();
        // Another process may take the port between its choice and its use.
        for _ in 0..5 {
            let port = free_port();
            let backend = match choice {
                Choice::Docker => Container::start(&self.0, port)
                    .await
                    .map(Backend::Container),
                Choice::Binary(path) => Process::start(path, &self.0, port).map(Backend::Process),
            };
            let mut nats = match backend {
                Ok(backend) => Nats { backend, port },
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match nats.greeted().await {
                Ok(()) => return nats,
                Err(error) => last = error,
            }
        }
        panic!("no nats-server could be started: {last}");
    }
}

impl Nats {
    /// A server with the configuration text `config`. Address, port and store are added to it; a
    /// configuration that names its store says `store_dir: $NATS_STORE_DIR`.
    pub(crate) fn builder(config: &str) -> Builder {
        Builder(Settings {
            config: config.to_owned(),
            ..Settings::default()
        })
    }

    /// Starts a server with the configuration text `config`.
    pub(crate) async fn start(config: &str) -> Self {
        Self::builder(config).start().await
    }

    /// Starts a server with JetStream and no authentication.
    pub(crate) async fn jetstream() -> Self {
        Self::start(JETSTREAM).await
    }

    /// The port on 127.0.0.1; it stays over restarts.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `nats://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A client of the server, without credentials.
    pub(crate) async fn connect(&self) -> Client {
        let client = async_nats::connect(self.url()).await;
        client.expect("the server takes a client without credentials")
    }

    /// A client with credentials and an inbox prefix of its own.
    ///
    /// # Errors
    /// As async-nats says it, above all where the server refuses the credentials.
    pub(crate) async fn connect_as(
        &self,
        user: &str,
        password: &str,
        inbox_prefix: &str,
    ) -> Result<Client, ConnectError> {
        ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            .custom_inbox_prefix(inbox_prefix)
            .connect(self.url())
            .await
    }

    /// The URL with credentials in it, for Herald's `nats.url`. (async-nats takes no credentials from
    /// a URL: see [`Nats::connect_as`].)
    pub(crate) fn url_for(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// The end of what it has logged.
    pub(crate) fn log(&self) -> String {
        match &self.backend {
            Backend::Process(process) => process.log_end(),
            Backend::Container(container) => container.log_end(),
        }
    }

    /// Stops it the orderly way and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        match &mut self.backend {
            Backend::Process(process) => process.stop().await,
            Backend::Container(container) => container.stop().await,
        }
    }

    /// Ends it at once (SIGKILL), also when paused.
    pub(crate) async fn kill(&mut self) {
        match &mut self.backend {
            Backend::Process(process) => process.kill().await,
            Backend::Container(container) => container.kill().await,
        }
    }

    /// Starts it after [`Nats::stop`] or [`Nats::kill`]: same port, same store, same configuration.
    pub(crate) async fn start_again(&mut self) {
        let started = match &mut self.backend {
            Backend::Process(process) => process.start_again(),
            Backend::Container(container) => container.start_again().await,
        };
        if let Err(error) = started {
            panic!("nats-server does not start again: {error}");
        }
        if let Err(error) = self.greeted().await {
            panic!("nats-server does not come back: {error}");
        }
    }

    /// Stops it the orderly way and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Has it read another configuration, while it runs.
    pub(crate) async fn reload(&self, config: &str) {
        // It takes the name from its arguments at the start alone, and refuses another one.
        let config = format!("{config}\nserver_name: {}\n", server_name(self.port));
        match &self.backend {
            Backend::Process(process) => process.reload(&config),
            Backend::Container(container) => container.reload(&config).await,
        }
    }

    /// A copy of what it has stored. To be taken while it is stopped.
    pub(crate) async fn copy_store(&self) -> TempDir {
        let copy = folder();
        let copied = match &self.backend {
            Backend::Process(process) => process.copy_store(copy.path()).await,
            Backend::Container(container) => container.copy_store(copy.path()).await,
        };
        copied.expect("the store is copied");
        copy
    }

    /// Has it go back to what it had stored then. To be done while it is stopped.
    pub(crate) async fn put_store_back(&mut self, copy: &TempDir) {
        let put_back = match &self.backend {
            Backend::Process(process) => process.put_store_back(copy.path()).await,
            Backend::Container(container) => container.put_store_back(copy.path()).await,
        };
        put_back.expect("the store is put back");
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub(crate) async fn pause(&mut self) {
        match &mut self.backend {
            Backend::Process(process) => process.pause(),
            Backend::Container(container) => container.pause().await,
        }
    }

    /// Lets it go on after [`Nats::pause`].
    pub(crate) async fn resume(&mut self) {
        match &mut self.backend {
            Backend::Process(process) => process.resume(),
            Backend::Container(container) => container.resume().await,
        }
    }

    /// Waits for the server's first line, `INFO {…}`, which it sends when it is ready.
    async fn greeted(&mut self) -> Result<(), String> {
        let start = Instant::now();
        let name = server_name(self.port);
        while start.elapsed() < START_PATIENCE {
            if greets(self.port, &name).await {
                return Ok(());
            }
            let ended = match &mut self.backend {
                Backend::Process(process) => process.ended(),
                Backend::Container(container) => container.ended().await,
            };
            if let Some(log) = ended {
                return Err(log);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("it did not greet within {START_PATIENCE:?}"))
    }
}

/// Whether the server `name` greets on `port`. Docker's proxy takes connections before the server
/// does, and another process' server may have taken the port before ours did.
async fn greets(port: u16, name: &str) -> bool {
    let greeting = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut line = String::new();
        let mut stream = BufReader::new(stream).take(64 * 1024);
        stream.read_line(&mut line).await.ok()?;
        let ours = format!("\"server_name\":\"{name}\"");
        (line.starts_with("INFO ") && line.contains(&ours)).then_some(())
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(1), greeting).await,
        Ok(Some(()))
    )
}

/// The name of the server at `port`, which no other server of any running test has.
fn server_name(port: u16) -> String {
    format!("herald-test-{}-{port}", std::process::id())
}

/// A port that nobody listens on and that this process has not given out before. It lies below the
/// range from which systems take ports for outgoing connections, so that it is still free for a
/// restart.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Test processes that run at the same time begin at places of their own.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(7919) % COUNT));
    for _ in 0..COUNT {
        let offset = next.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("a port number");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// The backend of this test run, said once on standard error.
pub(crate) fn choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let wish = std::env::var("HERALD_TEST_NATS").unwrap_or_default();
        let choice = match wish.as_str() {
            "docker" => Choice::Docker,
            "binary" => Choice::Binary(find_binary()),
            "" if docker_answers() => Choice::Docker,
            "" => Choice::Binary(find_binary()),
            other => panic!("HERALD_TEST_NATS is `{other}`: set docker or binary, or nothing"),
        };
        let place = match &choice {
            Choice::Docker => format!("in Docker ({IMAGE})"),
            Choice::Binary(path) => format!("at {}", path.display()),
        };
        // Not eprintln, which the test runner keeps to itself while tests pass.
        let _ = writeln!(std::io::stderr(), "tests use the nats-server {place}");
        choice
    })
}

/// Whether a Docker engine answers, asked in a way that cannot hang for long.
fn docker_answers() -> bool {
    let Ok(mut child) = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return false,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// The nats-server binary: named by the environment, in `.tools/`, or on `PATH`.
fn find_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HERALD_TEST_NATS_SERVER") {
        return PathBuf::from(path);
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let search = std::env::var_os("PATH").unwrap_or_default();
    [tools.clone(), tools.join("bin")]
        .into_iter()
        .chain(std::env::split_paths(&search))
        .map(|folder| folder.join("nats-server"))
        .find(|path| path.is_file())
        .expect(
            "no nats-server: put one on PATH or in .tools/, or name it in HERALD_TEST_NATS_SERVER",
        )
}

/// A process that runs `command` when this one dies without having dropped the guard: it reads
/// from a pipe that closes with us.
#[derive(Debug)]
pub(crate) struct Guard(std::process::Child);

impl Guard {
    pub(crate) fn new(command: &str) -> Self {
        let script = format!("trap '' INT TERM HUP; read _; {command} >/dev/null 2>&1");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        Self(child)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of one server.
fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("herald-test-nats-")
        .tempdir()
        .expect("a temporary folder")
}
