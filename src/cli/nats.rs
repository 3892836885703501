//! A command's connection to NATS, which listens for what the server does not put into an answer.
//!
//! A missing permission is told on the connection; the question itself is then never answered. A
//! command that only waited would end in a timeout that says nothing.

use async_nats::{Client, Event};
use tokio::sync::mpsc;

use super::CliError;
use crate::config::{Config, NatsConfig};
use crate::nats::{connect, event_channel, permissions};

/// The oldest nats-server that will do: batched direct get came with it.
pub(super) const VERSION_MIN: &str = "2.11";

/// Whether `version`, as a server tells it (`2.15.1`, `2.12.0-RC.1`), is [`VERSION_MIN`] or newer.
pub(super) fn is_new_enough(version: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(['.', '-']).map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    numbers(version) >= numbers(VERSION_MIN)
}

/// A connection of one command.
#[derive(Debug)]
pub(super) struct NatsConnection {
    pub(super) client: Client,
    events: mpsc::Receiver<Event>,
    config: NatsConfig,
}

impl NatsConnection {
    /// Connects as `name`.
    ///
    /// # Errors
    /// [`CliError::Failure`] at once where no server can be reached or it refuses the credentials.
    pub(super) async fn open(config: &Config, name: &str) -> Result<Self, CliError> {
        let (happens, events) = event_channel();
        let client = connect(&config.nats, name, happens).await?;
        Ok(Self {
            client,
            events,
            config: config.nats.clone(),
        })
    }

    /// Waits for `work`, or for the server to say that this user may not do it.
    ///
    /// # Errors
    /// [`CliError::Failure`] naming the subject, where a permission is missing.
    pub(super) async fn allowed<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, CliError> {
        tokio::select! {
            done = work => Ok(done),
            denied = first_denial(&mut self.events, &self.config) => {
                Err(CliError::Failure(denied))
            }
        }
    }
}

/// Nobody answers for `stream`.
pub(super) fn no_stream(client: &Client, config: &NatsConfig, stream: &str) -> String {
    let hosts = config.hosts();
    let location = match &config.domain {
        Some(domain) => format!("in the JetStream domain {domain} of {hosts}"),
        None => format!("at {hosts}"),
    };
    // In a cluster others may have it all the same.
    let doubt = match (&config.domain, client.server_info().jetstream) {
        (Some(_), _) => ", if nats.domain is right",
        (None, true) => "",
        (None, false) => {
            ". This server itself has no JetStream: turn it on there or, at a leaf node, set nats.domain"
        }
    };
    format!(
        "there is no stream {stream} for this user's account {location}: `herald migrate` makes it{doubt}"
    )
}

/// Ends with the first missing permission that the server tells of.
async fn first_denial(events: &mut mpsc::Receiver<Event>, config: &NatsConfig) -> String {
    while let Some(event) = events.recv().await {
        if let Some(text) = permissions::denial(&event, config) {
            return text;
        }
    }
    // The connection is gone; the work itself tells.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, new_enough) in [
            ("2.9.10", false),
            ("2.10.29", false),
            ("2.11.0", true),
            ("2.12.0-RC.1", true),
            ("2.100.0", true),
            ("3.0.0", true),
            ("1.99.0", false),
            ("", false),
            ("dev", false),
        ] {
            assert_eq!(is_new_enough(version), new_enough, "{version}");
        }
    }
}
