//! The task that sends the letters: in turn by workspace, at its own pace, a few at a time.
//!
//! A letter stays in the queue while this waits for something, so that none is lost when it is stopped.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::drops::DropReason;
use super::letter::{Letter, OutgoingLetter};
use super::share::{Amount, Shares, StreamUsage, Verdict};
use super::{LetterOutcome, Outbox};
use crate::config::{Names, names};
use crate::event::WorkspaceSlug;
use crate::nats::api::{self, ApiFailure};
use crate::nats::connection::Connection;
use crate::nats::publish::{PubAck, PublishError, publish};

/// At most so many letters in each time of [`PACE`]: 1,000 a second. A broker stores some 10,000 a second
/// and more, so that a flood of bad events, from every gateway at once, leaves it to the good ones.
const PACE_LETTERS: u32 = 10;
const PACE: Duration = Duration::from_millis(10);

/// Letters that wait for their acknowledgement at the same time: enough for the pace where one takes 16 ms.
const IN_FLIGHT: usize = 16;

/// The same at the end, when all that waits goes as fast as it can.
const IN_FLIGHT_AT_THE_END: usize = 256;

/// How long after the first, second and third failure a letter is tried again. With [`ACK_TIMEOUT`]
/// that bridges some 12 s without an answer. Without a connection letters wait and are not tried.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// How long to wait for an acknowledgement, or for what the stream says of itself.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// An offset beyond every list of subjects: the answer has their number and none of them.
const BEHIND_ALL: u64 = 1 << 40;

/// The task behind [`super::DeadLetters`].
pub(super) struct Publisher {
    connection: Connection,
    names: Names,
    outbox: Arc<Outbox>,
    shares: Shares,
    /// That of the connection on which the usage was read.
    epoch: u64,
    pace: Interval,
    /// Letters that may go before the next tick.
    allowed: u32,
    slots: Arc<Semaphore>,
    is_ending: bool,
    /// Reads of the usage that failed, one after the other.
    unanswered: usize,
}

/// What is to be done next.
enum NextAction {
    Send(WorkspaceSlug, Letter, Verdict),
    ReadUsage(WorkspaceSlug),
    Nothing,
}

/// What the answer to `STREAM.INFO` with a filter has of interest.
#[derive(Deserialize)]
struct DeadInfo {
    config: DeadLimits,
    state: DeadContents,
    /// How many subjects pass the filter: letters, since each has its own.
    total: u64,
}

#[derive(Deserialize)]
struct DeadLimits {
    /// Below 0 where there is no limit, as the next one.
    max_msgs: i64,
    max_bytes: i64,
}

#[derive(Deserialize)]
struct DeadContents {
    messages: u64,
    bytes: u64,
}

