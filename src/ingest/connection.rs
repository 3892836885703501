//! The connection to NATS: options from the settings, used by the gateway and by every command.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, Message, ServerAddr, Statistics, Subscriber,
};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::NatsConfig;

/// Messages that may wait for one subscription before NATS' client drops the newest and reports
/// `SlowConsumer` (its own default is 65,536, which at 128 KiB each is no bound at all). The room
/// drains its subscription without waiting for anything, so this is burst room only.
pub const SUBSCRIPTION_CAPACITY: usize = 4096;

/// Commands that may wait for the connection task.
const CLIENT_CAPACITY: usize = 4096;
/// The client pings after this long without a word from the server, and at the third time gives the
/// connection up: 9 s after the last word.
const PING: Duration = Duration::from_secs(3);

/// How long a server may take to let us in; after that another one is tried. The default of NATS' own client
/// for Go.
const CONNECT: Duration = Duration::from_secs(2);

/// Events of a connection that may wait for a command: far more than a command has denied requests.
const EVENTS_MAX: usize = 1024;

/// How often it is looked whether there is a connection again, or another one.
const LOOK: Duration = Duration::from_millis(20);

/// Why there is no connection. `Display` names no URL, because a URL may carry a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `nats.credentials_file` cannot be read or is not a credentials file.
    #[error("cannot read nats.credentials_file {path}: {source}")]
    Credentials {
        path: String,
        source: std::io::Error,
    },
    /// `nats.url` has an entry that is no URL.
    #[error("nats.url holds an entry that is not a NATS URL, such as nats://host:4222")]
    Url,
    /// `nats.url` has entries with different users; a connection has one, whatever server it is to.
    #[error("nats.url names different users or passwords: all its servers take the same")]
    Logins,
    /// The server refused who we are.
    #[error(
        "NATS refused the credentials: check the user and password in nats.url, or nats.credentials_file"
    )]
    Refused,
    /// No server could be reached.
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
}

/// Connects as `name`, and keeps the connection up for ever; `happens` hears what happens to it, and does not
/// take long.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    config: &NatsConfig,
    name: &str,
    happens: impl Fn(Event) + Send + Sync + 'static,
) -> Result<Client, ConnectError> {
    let (options, servers) = options(config).await?;
    options
        .name(name)
        .event_callback(move |event| {
            happens(event);
            std::future::ready(())
        })
        .connect(servers)
        .await
        .map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                ConnectError::Refused
            }
            ConnectErrorKind::ServerParse => ConnectError::Url,
            kind => ConnectError::Unreachable(kind.to_string()),
        })
}

/// What [`connect`] tells, for somebody who waits for some of it. What comes while [`EVENTS_MAX`] wait is left out.
pub fn event_channel() -> (
    impl Fn(Event) + Send + Sync + 'static,
    mpsc::Receiver<Event>,
) {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    // Full, or nobody waits any more.
    (move |event| drop(sender.try_send(event)), events)
}

/// Waits until there is a connection. What is sent while there is none stays in the client: after a long time
/// the server would get all of it at once, and none of it would matter any more.
pub(super) async fn connected(client: &Client) {
    while client.connection_state() != State::Connected {
        tokio::time::sleep(LOOK).await;
    }
}

/// Counts a client's connections made so far. The connection task counts up before it reads the first byte of a
/// new connection, so that a message taken while this number stands is from the connection it stands for, or
/// an earlier one; the events of the client come later than that.
pub(super) fn epoch(statistics: &Statistics) -> u64 {
    statistics.connects.load(Ordering::Acquire)
}

/// The next message that came to `inbox`. The client routes by the number of a subscription alone, so it is
/// looked at the subject, too. `None` if the connection is closed.
pub(super) async fn next_on(messages: &mut Subscriber, inbox: &str) -> Option<Message> {
    loop {
        let message = messages.next().await?;
        if message.subject.as_str() == inbox {
            return Some(message);
        }
        warn!(subject = %message.subject, "an answer for another inbox is left out");
    }
}

