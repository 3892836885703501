//! Asks of many rooms, taken together: what one read can answer is read once.

use std::time::Duration;

use tokio::sync::mpsc;

/// How long an ask that nobody waits for gathers company.
const GATHER: Duration = Duration::from_millis(200);
/// Pause before what failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(250);

/// What a room asks for.
pub(super) trait Ask {
    /// Nobody wants the answer any more.
    fn is_over(&self) -> bool;
    /// Somebody waits for it.
    fn is_urgent(&self) -> bool;
}

/// Adds to `asking` what else is asked by now, waiting for the first one, and a little for more unless one is
/// urgent; rooms that have ended ask no more. `false` when there will be none any more.
pub(super) async fn gather<T: Ask>(
    inbox: &mut mpsc::UnboundedReceiver<T>,
    asking: &mut Vec<T>,
) -> bool {
    asking.retain(|ask| !ask.is_over());
    if asking.is_empty() {
        let Some(first) = inbox.recv().await else {
            return false;
        };
        asking.push(first);
    }
    let until = tokio::time::Instant::now() + GATHER;
    while !asking.iter().any(Ask::is_urgent) {
        match tokio::time::timeout_at(until, inbox.recv()).await {
            Ok(Some(more)) => asking.push(more),
            Ok(None) | Err(_) => break,
        }
    }
    while let Ok(more) = inbox.try_recv() {
        asking.push(more);
    }
    true
}
