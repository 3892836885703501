//! Reads that only a stream's leader answers: what they say is final.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Info;
use async_nats::{StatusCode, wire};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::Instrument;

use super::connection::Connection;
use super::inbox::Inbox;
use crate::config::Names;
use crate::event::{Position, StoredMessage};
use crate::telemetry::{self, Failure, Metrics};

/// How long an answer is waited for, and before that for a connection. A leader answers in well under a
/// millisecond; during an election nobody does.
const TIMEOUT: Duration = Duration::from_secs(2);
/// So long after it was sent, a read is sent again: who is elected meanwhile knows nothing of what was asked
/// before.
const AGAIN: Duration = Duration::from_millis(400);
/// The same after an election, and twice as long each time: it is announced a little before the new leader
/// answers.
const SOON: Duration = Duration::from_millis(50);

/// The leader gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("stream {stream} cannot be read: {cause}")]
pub struct LeaderError {
    stream: String,
    cause: String,
}

impl LeaderError {
    /// Why, without the stream's name.
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

/// What a stream is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// When the stream was made: which incarnation its sequences belong to.
    pub created: DateTime<Utc>,
    /// The oldest sequence it still holds.
    pub first_sequence: u64,
    /// The highest sequence it ever gave.
    pub last_sequence: u64,
    /// When it stored the last message.
    pub last_time: DateTime<Utc>,
    /// It has more than one replica, so that a leader may not know yet that it is none any more.
    pub is_replicated: bool,
}

impl StreamState {
    /// Whether the place of `position` is one that the stream may have a message at.
    pub fn contains(&self, position: Position) -> bool {
        (self.first_sequence..=self.last_sequence).contains(&position.sequence)
    }

    /// The last sequence, and when it was given.
    pub fn last(&self) -> Position {
        Position {
            sequence: self.last_sequence,
            time: self.last_time,
        }
    }
}

/// A stream's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    /// The last sequence, 0 of a stream that never had a message; and when it was stored, or the stream
    /// made.
    pub position: Position,
    pub witness: Witness,
}

/// What a replica's answer is asked to hold besides what is asked for, so that it is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// The stream holds no message.
    Nothing,
    /// The subject of a message that the stream holds: the last one's, if it can be asked for.
    Subject(String),
    /// No message's subject that can be asked for is known.
    Unnamed,
}

/// What a stream has where an event was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtPosition {
    /// That event.
    Same,
    /// Another: the stream is not what it was.
    Other,
    /// Nothing: it was purged, is too old, or was never given.
    Gone,
}

/// Reads from one stream's leader.
#[derive(Debug, Clone)]
pub struct Leader {
    connection: Connection,
    names: Names,
    name: String,
    subjects: &'static str,
    /// Where the time of each read goes.
    metrics: Option<Arc<Metrics>>,
    /// Nobody alone asks: a read is a trace of its own.
    is_for_many: bool,
    /// Says that there was an election.
    elections: watch::Sender<()>,
    /// The subject of the newest message whose subject can be asked for. One lock for a moment: reads run
    /// side by side.
    askable: Arc<Mutex<Option<(u64, String)>>>,
}

