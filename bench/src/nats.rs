//! A nats-server of the benchmark's own, with the objects that `herald migrate` makes.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Error;

const PATIENCE: Duration = Duration::from_secs(20);

/// A nats-server, which ends with the value.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    /// Store and log.
    folder: TempDir,
    pub port: u16,
    pub websocket_port: u16,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, Error> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.map_err(|error| Error::of("no free port", error))?;
    Ok(port.port())
}

/// `name` in `.tools`, where the tests' prerequisites are, or on the PATH.
pub fn find(name: &str) -> PathBuf {
    let tools = [".tools", ".tools/bin"].map(|folder| Path::new(folder).join(name));
    let found = tools.into_iter().find(|file| file.exists());
    // The targets have folders of their own.
    let found = found.and_then(|file| std::path::absolute(file).ok());
    found.unwrap_or_else(|| PathBuf::from(name))
}

impl Nats {
    /// Starts one and waits until it answers. `herald`: the binary that makes the objects.
    ///
    /// # Errors
    /// Where a program is missing, or does not start.
    pub async fn start(server: &Path, herald: &Path) -> Result<(Self, async_nats::Client), Error> {
        let folder = tempfile::Builder::new().prefix("herald-bench-").tempdir();
        let folder = folder.map_err(|error| Error::of("no folder for nats-server", error))?;
        let (port, websocket_port) = (free_port()?, free_port()?);
        // A burst is more than the 10,000 messages that a stream queues by default, and the publisher waits for none.
        let settings = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             jetstream {{ store_dir: \"{}\", max_buffered_msgs: 1000000, max_buffered_size: 2147483648 }}\n\
             max_pending: 268435456\n\
             websocket {{ listen: \"127.0.0.1:{websocket_port}\", no_tls: true }}\n",
            folder.path().join("store").display()
        );
        let file = folder.path().join("nats.conf");
        let log = std::fs::write(&file, settings)
            .and_then(|()| std::fs::File::create(folder.path().join("log")))
            .map_err(|error| Error::of("cannot write nats.conf", error))?;
        let child = Command::new(server)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C in a terminal is for the benchmark: this one ends after its clients.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Error::Failed(format!(
                    "{} cannot be started: {error}; name nats-server 2.12 or newer with --nats-server",
                    server.display()
                ))
            })?;
        let mut nats = Self {
            child,
            folder,
            port,
            websocket_port,
        };
        let client = nats.connected().await?;
        nats.migrate(herald)?;
        Ok((nats, client))
    }

    /// The address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    async fn connected(&mut self) -> Result<async_nats::Client, Error> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            // A whole burst waits here rather than the publisher.
            let options = async_nats::ConnectOptions::new().client_capacity(1 << 16);
            match options.connect(self.url()).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > give_up || self.has_ended() => {
                    let log = std::fs::read_to_string(self.folder.path().join("log"));
                    let log = log.unwrap_or_default();
                    let last = log.lines().last().unwrap_or_default();
                    return Err(Error::of(
                        "nats-server does not answer",
                        format!("{error}: {last}"),
                    ));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    fn migrate(&self, herald: &Path) -> Result<(), Error> {
        let output = Command::new(herald)
            .arg("migrate")
            .current_dir(self.folder.path())
            .env("HERALD_NATS__URL", self.url())
            .output()
            .map_err(|error| {
                Error::Failed(format!(
                    "{} cannot be started: {error}; name the gateway's binary with --herald",
                    herald.display()
                ))
            })?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Error::of("herald migrate failed", why.trim()))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
