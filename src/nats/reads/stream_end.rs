//! The end of the stream, for joins: one leader read shared by all joins that wait.
//!
//! At most one read is under way and one queued, so a storm of joins costs the leader no more than a few reads. A read
//! begins after all requests that it answers have come.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::leader::{Leader, LeaderError};
use crate::event::Position;

/// Pause before a read is tried again that the leader did not answer.
const RETRY: Duration = Duration::from_millis(100);

/// A cheap handle on the reader's task.
#[derive(Debug, Clone)]
pub struct StreamEndReader {
    /// The other end is the task of [`StreamEndReader::start`].
    requests: mpsc::UnboundedSender<EndRequest>,
}

type EndRequest = oneshot::Sender<Result<Position, LeaderError>>;

impl StreamEndReader {
    /// A handle, and the task that has to be run for it.
    pub fn start(leader: Leader) -> (Self, impl Future<Output = ()> + Send) {
        // Unbounded, but whoever sends one waits for the answer: joins that have their turn, barriers of open sockets,
        // rooms that begin, repairs, a drain. What gave up meanwhile leaves with the next answer.
        let (requests, inbox) = mpsc::unbounded_channel();
        (Self { requests }, answer(leader.for_many(), inbox))
    }

    /// The stream's end, from a read begun after this call.
    ///
    /// # Errors
    /// `None` where the gateway is ending, else why the leader did not answer.
    pub async fn read(&self) -> Result<Position, Option<LeaderError>> {
        let (answer_to, answer) = oneshot::channel();
        self.requests.send(answer_to).map_err(|_| None)?;
        answer.await.map_err(|_| None)?.map_err(Some)
    }

    /// The same, read again until the leader answers. Meanwhile `cause` is why it does not. `None` if the gateway
    /// is ending.
    pub async fn wait(&self, cause: &mut Option<LeaderError>) -> Option<Position> {
        loop {
            match self.read().await {
                Ok(end) => return Some(end),
                Err(None) => return None,
                Err(Some(error)) => {
                    debug!(%error, "waiting for the leader");
                    *cause = Some(error);
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn answer(leader: Leader, mut inbox: mpsc::UnboundedReceiver<EndRequest>) {
    while let Some(first) = inbox.recv().await {
        let mut waiting = vec![first];
        while let Ok(more) = inbox.try_recv() {
            waiting.push(more);
        }
        let end = leader.end().await.map(|end| end.position);
        for answer_to in waiting {
            // A join that gave up meanwhile does not want it any more.
            let _ = answer_to.send(end.clone());
        }
    }
}
