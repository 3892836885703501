//! Closes the sockets of keys that are withdrawn: those that a reload takes away, and those that a key set no longer
//! has. Their clients get a new token, which another key signed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tracing::warn;

use super::closing::close_over;
use crate::auth::LOOK_INTERVAL;
use crate::codes::CloseReason;
use crate::room::Rooms;
use crate::server::{Directory, OpenSocket};
use crate::setup::LiveSettings;

/// The closes are spread over this time: each client asks its issuer for a token.
const WINDOW: Duration = Duration::from_secs(60);

/// Looks for withdrawn keys, for ever: after each reload, and in key files.
pub(super) async fn watch(live: LiveSettings, rooms: Rooms, directory: Arc<Directory>) {
    let mut replaced = live.replaced();
    let mut look = interval(LOOK_INTERVAL);
    let mut closing = FuturesUnordered::new();
    loop {
        let has_withdrawn = tokio::select! {
            // Its sender is in the settings, which are here.
            Ok(()) = replaced.changed() => true,
            _ = look.tick() => {
                let setup = live.now();
                let looked = spawn_blocking(move || setup.verifier.look(Instant::now()));
                // It is looked again soon.
                looked.await.unwrap_or(false)
            }
            Some(()) = closing.next() => false,
        };
        if has_withdrawn {
            closing.push(close_withdrawn(&live, &rooms, &directory));
        }
    }
}

async fn close_withdrawn(live: &LiveSettings, rooms: &Rooms, directory: &Directory) {
    let is_withdrawn = |socket: &OpenSocket| !live.now().verifier.trusts(&socket.credential());
    let sessions = directory.select(is_withdrawn).await;
    if sessions.is_empty() {
        return;
    }
    let sockets = sessions.len();
    warn!(
        sockets,
        "keys withdrawn, their sockets are closed within a minute"
    );
    let reason = CloseReason::TokenExpired;
    // A socket that gets a token of another key meanwhile stays, and so does one whose key is back.
    close_over(rooms, directory, sessions, reason, WINDOW, is_withdrawn).await;
}
