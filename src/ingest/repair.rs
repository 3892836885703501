//! Gap repair: what the live path lost is read from the stream, in order, up to a leader's last
//! sequence.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use super::direct_get::{DirectGet, DirectGetError};
use super::floor::FloorReader;
use super::leader::{Leader, ReadError};
use super::raw::RawStored;
use crate::event::{StoredMessage, WorkspaceSlug};

/// Repairs that read from NATS at the same time. A batched direct get costs the broker some 300 µs;
/// after a leader change every busy room wants one.
const CONCURRENT: usize = 8;
/// Messages asked for at once.
const BATCH: usize = 256;
/// Bytes asked for at once.
const BATCH_BYTES: usize = 1024 * 1024;
/// Messages that wait for the room. It takes the next one only when its sockets have room.
const WAITING: usize = 16;
/// Pause before a read that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What a repair tells its room.
#[derive(Debug)]
pub enum Repaired {
    /// A stored message at or below the repair's end, in stream order. May be a duplicate.
    Message(StoredMessage),
    /// Everything up to this sequence has been told.
    UpTo(u64),
}

/// What all repairs of a gateway share.
#[derive(Debug, Clone)]
pub struct Repairer {
    direct: DirectGet,
    leader: Leader,
    floor: FloorReader,
    slots: Arc<Semaphore>,
}

/// A read that failed and is worth trying again.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Direct(#[from] DirectGetError),
    #[error(transparent)]
    Leader(#[from] ReadError),
}

impl Repairer {
    /// Repairs from the stream of `leader`.
    pub fn new(direct: DirectGet, leader: Leader, floor: FloorReader) -> Self {
        Self {
            direct,
            leader,
            floor,
            slots: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }

    /// Begins to read all of `workspace` above `watermark`. Ends after [`Repaired::UpTo`], or when
    /// the receiver is dropped; until then it does not give up.
    pub fn start(&self, workspace: WorkspaceSlug, watermark: u64) -> mpsc::Receiver<Repaired> {
        let (tell, told) = mpsc::channel(WAITING);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = this.run(&workspace, watermark, &tell) => {}
                () = tell.closed() => {}
            }
        });
        told
    }

    async fn run(&self, workspace: &WorkspaceSlug, watermark: u64, tell: &mpsc::Sender<Repaired>) {
        // The semaphore is never closed.
        let Ok(_slot) = self.slots.acquire().await else {
            return;
        };
        let end = loop {
            match self.floor.read().await {
                Ok(end) => break end,
                Err(None) => return,
                Err(Some(error)) => debug!(%error, "repair waits for the leader"),
            }
            tokio::time::sleep(RETRY).await;
        };
        let mut done = watermark;
        while done < end {
            match self.advance(workspace, done, end, tell).await {
                Ok(Some(upto)) => done = upto,
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, %workspace, "repair interrupted");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        // The room dropped its end: it is gone and wants nothing more.
        let _ = tell.send(Repaired::UpTo(end)).await;
    }

    /// Tells one batch above `done`; returns up to where all has been told, `None` if the room went.
    async fn advance(
        &self,
        workspace: &WorkspaceSlug,
        done: u64,
        end: u64,
        tell: &mpsc::Sender<Repaired>,
    ) -> Result<Option<u64>, RepairError> {
        let subject = format!("ws.{workspace}.>");
        let mut batch = self
            .direct
            .next_by_subject(done + 1, BATCH, BATCH_BYTES, &subject)
            .await?;
        let mut upto = done;
        let mut interrupted = None;
        loop {
            match batch.next().await {
                Ok(Some(raw)) if raw.sequence > end => return Ok(Some(end)),
                // A replica's answer rises; one that does not is not used.
                Ok(Some(raw)) if raw.sequence <= upto => {}
                Ok(Some(raw)) => {
                    upto = raw.sequence;
                    if !told(tell, workspace, raw).await {
                        return Ok(None);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    interrupted = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = interrupted {
            // What was told stands; the rest is asked for again from there.
            return if upto > done {
                Ok(Some(upto))
            } else {
                Err(error.into())
            };
        }
        if upto >= end || batch.end().pending > 0 && upto > done {
            return Ok(Some(upto));
        }
        // The replica has no more, but it may lag: only the leader's word is final.
        match self.leader.next(upto + 1, &subject).await? {
            Some(raw) if raw.sequence <= end => {
                upto = raw.sequence;
                Ok(told(tell, workspace, raw).await.then_some(upto))
            }
            _ => Ok(Some(end)),
        }
    }
}

async fn told(tell: &mpsc::Sender<Repaired>, workspace: &WorkspaceSlug, raw: RawStored) -> bool {
    tell.send(Repaired::Message(raw.into_stored(workspace.clone())))
        .await
        .is_ok()
}
