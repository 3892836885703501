//! A Prometheus that belongs to one test, and promtool.
//!
//! They are looked for on `PATH`; where `HERALD_TEST_PROMETHEUS` is set, they must be there.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use super::gateway::{self, Gateway};
use super::program;

/// `prometheus` or `promtool`; `None`, and a line that says so, where there is none to be had.
pub(crate) fn command(name: &str) -> Option<PathBuf> {
    program(
        name,
        "HERALD_TEST_PROMETHEUS",
        "Debian: apt install prometheus",
    )
}

/// A Prometheus that scrapes one gateway, and ends with the value.
#[derive(Debug)]
pub(crate) struct Prometheus {
    address: String,
    _folder: tempfile::TempDir,
    _process: tokio::process::Child,
}

impl Prometheus {
    pub(crate) async fn on(gateway: &Gateway) -> Option<Self> {
        let command = command("prometheus")?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = format!(
            "global: {{scrape_interval: 200ms}}\nscrape_configs:\n- job_name: herald\n  static_configs:\n  - targets: ['{}']\n",
            gateway.admin
        );
        let file = gateway::file(folder.path(), "prometheus.yml", config);
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("an address").port()
        };
        let address = format!("127.0.0.1:{port}");
        let process = tokio::process::Command::new(command)
            .arg(format!("--config.file={file}"))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        Some(Self {
            address,
            _folder: folder,
            _process: process,
        })
    }

    /// `GET` of its API.
    pub(crate) async fn api(&self, path: &str) -> Value {
        let (_, body) = gateway::get(&self.address, path).await;
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// The first value of a query's answer.
    pub(crate) async fn value(&self, query: &str) -> Option<f64> {
        let path: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = self.api(&format!("/api/v1/query?query={path}")).await;
        answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()
    }
}
