//! A server to measure: a process that is started for each measurement, by the contract in `bench/README.md`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tempfile::TempDir;

use crate::Error;
use crate::http::Endpoint;
use crate::slot::{Manner, SocketPlan, request};
use crate::tokens::Signer;
use crate::wire::{Address, Url};

/// How long a target may take until it is ready, and until it has ended.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(20);

/// Which program is a target: a folder of the peers and, for one with several versions, its binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub label: String,
    folder: String,
    binary: Option<PathBuf>,
}

impl Name {
    /// The folder of the peers.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// `floor`, or `herald=/path/of/another/herald`. `None`: it names no folder.
    pub fn parse(text: &str) -> Option<Self> {
        let (folder, binary) = match text.split_once('=') {
            Some((folder, binary)) => (folder, Some(std::path::absolute(binary).ok()?)),
            None => (text, None),
        };
        let is_name = !folder.is_empty() && !folder.contains(['/', '.']);
        // A report is shown to others, whom a path tells nothing.
        let file = binary
            .as_ref()
            .and_then(|binary: &PathBuf| binary.file_name());
        let file = file.map(|file| format!("={}", file.to_string_lossy()));
        is_name.then(|| Self {
            label: format!("{folder}{}", file.unwrap_or_default()),
            folder: folder.to_owned(),
            binary,
        })
    }
}

/// What a target says when it is ready.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Missing { missing: String },
    Ready(Box<Ready>),
}

#[derive(Deserialize)]
struct Ready {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    subprotocol: Option<String>,
    #[serde(default)]
    hello: Vec<String>,
    #[serde(default)]
    pong: Option<Pong>,
    #[serde(default)]
    publish: Option<Endpoint>,
    server: Vec<u32>,
    #[serde(default)]
    bridge: Vec<u32>,
    #[serde(default)]
    certificate: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Pong {
    on: String,
    answer: String,
}

/// Where and for what a target is started.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The folder of the targets.
    pub peers: &'a Path,
    pub herald: &'a Path,
    pub nats_url: &'a str,
    pub nats_websocket_port: u16,
    pub nats: u32,
    pub nats_server: &'a Path,
    pub scenario: &'a str,
}

/// A target that is ready. It ends with the value.
pub struct Target {
    child: Child,
    ready: Box<Ready>,
    pong: Option<Arc<(Vec<u8>, String)>>,
    tls: Option<Arc<ClientConfig>>,
    _folder: TempDir,
}

/// What came of a start.
pub enum Started {
    Ready(Box<Target>),
    /// It is not installed; the text says what is missing.
    Missing(String),
}

impl Target {
    /// Starts the target and waits until it is ready.
    ///
    /// # Errors
    /// Where it fails.
    pub fn start(name: &Name, setting: &Setting<'_>, signer: &Signer) -> Result<Started, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::of(&name.label, error);
        let program = setting.peers.join(&name.folder).join("run");
        if !program.exists() {
            let why = format!("there is no {}: see --peers", program.display());
            return Ok(Started::Missing(why));
        }
        let program = program.canonicalize().map_err(|e| failed(&e))?;
        let folder = tempfile::Builder::new().prefix("herald-bench-").tempdir();
        let folder = folder.map_err(|e| failed(&e))?;
        let herald = name.binary.as_deref().unwrap_or(setting.herald);
        let mut command = Command::new(program);
        command
            .current_dir(folder.path())
            .env("BENCH_NATS_URL", setting.nats_url)
            .env(
                "BENCH_NATS_WS_PORT",
                setting.nats_websocket_port.to_string(),
            )
            .env("BENCH_NATS_PID", setting.nats.to_string())
            .env("BENCH_NATS_SERVER", setting.nats_server)
            .env("BENCH_PORT", crate::nats::free_port()?.to_string())
            .env("BENCH_PUBLISH_PORT", crate::nats::free_port()?.to_string())
            .env("BENCH_SCENARIO", setting.scenario)
            .env("BENCH_DIR", folder.path())
            .env("BENCH_HERALD", herald)
            .env("HERALD_BIN", herald)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal is for the benchmark, which ends its targets itself.
            .process_group(0);
        let key = folder.path().join("public.pem");
        if signer.write_public(&key)? {
            command.env("BENCH_PUBLIC_KEY", key);
        }
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let line = first_line(&mut child);
        let answer = line.and_then(|line| {
            serde_json::from_str(&line).map_err(|error| format!("{error}, in its line: {line}"))
        });
        match answer {
            Err(error) => {
                end(&mut child);
                Err(failed(&error))
            }
            Ok(Answer::Missing { missing }) => {
                end(&mut child);
                Ok(Started::Missing(missing))
            }
            Ok(Answer::Ready(mut ready)) => {
                let pong = ready.pong.take();
                let mut target = Self {
                    child,
                    pong: pong
                        .map(|pong| Arc::new((pong.on.trim().as_bytes().to_vec(), pong.answer))),
                    tls: None,
                    ready,
                    _folder: folder,
                };
                if let Some(file) = &target.ready.certificate {
                    target.tls = Some(trusting(file).map_err(|e| failed(&e))?);
                }
                Ok(Started::Ready(Box::new(target)))
            }
        }
    }

