//! Closes sockets from outside their rooms, spread over a window, so that their clients do not all come back at once.
//! Each gets what was stored before its close.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use crate::codes::CloseReason;
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
    let start = Instant::now();
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
    let mut turns = (0u32..)
        .map(|index| start + window / count * index)
        .zip(sessions)
        .peekable();
    while let Some((first, _)) = turns.peek() {
        let batch_end = *first + BATCH;
        sleep_until(*first).await;
        let mut batch = Vec::new();
        while let Some((at, session)) = turns.next_if(|(at, _)| *at < batch_end) {
            // Not kept for longer than the batch takes: a socket that is kept keeps its connection.
            let socket = directory.get(session).filter(|socket| still(socket));
            batch.extend(socket.map(|socket| (at, socket)));
        }
        warn_if_behind(rooms, reason, &batch).await;
        for (at, socket) in batch {
            sleep_until(at).await;
            if still(&socket) {
                socket.writer.end_after(reason);
            }
        }
    }
}

/// Waits until everything stored before now waits at the sockets of `batch`. What of it may be missing is counted.
async fn warn_if_behind(rooms: &Rooms, reason: CloseReason, batch: &[(Instant, Arc<OpenSocket>)]) {
    let mut handles: Vec<&RoomHandle> = batch.iter().map(|(_, socket)| &socket.room).collect();
    handles.sort_unstable_by_key(|room| room.workspace());
    handles.dedup_by_key(|room| room.workspace());
    let behind = catch_up(rooms, handles.into_iter().cloned().collect()).await;
    let is_behind = |socket: &OpenSocket| {
        behind
            .iter()
            .any(|room| room.workspace() == socket.workspace())
    };
    let sockets = batch.iter().filter(|(_, socket)| is_behind(socket)).count();
    if sockets > 0 {
        rooms.context().metrics.closed_behind(sockets as u64);
        let code = reason.code();
        warn!(
            sockets,
            code, "sockets closed without the last stored events, nats does not answer"
        );
    }
}

/// Waits until everything stored before now waits at the sockets of `handles`, for [`CATCH_UP`] at most; the rooms of
/// which it is not known.
pub(super) async fn catch_up(rooms: &Rooms, handles: Vec<RoomHandle>) -> Vec<RoomHandle> {
    let deadline = Instant::now() + CATCH_UP;
    let end = match timeout_at(deadline, rooms.stream_end()).await {
        Ok(Some(end)) => end,
        // The gateway is ending at once.
        Ok(None) => return Vec::new(),
        Err(_) => return handles,
    };
    let behind = join_all(handles.into_iter().map(async |room| {
        let caught_up = timeout_at(deadline, room.barrier(end.sequence)).await;
        caught_up.is_err().then_some(room)
    }));
    behind.await.into_iter().flatten().collect()
}
