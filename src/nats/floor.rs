//! The floor of a join: one leader read shared by all joins that wait.
//!
//! At most one read is in flight and one queued, so a storm of joins costs the leader no more than a
//! few reads. A read always begins after everyone it answers has asked.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::leader::{Leader, ReadError};
use crate::event::Mark;

/// Pause before a leader that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// A cheap handle on the reader's task.
#[derive(Debug, Clone)]
pub struct FloorReader {
    /// The other end is the task of [`FloorReader::start`].
    asks: mpsc::UnboundedSender<Ask>,
}

type Ask = oneshot::Sender<Result<Mark, ReadError>>;

impl FloorReader {
    /// A handle, and the task that has to be run for it.
    pub fn start(leader: Leader) -> (Self, impl Future<Output = ()> + Send) {
        // Unbounded, but whoever asks waits for the answer: joins that have their turn, barriers of open sockets,
        // rooms that begin, repairs, a drain. What gave up meanwhile leaves with the next answer.
        let (asks, inbox) = mpsc::unbounded_channel();
        (Self { asks }, answer(leader.for_many(), inbox))
    }

    /// The stream's end, from a read begun after this call.
    ///
    /// # Errors
    /// `None` where the gateway is ending, else why the leader did not answer.
    pub async fn read(&self) -> Result<Mark, Option<ReadError>> {
        let (ask, answer) = oneshot::channel();
        self.asks.send(ask).map_err(|_| None)?;
        answer.await.map_err(|_| None)?.map_err(Some)
    }

    /// The same, asked for until the leader answers; meanwhile `cause` is why it does not. `None` if the gateway
    /// is ending.
    pub async fn wait(&self, cause: &mut Option<ReadError>) -> Option<Mark> {
        loop {
            match self.read().await {
                Ok(floor) => return Some(floor),
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

async fn answer(leader: Leader, mut inbox: mpsc::UnboundedReceiver<Ask>) {
    while let Some(first) = inbox.recv().await {
        let mut asking = vec![first];
        while let Ok(more) = inbox.try_recv() {
            asking.push(more);
        }
        let floor = leader.tail().await.map(|tail| tail.mark);
        for ask in asking {
            // A join that gave up meanwhile does not want it any more.
            let _ = ask.send(floor.clone());
        }
    }
}
