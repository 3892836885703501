//! Publishing with JetStream's acknowledgement, and what an answer other than one means.

use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::{Client, HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;

use super::api::{self, ApiError, ApiFailure};
use crate::config::Names;

/// What JetStream did with a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PubAck {
    /// The stream that stored it.
    pub stream: String,
    /// Its sequence there; that of the first one where it is a duplicate.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// Whether the stream had one of the same `Nats-Msg-Id` in its window, and dropped this.
    #[serde(default)]
    pub duplicate: bool,
}

/// Why there is no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Nothing came in time: NATS is away, or the permission to publish is missing, of which the
    /// server tells on the connection and not in an answer.
    #[error("NATS did not acknowledge within {0:?}")]
    Timeout(Duration),
    /// No stream takes the subject, or JetStream is off.
    #[error("no stream takes this subject: have the migrations been applied?")]
    NoStream,
    /// The message is larger, with its headers, than the server takes, or the stream (`max_msg_size`).
    #[error("the message is larger, with its headers, than NATS takes")]
    MaxPayload,
    /// The subject already has as many messages as the stream keeps of one, and new ones are the
    /// ones to go.
    #[error("the stream has a message of this subject already")]
    SubjectTaken,
    /// The subject has another last message than the one that this was to follow.
    #[error("the stream has a newer message of this subject")]
    Overtaken,
    /// The stream is full, and new messages are the ones to go.
    #[error("the stream is full: {0}")]
    StreamFull(String),
    /// The account, or the server's storage, has no room for anything.
    #[error("the NATS account, or its server's storage, is full: {0}")]
    AccountFull(String),
    /// The stream refused the message: too large for it, no quorum.
    #[error("the stream refused the message: {0}")]
    Refused(String),
    /// The cluster is storing another copy with the same `Nats-Msg-Id`. Nobody knows yet whether it succeeds.
    #[error("NATS has another copy with the same id in process")]
    InProcess,
    /// Something else than JetStream answered.
    #[error("the answer is not one of JetStream")]
    NotJetStream,
    /// The connection is closed.
    #[error("the connection to NATS is closed")]
    Closed,
}

impl PublishError {
    /// Whether the message may have been stored all the same.
    pub fn may_be_stored(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::InProcess | Self::NotJetStream | Self::Closed => true,
            Self::NoStream
            | Self::MaxPayload
            | Self::SubjectTaken
            | Self::Overtaken
            | Self::StreamFull(_)
            | Self::AccountFull(_)
            | Self::Refused(_) => false,
        }
    }
}

/// The stream that stores what is published under `subject`. Its answer to a message that no stream takes says so. That
/// answer also proves the way there and back, and the permissions, and nothing is stored.
///
/// # Errors
/// [`PublishError`].
pub async fn stream_of(
    client: &Client,
    subject: String,
    timeout: Duration,
) -> Result<String, PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_STREAM, "herald-check-none");
    let answer = api::send(client, subject, Some(headers), Bytes::new(), timeout).await;
    let answer = answer.map_err(|failure| PublishError::of(failure, timeout))?;
    match api::decode::<PubAck>(&answer) {
        Err(ApiFailure::Refused(error)) if error.err_code == ErrorCode::STREAM_NOT_MATCH => {
            // It names the stream all the same.
            let stream: Result<StreamName, _> = serde_json::from_slice(&answer);
            stream.map_or(Err(PublishError::NotJetStream), |named| Ok(named.stream))
        }
        // Nothing can be stored.
        Ok(_) => Err(PublishError::NotJetStream),
        // It is what a message that can be stored would come to.
        Err(failure) => Err(PublishError::of(failure, timeout)),
    }
}

#[derive(Deserialize)]
struct StreamName {
    stream: String,
}

/// How long the stream of events knows a `Nats-Msg-Id`.
///
/// # Errors
/// [`ApiFailure`].
pub async fn duplicate_window(client: &Client, names: &Names) -> Result<Duration, ApiFailure> {
    #[derive(Deserialize)]
    struct StreamInfo {
        config: Window,
    }
    #[derive(Deserialize)]
    struct Window {
        /// In nanoseconds.
        #[serde(default)]
        duplicate_window: u64,
    }
    let subject = names.api("STREAM.INFO", names.events());
    let answer = api::send(client, subject, None, Bytes::new(), INFO_TIMEOUT).await?;
    let info: StreamInfo = api::decode(&answer)?;
    Ok(Duration::from_nanos(info.config.duplicate_window))
}

/// How long an answer about a stream may take.
const INFO_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes, and waits up to `timeout` for the acknowledgement.
///
/// # Errors
/// [`PublishError`]. With [`PublishError::Timeout`] the message may have been stored all the same.
pub async fn publish(
    client: &Client,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    timeout: Duration,
) -> Result<PubAck, PublishError> {
    let answer = api::send(client, subject, Some(headers), payload, timeout).await;
    answer
        .and_then(|answer| api::decode(&answer))
        .map_err(|failure| PublishError::of(failure, timeout))
}

