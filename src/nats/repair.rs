//! Gap repair: what the live path lost is read from the stream, in order, up to a leader's last
//! sequence.
//!
//! A room takes one batch after the other, and requests the next one when its sockets have room. One batch is read
//! ahead, so that neither waits for the other, while few rooms do so. Beyond that a repair occupies nothing between two
//! batches that another room's repair may need. A room with a rate may take long for its batch. So it reads none ahead, and
//! what it has counts for itself alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{Instrument, warn};

use super::reads::{AtPosition, DirectGet, Leader, StreamEndReader, StreamReadError};
use crate::config::names;
use crate::event::{Position, StoredMessage, WorkspaceSlug};
use crate::telemetry::{self, Failure};

/// Repairs that read from NATS at the same time. A batched direct get costs the broker some 300 µs;
/// after a leader change every busy room wants one.
const CONCURRENT: usize = 8;
/// Messages in one request.
const BATCH: usize = 256;
/// Bytes in one request: the server adds one message more at most, of 128 KiB.
const BATCH_BYTES: usize = 128 * 1024;
/// Batches that rooms may have before their sockets have taken them, of at most 256 KiB each. The next
/// one waits for the first of these that is taken.
const BATCHES: usize = 32;
/// Beside those, batches that are read before a room has requested them.
const BATCHES_AHEAD: usize = 16;
/// Pause before a read that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What a repair has read.
#[derive(Debug)]
pub struct RepairedBatch {
    /// Stored messages in stream order, none above the repair's end. Some may be known.
    pub messages: Vec<StoredMessage>,
    /// Everything up to here has been given out with this batch, which is the last.
    pub end: Option<Position>,
}

/// How a repair goes on.
#[derive(Debug)]
pub enum Repaired {
    /// It has read this.
    Batch(RepairedBatch),
    /// The stream is not the one that it was begun for. It has ended, and what it read since is dropped.
    OtherStream,
    /// The same where the stream only seems to be shorter than it was: a leader that is cut off says so too.
    ShorterStream,
}

impl Repaired {
    /// Whether more may come.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::Batch(batch) if batch.end.is_none())
    }
}

/// How far a repair has come.
struct Progress {
    /// All up to here is read.
    done: u64,
    /// What was known of the stream and has not been looked for.
    known: Option<Position>,
    end: Position,
}

/// A repair under way. Dropping it ends it.
#[derive(Debug)]
pub struct Repair {
    more: mpsc::Sender<()>,
    output: mpsc::Receiver<Output>,
    /// The room has a batch that it has not taken yet.
    is_given: bool,
    /// Kept until the next batch is requested, but by a room with a rate.
    slot: Option<OwnedSemaphorePermit>,
    has_rate: bool,
}

type Output = (Repaired, OwnedSemaphorePermit);

/// What all repairs of a gateway share.
#[derive(Debug, Clone)]
pub struct Repairer {
    direct: DirectGet,
    leader: Leader,
    stream_end: StreamEndReader,
    slots: Arc<Semaphore>,
    batches: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
}

impl Repair {
    /// What comes next, once the last batch is taken; `None` when the gateway is ending. Cancel safe.
    pub async fn next(&mut self) -> Option<Repaired> {
        if self.is_given {
            std::future::pending::<()>().await;
        }
        let (output, slot) = self.output.recv().await?;
        self.is_given = true;
        self.slot = (!self.has_rate).then_some(slot);
        Some(output)
    }

    /// The batch that came last is taken: requests the next one.
    pub fn request_next(&mut self) {
        self.is_given = false;
        self.slot = None;
        // Full: it is requested already. Closed: the gateway is ending.
        let _ = self.more.try_send(());
    }
}

impl Repairer {
    /// Repairs from the stream of `leader`.
    pub fn new(direct: DirectGet, leader: Leader, stream_end: StreamEndReader) -> Self {
        Self {
            direct,
            leader,
            stream_end,
            slots: Arc::new(Semaphore::new(CONCURRENT)),
            batches: Arc::new(Semaphore::new(BATCHES)),
            ahead: Arc::new(Semaphore::new(BATCHES_AHEAD)),
        }
    }

    /// Begins to read all of `workspace` above the sequence `above`; the first batch comes without a request.
    /// It does not give up before the batch with the end, but where the stream turns out not to be the one
    /// that has `known`. A workspace that `has_rate` may take long for each batch.
    pub fn start(
        &self,
        workspace: WorkspaceSlug,
        (above, known): (u64, Position),
        reason: &'static str,
        has_rate: bool,
    ) -> Repair {
        let (more, wanted) = mpsc::channel(1);
        let (sender, output) = mpsc::channel(1);
        let mut this = self.clone();
        if has_rate {
            this.ahead = Arc::new(Semaphore::new(0));
        }
        let span = telemetry::repair(&workspace, reason);
        let repair = async move {
            tokio::select! {
                () = this.run(&workspace, (above, known), &sender, wanted) => {}
                () = sender.closed() => {}
            }
        };
        tokio::spawn(repair.instrument(span));
        Repair {
            more,
            output,
            is_given: false,
            slot: None,
            has_rate,
        }
    }

