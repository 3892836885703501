//! One letter: as it waits, small, and as it is sent.

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::config::names;
use crate::event::{
    BadEvent, Reason, StoredMessage, WorkspaceSlug, baggage, traceparent, tracestate,
};
use crate::telemetry::{DeadLetterTrace, EventTrace};

/// Largest payload that is kept, in bytes: what EVENTS takes at most, with its headers.
pub(super) const PAYLOAD_MAX: usize = 128 * 1024;

/// What is kept of the payload of a letter that is cut, in bytes: enough to know it by.
pub(super) const CUT: usize = 1024;

/// Bytes of the event's subject that a letter names which is cut.
const CUT_SUBJECT: usize = 256;

/// What a letter costs beside its texts: itself, and what the allocator takes for each of them.
const COST: usize = size_of::<Letter>() + 128;

/// The same where the event's trace is recorded, whose span waits with it.
const COST_OF_TRACE: usize = 2048;

/// What a stored letter has beside its texts: names of headers, reason, time, id, and the stream's own.
const STORED: usize = 320;

/// Name of the header that says how large the payload was, on a letter that has not all of it.
const PAYLOAD_BYTES: &str = "Herald-Payload-Bytes";

/// A letter that waits. Its headers are made when it is sent: they are three times as large.
#[derive(Debug)]
pub(super) struct Letter {
    sequence: u64,
    time: DateTime<Utc>,
    subject: Box<str>,
    reason: Reason,
    detail: Box<str>,
    /// The publisher's own context, that goes on with the letter.
    context: Box<[(&'static str, Box<str>)]>,
    payload: Bytes,
    /// Bytes of the event's payload.
    payload_bytes: usize,
    trace: Option<EventTrace>,
    is_found: bool,
}

/// A letter as it is sent.
#[derive(Debug)]
pub(super) struct OutgoingLetter {
    /// Plain.
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
    /// Where the event's trace is recorded.
    pub(super) trace: Option<DeadLetterTrace>,
    /// Found in the stream, and maybe reported before.
    pub(super) is_found: bool,
    payload_bytes: usize,
    is_cut: bool,
}

impl Letter {
    /// The letter of a bad event, with `most` bytes of its payload.
    pub(super) fn new(
        message: &StoredMessage,
        bad: &BadEvent,
        most: usize,
        trace: Option<EventTrace>,
    ) -> Self {
        let payload = message.payload.get(..most).unwrap_or(&message.payload);
        Self {
            sequence: message.sequence,
            time: message.time,
            subject: message.subject.as_str().into(),
            reason: bad.reason,
            detail: bad.detail.as_str().into(),
            context: context(message, trace.is_some()),
            // A copy, because a payload of the client's holds on to the whole buffer that was read
            // with it, which no limit here would count.
            payload: Bytes::copy_from_slice(payload),
            payload_bytes: message.payload.len(),
            trace,
            is_found: false,
        }
    }

    /// The same, of an event that may have been reported before.
    pub(super) fn found(self) -> Self {
        Self {
            is_found: true,
            ..self
        }
    }

    /// What it costs to have it wait, in bytes.
    pub(super) fn cost(&self) -> usize {
        let trace = self.trace.as_ref().map_or(0, |_| COST_OF_TRACE);
        COST + trace + self.texts() + self.payload.len()
    }

    /// About how many bytes it takes in the stream: whole, and cut.
    pub(super) fn stored_bytes(&self) -> (u64, u64) {
        let whole = STORED + self.texts() + self.payload.len();
        let subject = self.subject.len().min(CUT_SUBJECT);
        let cut = STORED + subject + self.detail.len() + self.payload.len().min(CUT);
        (whole as u64, cut as u64)
    }

    fn texts(&self) -> usize {
        let context = self.context.iter().map(|(_, value)| value.len());
        self.subject.len() + self.detail.len() + context.sum::<usize>()
    }

    /// Ends its trace: it will not be sent.
    pub(super) fn dropped(self) {
        if let Some(trace) = self.trace {
            trace.letter_dropped();
        }
    }

    /// The letter as it is sent.
    pub(super) fn message(self, workspace: &WorkspaceSlug) -> OutgoingLetter {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.context {
            insert(&mut headers, name, value);
        }
        insert(&mut headers, "Herald-Reason", self.reason.as_str());
        insert(&mut headers, "Herald-Detail", &self.detail);
        insert(&mut headers, "Herald-Subject", &self.subject);
        let time = self.time.to_rfc3339_opts(SecondsFormat::Millis, true);
        insert(&mut headers, "Herald-Time", &time);
        if self.payload.len() < self.payload_bytes {
            headers.insert(PAYLOAD_BYTES, self.payload_bytes.to_string());
        }
        // The stream keeps one letter of a subject whatever its id; the id has the answer to a second
        // one say where the first stands.
        let subject = names::letter(workspace, self.sequence);
        insert(&mut headers, "Nats-Msg-Id", &subject);
        let trace = self
            .trace
            .map(|trace| trace.dead_letter(&mut headers, &subject));
        OutgoingLetter {
            subject,
            headers,
            payload: self.payload,
            trace,
            is_found: self.is_found,
            payload_bytes: self.payload_bytes,
            is_cut: false,
        }
    }
}

impl OutgoingLetter {
    /// Cuts it short; `false` if it is already.
    pub(super) fn cut(&mut self) -> bool {
        if std::mem::replace(&mut self.is_cut, true) {
            return false;
        }
        // No loss for the trace: it goes on by `traceparent` alone.
        let given = std::mem::take(&mut self.headers);
        for (name, values) in given.iter() {
            let is_long = ["baggage", "tracestate"].contains(&AsRef::<str>::as_ref(name));
            for value in values.iter().filter(|_| !is_long) {
                self.headers.append(name.clone(), value.clone());
            }
        }
        if self.payload.len() > CUT {
            // A copy, so that the rest is not held while it is sent.
            self.payload = Bytes::copy_from_slice(self.payload.get(..CUT).unwrap_or_default());
            let bytes = self.payload_bytes.to_string();
            self.headers.insert(PAYLOAD_BYTES, bytes);
        }
        let subject = self.headers.get("Herald-Subject").map(HeaderValue::as_str);
        if let Some(subject) = subject.filter(|subject| subject.len() > CUT_SUBJECT) {
            // A character has four bytes at most.
            let clipped: String = subject.chars().take(CUT_SUBJECT / 4).collect();
            insert(&mut self.headers, "Herald-Subject", &clipped);
        }
        true
    }
}

/// Sets a header. Only a line break is no value; what has one is left out.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let Ok(value) = value.parse::<HeaderValue>() {
        headers.insert(name, value);
    }
}

