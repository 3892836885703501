//! Requests to JetStream: one way to send them, and one way to read what it answers.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind, StatusCode, wire};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::Connection;
use super::inbox::{ClientEnded, Inbox};
use crate::event::StoredMessage;

/// After this time a request is sent again: a leader that was elected meanwhile does not know what was sent before.
const RESEND: Duration = Duration::from_millis(400);
/// The same after an election, and twice as long each time: the election is announced a little before the new leader
/// answers.
const RESEND_AFTER_ELECTION: Duration = Duration::from_millis(50);

/// A refusal of JetStream, as it is written in each of its answers (ADR-1).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} ({})", err_code.0)]
pub struct ApiError {
    /// HTTP's number.
    #[serde(default)]
    pub code: u16,
    #[serde(default)]
    pub err_code: ErrorCode,
    #[serde(default)]
    pub description: String,
}

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiFailure {
    #[error("NATS is away")]
    NotConnected,
    /// Nothing came in time: NATS or the leader is away. Or the permission is missing: the server reports that on the
    /// connection and not in an answer.
    #[error("no answer in time")]
    NoAnswer,
    #[error("no responders")]
    NoResponders,
    #[error("the request is larger than the NATS server takes")]
    MaxPayload,
    #[error(transparent)]
    ClientEnded(#[from] ClientEnded),
    #[error("the answer is not one of JetStream: {0}")]
    NotJetStream(String),
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// Sends a request until there is an answer, and waits up to `limit` for it; see [`decode`]. It is sent again after a
/// while, and at once after each of `elections`, but never while there is no connection. An answer to any of the
/// requests counts.
pub(super) async fn send_until_answered(
    connection: &Connection,
    subject: String,
    body: Bytes,
    limit: Duration,
    elections: &watch::Sender<()>,
) -> Result<Bytes, ApiFailure> {
    let answered = async {
        let mut inbox = Inbox::open(connection).await?;
        let mut elections = elections.subscribe();
        let mut again = RESEND;
        loop {
            connection.connected().await;
            inbox.request(subject.clone().into(), body.clone()).await?;
            tokio::select! {
                answer = inbox.next() => {
                    let answer = answer?;
                    return match answer.status {
                        Some(StatusCode::NO_RESPONDERS) => Err(ApiFailure::NoResponders),
                        _ => Ok(answer.payload),
                    };
                }
                () = tokio::time::sleep(again) => again = RESEND.min(again * 2),
                // The caller has the other end: this is an election.
                _ = elections.changed() => again = RESEND_AFTER_ELECTION,
            }
        }
    };
    let answered = timeout(limit, answered).await;
    answered.unwrap_or(Err(ApiFailure::NoAnswer))
}

/// Sends a request once, and waits up to `limit` for the answer; see [`decode`].
///
/// # Errors
/// [`ApiFailure`], but for what the answer says.
pub async fn send(
    client: &Client,
    subject: String,
    headers: Option<HeaderMap>,
    body: Bytes,
    limit: Duration,
) -> Result<Bytes, ApiFailure> {
    let mut request = Request::new().payload(body).timeout(Some(limit));
    request.headers = headers;
    let answer = client.send_request(subject, request).await;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::TimedOut => ApiFailure::NoAnswer,
        RequestErrorKind::NoResponders => ApiFailure::NoResponders,
        RequestErrorKind::MaxPayloadExceeded => ApiFailure::MaxPayload,
        RequestErrorKind::InvalidSubject | RequestErrorKind::Other => ClientEnded.into(),
    })?;
    Ok(answer.payload)
}

/// Reads an answer of JetStream: its refusal, or what was requested.
///
/// # Errors
/// [`ApiFailure::Refused`], [`ApiFailure::NotJetStream`].
pub fn decode<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, ApiFailure> {
    #[derive(Deserialize)]
    struct Refused {
        error: Option<ApiError>,
    }
    // The refusal first: other fields are in its answer, too, and say nothing.
    let read = serde_json::from_slice::<Refused>(answer).and_then(|refused| match refused.error {
        Some(error) => Ok(Err(error.into())),
        None => serde_json::from_slice(answer).map(Ok),
    });
    read.unwrap_or_else(|error| Err(ApiFailure::NotJetStream(error.to_string())))
}

