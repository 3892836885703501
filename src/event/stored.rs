//! One message of a stream, as the server hands it out: republished, by direct get or from the leader. The server's
//! own headers become fields here and nowhere else.
//!
//! A publisher may send headers of the same names. The server appends its own behind them, so the
//! last value of a name is the server's (measured on nats-server 2.15.1, `genHeader` in its source).

use async_nats::{HeaderMap, HeaderValue, Message, Subject};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::WorkspaceSlug;
use crate::config::Names;

/// A message of a stream, with what the server says of it. An event stays one from the server's bytes to its
/// projection.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The subject it was stored under. That of an event is `ws.<workspace>.<category>.<name>`; nothing of it is
    /// checked here.
    pub subject: Subject,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the server stored it.
    pub time: DateTime<Utc>,
    /// `Nats-Last-Sequence`. Republished: the previous sequence of this exact subject, 0 for none.
    /// In the answer to a batched direct get: the sequence of the message before it in the answer,
    /// 0 for the first. Absent from the answer to a direct get of a single message.
    pub last_sequence: Option<u64>,
    /// The publisher's headers, and the server's. Some may forge the server's: read none of those here.
    pub headers: Option<HeaderMap>,
    /// The body.
    pub payload: Bytes,
}

/// The message does not carry what the server puts on each stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message lacks a valid {0} header of the server")]
pub struct NotStored(pub &'static str);

/// A position in the stream: a sequence, and when the server stored what has it. The time tells apart
/// what a stream that was restored from a backup stores under a sequence that was given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub sequence: u64,
    pub time: DateTime<Utc>,
}

impl Position {
    /// Whether not both can be of one stream: this was stored later than `known`, at or below its sequence.
    /// By the clocks of two leaders it may only seem so.
    pub fn contradicts(self, known: Self) -> bool {
        self.sequence <= known.sequence && self.time > known.time
    }
}

impl StoredMessage {
    /// Reads the server's headers of `message`.
    ///
    /// # Errors
    /// [`NotStored`] names the header that is missing or malformed.
    pub fn parse(message: Message) -> Result<Self, NotStored> {
        let headers = message.headers.as_ref();
        let server = headers.map(ServerHeaders::of).unwrap_or_default();
        let subject = server
            .subject
            .filter(|subject| !subject.is_empty())
            .map(Subject::from)
            .ok_or(NotStored("Nats-Subject"))?;
        let sequence = server
            .sequence
            .and_then(|text| text.parse().ok())
            .filter(|sequence| *sequence > 0)
            .ok_or(NotStored("Nats-Sequence"))?;
        let time = server
            .time
            .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
            .map(|time| time.with_timezone(&Utc))
            .ok_or(NotStored("Nats-Time-Stamp"))?;
        let last_sequence = server.last_sequence.and_then(|text| text.parse().ok());
        Ok(Self {
            subject,
            sequence,
            time,
            last_sequence,
            headers: message.headers,
            payload: message.payload,
        })
    }

    /// The message under its plain subject. What comes of a stream of `names` has their prefix.
    #[must_use]
    pub(crate) fn plain(mut self, names: &Names) -> Self {
        if let Some(plain) = names
            .plain(&self.subject)
            .filter(|plain| plain.len() < self.subject.len())
        {
            self.subject = plain.into();
        }
        self
    }

    /// Its position in the stream.
    pub fn position(&self) -> Position {
        Position {
            sequence: self.sequence,
            time: self.time,
        }
    }

    /// The workspace that the subject of an event names: its second token.
    pub fn workspace(&self) -> &str {
        self.subject.split('.').nth(1).unwrap_or_default()
    }

    /// Whether it is stored under a subject of `workspace`.
    pub fn is_of(&self, workspace: &WorkspaceSlug) -> bool {
        self.subject
            .strip_prefix("ws.")
            .and_then(|rest| rest.strip_prefix(workspace.as_str()))
            .is_some_and(|rest| rest.starts_with('.'))
    }
}

/// The server's values of its headers: the last of each.
#[derive(Debug, Default)]
pub(crate) struct ServerHeaders<'a> {
    pub(crate) stream: Option<&'a str>,
    /// `Nats-Msg-Size`: that of a body which was left out.
    pub(crate) size: Option<&'a str>,
    subject: Option<&'a str>,
    sequence: Option<&'a str>,
    time: Option<&'a str>,
    last_sequence: Option<&'a str>,
}