/// The answer to `$JS.API.STREAM.MSG.GET` (ADR-8). Read here and not by the client, which fails on a
/// message whose publisher's headers are malformed, and with it every join.
#[derive(Deserialize)]
struct Answer {
    message: Option<Message>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct Message {
    subject: String,
    seq: u64,
    time: DateTime<Utc>,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Message {
    fn plain(mut self, names: &Names) -> Self {
        if let Some(plain) = names.plain(&self.subject) {
            self.subject = plain.to_owned();
        }
        self
    }
}

/// The answer to `$JS.API.STREAM.INFO`.
#[derive(Deserialize)]
#[serde(untagged)]
enum InfoAnswer {
    Failed { error: ApiError },
    Ok(Box<Info>),
}

#[derive(Deserialize)]
struct ApiError {
    err_code: u64,
    description: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

/// JetStream's error code for "no message found".
const NO_MESSAGE: u64 = 10037;

impl Leader {
    /// Of the stream `name`, whose messages are all under the plain `subjects`. Subjects are plain here, asked
    /// for and answered. Does no I/O.
    pub fn new(
        connection: impl Into<Connection>,
        names: &Names,
        name: &str,
        subjects: &'static str,
    ) -> Self {
        Self {
            connection: connection.into(),
            names: names.clone(),
            name: name.to_owned(),
            subjects,
            metrics: None,
            is_for_many: false,
            elections: watch::Sender::new(()),
            askable: Arc::default(),
        }
    }

    /// The same, with the time of each read in `metrics`.
    #[must_use]
    pub fn observed(mut self, metrics: &Arc<Metrics>) -> Self {
        self.metrics = Some(Arc::clone(metrics));
        self
    }

    /// The same, for reads whose answer is not for one that asks.
    #[must_use]
    pub fn for_many(mut self) -> Self {
        self.is_for_many = true;
        self
    }

    /// The stream's end, from the message there; from [`Leader::state`] only where there is none.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn end(&self) -> Result<StreamEnd, LeaderError> {
        let last = json!({ "last_by_subj": self.names.subject(self.subjects) });
        if let Some(message) = self.get(&last).await? {
            return Ok(self.end_at(message));
        }
        let state = self.state().await?;
        // What was stored between the two reads is in the second only: whether there is nothing up to
        // its sequence, a third one says.
        if let Some(message) = self.get(&last).await? {
            return Ok(self.end_at(message));
        }
        Ok(StreamEnd {
            position: Position {
                sequence: state.last_sequence,
                time: state.last_time,
            },
            witness: Witness::Nothing,
        })
    }

    /// The end of a stream whose last message this is.
    fn end_at(&self, message: Message) -> StreamEnd {
        let mut askable = self.askable.lock().unwrap_or_else(PoisonError::into_inner);
        // A pattern that fits it may fit thousands of others, all of which the answer would hold.
        if is_askable(&message.subject) {
            *askable = Some((message.seq, message.subject));
        }
        let known = askable.as_ref().map(|(_, subject)| subject.clone());
        StreamEnd {
            position: Position {
                sequence: message.seq,
                time: message.time,
            },
            witness: known.map_or(Witness::Unnamed, Witness::Subject),
        }
    }

    /// What the stream is now, and its end, which is its last message but where that was deleted.
    ///
    /// # Errors
    /// [`LeaderError`], also where the two reads were answered by two that cannot both lead.
    pub async fn whole(&self) -> Result<(StreamState, StreamEnd), LeaderError> {
        let mut state = self.state().await?;
        self.askable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            // What has aged out proves nothing.
            .take_if(|(sequence, _)| *sequence < state.first_sequence);
        let mut end = self.end().await?;
        if end.position.sequence >= state.last_sequence {
            state.last_sequence = end.position.sequence;
            state.last_time = end.position.time;
        } else if end.witness == Witness::Nothing {
            return Err(self.error("an empty stream was longer a moment ago"));
        } else {
            end.position = state.last();
        }
        Ok((state, end))
    }

    /// What the stream is now (`STREAM.INFO`).
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn state(&self) -> Result<StreamState, LeaderError> {
        let info = self.info().await?;
        Ok(StreamState {
            created: info.created,
            first_sequence: info.state.first_sequence,
            last_sequence: info.state.last_sequence,
            last_time: info.state.last_timestamp.max(info.created),
            is_replicated: info.config.num_replicas > 1,
        })
    }

    /// Whether the stream has at `known.sequence` what was stored there at `known.time`. Below the first
    /// sequence nothing can be another.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn at_position(&self, known: Position) -> Result<AtPosition, LeaderError> {
        if known.sequence == 0 {
            return Ok(AtPosition::Same);
        }
        let message = self.get(&json!({ "seq": known.sequence })).await?;
        Ok(match message {
            Some(message) if message.time == known.time => AtPosition::Same,
            Some(_) => AtPosition::Other,
            None => AtPosition::Gone,
        })
    }

    async fn info(&self) -> Result<Info, LeaderError> {
        self.observe("INFO", self.read_info()).await
    }

    async fn get(&self, request: &serde_json::Value) -> Result<Option<Message>, LeaderError> {
        self.observe("MSG.GET", self.read_message(request)).await
    }

    /// Does `read` within a span.
    async fn observe<T>(
        &self,
        api: &str,
        read: impl Future<Output = Result<T, LeaderError>>,
    ) -> Result<T, LeaderError> {
        let span = telemetry::read_leader(&self.name, api, self.is_for_many);
        async { read.await.record_error() }.instrument(span).await
    }

    async fn read_info(&self) -> Result<Info, LeaderError> {
        self.connected().await?;
        let answer = self.request("INFO", "{}".to_owned()).await?;
        match serde_json::from_slice(&answer).map_err(|error| self.error(error))? {
            InfoAnswer::Ok(info) => Ok(*info),
            InfoAnswer::Failed { error } => Err(self.error(error)),
        }
    }

    /// The first message at or above `sequence` under `subject`, if there is one.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn next(
        &self,
        sequence: u64,
        subject: &str,
    ) -> Result<Option<StoredMessage>, LeaderError> {
        let subject = self.names.subject(subject);
        let request = json!({ "seq": sequence, "next_by_subj": subject });
        let message = self.get(&request).await?;
        message.map(|message| self.raw(message)).transpose()
    }

