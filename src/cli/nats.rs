//! A command's connection to NATS, and the reading of a stream over it.
//!
//! The server reports a missing permission on the connection, and never answers the request itself. A command that
//! only waited would end in a timeout that says nothing.

use async_nats::{Client, Event};
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use super::CliError;
use crate::config::NatsConfig;
use crate::event::StoredMessage;
use crate::nats::{DirectGet, DirectGetError, PublishError, connect, event_channel, permissions};

/// The oldest nats-server that works: batched direct get came with it.
pub(super) const VERSION_MIN: &str = "2.11";
/// Messages of one read, and about how many bytes: some hundredths of a second of a broker.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How often a read that broke off goes on where it stopped.
const RETRIES: u32 = 3;

/// Whether `version`, as a server reports it (`2.15.1`, `2.12.0-RC.1`), is [`VERSION_MIN`] or newer.
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

/// Where a read begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadFrom {
    Time(DateTime<Utc>),
    Sequence(u64),
}

impl NatsConnection {
    /// Connects as `name`.
    ///
    /// # Errors
    /// [`CliError::Failure`] at once where no server can be reached or it refuses the credentials.
    pub(super) async fn open(config: &NatsConfig, name: &str) -> Result<Self, CliError> {
        let (happens, events) = event_channel();
        Ok(Self {
            client: connect(config, name, happens).await?,
            events,
            config: config.clone(),
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

    /// Reads `stream` forward, the messages under the plain `subject`, until `each` wants no more of them.
    ///
    /// # Errors
    /// [`CliError::Failure`] where the stream cannot be read; what `each` returns.
    pub(super) async fn read(
        &mut self,
        stream: &str,
        subject: &str,
        mut from: ReadFrom,
        mut each: impl FnMut(StoredMessage) -> Result<bool, CliError>,
    ) -> Result<(), CliError> {
        let get = DirectGet::new(self.client.clone(), &self.config.names(), stream);
        let mut failures = 0;
        loop {
            let reading = read_batch(&get, subject, &mut from, &mut each);
            match self.allowed(reading).await? {
                Ok(Ok(true)) => failures = 0,
                Ok(ended) => return ended.map(drop),
                Err(DirectGetError::Timeout(_) | DirectGetError::Incomplete)
                    if failures < RETRIES =>
                {
                    failures += 1;
                }
                Err(error) => {
                    return Err(CliError::Failure(self.read_failure(stream, from, &error)));
                }
            }
        }
    }

    fn read_failure(&self, stream: &str, from: ReadFrom, error: &DirectGetError) -> String {
        let at = match from {
            ReadFrom::Time(_) | ReadFrom::Sequence(0) => String::new(),
            ReadFrom::Sequence(sequence) => format!(" from sequence {sequence} on"),
        };
        match error {
            DirectGetError::NoResponders => self.no_stream(stream),
            DirectGetError::Timeout(_) => format!(
                "{error}{at} at {}: is NATS up, and may this user publish to {}?",
                self.config.hosts(),
                self.config.names().api("DIRECT.GET", stream)
            ),
            _ => format!("{error}{at}"),
        }
    }

    /// Why an event cannot be published under `subject`.
    pub(super) fn publish_failure(&self, subject: &str, error: &PublishError) -> String {
        match error {
            PublishError::NoStream => {
                let missing = self.store_failure(self.config.names().events(), error);
                format!("no stream takes {subject}: {missing}")
            }
            error => self.store_failure(self.config.names().events(), error),
        }
    }

    /// Why `stream` does not store a message.
    pub(super) fn store_failure(&self, stream: &str, error: &PublishError) -> String {
        match error {
            PublishError::NoStream => self.no_stream(stream),
            error => format!("{error} ({})", self.config.hosts()),
        }
    }

    /// Nobody answers for `stream`.
    fn no_stream(&self, stream: &str) -> String {
        let hosts = self.config.hosts();
        let domain = self.config.domain.as_ref();
        let location = match domain {
            Some(domain) => format!("in the JetStream domain {domain} of {hosts}"),
            None => format!("at {hosts}"),
        };
        // In a cluster another server may have it.
        let doubt = match (domain, self.client.server_info().jetstream) {
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
}

/// Reads one batch, and moves `from` behind the last message that `each` has taken. Says whether to go on.
async fn read_batch(
    get: &DirectGet,
    subject: &str,
    from: &mut ReadFrom,
    each: &mut impl FnMut(StoredMessage) -> Result<bool, CliError>,
) -> Result<Result<bool, CliError>, DirectGetError> {
    let batch = match *from {
        ReadFrom::Time(time) => get.next_since(time, BATCH, BATCH_BYTES, subject).await,
        ReadFrom::Sequence(sequence) => {
            let batch = get.next_by_subject(sequence, BATCH, BATCH_BYTES, subject);
            batch.await
        }
    };
    let mut batch = batch?;
    while let Some(raw) = batch.next().await? {
        *from = ReadFrom::Sequence(raw.sequence + 1);
        match each(raw) {
            Ok(true) => {}
            ended => return Ok(ended),
        }
    }
    Ok(Ok(batch.end().pending > 0))
}

/// Ends with the first missing permission that the server reports.
async fn first_denial(events: &mut mpsc::Receiver<Event>, config: &NatsConfig) -> String {
    while let Some(event) = events.recv().await {
        if let Some(text) = permissions::denial(&event, config) {
            return text;
        }
    }
    // The connection is gone; the work itself says why.
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
