//! Dead letters: bad events go to the stream DEAD, in the background and within bounds.
//!
//! A room reports and goes on. One task publishes, at its own pace; what it cannot keep up with, or
//! cannot store, is counted and dropped, for a dead letter must never be in the way of an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, HeaderValue};
use bytes::Bytes;
use chrono::SecondsFormat;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::publish::{PubAck, PublishError, publish};
use crate::event::{BadEvent, StoredMessage, baggage, traceparent, tracestate};
use crate::telemetry::{DeadLetterTrace, EventTrace};

/// Letters that may wait: as many as are sent in a second.
const QUEUE_ENTRIES: usize = 1024;

/// Bytes of payload that may wait: 64 of the largest. Small ones never reach it.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Time from one letter to the next: at most 1,000 a second. A broker stores some 10,000 a second
/// and more, so that a flood of bad events, from every gateway at once, leaves it to the good ones.
const PACE: Duration = Duration::from_millis(1);

/// Largest payload that is kept, in bytes: what EVENTS takes at most, with its headers.
const PAYLOAD_MAX: usize = 128 * 1024;

/// How long after the first, second and third failure a letter is tried again. With [`ACK_TIMEOUT`]
/// that bridges some 10 s without NATS; what takes longer is counted and not waited for.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// How long to wait for an acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the end of the process may take to send what waits: some 1,000 letters, that is all.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Drops are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What became of the bad events that were reported.
#[derive(Debug, Default)]
pub struct DeadLetterCounters {
    /// Stored in DEAD by this gateway.
    pub published: AtomicU64,
    /// In DEAD already: another gateway was first.
    pub duplicate: AtomicU64,
    /// Given up: the queue was full, DEAD is full, or NATS was away for too long.
    pub dropped: AtomicU64,
}

/// Where bad events are reported. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// [`Publisher`] has the other end.
    letters: mpsc::Sender<Letter>,
    queued_bytes: Arc<AtomicUsize>,
    counters: Arc<DeadLetterCounters>,
    task: TaskTracker,
}

/// The task behind [`DeadLetters`].
#[derive(Debug)]
struct Publisher {
    client: Client,
    letters: mpsc::Receiver<Letter>,
    queued_bytes: Arc<AtomicUsize>,
    counters: Arc<DeadLetterCounters>,
}

/// One message for DEAD.
#[derive(Debug)]
struct Letter {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    /// Where the event's trace is recorded.
    trace: Option<DeadLetterTrace>,
}

impl DeadLetters {
    /// Starts the task that publishes over `client`. It ends after `shutdown`, or when every handle
    /// is gone; what waits then, it sends within two seconds.
    pub fn start(client: Client, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_ENTRIES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let counters = Arc::new(DeadLetterCounters::default());
        let publisher = Publisher {
            client,
            letters: receiver,
            queued_bytes: Arc::clone(&queued_bytes),
            counters: Arc::clone(&counters),
        };
        let task = TaskTracker::new();
        task.spawn(publisher.run(shutdown));
        task.close();
        Self {
            letters: sender,
            queued_bytes,
            counters,
            task,
        }
    }

    /// Waits for the task to end: at most two seconds after the shutdown began.
    pub async fn ended(&self) {
        self.task.wait().await;
    }

    /// Hands a bad event over. Never waits: where the queue is full, the letter is dropped and
    /// counted.
    pub fn report(&self, message: &StoredMessage, bad: &BadEvent) {
        self.report_traced(message, bad, None);
    }

    /// The same of an event whose trace is recorded; it ends when it is known what became of the
    /// letter.
    pub(crate) fn report_traced(
        &self,
        message: &StoredMessage,
        bad: &BadEvent,
        trace: Option<EventTrace>,
    ) {
        let length = message.payload.len().min(PAYLOAD_MAX);
        let before = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        let slot = match self.letters.try_reserve() {
            Ok(slot) if before + length <= QUEUE_BYTES => Some(slot),
            Ok(_) | Err(TrySendError::Full(()) | TrySendError::Closed(())) => None,
        };
        let Some(slot) = slot else {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            if let Some(trace) = trace {
                trace.letter_dropped();
            }
            return;
        };
        slot.send(Letter::new(message, bad, length, trace));
    }

    /// The counters, which live as long as anybody holds them.
    pub fn counters(&self) -> Arc<DeadLetterCounters> {
        Arc::clone(&self.counters)
    }
}

impl Letter {
    fn new(
        message: &StoredMessage,
        bad: &BadEvent,
        length: usize,
        trace: Option<EventTrace>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        let mut insert = |name: &str, value: &str| {
            // Only a line break is no header value; none of these has one.
            if let Ok(value) = value.parse::<HeaderValue>() {
                headers.insert(name, value);
            }
        };
        insert("Herald-Reason", bad.reason.as_str());
        insert("Herald-Detail", &bad.detail);
        insert("Herald-Subject", &message.subject);
        let time = message.time.to_rfc3339_opts(SecondsFormat::Millis, true);
        insert("Herald-Time", &time);
        // The stream keeps one letter of a subject whatever its id; the id has the answer to a second
        // one say where the first stands.
        let subject = format!("dead.{}.{}", message.workspace, message.sequence);
        insert("Nats-Msg-Id", &subject);
        let trace = pass_context_on(message, trace, &subject, &mut headers);
        let payload = message.payload.get(..length).unwrap_or_default();
        Self {
            subject,
            headers,
            trace,
            // A copy, because a payload of the client's holds on to the whole buffer that was read
            // with it, which no limit here would count.
            payload: Bytes::copy_from_slice(payload),
        }
    }
}