/// The letter goes on with the event's trace: the gateway's span where it is recorded, else the
/// publisher's context as it came.
fn context(message: &StoredMessage, is_recorded: bool) -> Box<[(&'static str, Box<str>)]> {
    let mut context: Vec<(&'static str, Box<str>)> = Vec::new();
    let Some(headers) = &message.headers else {
        return context.into();
    };
    context.extend(baggage(headers).map(|value| ("baggage", value.into())));
    if !is_recorded && let Some(traceparent) = traceparent(headers) {
        context.push(("traceparent", traceparent.into()));
        context.extend(tracestate(headers).map(|value| ("tracestate", value.into())));
    }
    context.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(subject: &str, payload: usize, most: usize) -> Letter {
        let mut headers = HeaderMap::new();
        headers.insert("baggage", "a=b");
        let message = StoredMessage {
            subject: subject.into(),
            sequence: 7,
            time: DateTime::UNIX_EPOCH,
            last_sequence: None,
            headers: Some(headers),
            payload: "x".repeat(payload).into(),
        };
        Letter::new(&message, &BadEvent::new(Reason::Json, "no"), most, None)
    }

    fn message(letter: Letter) -> OutgoingLetter {
        letter.message(&WorkspaceSlug::parse("acme").unwrap())
    }

    fn header<'a>(message: &'a OutgoingLetter, name: &str) -> Option<&'a str> {
        message.headers.get(name).map(HeaderValue::as_str)
    }

    #[test]
    fn a_letter_says_what_it_has_not() {
        let whole = message(letter("ws.acme.custom.x", 2000, PAYLOAD_MAX));
        assert_eq!(whole.payload.len(), 2000);
        assert_eq!(header(&whole, PAYLOAD_BYTES), None);
        assert_eq!(header(&whole, "baggage"), Some("a=b"));
        let begun = message(letter("ws.acme.custom.x", 2000, 1500));
        assert_eq!(begun.payload.len(), 1500);
        assert_eq!(header(&begun, PAYLOAD_BYTES), Some("2000"));

        let mut cut = whole;
        assert!(cut.cut() && !cut.cut());
        assert_eq!(cut.payload.len(), CUT);
        assert_eq!(header(&cut, PAYLOAD_BYTES), Some("2000"));
        assert_eq!(header(&cut, "baggage"), None);
        assert_eq!(header(&cut, "Herald-Subject"), Some("ws.acme.custom.x"));
        let mut small = message(letter("ws.acme.custom.x", 10, PAYLOAD_MAX));
        assert!(small.cut());
        assert_eq!(small.payload.len(), 10);
        assert_eq!(header(&small, PAYLOAD_BYTES), None);
    }

    #[test]
    fn a_letter_takes_no_more_than_it_says() {
        let long = format!("ws.acme.custom.{}", "é".repeat(2000));
        for (subject, payload) in [("ws.acme.custom.x", 0), (&long, 5000), (&long, 100_000)] {
            let waiting = letter(subject, payload, PAYLOAD_MAX);
            let (whole, cut) = waiting.stored_bytes();
            assert!(waiting.cost() > payload + subject.len());
            let stored = |message: &OutgoingLetter| {
                let headers: usize = message
                    .headers
                    .iter()
                    .flat_map(|(name, values)| {
                        let name: &str = name.as_ref();
                        values
                            .iter()
                            .map(move |value| name.len() + value.as_str().len() + 4)
                    })
                    .sum();
                // What the stream's file has for each message, and the line before the headers.
                (message.subject.len() + headers + message.payload.len() + 30 + 12) as u64
            };
            let mut message = message(waiting);
            let as_stored = stored(&message);
            assert!(as_stored <= whole && whole < as_stored + 200, "{whole}");
            message.cut();
            assert!(stored(&message) <= cut, "{cut}");
        }
    }
}
