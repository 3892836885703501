//! Closes sockets from outside their rooms, spread over a window, so that their clients do not all come back at once.
//! Each gets what was stored before its close.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use crate::codes::CloseReason;
use crate::event::WorkspaceSlug;
use crate::room::{RoomHandle, Rooms, SessionId};
use crate::server::{Directory, OpenSocket};

/// How long the last reads may take. With NATS away it cannot be known what was stored.
const CATCH_UP: Duration = Duration::from_secs(5);
/// For the closes of this time together, the end of the stream is read once.
const BATCH: Duration = Duration::from_secs(1);

/// Closes the sockets of `sessions` with `reason`, evenly over `window`, in their order: that of the directory is
/// random. A socket is left alone if it is not `still` to be closed when its turn comes.
pub(super) async fn close_over(
    rooms: &Rooms,
    directory: &Directory,
    sessions: Vec<SessionId>,
    reason: CloseReason,
    window: Duration,
    still: impl Fn(&OpenSocket) -> bool,
) {
    let mut turns = turns(sessions, window).peekable();
    while let Some((first, _)) = turns.peek() {
        sleep_until(*first).await;
        // Now is later than its moment where NATS did not answer before.
        let batch_end = Instant::now() + BATCH;
        let (mut moments, mut batch) = (Vec::new(), Vec::new());
        while let Some((at, session)) = turns.next_if(|(at, _)| *at < batch_end) {
            // Not kept for longer than the batch takes: a socket that is kept keeps its connection.
            if let Some(socket) = directory.get(session)
                && still(&socket)
            {
                moments.push(at);
                batch.push(socket);
            }
        }
        let sockets = catch_up(rooms, &batch).await;
        if sockets > 0 {
            let code = reason.code();
            warn!(
                sockets,
                code, "sockets closed without the last stored events, nats does not answer"
            );
        }
        for (at, socket) in moments.into_iter().zip(batch) {
            sleep_until(at).await;
            if still(&socket) {
                socket.writer.end_after(reason);
            }
        }
    }
}

/// The moments at which `sessions` are closed within `window`, from now on.
pub(super) fn turns(
    sessions: Vec<SessionId>,
    window: Duration,
) -> impl Iterator<Item = (Instant, SessionId)> {
    let start = Instant::now();
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
    let moments = (0u32..).map(move |index| start + window / count * index);
    moments.zip(sessions)
}

/// Waits until everything stored before now waits at `sockets`, for [`CATCH_UP`] at most. Of how many it is not known:
/// they are counted. Those of workspaces that are slowed are logged, and not among these.
pub(super) async fn catch_up(rooms: &Rooms, sockets: &[Arc<OpenSocket>]) -> usize {
    let mut sockets_of_rooms: HashMap<&WorkspaceSlug, (&RoomHandle, usize)> = HashMap::new();
    for socket in sockets {
        let (_, sockets) = sockets_of_rooms
            .entry(socket.workspace())
            .or_insert((&socket.room, 0));
        *sockets += 1;
    }
    let deadline = Instant::now() + CATCH_UP;
    let end = timeout_at(deadline, rooms.stream_end()).await;
    let behind = join_all(sockets_of_rooms.into_values().map(async |(room, sockets)| {
        let is_behind = match end {
            Ok(Some(end)) => timeout_at(deadline, room.barrier(end.sequence))
                .await
                .is_err(),
            // The gateway is ending at once.
            Ok(None) => false,
            Err(_) => true,
        };
        if !is_behind {
            return 0;
        }
        rooms.context().metrics.closed_behind(sockets as u64);
        if room.is_slowed() {
            let workspace = room.workspace();
            warn!(%workspace, sockets, "sockets closed without the last stored events, their workspace is over its event rate");
            return 0;
        }
        sockets
    }));
    behind.await.into_iter().sum()
}
