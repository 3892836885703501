//! The page at `/console`: what it shows, and whom it refuses.

mod refused;

use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;

const ADMIN_TOKEN: &str = "0123456789-token-of-the-operator";

/// A gateway that serves the page, and the folder of its token.
async fn gateway_with_console(nats: &Nats) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), "token", format!("{ADMIN_TOKEN}\n"));
    let gateway = Gateway::builder(nats)
        .set("server.admin_token_file", path)
        .set("server.console", true)
        .set("server.console_hosts", "console.example.com")
        .ready()
        .await;
    (gateway, folder)
}