    async fn run(
        &self,
        workspace: &WorkspaceSlug,
        (above, known): (u64, Position),
        sender: &mpsc::Sender<Output>,
        mut wanted: mpsc::Receiver<()>,
    ) {
        let Some(end) = self.stream_end.wait(&mut None).await else {
            return;
        };
        let mut progress = Progress {
            done: above,
            known: Some(known),
            end,
        };
        // Whether the room has a batch that it has not taken yet.
        let mut is_ahead = false;
        loop {
            let Some(batch_slot) = self.batch_slot(&mut wanted, &mut is_ahead).await else {
                return;
            };
            // It is never closed.
            let Ok(read_slot) = self.slots.acquire().await else {
                return;
            };
            let batch = async {
                self.read_batch(workspace, &mut progress)
                    .await
                    .record_error()
            };
            let batch = batch.instrument(telemetry::repair_batch());
            let output = match batch.await {
                Ok(output) => output,
                Err(error) => {
                    warn!(%error, %workspace, "repair interrupted");
                    drop((batch_slot, read_slot));
                    self.leader.pause(RETRY).await;
                    continue;
                }
            };
            drop(read_slot);
            let goes_on = output.goes_on();
            // The room dropped its end: it is gone and wants nothing more.
            if sender.send((output, batch_slot)).await.is_err() || !goes_on {
                return;
            }
            if is_ahead && wanted.recv().await.is_none() {
                return;
            }
            is_ahead = true;
        }
    }

    /// Waits until a batch may be read: at once where few rooms have one ahead, else when this one has taken its last.
    /// `None` if the room is gone.
    async fn batch_slot(
        &self,
        wanted: &mut mpsc::Receiver<()>,
        is_ahead: &mut bool,
    ) -> Option<OwnedSemaphorePermit> {
        if *is_ahead {
            if let Ok(slot) = Arc::clone(&self.ahead).try_acquire_owned() {
                return Some(slot);
            }
            wanted.recv().await?;
            *is_ahead = false;
        }
        // It is never closed.
        Arc::clone(&self.batches).acquire_owned().await.ok()
    }

    /// Reads one batch, and looks then whether it is of the stream that the repair is for: that may have
    /// been restored meanwhile.
    async fn read_batch(
        &self,
        workspace: &WorkspaceSlug,
        progress: &mut Progress,
    ) -> Result<Repaired, StreamReadError> {
        let end = progress.end;
        let (mut messages, upto) = self.read(workspace, progress.done, end.sequence).await?;
        // With the end everything before it is as it was when the end was read.
        let known = progress.known.filter(|known| *known != end);
        let (known, end_seen) = tokio::try_join!(
            async {
                match known {
                    Some(known) => self.contradicted(known).await,
                    None => Ok(None),
                }
            },
            self.contradicted(end)
        )?;
        if let Some(ended) = known.or(end_seen) {
            return Ok(ended);
        }
        telemetry::repaired(messages.len());
        // No others were requested, but a room delivers nothing that is not its own.
        messages.retain(|message| message.is_of(workspace));
        progress.known = None;
        progress.done = upto;
        Ok(Repaired::Batch(RepairedBatch {
            messages,
            end: (upto >= end.sequence).then_some(end),
        }))
    }

    /// How the repair ends if the stream does not have `position` where it was.
    async fn contradicted(&self, position: Position) -> Result<Option<Repaired>, StreamReadError> {
        Ok(match self.leader.at_position(position).await? {
            AtPosition::Other => Some(Repaired::OtherStream),
            AtPosition::Gone if self.leader.state().await?.last_sequence < position.sequence => {
                Some(Repaired::ShorterStream)
            }
            AtPosition::Same | AtPosition::Gone => None,
        })
    }

    /// Reads one batch above `done`; returns it and up to where all has been read.
    async fn read(
        &self,
        workspace: &WorkspaceSlug,
        done: u64,
        end: u64,
    ) -> Result<(Vec<StoredMessage>, u64), StreamReadError> {
        if done >= end {
            return Ok((Vec::new(), end));
        }
        let subject = names::event(workspace, ">");
        let mut upto = done;
        let mut batch = self
            .direct
            .next_by_subject(done + 1, BATCH, BATCH_BYTES, &subject)
            .await?;
        let mut messages = Vec::new();
        loop {
            match batch.next().await {
                Ok(Some(raw)) if raw.sequence > end => return Ok((messages, end)),
                // A replica's answer rises; one that does not is not used.
                Ok(Some(raw)) if raw.sequence <= upto => {}
                Ok(Some(raw)) => {
                    upto = raw.sequence;
                    messages.push(raw);
                }
                Ok(None) => break,
                // What was read counts; the rest is read again from there.
                Err(error) if messages.is_empty() => return Err(error.into()),
                Err(_) => return Ok((messages, upto)),
            }
        }
        if upto >= end || batch.end().pending > 0 && !messages.is_empty() {
            return Ok((messages, upto));
        }
        // The replica has no more, but it may lag: only the leader's word is final.
        match self.leader.next(upto + 1, &subject).await? {
            Some(raw) if raw.sequence <= end => {
                upto = raw.sequence;
                messages.push(raw);
                Ok((messages, upto))
            }
            _ => Ok((messages, end)),
        }
    }
}
