//! A message on `live.`: a message without the server's own headers is nobody's. Pure.

use async_nats::Message;

use crate::config::{Names, names};
use crate::event::{ServerHeaders, StoredMessage, WorkspaceSlug};

/// Reads a message republished from `stream`, whose subject is plain from then on.
///
/// `None` where it does not carry the server's valid Nats-Stream, Nats-Subject, Nats-Sequence,
/// Nats-Last-Sequence and Nats-Time-Stamp. The last value of a header counts: a publisher may send
/// headers of these names, and the server's own come after. Neither is one read whose body the server left out
/// (`republish.headers_only`), which it says with Nats-Msg-Size: it would be a bad event, where the stream has
/// a good one.
pub(super) fn republished(message: Message, names: &Names, stream: &str) -> Option<StoredMessage> {
    let server = ServerHeaders::of(message.headers.as_ref()?);
    if server.stream? != stream {
        return None;
    }
    if let Some(size) = server.size
        && size != message.payload.len().to_string()
    {
        return None;
    }
    let heard = message.subject.clone();
    let raw = StoredMessage::parse(message).ok()?;
    let stored = names.plain(&raw.subject)?;
    let is_of_subject = names::stored(names.plain(&heard)?)? == stored;
    let ordered = raw.last_sequence? < raw.sequence;
    (is_of_subject && ordered).then(|| raw.plain(names))
}

/// Reads an event of `workspace`. `None` where it is not one, as in [`republished`].
pub fn event(message: Message, names: &Names, workspace: &WorkspaceSlug) -> Option<StoredMessage> {
    republished(message, names, names.events()).filter(|event| event.is_of(workspace))
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;

    use super::*;
    use crate::config::NatsConfig;

    fn message(change: impl FnOnce(&mut HeaderMap)) -> Message {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("Nats-Stream", "EVENTS"),
            ("Nats-Subject", "ws.acme.record.created"),
            ("Nats-Sequence", "7"),
            ("Nats-Last-Sequence", "3"),
            ("Nats-Time-Stamp", "2026-11-24T01:02:03.123456789Z"),
        ] {
            headers.insert(name, value);
        }
        change(&mut headers);
        Message {
            subject: "live.ws.acme.record.created".into(),
            reply: None,
            payload: "{}".into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn names(prefix: &str) -> Names {
        let prefix = Some(prefix.to_owned());
        NatsConfig {
            prefix,
            ..NatsConfig::default()
        }
        .names()
    }

    fn acme() -> WorkspaceSlug {
        WorkspaceSlug::parse("acme").unwrap()
    }

    #[test]
    fn a_republished_message_becomes_an_event() {
        let live = event(message(|_| {}), &names(""), &acme()).unwrap();
        assert_eq!(live.subject.as_str(), "ws.acme.record.created");
        assert_eq!((live.sequence, live.last_sequence), (7, Some(3)));
        assert_eq!(live.time.timestamp_subsec_nanos(), 123_456_789);
    }

    #[test]
    fn the_servers_own_header_wins_over_a_publishers_of_the_same_name() {
        let forged = message(|headers| {
            headers.insert("Nats-Sequence", "999");
            headers.append("Nats-Sequence", "7");
        });
        let live = event(forged, &names(""), &acme()).unwrap();
        assert_eq!(live.sequence, 7);
    }

    #[test]
    fn a_message_without_the_servers_headers_is_nobodys() {
        type Change = fn(&mut HeaderMap);
        let changes: &[Change] = &[
            |headers| headers.insert("Nats-Stream", "OTHER"),
            |headers| headers.insert("Nats-Subject", "ws.globex.record.created"),
            |headers| headers.insert("Nats-Sequence", "0"),
            |headers| headers.insert("Nats-Sequence", "-7"),
            |headers| headers.insert("Nats-Sequence", "seven"),
            |headers| headers.insert("Nats-Last-Sequence", "7"),
            |headers| headers.insert("Nats-Time-Stamp", "yesterday"),
            |headers| headers.insert("Nats-Msg-Size", "17"),
            |headers| *headers = HeaderMap::new(),
        ];
        for (index, change) in changes.iter().enumerate() {
            assert!(
                event(message(change), &names(""), &acme()).is_none(),
                "change {index}"
            );
        }
        let mut bare = message(|_| {});
        bare.headers = None;
        assert!(event(bare, &names(""), &acme()).is_none());
    }

    #[test]
    fn another_workspace_with_the_same_beginning_is_another_workspace() {
        let short = WorkspaceSlug::parse("acm").unwrap();
        assert!(event(message(|_| {}), &names(""), &short).is_none());
    }

    #[test]
    fn with_a_prefix_only_what_has_it_on_both_subjects_is_an_event_and_the_event_is_the_same() {
        let of = |stream: &str, stored: &str, heard: &str| {
            let mut message = message(|headers| {
                headers.insert("Nats-Stream", stream);
                headers.insert("Nats-Subject", stored);
            });
            message.subject = heard.into();
            event(message, &names("blue"), &acme())
        };
        let stored = "blue.ws.acme.record.created";
        let live = of("blue-EVENTS", stored, "blue.live.ws.acme.record.created").unwrap();
        assert_eq!(live.subject.as_str(), "ws.acme.record.created");
        for (stream, stored, heard) in [
            ("EVENTS", stored, "blue.live.ws.acme.record.created"),
            (
                "blue-EVENTS",
                "ws.acme.record.created",
                "live.ws.acme.record.created",
            ),
            ("blue-EVENTS", stored, "live.ws.acme.record.created"),
            ("blue-EVENTS", stored, "red.live.ws.acme.record.created"),
            (
                "blue-EVENTS",
                "ws.acme.record.created",
                "blue.live.ws.acme.record.created",
            ),
            ("blue-EVENTS", stored, "live.blue.ws.acme.record.created"),
        ] {
            assert!(
                of(stream, stored, heard).is_none(),
                "{stream} {stored} {heard}"
            );
        }
    }
}
