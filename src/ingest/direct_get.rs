//! Batched direct get (ADR-31), which the NATS client does not have: reads of many stored messages
//! with one request, answered by any replica of the stream.
//!
//! A replica may lag: that a message is missing from an answer proves nothing unless the answer
//! reaches far enough ([`End::up_to_sequence`], or the leader's own read). What is inside an answer
//! is checked: each message names the one before it, so one that got lost on the way is an error
//! and never a silent hole.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::connection::is_connected;
use super::raw::RawStored;

/// How long the next message of an answer may take. An answer comes in one go, so that this is the
/// time of one round trip on a bad day. Meanwhile the question is sent again, as long as nothing has come.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Most messages asked for in one batch: well below what waits for one subscription in the client
/// (4096), so that an answer never overruns its own inbox.
pub const BATCH_MAX: usize = 1024;

/// How often a question is asked before it has got no answer.
const ASKED_MAX: u32 = 3;

/// Direct reads of one stream.
#[derive(Debug, Clone)]
pub struct DirectGet {
    client: Client,
    subject: Subject,
    timeout: Duration,
}

/// What was asked. It can be asked again: what was lost with a connection, or went to a replica that is
/// not there, gets no answer.
#[derive(Debug)]
struct Question {
    client: Client,
    subject: Subject,
    body: Bytes,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct End {
    /// The replica that answered has no match at all (404).
    pub not_found: bool,
    /// Matching messages that the replica holds beyond this answer: ask on from the last sequence.
    pub pending: u64,
    /// Up to where the replica had looked. Only [`DirectGet::multi_last`] is told.
    pub up_to_sequence: Option<u64>,
}

/// The last message of one subject.
#[derive(Debug, Clone)]
pub struct LastOf {
    pub subject: Subject,
    pub sequence: u64,
    pub time: DateTime<Utc>,
    pub payload: Bytes,
    pub headers: Option<HeaderMap>,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum DirectGetError {
    /// Nothing came in time: connection lost, permission to ask denied, or an overloaded server.
    #[error("NATS did not answer a direct get within {0:?}")]
    Timeout(Duration),
    /// 503: no such stream, no direct get on it, no JetStream, or no replica up.
    #[error("nobody answers direct gets: is there such a stream, and does it allow direct get?")]
    NoResponders,
    /// 413: more than 1024 subjects match; ask for fewer at a time.
    #[error("the answer would have more than 1024 subjects")]
    TooManyResults,
    /// 408: the server does not understand the request.
    #[error("NATS refused the direct get as malformed: {0}")]
    BadRequest(String),
    /// Any other status.
    #[error("NATS answered a direct get with status {code}: {description}")]
    Status { code: u16, description: String },
    /// A message of the answer did not arrive, or could not be read. Ask again.
    #[error("the answer to a direct get is incomplete")]
    Incomplete,
    /// A message of the answer lacks the server's headers.
    #[error("the answer to a direct get has a message without the server's headers")]
    Malformed,
    /// The request could not be sent.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// The body of a request; what is `None` is not sent.
#[derive(Debug, Default, Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_last: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
}

impl DirectGet {
    /// Reads of `stream` over `client`.
    pub fn new(client: Client, stream: &str) -> Self {
        Self {
            client,
            subject: format!("$JS.API.DIRECT.GET.{stream}").into(),
            timeout: ANSWER_TIMEOUT,
        }
    }

    /// Waits `timeout` for each message of an answer instead of [`ANSWER_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Asks for up to `batch` messages (at most [`BATCH_MAX`]) from sequence `seq` on whose subject
    /// matches `subject`. The server ends the answer with the first message that brings it to
    /// `max_bytes` of subjects, headers and payloads, so that it holds at least one.
    ///
    /// # Errors
    /// [`DirectGetError::Closed`]; what the server says comes from [`Batch::next`].
    pub async fn next_by_subject(
        &self,
        seq: u64,
        batch: usize,
        max_bytes: usize,
        subject: &str,
    ) -> Result<Batch, DirectGetError> {
        self.ask(&Request {
            // The server takes 0 for "not given", and then 1 is what is meant.
            seq: Some(seq.max(1)),
            next_by_subj: Some(subject),
            batch: Some(batch.clamp(1, BATCH_MAX)),
            max_bytes: Some(max_bytes.max(1)),
            ..Request::default()
        })
        .await
    }

    /// As [`DirectGet::next_by_subject`], from the first message stored at `time` or later.
    ///
    /// # Errors
    /// As there.
    pub async fn next_since(
        &self,
        time: DateTime<Utc>,
        batch: usize,
        max_bytes: usize,
        subject: &str,
    ) -> Result<Batch, DirectGetError> {
        self.ask(&Request {
            start_time: Some(time.to_rfc3339_opts(SecondsFormat::Nanos, true)),
            next_by_subj: Some(subject),
            batch: Some(batch.clamp(1, BATCH_MAX)),
            max_bytes: Some(max_bytes.max(1)),
            ..Request::default()
        })
        .await
    }

