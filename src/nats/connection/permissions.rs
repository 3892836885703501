//! What a NATS user may do: what the server reports of a denial, what that means, and attempts that show it.
//!
//! The server reports a missing permission on the connection and in no answer. A gateway that may not subscribe would
//! be ready, and its sockets would get nothing.

use std::time::Duration;

use async_nats::{Client, Event, HeaderMap, Request, RequestErrorKind, ServerError, header};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connect::{connect, event_channel};
use super::connect_error::ConnectError;
use crate::config::{Names, NatsConfig, names};

/// The workspace of the attempts. Nothing of it is ever stored.
pub const WORKSPACE: &str = "herald-check";
/// How long a server may take to judge what it was sent.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long its last answer may take: less, so that what it denied is reported where that answer does not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Something that a user may or may not do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    Publish(String),
    Subscribe(String),
}

/// The probes were not judged.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection to NATS is closed")]
    Closed,
    #[error("NATS did not answer{0}")]
    NoAnswer(String),
}

/// All that a gateway with these names does, and what it needs to make `streams_to_make`.
pub fn of_serve(names: &Names, streams_to_make: &[String]) -> Vec<Probe> {
    let api = |request: &str, stream: &str| Probe::Publish(names.api(request, stream));
    let (events, sessions, ledger) = (names.events(), names.sessions(), names.ledger());
    let revoked = names.revoked();
    let mut probes: Vec<Probe> = [events, sessions, names.dead(), revoked, ledger]
        .map(|stream| api("STREAM.INFO", stream))
        .into();
    probes.extend([events, sessions, ledger].map(|stream| api("STREAM.MSG.GET", stream)));
    probes.extend([events, sessions, revoked].map(|stream| api("DIRECT.GET", stream)));
    // Any workspace's: which there will be is not known.
    let subscribed = [
        names::live(names::event("*", ">")),
        names::live(names::claim("*", "*")),
        names::live(names::ALL_REVOCATIONS),
        names::ALL_NOTICES.to_owned(),
        // The operator service.
        names::ALL_QUERIES.to_owned(),
        names::ALL_COMMANDS.to_owned(),
        names::PRESENCE.to_owned(),
    ];
    probes.push(Probe::Subscribe(names::DISCOVERY.to_owned()));
    probes.extend(subscribed.map(|subject| Probe::Subscribe(names.subject(&subject))));
    probes
        .extend([events, sessions, revoked].map(|stream| Probe::Subscribe(names.elected(stream))));
    let sent = [
        names::claim(WORKSPACE, 0),
        names::letter(WORKSPACE, 0),
        // It names no user, so that no gateway takes it for a notice.
        names::notice(WORKSPACE, 0),
        // It is empty, and so no gateway's.
        names::PRESENCE.to_owned(),
    ];
    probes.extend(sent.map(|subject| Probe::Publish(names.subject(&subject))));
    if !streams_to_make.is_empty() {
        probes.push(api("STREAM.CREATE", ledger));
        probes.push(Probe::Publish(names.key(WORKSPACE)));
    }
    probes.extend(
        streams_to_make
            .iter()
            .map(|stream| api("STREAM.CREATE", stream)),
    );
    probes
}

/// As [`missing`], with a sentence for each.
///
/// # Errors
/// As there.
pub async fn denied(
    config: &NatsConfig,
    name: &str,
    probes: Vec<Probe>,
) -> Result<Vec<String>, ProbeError> {
    let missing = missing(config, name, probes).await?;
    Ok(missing
        .iter()
        .map(|probe| explained(probe, config))
        .collect())
}

/// Tries `probes` on a connection of their own, where nothing was denied yet, and returns those that the server
/// denies. Nothing comes of them: what is published is empty, has no reply subject, and expects a stream that does
/// not exist.
///
/// # Errors
/// [`ProbeError`] where the server does not judge them.
pub(super) async fn missing(
    config: &NatsConfig,
    name: &str,
    probes: Vec<Probe>,
) -> Result<Vec<Probe>, ProbeError> {
    let (happens, events) = event_channel();
    let names = config.names();
    let attempt = Attempt {
        client: connect(config, name, happens).await?,
        events,
        config,
        question: names.api("STREAM.INFO", names.events()),
    };
    let judged = timeout(TIMEOUT, attempt.try_all(probes)).await;
    judged.unwrap_or_else(|_| Err(ProbeError::NoAnswer(format!(" within {TIMEOUT:?}"))))
}