    /// # Errors
    /// Where it has ended by itself; it has said why.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(Error::Failed("the target ended by itself".to_owned())),
        }
    }

    /// The processes of the server.
    pub fn server(&self) -> &[u32] {
        &self.ready.server
    }

    /// Where it takes events by HTTP.
    ///
    /// # Errors
    /// Where it does not.
    pub fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = self.ready.publish.clone();
        endpoint.ok_or_else(|| Error::Failed("the target takes no events by HTTP".to_owned()))
    }

    /// The processes between NATS and the server.
    pub fn bridge(&self) -> &[u32] {
        &self.ready.bridge
    }

    /// A client of this target.
    ///
    /// # Errors
    /// Where the target's address is none, or no token can be signed.
    pub fn plan(
        &self,
        signer: &Signer,
        (workspace, user, room): (&str, &str, u32),
        measured: bool,
        manner: Manner,
    ) -> Result<SocketPlan, Error> {
        let token = signer.token(user, workspace)?;
        let filled = |text: &str| {
            let text = text.replace("{workspace}", workspace);
            text.replace("{user}", user).replace("{token}", &token)
        };
        let url = filled(&self.ready.url);
        let parts = Url::parse(&url).ok_or(Error::Failed("a target's url is none".to_owned()))?;
        let headers = self.ready.headers.iter();
        let headers = headers
            .map(|(name, value)| (name.clone(), filled(value)))
            .collect();
        let subprotocol = self.ready.subprotocol.as_deref();
        Ok(SocketPlan {
            address: Address::of(&url, self.tls.as_ref()).map_err(Error::Failed)?,
            request: request(parts.authority, &parts.path, subprotocol, &headers),
            hello: self.ready.hello.iter().map(|text| filled(text)).collect(),
            pong: self.pong.clone(),
            room,
            measured,
            manner,
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Closes the standard input of a target and waits for its end.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let give_up = Instant::now() + END;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > give_up {
            // It does not keep to the contract. It may have ended meanwhile.
            child.kill().unwrap_or_default();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The first line that a target prints, within the time that it has.
fn first_line(child: &mut Child) -> Result<String, String> {
    let output = child.stdout.take().ok_or("no standard output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        // Nobody waits any more if it took too long.
        sender.send(read.map(|_| line)).unwrap_or_default();
        // What else it prints is read, so that it never waits for that.
        std::io::copy(&mut output, &mut std::io::sink())
            .map(drop)
            .unwrap_or_default();
    });
    match receiver.recv_timeout(START) {
        Ok(Ok(line)) if !line.trim().is_empty() => Ok(line),
        Ok(Ok(_)) => Err("it ended without a word on standard output".to_owned()),
        Ok(Err(error)) => Err(format!("cannot read what it says: {error}")),
        Err(_) => Err(format!("it was not ready within {} s", START.as_secs())),
    }
}

/// Trusts the certificates in `file` and no other.
fn trusting(file: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file);
    for certificate in certificates.map_err(|error| format!("{}: {error}", file.display()))? {
        let certificate = certificate.map_err(|error| format!("{}: {error}", file.display()))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