/// The answer to `STREAM.MSG.GET` (ADR-8). Read here and not by the client, which fails on a message whose
/// publisher's headers are malformed, and with it every join.
#[derive(Debug, Deserialize)]
pub struct MessageAnswer {
    pub message: ApiMessage,
}

/// A stored message in JetStream's JSON.
#[derive(Debug, Deserialize)]
pub struct ApiMessage {
    pub subject: String,
    #[serde(rename = "seq")]
    pub sequence: u64,
    pub time: DateTime<Utc>,
    #[serde(default, rename = "hdrs")]
    headers: String,
    #[serde(default, rename = "data")]
    payload: String,
}

impl ApiMessage {
    /// The message under the subject that it has here.
    ///
    /// # Errors
    /// [`ApiFailure::NotJetStream`].
    pub fn into_stored(self) -> Result<StoredMessage, ApiFailure> {
        let decode = |text: &str| {
            let bytes = STANDARD.decode(text);
            bytes.map_err(|error| ApiFailure::NotJetStream(error.to_string()))
        };
        Ok(StoredMessage {
            headers: Some(wire::header_block(&decode(&self.headers)?).2),
            payload: decode(&self.payload)?.into(),
            subject: self.subject.into(),
            sequence: self.sequence,
            time: self.time,
            last_sequence: None,
        })
    }
}

/// Whether a request that names `subject` means that subject alone. A publisher may choose bytes that are no UTF-8,
/// which no request can name, or tokens that mean many subjects in a request.
pub(super) fn is_exact(subject: &str) -> bool {
    subject.split('.').all(is_exact_token)
}

/// A pattern that a request can name and that `subject` matches, and perhaps others.
pub(super) fn pattern(subject: &str) -> String {
    let tokens = subject.split('.');
    let tokens = tokens.map(|token| if is_exact_token(token) { token } else { "*" });
    tokens.collect::<Vec<_>>().join(".")
}

fn is_exact_token(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic()) && !matches!(token, "" | "*" | ">")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_no_request_can_name_is_requested_by_a_pattern() {
        for (subject, wanted) in [
            ("ws.acme.custom.x", "ws.acme.custom.x"),
            ("ws.my.shop.custom.x", "ws.my.shop.custom.x"),
            ("ws.a*b.custom.x>", "ws.a*b.custom.x>"),
            ("ws.acme.custom.\u{fffd}", "ws.acme.custom.*"),
            ("ws.acme.custom.x\u{a0}17", "ws.acme.custom.*"),
            ("ws.acme.>", "ws.acme.*"),
            ("ws.acme.*.x", "ws.acme.*.x"),
            ("ws.acme..x", "ws.acme.*.x"),
            ("ws.*.custom.x>", "ws.*.custom.x>"),
        ] {
            assert_eq!(pattern(subject), wanted);
            let is_one = !subject
                .split('.')
                .any(|token| matches!(token, "" | "*" | ">"));
            assert_eq!(is_exact(subject), is_one && subject == wanted, "{subject}");
        }
    }

    #[test]
    fn a_refusal_counts_before_what_else_is_in_an_answer() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Sequence {
            seq: u64,
        }
        let read = |answer: &str| decode::<Sequence>(answer.as_bytes());
        assert_eq!(read(r#"{"seq":7}"#), Ok(Sequence { seq: 7 }));
        let refused = read(r#"{"error":{"code":404,"err_code":10037,"description":"no"},"seq":0}"#);
        let error = ApiError {
            code: 404,
            err_code: ErrorCode::NO_MESSAGE_FOUND,
            description: "no".to_owned(),
        };
        assert_eq!(error.to_string(), "no (10037)");
        assert_eq!(refused, Err(error.into()));
        for other in ["", "+OK", "{}", "[]", "null", "{\"seq\":\"x\"}"] {
            let read = read(other);
            assert!(matches!(read, Err(ApiFailure::NotJetStream(_))), "{other}");
        }
    }
}
