//! What a real client meets: a gateway with TLS, NATS with the permissions of production, and a
//! publisher with nats.js.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::clients::script::Script;
use super::clients::{CLIENTS, folder_with_packages, node};
use super::command::finish;
use super::contract::Text;
use super::gateway::{Builder, Gateway};
use super::production::Production;
use super::tls::Certificates;

/// A gateway and all around it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) production: Production,
    pub(crate) certificates: Certificates,
    folder: TempDir,
    scripts: AtomicUsize,
}

impl Stage {
    /// A ready gateway with TLS.
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// A ready gateway with TLS and other settings.
    pub(crate) async fn with(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let production = Production::migrated().await;
        let certificates = Certificates::new();
        let config = production.config("gateway");
        let builder = Gateway::without_nats()
            .set("nats.url", config.url.expose())
            .set("nats.inbox_prefix", &config.inbox_prefix)
            .set("nats.migrate", false)
            .tls(&certificates);
        Self {
            gateway: settings(builder).ready().await,
            production,
            certificates,
            folder: folder_with_packages(),
            scripts: AtomicUsize::new(0),
        }
    }

    /// Publishes `[[event, payload], …]` in this order, as a runtime would.
    pub(crate) async fn publish(&self, events: &Value) {
        let mut publish = tokio::process::Command::from(node());
        publish
            .arg(Path::new(CLIENTS).join("publish.mjs"))
            .arg(events.to_string())
            .envs(self.production.publisher("runtime"));
        finish(publish).await.ok();
    }

    /// Runs a snippet in Node. `fetchAccessToken` gives it these tokens, one after the other.
    pub(crate) fn run(&self, snippet: &Text, tokens: &[String]) -> Script {
        self.node(
            &self.write(snippet),
            &[],
            &[("HERALD_TEST_TOKENS", &json!(tokens).to_string())],
        )
    }

    /// The same with the WebSocket of `ws`, which tells of failed handshakes as browsers do.
    pub(crate) fn run_with_ws(&self, snippet: &Text, tokens: &[String]) -> Script {
        let tokens = json!(tokens).to_string();
        let environment = [
            ("HERALD_TEST_TOKENS", tokens.as_str()),
            ("HERALD_TEST_WEBSOCKET", "ws"),
        ];
        self.node(&self.write(snippet), &[], &environment)
    }

    /// Serves a page that runs each snippet in a frame of a browser. `fetchAccessToken` gives each of
    /// them these tokens.
    pub(crate) fn page(&self, snippets: &[Text], tokens: &[String]) -> Script {
        let files: Vec<String> = snippets
            .iter()
            .map(|snippet| self.write(snippet).display().to_string())
            .collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let tokens = json!(tokens).to_string();
        let page = Path::new(CLIENTS).join("page.mjs");
        self.node(&page, &files, &[("HERALD_TEST_TOKENS", &tokens)])
    }

    /// Renders the React snippet; its token is what the script is told.
    pub(crate) fn render(&self, snippet: &Text, mode: &str) -> Script {
        let file = self.write(snippet).display().to_string();
        self.node(&Path::new(CLIENTS).join("react.mjs"), &[&file, mode], &[])
    }

    /// The text as a script in a file of its own.
    pub(crate) fn write(&self, text: &Text) -> PathBuf {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.path().join(format!("{number}.mjs"));
        std::fs::write(&file, &text.0).expect("a file");
        file
    }

    fn node(&self, script: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Script {
        let mut node = node();
        node.arg("--import")
            .arg(Path::new(CLIENTS).join("observe.mjs"))
            .arg(script)
            .args(arguments)
            .env("NODE_EXTRA_CA_CERTS", self.certificates.authority())
            .envs(environment.iter().copied());
        Script::start(node)
    }
}
