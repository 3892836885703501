//! Messages between gateways about a user's sockets, on `herald.sessions.<workspace>.<user>`: core
//! NATS, for whoever is there. What is lost costs a newcomer some seconds, and no event.
//!
//! Answers come on the same subject and never on an inbox: no question can make a gateway write elsewhere.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use super::connection::Connection;
use crate::auth::UserKey;
use crate::config::{Names, names};
use crate::event::WorkspaceSlug;

/// Before the workspace and the user.
const PREFIX: &str = "herald.sessions.";
/// Larger bodies are not read. Ours have some 110 bytes.
const BODY_MAX: usize = 512;
/// Notices that wait for the connection; further ones are dropped.
const WAITING_MAX: usize = 1024;
/// A notice that has not left by then is late.
const SEND: Duration = Duration::from_secs(1);

/// Something about the sockets of one user in one workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The living socket of this session was closed for that of a newer one.
    Replaced { session: Uuid, by: Uuid },
    /// This session, the standing one of a user whose newcomers are refused, has ended.
    Left(Uuid),
    /// Does the standing socket live?
    Probe,
    /// It does, or does not. Whoever has none says nothing.
    Probed(bool),
}

/// A notice on the wire. Whatever else may come there, a PubAck of JetStream too, is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum NoticeBody {
    Replaced { session: String, by: String },
    Left { session: String },
    Probe {},
    Probed { alive: bool },
}

/// Sends notices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notices {
    names: Names,
    sender: mpsc::Sender<(String, Vec<u8>)>,
}

impl Notices {
    /// Notices, and the task that sends them.
    pub fn start(connection: Connection, names: Names) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        (Self { names, sender }, send_all(connection, waiting))
    }

    /// Sends a notice to all gateways, this one too.
    pub fn send(&self, workspace: &WorkspaceSlug, user: UserKey, notice: Notice) {
        let subject = self.names.subject(&names::notice(workspace, user));
        let sent = serde_json::to_vec(&NoticeBody::from(notice))
            .map_err(|error| error.to_string())
            .and_then(|body| {
                let sent = self.sender.try_send((subject, body));
                sent.map_err(|error| error.to_string())
            });
        if let Err(error) = sent {
            debug!(error, "notice not sent");
        }
    }
}

/// Subscribes to the notices of all gateways; `None` where the client has ended.
pub async fn subscribe(client: &Client, names: &Names) -> Option<Subscriber> {
    let all = names.subject(names::ALL_NOTICES);
    client.subscribe(all).await.ok()
}

/// Reads a notice; `None` if it is none.
pub fn parse(message: &Message, names: &Names) -> Option<(WorkspaceSlug, UserKey, Notice)> {
    // An object: a list of its values would be taken, too.
    if message.payload.len() > BODY_MAX || !message.payload.starts_with(b"{") {
        return None;
    }
    let subject = names.plain(&message.subject)?;
    let (workspace, user) = subject.strip_prefix(PREFIX)?.split_once('.')?;
    let workspace = WorkspaceSlug::parse(workspace).ok()?;
    let user = UserKey::parse(user)?;
    let notice = match serde_json::from_slice(&message.payload).ok()? {
        NoticeBody::Replaced { session, by } => Notice::Replaced {
            session: Uuid::try_parse(&session).ok()?,
            by: Uuid::try_parse(&by).ok()?,
        },
        NoticeBody::Left { session } => Notice::Left(Uuid::try_parse(&session).ok()?),
        NoticeBody::Probe {} => Notice::Probe,
        NoticeBody::Probed { alive } => Notice::Probed(alive),
    };
    Some((workspace, user, notice))
}

impl From<Notice> for NoticeBody {
    fn from(notice: Notice) -> Self {
        let text = |session: Uuid| session.simple().to_string();
        match notice {
            Notice::Replaced { session, by } => Self::Replaced {
                session: text(session),
                by: text(by),
            },
            Notice::Left(session) => Self::Left {
                session: text(session),
            },
            Notice::Probe => Self::Probe {},
            Notice::Probed(alive) => Self::Probed { alive },
        }
    }
}

async fn send_all(connection: Connection, mut waiting: mpsc::Receiver<(String, Vec<u8>)>) {
    while let Some((subject, body)) = waiting.recv().await {
        // After a reconnect it would be about the past.
        if !connection.is_connected() {
            continue;
        }
        let sent = connection.client().publish(subject, body.into());
        match timeout(SEND, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "notice not sent"),
            Err(_) => debug!("notice not sent in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NatsConfig;

    const USER: &str = "0123456789abcdef0123456789abcdef";

    fn plain() -> Names {
        NatsConfig::default().names()
    }

    fn message(subject: &str, body: &str) -> Message {
        Message {
            subject: subject.into(),
            reply: Some("somewhere.else".into()),
            payload: body.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        let session = Uuid::from_u128(7);
        for notice in [
            Notice::Replaced {
                session,
                by: Uuid::from_u128(8),
            },
            Notice::Left(session),
            Notice::Probe,
            Notice::Probed(true),
            Notice::Probed(false),
        ] {
            let body = serde_json::to_string(&NoticeBody::from(notice)).unwrap();
            assert!(body.len() < BODY_MAX, "{body}");
            let subject = format!("{PREFIX}acme.{USER}");
            let (workspace, user, read) = parse(&message(&subject, &body), &plain()).unwrap();
            assert_eq!(workspace.as_str(), "acme");
            assert_eq!(user, UserKey::parse(USER).unwrap());
            assert_eq!(read, notice);
        }
    }

    #[test]
    fn what_is_no_notice_is_none() {
        let good = r#"{"kind":"probe"}"#;
        let subject = format!("{PREFIX}acme.{USER}");
        for (subject, body) in [
            (subject.as_str(), r#"{"stream":"EVENTS","seq":1}"#),
            (&subject, r#"{"stream":"EVENTS","seq":1,"duplicate":true}"#),
            (&subject, r#"{"error":{"code":400},"stream":"EVENTS"}"#),
            (&subject, r#"{"kind":"probe","stream":"EVENTS"}"#),
            (&subject, r#"{"kind":"probed"}"#),
            (&subject, r#"{"kind":"probed","alive":1}"#),
            (&subject, r#"{"kind":"left","session":"x"}"#),
            (&subject, r#"{"kind":"left","session":7}"#),
            (&subject, r#"{"kind":"ended"}"#),
            (&subject, r#"["probe"]"#),
            (&subject, "probe"),
            (&subject, ""),
            (&subject, &format!("{good}{}", " ".repeat(512))),
            (&format!("{PREFIX}acme"), good),
            (&format!("{PREFIX}_acme.{USER}"), good),
            (&format!("{PREFIX}acme.0123"), good),
            (&format!("{PREFIX}acme.{USER}.more"), good),
            (&format!("live.session.acme.{USER}"), good),
        ] {
            assert_eq!(
                parse(&message(subject, body), &plain()),
                None,
                "{subject} {body}"
            );
        }
        assert!(parse(&message(&subject, good), &plain()).is_some());
        // Another deployment's.
        let prefix = Some("blue".to_owned());
        let blue = NatsConfig {
            prefix,
            ..NatsConfig::default()
        }
        .names();
        assert_eq!(parse(&message(&subject, good), &blue), None);
        let prefixed = format!("blue.{subject}");
        assert_eq!(parse(&message(&prefixed, good), &plain()), None);
        assert!(parse(&message(&prefixed, good), &blue).is_some());
    }
}