impl<'a> ServerHeaders<'a> {
    /// In one pass: there are few headers, and to look each of these up would take longer.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut server = Self::default();
        for (name, values) in headers.iter() {
            let value = match name.as_ref() {
                "Nats-Stream" => &mut server.stream,
                "Nats-Msg-Size" => &mut server.size,
                "Nats-Subject" => &mut server.subject,
                "Nats-Sequence" => &mut server.sequence,
                "Nats-Time-Stamp" => &mut server.time,
                "Nats-Last-Sequence" => &mut server.last_sequence,
                _ => continue,
            };
            *value = values.last().map(HeaderValue::as_str);
        }
        server
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        Message {
            subject: "live.ws.acme.custom.x".into(),
            reply: None,
            payload: Bytes::new(),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    const GOOD: [(&str, &str); 4] = [
        ("Nats-Subject", "ws.acme.custom.x"),
        ("Nats-Sequence", "7"),
        ("Nats-Time-Stamp", "2026-01-02T03:04:05.000000006Z"),
        ("Nats-Last-Sequence", "3"),
    ];

    #[test]
    fn the_servers_headers_win_over_forged_ones_before_them() {
        let forged = [
            ("Nats-Subject", "ws.globex.custom.x"),
            ("Nats-Sequence", "99"),
            ("Nats-Time-Stamp", "1999-01-01T00:00:00Z"),
            ("Nats-Last-Sequence", "98"),
        ];
        let stored = StoredMessage::parse(message(&[forged, GOOD].concat())).unwrap();
        assert_eq!(stored.subject.as_str(), "ws.acme.custom.x");
        assert_eq!((stored.sequence, stored.last_sequence), (7, Some(3)));
        assert_eq!(stored.time.timestamp_subsec_nanos(), 6);
        assert_eq!(stored.workspace(), "acme");
    }

    #[test]
    fn a_message_without_one_of_the_servers_headers_is_refused() {
        for missing in 0..3 {
            let mut headers = GOOD.to_vec();
            let (name, _) = headers.remove(missing);
            assert_eq!(
                StoredMessage::parse(message(&headers)).unwrap_err(),
                NotStored(name)
            );
            for value in ["", "x", "-1", "0"] {
                let mut headers = headers.clone();
                headers.push((name, value));
                if name != "Nats-Subject" || value.is_empty() {
                    let error = StoredMessage::parse(message(&headers)).unwrap_err();
                    assert_eq!(error, NotStored(name), "{value:?}");
                }
            }
        }
    }

    /// The words of a line, and the subjects that they give; `None` where it is none.
    #[test]
    fn the_line_of_a_message_is_split_at_ascii_spaces_alone() {
        let nbsp = "ws.acme.x\u{a0}17 1 2 3";
        type Read<'a> = Option<(&'a str, u64, Option<&'a str>, usize, usize)>;
        let table: [(&[u8], bool, Read<'_>); 16] = [
            (b"a.b 7 12 34", true, Some(("a.b", 7, None, 12, 34))),
            (
                b"a.b 7 in.x 12 34",
                true,
                Some(("a.b", 7, Some("in.x"), 12, 34)),
            ),
            (b"a.b 7 34", false, Some(("a.b", 7, None, 0, 34))),
            (
                b" a.b  7 in.x 34 ",
                false,
                Some(("a.b", 7, Some("in.x"), 0, 34)),
            ),
            (
                nbsp.as_bytes(),
                true,
                Some(("ws.acme.x\u{a0}17", 1, None, 2, 3)),
            ),
            (b"a\x0b17 1 2 3", true, Some(("a\x0b17", 1, None, 2, 3))),
            (b"a.\xff 1 2 3", true, Some(("a.\u{fffd}", 1, None, 2, 3))),
            (
                b"a 1 \xe2\x80 3",
                false,
                Some(("a", 1, Some("\u{fffd}\u{fffd}"), 0, 3)),
            ),
            (b"a 1 3 2", true, None),
            (b"a 1 2", true, None),
            (b"a 1 2 3 4 5", true, None),
            (b"a 1", false, None),
            (b"", false, None),
            (b"a x 2 3", true, None),
            (b"a 1 -2 3", true, None),
            (b"a 1 18446744073709551615", false, None),
        ];
        for (text, has_headers, wanted) in table {
            let line = async_nats::wire::line(text, has_headers).ok();
            let got = line.as_ref().map(|line| {
                let reply = line.reply.as_ref().map(|reply| reply.as_str());
                (
                    line.subject.as_str(),
                    line.sid,
                    reply,
                    line.header_len,
                    line.total_len,
                )
            });
            assert_eq!(got, wanted, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn of_a_header_block_what_can_be_read_is() {
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let table: [(&[u8], Headers<'_>); 8] = [
            (
                b"NATS/1.0\r\nA: b\r\nA:c \r\n\r\n",
                &[("A", "b"), ("A", "c")],
            ),
            (b"NATS/1.0\r\nA: a\rb\r\nB: c\r\n\r\n", &[("B", "c")]),
            (b"NATS/1.0\r\nno colon\r\nB: c\r\n", &[("B", "c")]),
            (b"garbage\r\nB: c", &[("B", "c")]),
            (b"A: \xff\r\n", &[("A", "\u{fffd}")]),
            (b"A: b\r\n  c\r\n", &[("A", "b  c")]),
            ("A: x\u{a0}\r\n".as_bytes(), &[("A", "x\u{a0}")]),
            ("A: x\r\n\u{a0}B: c\r\n".as_bytes(), &[("A", "x")]),
        ];
        for (block, wanted) in table {
            let (_, _, headers) = async_nats::wire::header_block(block);
            let mut got: Vec<(String, String)> = headers
                .iter()
                .flat_map(|(name, values)| {
                    values
                        .iter()
                        .map(|value| (name.to_string(), value.to_string()))
                })
                .collect();
            got.sort();
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(got, wanted, "{}", block.escape_ascii());
        }
        let (status, description, _) = async_nats::wire::header_block(b"NATS/1.0 204 EOB\r\n\r\n");
        assert_eq!(status.map(|status| status.as_u16()), Some(204));
        assert_eq!(description.as_deref(), Some("EOB"));
    }
}
