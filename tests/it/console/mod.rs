//! The page at `/console`: what it shows, and whom it refuses.

mod attack;
mod first;
mod refused;

use serde_json::Value;

use crate::dev::{Running, dev, path_of_backend, taken_ports};
use crate::support::clients::{CLIENTS, install_packages};
use crate::support::devtools::BROWSER_PATIENCE;
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway, file};
use crate::support::nats::Nats;

const ADMIN_TOKEN: &str = "0123456789-token-of-the-operator";

/// Has a gateway serve the page; and the folder of its token.
fn with_console(builder: Builder) -> (Builder, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), "token", format!("{ADMIN_TOKEN}\n"));
    let builder = builder
        .set("server.admin_token_file", path)
        .set("server.console", true)
        .set("server.console_hosts", "console.example.com");
    (builder, folder)
}

async fn gateway_with_console(nats: &Nats) -> (Gateway, tempfile::TempDir) {
    let (builder, folder) = with_console(Gateway::builder(nats));
    (builder.ready().await, folder)
}

/// The title of the newest notification that the page shows.
const NOTIFICATION: &str = "document.querySelector('[role=log] article h3')?.textContent ?? null";

/// A running `herald dev`.
struct DevRun {
    _running: Running,
    _folders: [tempfile::TempDir; 2],
    /// The address of the page.
    page: String,
    nats: String,
}

impl DevRun {
    async fn start() -> Self {
        taken_ports();
        let (folder, path) = (tempfile::tempdir().unwrap(), path_of_backend());
        let running = dev(folder.path(), path.path(), &["--json"]);
        let printed = eventually(BROWSER_PATIENCE, async || running.out().ends_with('\n'));
        assert!(printed.await, "{}", running.err());
        let told: Value = serde_json::from_str(&running.out()).unwrap();
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        Self {
            page: text("page"),
            nats: text("nats"),
            _running: running,
            _folders: [folder, path],
        }
    }
}

/// The script of axe, which judges a page for people who do not see or use a mouse.
async fn axe() -> String {
    let installed = tokio::task::spawn_blocking(install_packages);
    installed.await.expect("it is installed");
    let file = format!("{CLIENTS}/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(file).expect("axe-core") + ";0"
}
