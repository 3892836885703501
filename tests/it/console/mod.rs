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
use crate::support::publisher::Publisher;

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
    // Before the folders, which it uses.
    _running: Running,
    folders: [tempfile::TempDir; 2],
    /// The address of the page.
    page: String,
    nats: String,
    /// The addresses of the listeners, as a file has them.
    listeners: String,
}

impl DevRun {
    async fn start() -> Self {
        taken_ports();
        Self::start_in([tempfile::tempdir().unwrap(), path_of_backend()]).await
    }

    async fn start_in(folders: [tempfile::TempDir; 2]) -> Self {
        let [folder, path] = &folders;
        let running = dev(folder.path(), path.path(), &["--json"]);
        let printed = eventually(BROWSER_PATIENCE, async || running.out().ends_with('\n'));
        assert!(printed.await, "{}", running.err());
        let told: Value = serde_json::from_str(&running.out()).unwrap();
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        let address = |name: &str| {
            let url = text(name);
            url.split('/').nth(2).unwrap_or_default().to_owned()
        };
        Self {
            page: text("page"),
            nats: text("nats"),
            listeners: format!(
                "[server]\nlisten = \"{}\"\nadmin_listen = \"{}\"\n",
                address("url"),
                address("admin")
            ),
            _running: running,
            folders,
        }
    }

    /// Who publishes past the page.
    async fn publisher(&self) -> Publisher {
        let nats = async_nats::connect(&self.nats).await;
        Publisher::over(nats.expect("it runs"))
    }

    /// Ends it, and starts another one at the same addresses.
    async fn again(self) -> Self {
        let Self {
            _running,
            folders,
            listeners,
            ..
        } = self;
        drop(_running);
        std::fs::write(folders[0].path().join("herald.toml"), listeners).unwrap();
        Self::start_in(folders).await
    }
}

/// The script of axe, which judges a page for people who do not see or use a mouse.
async fn axe() -> String {
    let installed = tokio::task::spawn_blocking(install_packages);
    installed.await.expect("it is installed");
    let file = format!("{CLIENTS}/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(file).expect("axe-core") + ";0"
}
