//! Requests of many rooms, taken together: what one read can answer is read once.

use std::time::Duration;

use tokio::sync::mpsc;

/// How long a request that nobody waits for stays, so that others may join it.
const COALESCE: Duration = Duration::from_millis(200);
/// Pause before what failed is tried again.
pub(in crate::nats) const RETRY: Duration = Duration::from_millis(250);

/// A request of a room.
pub(in crate::nats) trait Pending {
    /// Nobody wants the answer any more.
    fn is_over(&self) -> bool;
    /// Somebody waits for it.
    fn is_urgent(&self) -> bool;
}

/// Sends requests of rooms to the task that answers them.
///
/// Unbounded, but a room sends the next request after its answer. So the queue has one of each room at most.
#[derive(Debug)]
pub struct RequestSender<T>(mpsc::UnboundedSender<T>);

impl<T> RequestSender<T> {
    /// The sender, and where the task gets the requests.
    pub(in crate::nats) fn channel() -> (Self, mpsc::UnboundedReceiver<T>) {
        let (requests, inbox) = mpsc::unbounded_channel();
        (Self(requests), inbox)
    }

    /// Requests something. The answer goes where the request says.
    pub fn send(&self, request: T) {
        // The task is gone only when the gateway is ending.
        let _ = self.0.send(request);
    }
}

/// Adds to `requests` those that have come. Waits for the first one, and a little for more unless one is urgent. Drops
/// those of rooms that have ended. `false` when no more can come.
pub(in crate::nats) async fn coalesce<T: Pending>(
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