/// The pauses before a message is sent again of which another copy is in process: an agreement of the replicas takes
/// milliseconds.
const IN_PROCESS_PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// As [`publish`], for a message with a `Nats-Msg-Id` that somebody else may be sending, too. Where another copy is in
/// process, this one is sent again a few times, until NATS knows what became of the other.
///
/// # Errors
/// As there.
pub async fn publish_once(
    client: &Client,
    subject: &str,
    headers: HeaderMap,
    payload: Bytes,
    timeout: Duration,
) -> Result<PubAck, PublishError> {
    let deadline = Instant::now() + timeout;
    let mut pauses = IN_PROCESS_PAUSES.into_iter();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (headers, payload) = (headers.clone(), payload.clone());
        let published = publish(client, subject.to_owned(), headers, payload, left).await;
        match (published, pauses.next()) {
            (Err(PublishError::InProcess), Some(pause)) => tokio::time::sleep(pause).await,
            (Err(PublishError::Timeout(_)), _) => return Err(PublishError::Timeout(timeout)),
            (ended, _) => return ended,
        }
    }
}

impl PublishError {
    /// What a failure means for a message that was waited for up to `timeout`.
    fn of(failure: ApiFailure, timeout: Duration) -> Self {
        match failure {
            ApiFailure::NoAnswer | ApiFailure::NotConnected => Self::Timeout(timeout),
            ApiFailure::NoResponders => Self::NoStream,
            ApiFailure::MaxPayload => Self::MaxPayload,
            ApiFailure::ClientEnded(_) => Self::Closed,
            ApiFailure::NotJetStream(_) => Self::NotJetStream,
            ApiFailure::Refused(error) => Self::refused(error),
        }
    }

    /// One code (10077) is for all that a stream refuses: only the text tells those apart (measured on nats-server
    /// 2.15.1).
    fn refused(error: ApiError) -> Self {
        let text = error.description;
        match error.err_code {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => Self::Overtaken,
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES => Self::AccountFull(text),
            ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Self::InProcess,
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Self::MaxPayload,
            _ => match text.as_str() {
                "maximum messages per subject exceeded" => Self::SubjectTaken,
                "maximum messages exceeded" | "maximum bytes exceeded" => Self::StreamFull(text),
                "resource limits exceeded for account"
                | "insufficient storage resources available"
                | "insufficient resources" => Self::AccountFull(text),
                _ => Self::Refused(text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<PubAck, PublishError> {
        let read = api::decode(answer.as_bytes());
        read.map_err(|failure| PublishError::of(failure, Duration::ZERO))
    }

    #[test]
    fn each_answer_is_distinguished() {
        let stored = read(r#"{"stream":"EVENTS","seq":7}"#).unwrap();
        assert_eq!((stored.sequence, stored.duplicate), (7, false));
        let again = read(r#"{"stream":"EVENTS","seq":7,"duplicate":true,"domain":"d"}"#);
        assert!(again.unwrap().duplicate);
        use PublishError as E;
        type Check = fn(&PublishError) -> bool;
        let table: [(u64, &str, Check); 12] = [
            (10077, "maximum messages per subject exceeded", |error| {
                matches!(error, E::SubjectTaken)
            }),
            (10077, "maximum messages exceeded", |error| {
                matches!(error, E::StreamFull(_))
            }),
            (10077, "maximum bytes exceeded", |error| {
                matches!(error, E::StreamFull(_))
            }),
            (10077, "resource limits exceeded for account", |error| {
                matches!(error, E::AccountFull(_))
            }),
            (10077, "insufficient resources", |error| {
                matches!(error, E::AccountFull(_))
            }),
            (10002, "", |error| matches!(error, E::AccountFull(_))),
            (10023, "", |error| matches!(error, E::AccountFull(_))),
            (10071, "wrong last sequence: 7", |error| {
                matches!(error, E::Overtaken)
            }),
            (10164, "wrong last sequence", |error| {
                matches!(error, E::Overtaken)
            }),
            (10158, "duplicate message id is in process", |error| {
                matches!(error, E::InProcess) && error.may_be_stored()
            }),
            (10054, "message size exceeds maximum allowed", |error| {
                matches!(error, E::MaxPayload)
            }),
            (10060, "expected stream does not match", |error| {
                matches!(error, E::Refused(_))
            }),
        ];
        for (code, text, check) in table {
            let answer = format!(
                r#"{{"error":{{"code":503,"err_code":{code},"description":"{text}"}},"stream":"DEAD","seq":0}}"#
            );
            let error = read(&answer).unwrap_err();
            assert!(check(&error), "{code} {text}: {error:?}");
        }
        for other in ["", "+OK", "{}", "[]", "null"] {
            let error = read(other).unwrap_err();
            assert!(matches!(error, PublishError::NotJetStream), "{other}");
        }
    }
}