/// The connection of one attempt.
struct Attempt<'a> {
    client: Client,
    events: mpsc::Receiver<Event>,
    config: &'a NatsConfig,
    /// A request that every user of Herald's may make, and that is answered.
    question: String,
}

impl Attempt<'_> {
    async fn try_all(mut self, probes: Vec<Probe>) -> Result<Vec<Probe>, ProbeError> {
        // A server that judges permissions judges subscriptions after they are made: kept until then.
        let mut subscribers = Vec::new();
        for probe in probes {
            match probe {
                Probe::Subscribe(subject) => {
                    let subscribed = self.client.subscribe(subject).await;
                    subscribers.push(subscribed.map_err(|_| ProbeError::Closed)?);
                }
                // The question, which comes last, shows it.
                Probe::Publish(subject) if subject == self.question => {}
                Probe::Publish(subject) => {
                    let mut headers = HeaderMap::new();
                    headers.insert(header::NATS_EXPECTED_STREAM, "herald-check-none");
                    headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, i64::MAX.to_string());
                    let sent = self
                        .client
                        .publish_with_headers(subject, headers, "".into());
                    sent.await.map_err(|_| ProbeError::Closed)?;
                }
            }
        }
        let mut denied = self.until_judged().await?;
        drop(subscribers);
        // What the server said before the answer may still be on its way here; `Closed` comes last.
        self.client.drain().await.map_err(|_| ProbeError::Closed)?;
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Closed => break,
                event => denied.extend(denied_by(&event)),
            }
        }
        Ok(denied)
    }

    /// What is denied until the server has judged all that was sent. It does so in order. So its answer to one more
    /// request, or the denial of that, comes after everything else. That request has to be allowed: a server logs each
    /// denial, and should log nothing of a user who lacks nothing.
    async fn until_judged(&mut self) -> Result<Vec<Probe>, ProbeError> {
        let client = self.client.clone();
        let request = Request::new().timeout(Some(ANSWER_TIMEOUT));
        let question = client.send_request(self.question.clone(), request);
        tokio::pin!(question);
        // A server that is itself in the domain looks at the subject without it.
        let names = self.config.names();
        let info_subject = format!(".API.STREAM.INFO.{}", names.events());
        let mut denied = Vec::new();
        loop {
            tokio::select! {
                answer = &mut question => {
                    let answered = answer.map(drop).or_else(|error| match error.kind() {
                        RequestErrorKind::NoResponders => Ok(()),
                        // What was denied is why.
                        _ if !denied.is_empty() => Ok(()),
                        _ => Err(ProbeError::NoAnswer(format!(" {}: {error}", self.question))),
                    });
                    return answered.map(|()| denied);
                }
                Some(event) = self.events.recv() => {
                    let Some(probe) = denied_by(&event) else {
                        continue;
                    };
                    let is_last = match &probe {
                        Probe::Publish(subject) => subject.ends_with(&info_subject),
                        // The inbox was subscribed to just now, with the question: no answer will come.
                        Probe::Subscribe(subject) => is_inbox(subject, self.config),
                    };
                    denied.push(probe);
                    if is_last {
                        return Ok(denied);
                    }
                }
            }
        }
    }
}

/// The missing permission that `event` reports, in words for an operator.
pub fn denial(event: &Event, config: &NatsConfig) -> Option<String> {
    denied_by(event).map(|probe| explained(&probe, config))
}

/// The missing permission that `event` reports. The one place that reads what the server writes of a denial.
pub(super) fn denied_by(event: &Event) -> Option<Probe> {
    match event {
        Event::ServerError(ServerError::Other(text)) => violation(text),
        _ => None,
    }
}

/// Whether answers are awaited there: in an inbox, or where the server passes an answer on to another account or
/// cluster. No other subject that a request names gets an answer.
pub fn is_reply_subject(subject: &str) -> bool {
    let first = subject.split('.').next().unwrap_or_default();
    first.starts_with("_INBOX") || matches!(first, "_R_" | "_GR_")
}