    /// The last message of each subject that matches one of `subjects` (wildcards allowed), in the
    /// order of their sequences. [`End::up_to_sequence`] is the last sequence of the replica that
    /// answered, except with [`End::not_found`].
    ///
    /// The server cuts an answer off at its own `max_pending` (64 MiB by default), which
    /// [`End::pending`] then shows.
    ///
    /// # Errors
    /// [`DirectGetError`]; [`DirectGetError::TooManyResults`] beyond 1024 subjects.
    pub async fn multi_last(
        &self,
        subjects: &[String],
    ) -> Result<(Vec<LastOf>, End), DirectGetError> {
        let mut batch = self
            .ask(&Request {
                multi_last: Some(subjects),
                ..Request::default()
            })
            .await?;
        let mut lasts = Vec::new();
        while let Some(raw) = batch.next().await? {
            lasts.push(LastOf {
                subject: raw.subject,
                sequence: raw.sequence,
                time: raw.time,
                payload: raw.payload,
                headers: raw.headers,
            });
        }
        Ok((lasts, batch.end()))
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Batch, DirectGetError> {
        if !is_connected(&self.client, self.timeout).await {
            return Err(DirectGetError::Closed);
        }
        let body = serde_json::to_vec(request).map_err(|_| DirectGetError::Closed)?;
        let question = Question {
            client: self.client.clone(),
            subject: self.subject.clone(),
            body: body.into(),
        };
        Ok(Batch {
            messages: question.ask().await?,
            question,
            asked: 1,
            kind: if request.multi_last.is_some() {
                Kind::MultiLast
            } else {
                Kind::Next
            },
            timeout: self.timeout,
            previous: 0,
            end: None,
        })
    }
}

impl Question {
    /// Asks; returns where the answer will come.
    async fn ask(&self) -> Result<Subscriber, DirectGetError> {
        // An inbox of its own: the shared one of `Client::request` takes a single message.
        let inbox = self.client.new_inbox();
        let messages = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| DirectGetError::Closed)?;
        // The server handles SUB and PUB of one connection in order, so nothing needs flushing in
        // between.
        self.client
            .publish_with_reply(self.subject.clone(), inbox, self.body.clone())
            .await
            .map_err(|_| DirectGetError::Closed)?;
        Ok(messages)
    }
}

/// An answer on its way. Dropping it unsubscribes, which ends what is still to come of it.
#[derive(Debug)]
pub struct Batch {
    messages: Subscriber,
    question: Question,
    /// How often.
    asked: u32,
    kind: Kind,
    timeout: Duration,
    /// Sequence of the message before, 0 at first: what the next one must name.
    previous: u64,
    end: Option<End>,
}

impl Batch {
    /// The next message, or `None` at the end of the answer. Cancel safe: nothing is lost where the
    /// future is dropped.
    ///
    /// # Errors
    /// [`DirectGetError`], after which the rest of the answer is of no use.
    pub async fn next(&mut self) -> Result<Option<RawStored>, DirectGetError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let message = loop {
            match tokio::time::timeout(self.patience(), self.messages.next()).await {
                Ok(message) => break message.ok_or(DirectGetError::Closed)?,
                Err(_) if self.previous == 0 && self.asked < ASKED_MAX => {
                    self.messages = self.question.ask().await?;
                    self.asked += 1;
                }
                Err(_) => return Err(DirectGetError::Timeout(self.timeout)),
            }
        };
        match step(message, self.kind, self.previous)? {
            Step::Message(raw) => {
                self.previous = raw.sequence;
                Ok(Some(raw))
            }
            Step::End(end) => {
                self.end = Some(end);
                Ok(None)
            }
        }
    }

    /// How long the next message is waited for: for the first one at most the whole time in all, and longer
    /// each time, since it may just be slow.
    fn patience(&self) -> Duration {
        match (self.previous, self.asked) {
            (0, 1) => self.timeout / 8,
            (0, 2) => self.timeout / 4,
            (0, _) => self.timeout / 8 * 5,
            _ => self.timeout,
        }
    }

    /// How the answer ended; [`End::default`] before [`Batch::next`] has returned `None`.
    pub fn end(&self) -> End {
        self.end.unwrap_or_default()
    }
}

#[derive(Debug)]
enum Step {
    Message(RawStored),
    End(End),
}

/// Reads one message of an answer of this kind. `previous` is the sequence of the one before it, 0
/// for none.
fn step(message: Message, kind: Kind, previous: u64) -> Result<Step, DirectGetError> {
    // The status line is looked at last: a publisher can store one (a bare line feed in it escapes
    // the server's filter), but nobody can take away the headers that the server adds to a message.
    let (status, description) = (message.status, message.description.clone());
    let end_headers = status.is_some().then(|| message.headers.clone()).flatten();
    if let Ok(raw) = RawStored::parse(message) {
        let in_order = raw.sequence > previous && raw.last_sequence == Some(previous);
        return in_order
            .then_some(Step::Message(raw))
            .ok_or(DirectGetError::Incomplete);
    }
    let number = |name: &str| -> Option<u64> {
        let value = end_headers.as_ref()?.get_last(name)?;
        value.as_str().parse().ok()
    };
    let code = status.ok_or(DirectGetError::Malformed)?.as_u16();
    let description = description.unwrap_or_default();
    match code {
        204 if number("Nats-Last-Sequence") == Some(previous) => Ok(Step::End(End {
            not_found: false,
            pending: number("Nats-Num-Pending").ok_or(DirectGetError::Incomplete)?,
            up_to_sequence: number("Nats-UpTo-Sequence"),
        })),
        204 => Err(DirectGetError::Incomplete),
        404 if kind.is_empty(previous, &description) => Ok(Step::End(End {
            not_found: true,
            ..End::default()
        })),
        404 => Err(DirectGetError::Incomplete),
        408 => Err(DirectGetError::BadRequest(description)),
        413 => Err(DirectGetError::TooManyResults),
        503 => Err(DirectGetError::NoResponders),
        code => Err(DirectGetError::Status { code, description }),
    }
}

/// Which question an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Next,
    MultiLast,
}

