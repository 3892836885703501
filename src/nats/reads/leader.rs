//! Reads that only a stream's leader answers. What they say is final.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::Info;
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::Instrument;

use crate::config::Names;
use crate::event::{Position, StoredMessage};
use crate::nats::api::{self, ApiFailure, ApiMessage, MessageAnswer, is_exact};
use crate::nats::connection::Connection;
use crate::telemetry::{self, Failure, Metrics};

/// How long an answer is waited for, and before that for a connection. A leader answers in well under a
/// millisecond; during an election nobody does.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The request for one message, without what all requests about a stream begin with.
const MESSAGE_GET: &str = "MSG.GET";

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

/// A message that is requested of a replica beside what is wanted, so that the answer is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// The stream holds no message.
    Nothing,
    /// The subject of a message in the stream: the last one's, if a request can name it.
    Subject(String),
    /// No subject is known that a request can name.
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
    /// A read is for many at a time, so that it is a trace of its own.
    is_for_many: bool,
    /// Says that there was an election.
    elections: watch::Sender<()>,
    /// The newest message whose subject a request can name: its sequence, and that subject. One lock for a moment:
    /// reads run side by side.
    last_exact: Arc<Mutex<Option<(u64, String)>>>,
}

impl Leader {
    /// Of the stream `name`, whose messages are all under the plain `subjects`. Subjects are plain here, in requests and
    /// answers. Does no I/O.
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
            last_exact: Arc::default(),
        }
    }

    /// The same, with the time of each read in `metrics`.
    #[must_use]
    pub fn observed(mut self, metrics: &Arc<Metrics>) -> Self {
        self.metrics = Some(Arc::clone(metrics));
        self
    }

    /// The same, for reads whose answer is for many.
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
        let last = self.last_by(self.subjects);
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
            position: state.last(),
            witness: Witness::Nothing,
        })
    }

    /// The end of a stream whose last message this is.
    fn end_at(&self, message: ApiMessage) -> StreamEnd {
        let mut last_exact = self
            .last_exact
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A pattern that fits it may fit thousands of others, all of which the answer would hold.
        if is_exact(&message.subject) {
            *last_exact = Some((message.sequence, message.subject));
        }
        let known = last_exact.as_ref().map(|(_, subject)| subject.clone());
        StreamEnd {
            position: Position {
                sequence: message.sequence,
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
        self.last_exact
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
        let decode = |answer: &[u8]| api::decode(answer);
        self.read("INFO", "{}".to_owned(), decode).await
    }

    /// The message that `request` names, under its plain subject.
    async fn get(&self, request: &serde_json::Value) -> Result<Option<ApiMessage>, LeaderError> {
        let decode = |answer: &[u8]| match api::decode(answer) {
            Ok(MessageAnswer { mut message }) => {
                if let Some(plain) = self.names.plain(&message.subject) {
                    message.subject = plain.to_owned();
                }
                Ok(Some(message))
            }
            Err(ApiFailure::Refused(error)) if error.err_code == ErrorCode::NO_MESSAGE_FOUND => {
                Ok(None)
            }
            Err(failure) => Err(failure),
        };
        self.read(MESSAGE_GET, request.to_string(), decode).await
    }

    /// Sends a request until there is an answer, within a span.
    async fn read<T>(
        &self,
        api: &str,
        body: String,
        decode: impl FnOnce(&[u8]) -> Result<T, ApiFailure>,
    ) -> Result<T, LeaderError> {
        let read = async {
            let connected = timeout(TIMEOUT, self.connection.connected()).await;
            connected.map_err(|_| ApiFailure::NotConnected)?;
            let sent_at = Instant::now();
            let subject = self.names.api(&format!("STREAM.{api}"), &self.name);
            let (connection, elections) = (&self.connection, &self.elections);
            let answer =
                api::send_until_answered(connection, subject, body.into(), TIMEOUT, elections);
            let answer = answer.await?;
            if let Some(metrics) = &self.metrics
                && api == MESSAGE_GET
            {
                metrics.nats_round_trip(sent_at.elapsed());
            }
            decode(&answer)
        };
        let span = telemetry::read_leader(&self.name, api, self.is_for_many);
        let read = async {
            read.await
                .map_err(|failure| self.error(failure))
                .record_error()
        };
        read.instrument(span).await
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
        match self.get(&self.last_by(subject)).await? {
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
        Ok(self.get(&self.last_by(subject)).await?.is_some())
    }

    /// The request for the last message whose subject matches `subject`.
    fn last_by(&self, subject: &str) -> serde_json::Value {
        json!({ "last_by_subj": self.names.subject(subject) })
    }

    fn raw(&self, message: ApiMessage) -> Result<StoredMessage, LeaderError> {
        message.into_stored().map_err(|failure| self.error(failure))
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.name
    }

    /// There is another leader: what was not answered is sent again at once.
    pub fn elected(&self) {
        self.elections.send_replace(());
    }

    /// Waits, but no longer than until there is another leader.
    pub(in crate::nats) async fn pause(&self, pause: Duration) {
        let mut elections = self.elections.subscribe();
        // Either is the end of it; the other end of the channel is our own.
        let _ = timeout(pause, elections.changed()).await;
    }

    fn error(&self, cause: impl std::fmt::Display) -> LeaderError {
        LeaderError {
            stream: self.name.clone(),
            cause: cause.to_string(),
        }
    }
}