/// Waits until there is another connection than that of `since`: what was to be answered on it will not be.
pub(super) async fn broken(client: &Client, since: u64) {
    let statistics = client.statistics();
    while epoch(&statistics) == since {
        tokio::time::sleep(LOOK).await;
    }
}

/// Reads what a connection is made with, and makes none.
///
/// # Errors
/// [`ConnectError`], but for [`ConnectError::Refused`] and [`ConnectError::Unreachable`].
pub async fn check_settings(config: &NatsConfig) -> Result<(), ConnectError> {
    options(config).await.map(drop)
}

async fn options(config: &NatsConfig) -> Result<(ConnectOptions, Vec<ServerAddr>), ConnectError> {
    let mut options = ConnectOptions::new()
        .custom_inbox_prefix(&config.inbox_prefix)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .request_timeout(Some(Duration::from_secs(5)))
        // Short, since sockets wait for it: 100, 200, then 400 ms before each try of whichever server.
        .reconnect_delay_callback(|attempt| {
            let exponent = u32::try_from(attempt.min(3)).unwrap_or(3);
            Duration::from_millis(50 * 2u64.pow(exponent))
        });
    if let Some(path) = &config.ca_file {
        options = options.add_root_certificates(path.clone());
    }
    if let Some(path) = &config.credentials_file {
        let unreadable = |source| ConnectError::Credentials {
            path: path.display().to_string(),
            source,
        };
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        options = options.credentials(&text).map_err(unreadable)?;
    }
    let (servers, login) = servers(config)?;
    if let Some(Login { user, password }) = login {
        options = options.user_and_password(user, password);
    }
    Ok((options, servers))
}

/// A user and password taken out of `nats.url`.
#[derive(PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

/// The servers of `nats.url` without what may be secret in them, and the user and password they
/// name. async-nats 0.51 does not look at a URL's user and password, and prints URLs in its log.
///
/// # Errors
/// [`ConnectError::Url`], [`ConnectError::Logins`].
fn servers(config: &NatsConfig) -> Result<(Vec<ServerAddr>, Option<Login>), ConnectError> {
    let mut servers = Vec::new();
    let mut login: Option<Login> = None;
    for text in config.urls() {
        let address: ServerAddr = text.parse().map_err(|_| ConnectError::Url)?;
        if let Some(user) = address.username() {
            let found = Login {
                user: decoded(user)?,
                password: decoded(address.password().unwrap_or_default())?,
            };
            if login.as_ref().is_some_and(|login| *login != found) {
                return Err(ConnectError::Logins);
            }
            login = Some(found);
        }
        let mut url = address.into_inner();
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| ConnectError::Url)?;
        servers.push(ServerAddr::from_url(url).map_err(|_| ConnectError::Url)?);
    }
    Ok((servers, login))
}

fn decoded(text: &str) -> Result<String, ConnectError> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| ConnectError::Url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn read(url: &str) -> Result<(Vec<ServerAddr>, Option<Login>), ConnectError> {
        servers(&NatsConfig {
            url: Secret::from(url),
            ..NatsConfig::default()
        })
    }

    #[test]
    fn user_and_password_leave_the_url() {
        let (servers, login) =
            read("nats://u:p%40s@one:4222, nats://u:p%40s@two, three:1").unwrap();
        let login = login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("u", "p@s"));
        let shown = format!("{servers:?}");
        assert!(
            !shown.contains("p@s") && !shown.contains("p%40s") && shown.contains("one"),
            "{shown}"
        );
        assert_eq!(servers.len(), 3);
        assert!(read("nats://one").unwrap().1.is_none());
    }

    #[test]
    fn different_users_in_one_setting_are_refused() {
        assert!(matches!(
            read("nats://u:p@one,nats://v:p@two"),
            Err(ConnectError::Logins)
        ));
    }
}
