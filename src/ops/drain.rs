//! The end of a gateway: everything stored until the drain is written, then sockets are closed with
//! 1012, spread over a window so that their clients do not come back all at once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::room::Rooms;
use crate::socket::{CloseReason, Outbox};

/// How long the last reads may take. With NATS away it cannot be known what was stored.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Catches up, then closes every socket within `window`.
pub(super) async fn close_all(rooms: &Rooms, window: Duration) {
    let caught_up = timeout(CATCH_UP, async {
        if let Some(end) = rooms.floor().await {
            let all = rooms.all();
            join_all(all.iter().map(|room| room.barrier(end.sequence))).await;
        }
    });
    if caught_up.await.is_err() {
        warn!("draining without having caught up");
    }
    let outboxes = outboxes(rooms).await;
    info!(sockets = outboxes.len(), "closing sockets");
    let start = Instant::now();
    let count = u32::try_from(outboxes.len()).unwrap_or(u32::MAX).max(1);
    for (index, outbox) in (0u32..).zip(outboxes) {
        sleep_until(start + window / count * index).await;
        outbox.end_after(CloseReason::Restart);
    }
    // Joins that were under way when the doorway closed have become members since.
    for outbox in self::outboxes(rooms).await {
        outbox.end_after(CloseReason::Restart);
    }
}

/// The queues of all sockets there are.
async fn outboxes(rooms: &Rooms) -> Vec<Outbox> {
    let all = rooms.all();
    join_all(all.iter().map(|room| room.outboxes()))
        .await
        .into_iter()
        .flatten()
        .collect()
}
