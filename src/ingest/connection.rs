//! The connection to NATS: options from the settings, used by the gateway and by every command.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::sync::mpsc;

use crate::config::NatsConfig;

/// Messages that may wait for one subscription before NATS' client drops the newest and reports
/// `SlowConsumer` (its own default is 65,536, which at 128 KiB each is no bound at all). The room
/// drains its subscription without waiting for anything, so this is burst room only.
const SUBSCRIPTION_CAPACITY: usize = 4096;

/// Commands that may wait for the connection task.
const CLIENT_CAPACITY: usize = 4096;

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
    /// The server refused who we are.
    #[error(
        "NATS refused the credentials: check the user and password in nats.url, or nats.credentials_file"
    )]
    Refused,
    /// No server could be reached.
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
}

/// Connects as `name`. With `events`, the connection is also kept up for ever and says what
/// happens to it there; without, an unreachable server is an error at once.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    config: &NatsConfig,
    name: &str,
    events: Option<mpsc::UnboundedSender<Event>>,
) -> Result<Client, ConnectError> {
    let mut options = ConnectOptions::new()
        .name(name)
        .custom_inbox_prefix(&config.inbox_prefix)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(5))
        .request_timeout(Some(Duration::from_secs(5)))
        .reconnect_delay_callback(|attempt| {
            let exponent = u32::try_from(attempt.min(6)).unwrap_or(6);
            Duration::from_millis(50 * 2u64.pow(exponent)).min(Duration::from_secs(2))
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
    if let Some(events) = events {
        options = options.event_callback(move |event| {
            // The receiver is gone only when the gateway is ending.
            let _ = events.send(event);
            std::future::ready(())
        });
    }
    let servers = config
        .urls()
        .map(str::parse::<async_nats::ServerAddr>)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| ConnectError::Url)?;
    options
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