/// The letter goes on with the event's trace: the gateway's span where it is recorded, else the
/// publisher's context as it came.
fn pass_context_on(
    message: &StoredMessage,
    trace: Option<EventTrace>,
    subject: &str,
    headers: &mut HeaderMap,
) -> Option<DeadLetterTrace> {
    let given = message.headers.as_ref();
    let mut pass = |name: &str, value: Option<&str>| {
        // What is no header value, a line break, cannot have come as one.
        if let Some(Ok(value)) = value.map(str::parse::<HeaderValue>) {
            headers.insert(name, value);
        }
    };
    pass("baggage", given.and_then(baggage).as_deref());
    if trace.is_none()
        && let Some((given, traceparent)) = given.zip(given.and_then(traceparent))
    {
        pass("traceparent", Some(traceparent));
        pass("tracestate", tracestate(given).as_deref());
    }
    trace.map(|trace| trace.dead_letter(std::time::Instant::now(), headers, subject))
}

impl Publisher {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut pace = tokio::time::interval(PACE);
        // After a quiet time there is no burst to catch up.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = DropLog::default();
        let flush = async {
            shutdown.cancelled().await;
            tokio::time::sleep(FLUSH_TIMEOUT).await;
        };
        tokio::pin!(flush);
        loop {
            tokio::select! {
                // What is still queued, or in the middle of its retries, is dropped.
                () = &mut flush => break,
                letter = next(&mut self.letters, &shutdown) => {
                    let Some(letter) = letter else { break };
                    self.queued_bytes.fetch_sub(letter.payload.len(), Ordering::Relaxed);
                    let sent = async {
                        pace.tick().await;
                        self.send(&letter).await
                    };
                    let outcome = tokio::select! {
                        () = &mut flush => None,
                        outcome = sent => Some(outcome),
                    };
                    self.settle(letter, outcome.unwrap_or(Outcome::Dropped));
                    if outcome.is_none() {
                        break;
                    }
                }
            }
            log.tell(&self.counters);
        }
        self.letters.close();
        while let Ok(letter) = self.letters.try_recv() {
            self.settle(letter, Outcome::Dropped);
        }
        log.tell_now(&self.counters);
    }

    /// Counts what became of a letter, and ends its trace.
    fn settle(&self, letter: Letter, outcome: Outcome) {
        let (counter, label, sequence) = match outcome {
            Outcome::Published(sequence) => (&self.counters.published, "published", Some(sequence)),
            Outcome::Duplicate(sequence) => (&self.counters.duplicate, "duplicate", sequence),
            Outcome::Dropped => (&self.counters.dropped, "dropped", None),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(trace) = letter.trace {
            trace.end(label, sequence);
        }
    }

    /// Tries one letter until it is stored or given up.
    async fn send(&self, letter: &Letter) -> Outcome {
        let mut retries = RETRIES.into_iter();
        loop {
            let result = publish(
                &self.client,
                letter.subject.clone(),
                letter.headers.clone(),
                letter.payload.clone(),
                ACK_TIMEOUT,
            )
            .await;
            match (result, retries.next()) {
                // Another gateway's, or an attempt of ours whose acknowledgement was lost.
                (
                    Ok(PubAck {
                        duplicate: true,
                        sequence,
                        ..
                    }),
                    _,
                ) => {
                    return Outcome::Duplicate(Some(sequence));
                }
                (Ok(ack), _) => return Outcome::Published(ack.sequence),
                (Err(PublishError::SubjectTaken), _) => return Outcome::Duplicate(None),
                // It will not get smaller.
                (Err(PublishError::MaxPayload), _) | (Err(_), None) => return Outcome::Dropped,
                (Err(_), Some(delay)) => tokio::time::sleep(delay).await,
            }
        }
    }
}

/// What became of a letter, and where it stands.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Published(u64),
    /// Where the first one stands, as long as the stream remembers its id.
    Duplicate(Option<u64>),
    Dropped,
}

/// The next letter; `None` where there is none left and none will come.
async fn next(
    letters: &mut mpsc::Receiver<Letter>,
    shutdown: &CancellationToken,
) -> Option<Letter> {
    tokio::select! {
        biased;
        // First, so that a flush sends what waits.
        letter = letters.recv() => letter,
        () = shutdown.cancelled() => None,
    }
}

/// Says how many were dropped, seldom.
#[derive(Debug, Default)]
struct DropLog {
    last: Option<Instant>,
    told: u64,
}

impl DropLog {
    fn tell(&mut self, counters: &DeadLetterCounters) {
        if self.last.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            self.tell_now(counters);
        }
    }

    fn tell_now(&mut self, counters: &DeadLetterCounters) {
        let dropped = counters.dropped.load(Ordering::Relaxed);
        if dropped > self.told {
            tracing::warn!(
                dropped = dropped - self.told,
                "bad events were not stored as dead letters"
            );
            self.told = dropped;
            self.last = Some(Instant::now());
        }
    }
}