impl Kind {
    /// Whether a 404 behind the message `previous` says that nothing matches. `multi_last` also
    /// ends with a 404, of another text, where it could not load a message that does match.
    fn is_empty(self, previous: u64, description: &str) -> bool {
        previous == 0 && (self == Self::Next || description == "No Results")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<(u16, &str)>, headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: Bytes::new(),
            headers: Some(map),
            status: status.map(|(code, _)| async_nats::StatusCode::from_u16(code).unwrap()),
            description: status.map(|(_, text)| text.to_owned()),
            length: 0,
        }
    }

    const STORED: [(&str, &str); 3] = [
        ("Nats-Subject", "ws.acme.custom.x"),
        ("Nats-Sequence", "7"),
        ("Nats-Time-Stamp", "2026-01-02T03:04:05Z"),
    ];

    #[test]
    fn a_message_counts_only_behind_the_one_it_names() {
        for (names, previous, good) in [("0", 0, true), ("3", 3, true), ("3", 2, false)] {
            let mut headers = STORED.to_vec();
            headers.push(("Nats-Last-Sequence", names));
            let got = step(answer(None, &headers), Kind::Next, previous);
            assert_eq!(matches!(got, Ok(Step::Message(_))), good, "{got:?}");
        }
    }

    #[test]
    fn regression_a_stored_status_line_does_not_end_an_answer() {
        let mut headers = vec![("Nats-Num-Pending", "0"), ("Nats-Last-Sequence", "0")];
        headers.extend(STORED);
        headers.push(("Nats-Last-Sequence", "0"));
        let got = step(answer(Some((204, "EOB")), &headers), Kind::Next, 0);
        assert!(matches!(got, Ok(Step::Message(_))), "{got:?}");
    }

    #[test]
    fn each_status_is_told_apart() {
        use DirectGetError as E;
        type Check = fn(&Result<Step, E>) -> bool;
        let not_found: Check =
            |got| matches!(got, Ok(Step::End(end)) if end.not_found && end.pending == 0);
        let incomplete: Check = |got| matches!(got, Err(E::Incomplete));
        let table: [(u16, &str, Kind, u64, Check); 9] = [
            (404, "Message Not Found", Kind::Next, 0, not_found),
            (404, "No Results", Kind::MultiLast, 0, not_found),
            (404, "Message Not Found", Kind::MultiLast, 0, incomplete),
            (404, "Message Not Found", Kind::MultiLast, 5, incomplete),
            (204, "EOB", Kind::Next, 0, incomplete),
            (
                408,
                "Bad Request",
                Kind::Next,
                0,
                |got| matches!(got, Err(E::BadRequest(text)) if text == "Bad Request"),
            ),
            (413, "Too Many Results", Kind::MultiLast, 0, |got| {
                matches!(got, Err(E::TooManyResults))
            }),
            (503, "", Kind::Next, 0, |got| {
                matches!(got, Err(E::NoResponders))
            }),
            (500, "boom", Kind::Next, 0, |got| {
                matches!(got, Err(E::Status { code: 500, .. }))
            }),
        ];
        for (code, text, kind, previous, check) in table {
            let got = step(answer(Some((code, text)), &[]), kind, previous);
            assert!(check(&got), "{code} {text} {kind:?}: {got:?}");
        }
        let got = step(answer(None, &[]), Kind::Next, 0);
        assert!(matches!(got, Err(E::Malformed)), "{got:?}");
    }

    #[test]
    fn an_end_counts_only_behind_the_message_it_names() {
        for (previous, good) in [(7, true), (6, false)] {
            let headers = [
                ("Nats-Num-Pending", "4"),
                ("Nats-Last-Sequence", "7"),
                ("Nats-UpTo-Sequence", "20"),
            ];
            let got = step(
                answer(Some((204, "EOB")), &headers),
                Kind::MultiLast,
                previous,
            );
            let want = End {
                not_found: false,
                pending: 4,
                up_to_sequence: Some(20),
            };
            assert_eq!(
                matches!(&got, Ok(Step::End(end)) if *end == want),
                good,
                "{got:?}"
            );
        }
    }
}
