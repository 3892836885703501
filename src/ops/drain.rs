//! The end of a gateway: everything stored until the drain is written, then sockets are closed with
//! 1012, spread over a window so that their clients do not come back all at once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::closing;
use crate::codes::CloseReason;
use crate::room::Rooms;
use crate::server::Acceptor;
use crate::socket::Writer;

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
    let behind = closing::catch_up(rooms, rooms.all()).await;
    let behind = join_all(behind.iter().map(async |room| room.writers().await.len()));
    let sockets = behind.await.into_iter().sum::<usize>();
    if sockets > 0 {
        rooms.context().metrics.closed_behind(sockets as u64);
        warn!(
            sockets,
            "draining without the last stored events, nats does not answer"
        );
    }
}

/// Closes every socket within `window`.
pub(super) async fn close_all(rooms: &Rooms, window: Duration) {
    let writers = writers(rooms).await;
    info!(sockets = writers.len(), "closing sockets");
    let start = Instant::now();
    let count = u32::try_from(writers.len()).unwrap_or(u32::MAX).max(1);
    for (index, writer) in (0u32..).zip(writers) {
        sleep_until(start + window / count * index).await;
        writer.end_after(CloseReason::Restart);
    }
}

/// Waits until all `sockets` have ended, for [`LAST_SOCKETS`] at most.
pub(super) async fn ended(rooms: &Rooms, sockets: &TaskTracker) {
    sockets.close();
    let mut look = interval(LATECOMERS);
    let all = timeout(LAST_SOCKETS, async {
        while !sockets.is_empty() {
            tokio::select! {
                () = sockets.wait() => {}
                _ = look.tick() => {
                    // A socket that is closing already keeps its first reason.
                    for writer in writers(rooms).await {
                        writer.end_after(CloseReason::Restart);
                    }
                }
            }
        }
    });
    if all.await.is_err() {
        warn!("some sockets did not end in time");
    }
}

/// The queues of all sockets there are.
async fn writers(rooms: &Rooms) -> Vec<Writer> {
    let all = rooms.all();
    join_all(all.iter().map(|room| room.writers()))
        .await
        .into_iter()
        .flatten()
        .collect()
}
