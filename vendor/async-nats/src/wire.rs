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
    let words: Vec<&[u8]> = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .collect();
    let (subject, sid, reply, lengths) = match (words.as_slice(), has_headers) {
        ([subject, sid, length], false) => (subject, sid, None, [length, length]),
        ([subject, sid, reply, length], false) => (subject, sid, Some(reply), [length, length]),
        ([subject, sid, header, total], true) => (subject, sid, None, [header, total]),
        ([subject, sid, reply, header, total], true) => {
            (subject, sid, Some(reply), [header, total])
        }
        _ => return Err(invalid("invalid number of arguments of a message")),
    };
    let [header, total] = lengths.map(|word| number(word));
    let (header_len, total_len) = (if has_headers { header? } else { 0 }, total?);
    if header_len > total_len || total_len > LENGTH_MAX {
        return Err(invalid("invalid length of a message"));
    }
    Ok(Line {
        subject: subject_of(subject),
        sid: number(sid)?,
        reply: reply.map(|reply| subject_of(reply)),
        header_len,
        total_len,
    })
}

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
    let mut headers = HeaderMap::new();
    while let Some(line) = lines.next() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let mut value = Cow::Borrowed(value.trim_start_matches(BLANKS));
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
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Not Unicode's: a subject in a header value may end with a no-break space.
const BLANKS: [char; 2] = [' ', '\t'];

fn subject_of(word: &[u8]) -> Subject {
    Subject::from(text(word))
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
