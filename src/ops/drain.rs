//! The end of a gateway: everything stored until the drain is written, then sockets are closed with
//! 1012, spread over a window so that their clients do not come back all at once.

use std::time::Duration;

use tokio::time::{interval, sleep_until, timeout};
use tracing::{info, warn};

use super::closing;
use crate::codes::CloseReason;
use crate::room::{Rooms, SessionId};
use crate::server::{Acceptor, Directory};

/// How long joins under way may take: they give up after 3 s.
const JOINS: Duration = Duration::from_secs(4);
/// How long sockets may take to end after the last close: the close frame's 5 s, the peer's 5 s, and 1 s
/// for the end of the connection.
const LAST_SOCKETS: Duration = Duration::from_secs(12);
/// How long the end may take to send the dead letters that wait. Whatever ends the gateway, telemetry ends
/// later, so that it reports what became of them.
pub(super) const DEAD_LETTERS: Duration = Duration::from_secs(2);
/// Pause between looks for joins that were under way when the acceptor closed.
const LATECOMERS: Duration = Duration::from_millis(250);

/// Waits until joins under way are done, then until everything stored before now waits at its sockets.
pub(super) async fn catch_up(rooms: &Rooms, acceptor: &Acceptor) {
    if timeout(JOINS, acceptor.settled()).await.is_err() {
        warn!("draining with joins under way");
    }
    let all = acceptor.directory().page(None, usize::MAX);
    let sockets = closing::catch_up(rooms, &all).await;
    if sockets > 0 {
        warn!(
            sockets,
            "draining without the last stored events, nats does not answer"
        );
    }
}

/// Closes every socket within `window`.
pub(super) async fn close_all(directory: &Directory, window: Duration) {
    let sessions = directory.select(|_| true).await;
    info!(sockets = sessions.len(), "closing sockets");
    for (at, session) in closing::turns(sessions, window) {
        sleep_until(at).await;
        end(directory, session);
    }
}

/// Waits until the tasks of all sockets have ended, for [`LAST_SOCKETS`] at most.
pub(super) async fn ended(acceptor: &Acceptor) {
    let (tasks, directory) = (acceptor.sockets(), acceptor.directory());
    tasks.close();
    let mut look = interval(LATECOMERS);
    let all = timeout(LAST_SOCKETS, async {
        while !tasks.is_empty() {
            tokio::select! {
                () = tasks.wait() => {}
                _ = look.tick() => {
                    for session in directory.select(|_| true).await {
                        end(directory, session);
                    }
                }
            }
        }
    });
    if all.await.is_err() {
        warn!("some sockets did not end in time");
    }
}

/// Ends the socket, if it is still there. One that is closing already keeps its first reason.
fn end(directory: &Directory, session: SessionId) {
    if let Some(socket) = directory.get(session) {
        socket.writer.end_after(CloseReason::Restart);
    }
}