impl Publisher {
    pub(super) fn new(connection: Connection, names: Names, outbox: Arc<Outbox>) -> Self {
        let mut pace = tokio::time::interval(PACE);
        // After a quiet time there is no burst to catch up.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            epoch: connection.epoch(),
            connection,
            names,
            outbox,
            shares: Shares::default(),
            pace,
            allowed: 0,
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            is_ending: false,
            unanswered: 0,
        }
    }

    /// Sends until the end: then what waits, as fast as it goes, until that takes too long.
    pub(super) async fn run(mut self) {
        let outbox = Arc::clone(&self.outbox);
        let flights = TaskTracker::new();
        outbox
            .over
            .run_until_cancelled(self.send_all(&flights))
            .await;
        flights.close();
        flights.wait().await;
    }

    async fn send_all(&mut self, flights: &TaskTracker) {
        while let Some(slot) = self.ready().await {
            match self.next() {
                NextAction::Send(workspace, letter, verdict) => {
                    self.unanswered = 0;
                    self.allowed = self.allowed.saturating_sub(1);
                    self.take_off(flights, slot, workspace, letter, verdict);
                }
                NextAction::ReadUsage(workspace) => self.read_usage(&workspace).await,
                NextAction::Nothing => {}
            }
        }
    }

    /// Waits until a letter may go; `None` at the end, when there is none left.
    async fn ready(&mut self) -> Option<OwnedSemaphorePermit> {
        let outbox = Arc::clone(&self.outbox);
        while outbox.is_empty() {
            if self.is_ending {
                return None;
            }
            tokio::select! {
                () = outbox.some.notified() => {}
                () = outbox.ending.cancelled() => self.hurry(),
            }
        }
        while !self.is_ending && self.allowed == 0 {
            tokio::select! {
                _ = self.pace.tick() => self.allowed = PACE_LETTERS,
                () = outbox.ending.cancelled() => self.hurry(),
            }
        }
        self.connection.connected().await;
        if !self.is_ending {
            let slots = Arc::clone(&self.slots);
            tokio::select! {
                slot = slots.acquire_owned() => return slot.ok(),
                () = outbox.ending.cancelled() => self.hurry(),
            }
        }
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// No pace any more, and more at a time.
    fn hurry(&mut self) {
        self.is_ending = true;
        self.slots.add_permits(IN_FLIGHT_AT_THE_END - IN_FLIGHT);
    }

    fn next(&mut self) -> NextAction {
        let epoch = self.connection.epoch();
        if std::mem::replace(&mut self.epoch, epoch) != epoch {
            self.shares.doubt();
        }
        let mut state = self.outbox.lock();
        let Some((workspace, letter)) = state.queue.peek() else {
            return NextAction::Nothing;
        };
        let (whole, cut) = letter.stored_bytes();
        match self.shares.judge(workspace, whole, cut, Instant::now()) {
            None => NextAction::ReadUsage(workspace.clone()),
            Some(verdict) => match state.queue.pop() {
                Some((workspace, letter)) => NextAction::Send(workspace, letter, verdict),
                None => NextAction::Nothing,
            },
        }
    }

    /// Reads how much the stream has, and how much of this workspace. Where that fails, a letter is given up after as
    /// many tries as one has that is not acknowledged. The others wait meanwhile.
    async fn read_usage(&mut self, workspace: &WorkspaceSlug) {
        match self.usage(workspace).await {
            Ok(usage) => {
                self.unanswered = 0;
                self.shares.learn(workspace, usage, Instant::now());
            }
            Err(error) => {
                debug!(%workspace, %error, "dead letters not counted");
                match RETRIES.get(self.unanswered) {
                    Some(pause) => {
                        self.unanswered += 1;
                        tokio::time::sleep(*pause).await;
                    }
                    None => {
                        self.unanswered = 0;
                        let given_up = self.outbox.lock().queue.pop();
                        if let Some((workspace, letter)) = given_up {
                            letter.dropped();
                            self.outbox.count_dropped(&workspace, DropReason::Nats);
                        }
                    }
                }
            }
        }
    }

    async fn usage(&self, workspace: &WorkspaceSlug) -> Result<StreamUsage, ApiFailure> {
        let filter = self.names.subject(&names::letter(workspace, ">"));
        let body = json!({ "subjects_filter": filter, "offset": BEHIND_ALL }).to_string();
        let subject = self.names.api("STREAM.INFO", self.names.dead());
        let client = self.connection.client();
        let answer = api::send(client, subject, None, body.into(), ACK_TIMEOUT).await?;
        let DeadInfo {
            config,
            state,
            total,
        } = api::decode(&answer)?;
        Ok(StreamUsage {
            max_letters: u64::try_from(config.max_msgs).ok(),
            max_bytes: u64::try_from(config.max_bytes).ok(),
            all: Amount {
                letters: state.messages,
                bytes: state.bytes,
            },
            letters: total,
        })
    }

    /// Sends a letter on a task of its own.
    fn take_off(
        &self,
        flights: &TaskTracker,
        slot: OwnedSemaphorePermit,
        workspace: WorkspaceSlug,
        letter: Letter,
        verdict: Verdict,
    ) {
        if verdict == Verdict::UsedUp {
            letter.dropped();
            self.outbox
                .count_dropped(&workspace, DropReason::ShareUsedUp);
            return;
        }
        let mut message = letter.message(&workspace);
        if verdict == Verdict::Cut {
            message.cut();
        }
        let connection = self.connection.clone();
        let subject = self.names.subject(&message.subject);
        let outbox = Arc::clone(&self.outbox);
        flights.spawn(async move {
            let sent = outbox
                .over
                .run_until_cancelled(send(&connection, &subject, &mut message));
            let outcome = sent.await;
            let outcome = outcome.unwrap_or(LetterOutcome::Dropped(DropReason::Shutdown));
            outbox.settle(&workspace, message.is_found, message.trace, outcome);
            drop(slot);
        });
    }
}

/// Tries one letter until it is stored or given up.
async fn send(
    connection: &Connection,
    subject: &str,
    message: &mut OutgoingLetter,
) -> LetterOutcome {
    let mut retries = RETRIES.into_iter();
    loop {
        connection.connected().await;
        let result = publish(
            connection.client(),
            subject.to_owned(),
            message.headers.clone(),
            message.payload.clone(),
            ACK_TIMEOUT,
        );
        let error = match result.await {
            // Another gateway's, or an attempt of ours whose acknowledgement was lost.
            Ok(PubAck {
                duplicate: true,
                sequence,
                ..
            }) => return LetterOutcome::Duplicate(Some(sequence)),
            Ok(ack) => return LetterOutcome::Published(ack.sequence),
            Err(error) => error,
        };
        match error {
            PublishError::SubjectTaken => return LetterOutcome::Duplicate(None),
            // A shorter one may be taken.
            PublishError::StreamFull(_)
            | PublishError::AccountFull(_)
            | PublishError::Refused(_)
            | PublishError::MaxPayload
                if message.cut() =>
            {
                continue;
            }
            PublishError::StreamFull(_) | PublishError::AccountFull(_) => {
                return LetterOutcome::Dropped(DropReason::StreamFull);
            }
            // There will be no connection any more.
            PublishError::Closed => return LetterOutcome::Dropped(DropReason::Nats),
            PublishError::Timeout(_)
            | PublishError::NoStream
            | PublishError::Overtaken
            | PublishError::MaxPayload
            | PublishError::Refused(_)
            | PublishError::InProcess
            | PublishError::NotJetStream => {}
        }
        match retries.next() {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return LetterOutcome::Dropped(DropReason::Nats),
        }
    }
}