    /// The last message of exactly `subject`, if there is one.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn last(&self, subject: &str) -> Result<Option<StoredMessage>, LeaderError> {
        let subject_in_stream = self.names.subject(subject);
        match self
            .get(&json!({ "last_by_subj": subject_in_stream }))
            .await?
        {
            Some(message) if message.subject != subject => {
                Err(self.error("the answer is of another subject"))
            }
            message => message.map(|message| self.raw(message)).transpose(),
        }
    }

    /// Whether the stream holds a message whose subject matches `subject`.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn has(&self, subject: &str) -> Result<bool, LeaderError> {
        let subject_in_stream = self.names.subject(subject);
        let last = self
            .get(&json!({ "last_by_subj": subject_in_stream }))
            .await?;
        Ok(last.is_some())
    }

    fn raw(&self, message: Message) -> Result<StoredMessage, LeaderError> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| self.error(error));
        Ok(StoredMessage {
            headers: Some(wire::header_block(&decode(&message.hdrs)?).2),
            payload: decode(&message.data)?.into(),
            subject: message.subject.into(),
            sequence: message.seq,
            time: message.time,
            last_sequence: None,
        })
    }

    async fn read_message(
        &self,
        request: &serde_json::Value,
    ) -> Result<Option<Message>, LeaderError> {
        self.connected().await?;
        let sent_at = Instant::now();
        let answer = self.request("MSG.GET", request.to_string()).await?;
        if let Some(metrics) = &self.metrics {
            metrics.nats_round_trip(sent_at.elapsed());
        }
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| self.error(error))?;
        match answer.error {
            Some(error) if error.err_code == NO_MESSAGE => Ok(None),
            Some(error) => Err(self.error(error)),
            None => Ok(answer.message.map(|message| message.plain(&self.names))),
        }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.name
    }

    /// There is another leader: what was not answered is asked again at once.
    pub fn elected(&self) {
        self.elections.send_replace(());
    }

    /// Waits, but no longer than until there is another leader.
    pub(super) async fn pause(&self, pause: Duration) {
        let mut elections = self.elections.subscribe();
        // Either is the end of it; the other end of the channel is our own.
        let _ = timeout(pause, elections.changed()).await;
    }

    async fn connected(&self) -> Result<(), LeaderError> {
        let connected = timeout(TIMEOUT, self.connection.connected()).await;
        connected.map_err(|_| self.error("NATS is away"))
    }

    async fn request(&self, api: &str, request: String) -> Result<Bytes, LeaderError> {
        let answer = timeout(TIMEOUT, self.request_until_answered(api, request)).await;
        answer.unwrap_or_else(|_| Err(self.error("no answer in time")))
    }

    /// Asks JetStream's API until there is an answer.
    async fn request_until_answered(
        &self,
        api: &str,
        request: String,
    ) -> Result<Bytes, LeaderError> {
        let subject = self.names.api(&format!("STREAM.{api}"), &self.name);
        let request = Bytes::from(request);
        let inbox = Inbox::open(&self.connection).await;
        let mut inbox = inbox.map_err(|error| self.error(error))?;
        let mut elections = self.elections.subscribe();
        let mut again = AGAIN;
        loop {
            self.connection.connected().await;
            let sent = inbox.request(subject.clone().into(), request.clone());
            sent.await.map_err(|error| self.error(error))?;
            tokio::select! {
                answer = inbox.next() => return match answer {
                    Ok(answer) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                        Err(self.error("no responders"))
                    }
                    Ok(answer) => Ok(answer.payload),
                    Err(error) => Err(self.error(error)),
                },
                () = tokio::time::sleep(again) => again = AGAIN.min(again * 2),
                // The other end is our own: this is an election.
                _ = elections.changed() => again = SOON,
            }
        }
    }

    fn error(&self, cause: impl std::fmt::Display) -> LeaderError {
        LeaderError {
            stream: self.name.clone(),
            cause: cause.to_string(),
        }
    }
}

/// Whether a request for `subject` asks for that one. A publisher may choose bytes that are no UTF-8, which no
/// request can name, or tokens that mean many subjects in a request.
fn is_askable(subject: &str) -> bool {
    subject.split('.').all(|token| {
        token.bytes().all(|byte| byte.is_ascii_graphic()) && !matches!(token, "" | "*" | ">")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_no_request_can_name_is_no_witness() {
        for (subject, is_one) in [
            ("ws.acme.custom.x", true),
            ("ws.acme.custom.\u{fffd}", false),
            ("ws.acme.custom.x\u{a0}17", false),
            ("ws.acme.>", false),
            ("ws.acme.*.x", false),
            ("ws.acme..x", false),
            ("ws.a*b.custom.x>", true),
        ] {
            assert_eq!(is_askable(subject), is_one, "{subject}");
        }
    }
}
