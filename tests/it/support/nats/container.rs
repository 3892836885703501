//! A nats-server in a Docker container, which holds configuration and store so that no folder need
//! be shared with the engine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Guard, IMAGE, Settings, folder, server_name};

/// The label of every container that the tests make.
const LABEL: &str = "herald-test=nats";

/// One container; it exists until the value is dropped.
#[derive(Debug)]
pub(super) struct Container {
    name: String,
    guard: Option<Guard>,
}

/// A network in which containers know each other by name; it exists until the value is dropped.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    guard: Option<Guard>,
}

impl Network {
    pub(super) async fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("herald-test-{}-net-{count}", std::process::id());
        let network = Self {
            guard: Some(Guard::new(&format!("docker network rm {name}"))),
            name: name.clone(),
        };
        let arguments = ["network", "create", "--label", LABEL, &name].map(str::to_owned);
        if let Err(error) = docker(&arguments).await {
            panic!("docker network create: {error}");
        }
        network
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its containers are gone: they are dropped first.
        let _ = Command::new("docker")
            .args(["network", "rm", &self.name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        drop(self.guard.take());
    }
}

impl Container {
    /// Creates and starts the container and does not wait for the server in it.
    pub(super) async fn start(settings: &Settings, port: u16) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "herald-test-{}-{}-{port}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let publish = format!("127.0.0.1:{port}:4222");
        let mut arguments: Vec<String> = ["create", "--name", &name, "--label", LABEL]
            .map(str::to_owned)
            .to_vec();
        arguments.extend(["-p".to_owned(), publish]);
        arguments.extend(["-e".to_owned(), "NATS_STORE_DIR=/data".to_owned()]);
        if let Some((network, alias)) = &settings.network {
            let flags = ["--network", network, "--network-alias", alias];
            arguments.extend(flags.map(str::to_owned));
        }
        for (variable, value) in &settings.env {
            arguments.extend(["-e".to_owned(), format!("{variable}={value}")]);
        }
        arguments
            .extend([IMAGE, "-c", "/nats.conf", "-a", "0.0.0.0", "-p", "4222"].map(str::to_owned));
        arguments.extend(["-n".to_owned(), server_name(port)]);
        if !settings.config.contains("store_dir") {
            arguments.extend(["-sd", "/data"].map(str::to_owned));
        }
        // The guard comes first: whatever is made from here on is removed.
        let container = Self {
            guard: Some(Guard::new(&format!("docker rm -f -v {name}"))),
            name,
        };
        docker(&arguments).await?;
        container.configure(&settings.config).await?;
        container.docker("start").await?;
        Ok(container)
    }

    async fn configure(&self, config: &str) -> Result<(), String> {
        let folder = folder();
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        let target = format!("{}:/nats.conf", self.name);
        let copied = docker(&["cp".to_owned(), file.display().to_string(), target]).await;
        copied.map(drop)
    }

    pub(super) async fn reload(&self, config: &str) {
        self.configure(config).await.expect("it is copied");
        let kill = ["kill", "--signal", "HUP", &self.name].map(str::to_owned);
        docker(&kill).await.expect("it gets the signal");
    }

    pub(super) async fn start_again(&mut self) -> Result<(), String> {
        self.docker("start").await.map(drop)
    }

    /// The log's end, if the server has ended by itself.
    pub(super) async fn ended(&self) -> Option<String> {
        let format = "{{.State.Status}}".to_owned();
        let asked = [
            "inspect".to_owned(),
            "-f".to_owned(),
            format,
            self.name.clone(),
        ];
        match docker(&asked).await {
            Ok(status) if status.trim() == "exited" => Some(self.log_end()),
            Ok(_) => None,
            Err(error) => Some(error),
        }
    }

    pub(super) async fn stop(&mut self) {
        // A paused container takes no signals; one that is not paused refuses the first command.
        let _ = self.docker("unpause").await;
        self.must("stop").await;
    }

    pub(super) async fn kill(&mut self) {
        let _ = self.docker("unpause").await;
        self.must("kill").await;
        self.must("wait").await;
    }

    pub(super) async fn pause(&self) {
        self.must("pause").await;
    }

    pub(super) async fn resume(&self) {
        self.must("unpause").await;
    }

    pub(super) async fn copy_store(&self, to: &Path) -> std::io::Result<()> {
        let store = format!("{}:/data/.", self.name);
        self.copy(store, to.display().to_string()).await
    }

    /// What was stored since lies in the same files.
    pub(super) async fn put_store_back(&self, from: &Path) -> std::io::Result<()> {
        let store = format!("{}:/data", self.name);
        self.copy(format!("{}/.", from.display()), store).await
    }

    async fn copy(&self, from: String, to: String) -> std::io::Result<()> {
        let copied = docker(&["cp".to_owned(), "-a".to_owned(), from, to]).await;
        copied.map(drop).map_err(std::io::Error::other)
    }

    async fn must(&self, verb: &str) {
        if let Err(error) = self.docker(verb).await {
            panic!("docker {verb} {}: {error}", self.name);
        }
    }

    async fn docker(&self, verb: &str) -> Result<String, String> {
        docker(&[verb.to_owned(), self.name.clone()]).await
    }

    pub(super) fn log_end(&self) -> String {
        let output = Command::new("docker")
            .args(["logs", "--tail", "40", &self.name])
            .stdin(Stdio::null())
            .output();
        output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "end of the log of nats-server in {}:\n{}",
                self.name,
                self.log_end()
            );
        }
        let _ = Command::new("docker")
            .args(["rm", "-f", "-v", &self.name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        drop(self.guard.take());
    }
}

/// Runs the docker client to its end and returns its standard output.
async fn docker(arguments: &[String]) -> Result<String, String> {
    let output = tokio::process::Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("docker: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
