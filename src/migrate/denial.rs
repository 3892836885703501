//! Whether the server denies a request, and which subject it denies.
//!
//! A denied publish or subscription gets no answer. The server tells only the connection that tried,
//! as an error of its own that the NATS client hands to an event callback, and that callback is given
//! when a connection is made. So the question is put once more on a connection of our own, in a form
//! that changes nothing: an empty body, which the JetStream API refuses for every request that changes
//! something, and an expected sequence that no stream has, which keeps it out of a stream.

use std::time::Duration;

use async_nats::{Event, HeaderMap, ServerError, header};
use futures_util::StreamExt;

use crate::config::NatsConfig;
use crate::ingest::{connect, event_channel};

/// What is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denial {
    Publish(String),
    Subscribe(String),
}

/// Looks for `patience` at most. Nothing: it is not denied, or that could not be found out.
pub(super) async fn of(config: &NatsConfig, subject: &str, patience: Duration) -> Option<Denial> {
    tokio::time::timeout(patience, ask(config, subject))
        .await
        .ok()
        .flatten()
}

async fn ask(config: &NatsConfig, subject: &str) -> Option<Denial> {
    let (happens, mut told) = event_channel();
    let client = connect(config, "herald-permission-check", happens)
        .await
        .ok()?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(
        header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
        u64::MAX.to_string(),
    );
    client
        .publish_with_reply_and_headers(subject.to_owned(), inbox, headers, "".into())
        .await
        .ok()?;
    loop {
        tokio::select! {
            // Also "no responders" is an answer: the publish was let through.
            _ = answers.next() => return None,
            event = told.recv() => {
                if let Event::ServerError(ServerError::Other(text)) = event?
                    && let Some(denial) = parse(&text)
                {
                    return Some(denial);
                }
            }
        }
    }
}

/// Reads `Permissions Violation for Publish to "subject"` and the like for `Subscription`.
fn parse(text: &str) -> Option<Denial> {
    let (_, rest) = text.split_once("ermissions Violation for ")?;
    let (kind, rest) = rest.split_once(" to \"")?;
    let (subject, _) = rest.split_once('"')?;
    let subject = subject.to_owned();
    match kind {
        "Publish" => Some(Denial::Publish(subject)),
        "Subscription" => Some(Denial::Subscribe(subject)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_understood() {
        assert_eq!(
            parse("Permissions Violation for Publish to \"$JS.API.STREAM.INFO.EVENTS\""),
            Some(Denial::Publish("$JS.API.STREAM.INFO.EVENTS".to_owned()))
        );
        assert_eq!(
            parse("Permissions Violation for Subscription to \"_INBOX.x.*\""),
            Some(Denial::Subscribe("_INBOX.x.*".to_owned()))
        );
        assert_eq!(parse("Maximum Connections Exceeded"), None);
    }
}
