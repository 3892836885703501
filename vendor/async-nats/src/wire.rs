//! The parts of a message that a publisher writes, read leniently. Pure.
//!
//! nats-server passes a subject, a reply subject and a header block on as the publisher sent them:
//! any bytes but space, tab, carriage return and line feed in a subject (it splits a line at these
//! only, `splitArg` in its source), and any bytes at all in a header block. So nothing in them may end
//! the connection, or choose another subscription than the server did.

use std::borrow::Cow;
use std::io;
use std::str::FromStr;

use crate::header::{HeaderMap, HeaderName, HeaderValue};
use crate::status::StatusCode;
use crate::subject::Subject;

/// No server sends a larger message: its `max_payload` is at most 64 MiB.
const LENGTH_MAX: usize = 1 << 30;

/// What the first line of a message says.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub subject: Subject,
    pub sid: u64,
    pub reply: Option<Subject>,
    /// Bytes of the header block; 0 after `MSG`.
    pub header_len: usize,
    /// Bytes of the header block and the payload.
    pub total_len: usize,
}

/// Reads what follows `MSG `: `<subject> <sid> [reply] <#bytes>`; and what follows `HMSG `, where
/// `has_headers`: `<subject> <sid> [reply] <#header bytes> <#total bytes>`.
pub fn line(line: &[u8], has_headers: bool) -> io::Result<Line> {
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    // One more than there may be. Of one that is missing, the number that it should be is none.
    let words: [&[u8]; 6] = std::array::from_fn(|_| words.next().unwrap_or_default());
    let (subject, sid, reply, lengths) = match (words, has_headers) {
        ([subject, sid, length, b"", ..], false) => (subject, sid, None, [length, length]),
        ([subject, sid, reply, length, b"", _], false) => {
            (subject, sid, Some(reply), [length, length])
        }
        ([subject, sid, header, total, b"", _], true) => (subject, sid, None, [header, total]),
        ([subject, sid, reply, header, total, b""], true) => {
            (subject, sid, Some(reply), [header, total])
        }
        _ => return Err(invalid("invalid number of arguments of a message")),
    };
    let [header, total] = lengths.map(number);
    let (header_len, total_len) = (if has_headers { header? } else { 0 }, total?);
    if header_len > total_len || total_len > LENGTH_MAX {
        return Err(invalid("invalid length of a message"));
    }
    Ok(Line {
        subject: subject_of(subject),
        sid: number(sid)?,
        reply: reply.map(subject_of),
        header_len,
        total_len,
    })
}

/// The server's own headers of a republished message, and two of its publisher's.
const USUAL_HEADERS: usize = 7;

/// Reads a header block (ADR-4): the status line's code and description, and the headers. What cannot be
/// read is skipped. The server appends its own headers, so that the last of a name is the server's.
pub fn header_block(block: &[u8]) -> (Option<StatusCode>, Option<String>, HeaderMap) {
    let text = text(block);
    let mut lines = text.lines().peekable();
    let suffix = lines
        .next_if(|line| line.starts_with("NATS/1.0"))
        .and_then(|line| line.strip_prefix("NATS/1.0"))
        .map_or("", |suffix| suffix.trim_matches(BLANKS));
    let (status, description) = suffix.split_once(' ').unwrap_or((suffix, ""));
    let description = description.trim_matches(BLANKS);
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS);
    while let Some(line) = lines.next() {
        let colon = memchr::memchr(b':', line.as_bytes());
        let Some((name, value)) = colon.and_then(|colon| line.split_at_checked(colon)) else {
            continue;
        };
        let mut value = Cow::Borrowed(value[1..].trim_start_matches(BLANKS));
        // A value may go on in the next line.
        while let Some(more) = lines.next_if(|line| line.starts_with(BLANKS)) {
            value.to_mut().push_str(more);
        }
        let value = HeaderValue::from_str(value.trim_end_matches(BLANKS));
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), value) {
            headers.append(name, value);
        }
    }
    (
        status.parse().ok(),
        (!description.is_empty()).then(|| description.to_owned()),
        headers,
    )
}

/// The text of `bytes`, with U+FFFD for each byte that is part of no UTF-8. The server's JSON answers
/// write a subject in the same way (`encoding/json` in Go), so that one subject has one text.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Not Unicode's: a subject in a header value may end with a no-break space.
const BLANKS: [char; 2] = [' ', '\t'];

fn subject_of(word: &[u8]) -> Subject {
    match text(word) {
        Cow::Borrowed(text) => Subject::from(text),
        Cow::Owned(text) => Subject::from(text),
    }
}

fn number<T: FromStr>(word: &[u8]) -> io::Result<T> {
    std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| invalid("invalid number in the line of a message"))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
