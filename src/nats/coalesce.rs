//! Requests of many rooms, taken together: what one read can answer is read once.

use std::time::Duration;

use tokio::sync::mpsc;

/// How long a request that nobody waits for stays, so that others may join it.
const COALESCE: Duration = Duration::from_millis(200);
/// Pause before what failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(250);

/// A request of a room.
pub(super) trait Pending {
    /// Nobody wants the answer any more.
    fn is_over(&self) -> bool;
    /// Somebody waits for it.
    fn is_urgent(&self) -> bool;
}

/// Adds to `requests` those that have come. Waits for the first one, and a little for more unless one is urgent. Drops
/// those of rooms that have ended. `false` when no more can come.
pub(super) async fn coalesce<T: Pending>(
    inbox: &mut mpsc::UnboundedReceiver<T>,
    requests: &mut Vec<T>,
) -> bool {
    requests.retain(|request| !request.is_over());
    if requests.is_empty() {
        let Some(first) = inbox.recv().await else {
            return false;
        };
        requests.push(first);
    }
    let until = tokio::time::Instant::now() + COALESCE;
    while !requests.iter().any(Pending::is_urgent) {
        match tokio::time::timeout_at(until, inbox.recv()).await {
            Ok(Some(more)) => requests.push(more),
            Ok(None) | Err(_) => break,
        }
    }
    while let Ok(more) = inbox.try_recv() {
        requests.push(more);
    }
    true
}
