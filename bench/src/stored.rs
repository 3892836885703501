//! When the stream stored each event: read after a run by batched direct get, so that the run itself is asked for nothing.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::DateTime;
use futures_util::StreamExt as _;

use crate::Error;
use crate::marker::{Mark, Markers};

/// Messages in one answer.
const BATCH: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the events are.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The subject of a direct get: `$JS.API.DIRECT.GET.EVENTS`, or another where there is a domain.
    pub direct_get: String,
    /// Where to begin.
    pub first: u64,
}

/// Times in microseconds since the epoch.
pub type Stored = HashMap<Mark, u64>;

/// Reads those of `filters`.
///
/// # Errors
/// Where the server does not answer, or answers what it should not.
pub async fn read(
    client: &async_nats::Client,
    stream: &Stream,
    filters: &[String],
    markers: &Markers,
) -> Result<Stored, Error> {
    let mut stored = Stored::default();
    for filter in filters {
        let mut next = stream.first;
        while let Some(last) = batch(client, stream, filter, next, markers, &mut stored)
            .await
            .map_err(|error| Error::of("cannot read when events were stored", error))?
        {
            next = last + 1;
        }
    }
    Ok(stored)
}

/// The sequence of the last message of a batch. `None`: there is no more.
async fn batch(
    client: &async_nats::Client,
    stream: &Stream,
    filter: &str,
    from: u64,
    markers: &Markers,
    stored: &mut Stored,
) -> Result<Option<u64>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(|e| text(&e))?;
    let question = serde_json::json!({"seq": from, "batch": BATCH, "next_by_subj": filter});
    let question = Bytes::from(question.to_string());
    client
        .publish_with_reply(stream.direct_get.clone(), inbox, question)
        .await
        .map_err(|e| text(&e))?;
    let mut last = None;
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let answer = answer.ok_or("the connection ended")?;
        match answer.status.map(|status| status.as_u16()) {
            None | Some(200) => {}
            Some(204 | 404) => return Ok(last),
            Some(code) => {
                let why = answer.description.unwrap_or_default();
                return Err(format!("{code} {why}"));
            }
        }
        let headers = answer.headers.unwrap_or_default();
        let (sequence, at) = place(&headers).ok_or("an answer without sequence and time")?;
        last = Some(sequence);
        markers.find(&answer.payload, |mark| {
            stored.insert(mark, at);
        });
    }
}

/// A message's sequence and time, which the server adds last.
fn place(headers: &HeaderMap) -> Option<(u64, u64)> {
    let header = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
    let sequence = header("Nats-Sequence")?.parse().ok()?;
    let time = DateTime::parse_from_rfc3339(header("Nats-Time-Stamp")?).ok()?;
    Some((sequence, u64::try_from(time.timestamp_micros()).ok()?))
}