pub(super) fn is_inbox(subject: &str, config: &NatsConfig) -> bool {
    subject.starts_with(config.inbox_prefix.as_str())
}

/// What a missing permission means to an operator, and the way out. The one place that says so.
pub(super) fn explained(probe: &Probe, config: &NatsConfig) -> String {
    let inbox_prefix = config.inbox_prefix.as_str();
    let way = config.way_in();
    match probe {
        Probe::Subscribe(subject) if is_inbox(subject, config) => format!(
            "NATS does not let this user receive answers on {inbox_prefix}.>: set nats.inbox_prefix to the one that this user has"
        ),
        Probe::Subscribe(subject) => format!(
            "NATS does not allow this user to subscribe to {subject}: grant it, or use another user ({way})"
        ),
        Probe::Publish(subject) => format!(
            "NATS does not allow this user to publish to {subject}: grant it, or use another user ({way})"
        ),
    }
}

/// What the server's text says that it denied.
fn violation(text: &str) -> Option<Probe> {
    let lower = text.to_lowercase();
    if !lower.contains("permissions violation") {
        return None;
    }
    // The subject as the server writes it; of the client's own text, whatever there is.
    let subject = text.split('"').nth(1).unwrap_or(text).to_owned();
    Some(if lower.contains("for subscription") {
        Probe::Subscribe(subject)
    } else {
        Probe::Publish(subject)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_to_make_streams_is_asked_for_only_where_some_are_to_be_made() {
        let makes = |probes: &[Probe]| {
            let is_one = |probe: &&Probe| matches!(probe, Probe::Publish(subject) if subject.contains(".CREATE."));
            probes.iter().filter(is_one).count()
        };
        let names = NatsConfig::default().names();
        assert_eq!(makes(&of_serve(&names, &[])), 0);
        assert_eq!(makes(&of_serve(&names, &["EVENTS".to_owned()])), 2);
    }

    #[test]
    fn the_way_in_that_is_set_is_the_one_that_is_named() {
        let text = r#"Permissions Violation for Publish to "dead.acme.1""#;
        let file = || Some("x".into());
        for (config, way) in [
            (NatsConfig::default(), "(nats.url)"),
            (
                NatsConfig {
                    ca_file: file(),
                    nkey_file: file(),
                    ..NatsConfig::default()
                },
                "(nats.nkey_file)",
            ),
            (
                NatsConfig {
                    client_cert: file(),
                    client_key: file(),
                    ..NatsConfig::default()
                },
                "(nats.client_cert)",
            ),
        ] {
            let got = explained(&violation(text).unwrap(), &config);
            assert!(got.ends_with(way), "{got}");
        }
    }

    #[test]
    fn a_missing_permission_is_explained_and_nothing_else_is() {
        for (text, want) in [
            (
                r#"Permissions Violation for Publish to "ws.globex.custom.x""#,
                Some("publish to ws.globex.custom.x:"),
            ),
            (
                r#"permissions violation for subscription to "_INBOX.x.*""#,
                Some("answers on _INBOX.>: set nats.inbox_prefix"),
            ),
            (
                r#"Permissions Violation for Subscription to "live.ws.*.>""#,
                Some("subscribe to live.ws.*.>:"),
            ),
            ("Stale Connection", None),
        ] {
            let got = violation(text).map(|probe| explained(&probe, &NatsConfig::default()));
            assert_eq!(got.is_some(), want.is_some(), "{text}");
            assert!(
                got.unwrap_or_default().contains(want.unwrap_or_default()),
                "{text}"
            );
        }
    }

    #[test]
    fn answers_go_to_inboxes_alone() {
        for (subject, is_one) in [
            ("_INBOX.x.y", true),
            ("_INBOX_operator.x", true),
            ("_R_.x.y", true),
            ("_GR_.cluster.x._INBOX.y", true),
            ("ws.acme.custom.x", false),
            ("session.acme.0123", false),
            ("$JS.API.STREAM.PURGE.EVENTS", false),
            ("_R_x.y", false),
            ("x._INBOX.y", false),
            ("", false),
        ] {
            assert_eq!(is_reply_subject(subject), is_one, "{subject}");
        }
    }
}
