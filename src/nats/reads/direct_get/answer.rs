//! What each message of an answer to a direct get says. Pure.

use async_nats::Message;

use super::DirectGetError;
use crate::event::StoredMessage;

/// How an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchEnd {
    /// The replica that answered has no match at all (404).
    pub not_found: bool,
    /// Matching messages that the replica has beyond this answer: read on from the last sequence.
    pub pending: u64,
    /// Up to where the replica had read. Only answers to [`super::DirectGet::multi_last`] say so.
    pub up_to_sequence: Option<u64>,
}

/// Which question an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryKind {
    Next,
    MultiLast,
}

impl QueryKind {
    /// Whether a 404 behind the message `previous` says that nothing matches. `multi_last` also
    /// ends with a 404, of another text, where it could not load a message that does match.
    fn is_empty(self, previous: u64, description: &str) -> bool {
        previous == 0 && (self == Self::Next || description == "No Results")
    }
}

#[derive(Debug)]
pub(super) enum AnswerPart {
    Message(StoredMessage),
    End(BatchEnd),
}

/// Reads one message of an answer of this kind. `previous` is the sequence of the one before it, 0
/// for none.
pub(super) fn read_part(
    message: Message,
    kind: QueryKind,
    previous: u64,
) -> Result<AnswerPart, DirectGetError> {
    // The status line is looked at last: a publisher can store one (a bare line feed in it escapes
    // the server's filter), but nobody can take away the headers that the server adds to a message.
    let (status, description) = (message.status, message.description.clone());
    let end_headers = status.is_some().then(|| message.headers.clone()).flatten();
    if let Ok(raw) = StoredMessage::parse(message) {
        let in_order = raw.sequence > previous && raw.last_sequence == Some(previous);
        return in_order
            .then_some(AnswerPart::Message(raw))
            .ok_or(DirectGetError::Incomplete);
    }
    let number = |name: &str| -> Option<u64> {
        let value = end_headers.as_ref()?.get_last(name)?;
        value.as_str().parse().ok()
    };
    let code = status.ok_or(DirectGetError::Malformed)?.as_u16();
    let description = description.unwrap_or_default();
    match code {
        204 if number("Nats-Last-Sequence") == Some(previous) => Ok(AnswerPart::End(BatchEnd {
            not_found: false,
            pending: number("Nats-Num-Pending").ok_or(DirectGetError::Incomplete)?,
            up_to_sequence: number("Nats-UpTo-Sequence"),
        })),
        204 => Err(DirectGetError::Incomplete),
        404 if kind.is_empty(previous, &description) => Ok(AnswerPart::End(BatchEnd {
            not_found: true,
            ..BatchEnd::default()
        })),
        404 => Err(DirectGetError::Incomplete),
        408 => Err(DirectGetError::BadRequest(description)),
        413 => Err(DirectGetError::TooManyResults),
        503 => Err(DirectGetError::NoResponders),
        code => Err(DirectGetError::Status { code, description }),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use bytes::Bytes;

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
            let got = read_part(answer(None, &headers), QueryKind::Next, previous);
            assert_eq!(matches!(got, Ok(AnswerPart::Message(_))), good, "{got:?}");
        }
    }

    #[test]
    fn regression_a_stored_status_line_does_not_end_an_answer() {
        let mut headers = vec![("Nats-Num-Pending", "0"), ("Nats-Last-Sequence", "0")];
        headers.extend(STORED);
        headers.push(("Nats-Last-Sequence", "0"));
        let got = read_part(answer(Some((204, "EOB")), &headers), QueryKind::Next, 0);
        assert!(matches!(got, Ok(AnswerPart::Message(_))), "{got:?}");
    }

    #[test]
    fn each_status_is_told_apart() {
        use DirectGetError as E;
        type Check = fn(&Result<AnswerPart, E>) -> bool;
        let not_found: Check =
            |got| matches!(got, Ok(AnswerPart::End(end)) if end.not_found && end.pending == 0);
        let incomplete: Check = |got| matches!(got, Err(E::Incomplete));
        let table: [(u16, &str, QueryKind, u64, Check); 9] = [
            (404, "Message Not Found", QueryKind::Next, 0, not_found),
            (404, "No Results", QueryKind::MultiLast, 0, not_found),
            (
                404,
                "Message Not Found",
                QueryKind::MultiLast,
                0,
                incomplete,
            ),
            (
                404,
                "Message Not Found",
                QueryKind::MultiLast,
                5,
                incomplete,
            ),
            (204, "EOB", QueryKind::Next, 0, incomplete),
            (
                408,
                "Bad Request",
                QueryKind::Next,
                0,
                |got| matches!(got, Err(E::BadRequest(text)) if text == "Bad Request"),
            ),
            (413, "Too Many Results", QueryKind::MultiLast, 0, |got| {
                matches!(got, Err(E::TooManyResults))
            }),
            (503, "", QueryKind::Next, 0, |got| {
                matches!(got, Err(E::NoResponders))
            }),
            (500, "boom", QueryKind::Next, 0, |got| {
                matches!(got, Err(E::Status { code: 500, .. }))
            }),
        ];
        for (code, text, kind, previous, check) in table {
            let got = read_part(answer(Some((code, text)), &[]), kind, previous);
            assert!(check(&got), "{code} {text} {kind:?}: {got:?}");
        }
        let got = read_part(answer(None, &[]), QueryKind::Next, 0);
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
            let got = read_part(
                answer(Some((204, "EOB")), &headers),
                QueryKind::MultiLast,
                previous,
            );
            let want = BatchEnd {
                not_found: false,
                pending: 4,
                up_to_sequence: Some(20),
            };
            assert_eq!(
                matches!(&got, Ok(AnswerPart::End(end)) if *end == want),
                good,
                "{got:?}"
            );
        }
    }
}
