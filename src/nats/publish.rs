//! Publishing with JetStream's acknowledgement, and what an answer other than one means.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request, RequestErrorKind, header};
use bytes::Bytes;
use serde::Deserialize;

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
    /// The message is larger than the server takes.
    #[error("the message is larger than the NATS server takes")]
    MaxPayload,
    /// The subject already has as many messages as the stream keeps of one, and new ones are the
    /// ones to go.
    #[error("the stream has a message of this subject already")]
    SubjectTaken,
    /// The stream, or the account that it is in, is full, and new messages are the ones to go.
    #[error("the stream, or its account, is full: {0}")]
    Full(String),
    /// The stream refused the message: too large for it, no quorum.
    #[error("the stream refused the message: {0}")]
    Refused(String),
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
            Self::Timeout(_) | Self::NotJetStream | Self::Closed => true,
            Self::NoStream
            | Self::MaxPayload
            | Self::SubjectTaken
            | Self::Full(_)
            | Self::Refused(_) => false,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    // First, for a refusal carries a stream and a sequence of 0 as well.
    Refused {
        error: ApiError,
        #[serde(default)]
        stream: String,
    },
    Stored(PubAck),
}

#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// JetStream's `err_code` for a message that expects another stream.
const OTHER_STREAM: u64 = 10060;

/// The stream that stores what is published under `subject`. It is asked with a message that no stream takes, so
/// that an answer proves the way there and back, and the permissions, and nothing is stored.
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
    let answer = request(client, subject, headers, Bytes::new(), timeout).await?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Refused { error, stream }) if error.err_code == OTHER_STREAM => Ok(stream),
        // It is what a message that can be stored would come to.
        _ => Err(read(&answer).err().unwrap_or(PublishError::NotJetStream)),
    }
}

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
    read(&request(client, subject, headers, payload, timeout).await?)
}

async fn request(
    client: &Client,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
    timeout: Duration,
) -> Result<Bytes, PublishError> {
    let request = Request::new()
        .headers(headers)
        .payload(payload)
        .timeout(Some(timeout));
    let answer = client.send_request(subject, request).await;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::TimedOut => PublishError::Timeout(timeout),
        RequestErrorKind::NoResponders => PublishError::NoStream,
        RequestErrorKind::MaxPayloadExceeded => PublishError::MaxPayload,
        RequestErrorKind::InvalidSubject | RequestErrorKind::Other => PublishError::Closed,
    })?;
    Ok(answer.payload)
}

fn read(answer: &[u8]) -> Result<PubAck, PublishError> {
    match serde_json::from_slice(answer) {
        Ok(Answer::Stored(ack)) => Ok(ack),
        // The code (10077) is the same for all of these: only the text tells them apart (measured on
        // nats-server 2.15.1).
        Ok(Answer::Refused { error, .. }) => Err(match error.description.as_str() {
            "maximum messages per subject exceeded" => PublishError::SubjectTaken,
            "maximum messages exceeded"
            | "maximum bytes exceeded"
            | "resource limits exceeded for account"
            | "insufficient storage resources available"
            | "insufficient resources" => PublishError::Full(error.description),
            _ => PublishError::Refused(error.description),
        }),
        Err(_) => Err(PublishError::NotJetStream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_told_apart() {
        let stored = read(br#"{"stream":"EVENTS","seq":7}"#).unwrap();
        assert_eq!((stored.sequence, stored.duplicate), (7, false));
        let again = read(br#"{"stream":"EVENTS","seq":7,"duplicate":true,"domain":"d"}"#);
        assert!(again.unwrap().duplicate);
        let refused = |text: &str| {
            let answer = format!(
                r#"{{"error":{{"code":503,"err_code":10077,"description":"{text}"}},"stream":"DEAD","seq":0}}"#
            );
            read(answer.as_bytes()).unwrap_err()
        };
        let taken = refused("maximum messages per subject exceeded");
        assert!(matches!(taken, PublishError::SubjectTaken));
        for text in [
            "maximum messages exceeded",
            "maximum bytes exceeded",
            "resource limits exceeded for account",
        ] {
            assert!(matches!(refused(text), PublishError::Full(full) if full == text));
        }
        let other = refused("message size exceeds maximum allowed");
        assert!(matches!(other, PublishError::Refused(text) if text.starts_with("message")));
        for other in ["", "+OK", "{}", "[]", "null"] {
            let error = read(other.as_bytes()).unwrap_err();
            assert!(matches!(error, PublishError::NotJetStream), "{other}");
        }
    }
}
