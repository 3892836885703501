//! The gateway's one connection to NATS and what is known about it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ClientError, Event, Statistics};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};

use super::connection::{connect_reporting, connected, epoch};
use super::{ConnectError, Denials, Disturbances};
use crate::config::NatsConfig;
use crate::telemetry::{self, Metrics};

/// A cheap handle on the connection.
#[derive(Debug, Clone)]
pub struct Link {
    client: Client,
    statistics: Arc<Statistics>,
    lost: CancellationToken,
    away: Away,
}

/// Why there is no connection, as far as that is known. A lock, held to read or write it.
#[derive(Debug, Clone, Default)]
struct Away(Arc<Mutex<Option<String>>>);

impl Away {
    fn cause(&self) -> Option<String> {
        let cause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cause.clone().filter(|cause| !cause.is_empty())
    }

    /// Says so in the log, once for each cause.
    fn log(&self, cause: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&cause) {
            warn!(cause, "nats cannot be reached");
            *known = Some(cause);
        }
    }

    fn over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Link {
    /// Connects and keeps the connection up; `disturbances` is told what needs repair, and `denials` what is
    /// denied. Waits while no server can be reached, saying so to the log and to `waits`, and gives up where
    /// the answer would not change by itself.
    ///
    /// # Errors
    /// [`ConnectError`] but for `Unreachable`.
    pub async fn establish(
        config: &NatsConfig,
        metrics: Arc<Metrics>,
        disturbances: Arc<Disturbances>,
        denials: &Denials,
        waits: impl Fn(String),
    ) -> Result<Self, ConnectError> {
        let away = Away::default();
        let mut pause = Duration::from_millis(250);
        let client = loop {
            let happens = follow(
                Arc::clone(&metrics),
                Arc::clone(&disturbances),
                away.clone(),
            );
            let denials = denials.clone();
            let inbox_prefix = config.inbox_prefix.clone();
            let happens = move |event| {
                denials.observe(&event, &inbox_prefix);
                happens(event);
            };
            let known = away.clone();
            let again = move |cause| known.log(cause);
            match connect_reporting(config, "herald", happens, again).await {
                Err(error @ ConnectError::Unreachable(_)) => {
                    waits(error.to_string());
                    if let ConnectError::Unreachable(cause) = error {
                        warn!(cause, "waiting for nats");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                other => break other?,
            }
        };
        metrics.nats_connected(true);
        info!("connected to nats");
        let lost = CancellationToken::new();
        tokio::spawn(watch_over(client.clone(), lost.clone()));
        Ok(Self {
            away,
            lost,
            statistics: client.statistics(),
            client,
        })
    }

    /// The client, for requests and subscriptions.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Counts connections made so far; it tells what a message came on.
    pub fn epoch(&self) -> u64 {
        epoch(&self.statistics)
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Why there is no connection, where there is none and the cause is known.
    pub fn away(&self) -> Option<String> {
        self.away.cause().filter(|_| !self.is_connected())
    }

    /// Waits until the client itself has ended, after which there will be no connection any more. It
    /// reconnects for ever, so this is its own failure: a panic of its task, of which it says nothing.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) {
        connected(&self.client).await;
    }
}

/// Cancels `lost` when the client's task is gone, which ends all its subscriptions.
async fn watch_over(client: Client, lost: CancellationToken) {
    let _ending = lost.drop_guard();
    let inbox = client.new_inbox();
    match client.subscribe(inbox).await {
        Ok(mut nothing) => while nothing.next().await.is_some() {},
        Err(error) => warn!(%error, "the nats client has ended"),
    }
}

/// Logs and counts what happens to the connection, and notes what rooms need to know of.
fn follow(
    metrics: Arc<Metrics>,
    disturbances: Arc<Disturbances>,
    away: Away,
) -> impl Fn(Event) + Send + Sync {
    let was_connected = AtomicBool::new(false);
    // Open while there is no connection.
    let away_for = Mutex::new(Span::none());
    let reconnecting = move |span| {
        *away_for.lock().unwrap_or_else(PoisonError::into_inner) = span;
    };
    move |event| {
        let name = match &event {
            Event::Connected => {
                metrics.nats_connected(true);
                reconnecting(Span::none());
                away.over();
                if was_connected.swap(true, Ordering::Relaxed) {
                    metrics.nats_reconnected();
                    info!("reconnected to nats");
                    disturbances.reconnected();
                }
                "connected"
            }
            Event::Disconnected => {
                metrics.nats_connected(false);
                reconnecting(telemetry::reconnect());
                warn!("disconnected from nats");
                "disconnected"
            }
            Event::SlowConsumer(subscription) => {
                metrics.nats_slow_consumer();
                disturbances.full(*subscription);
                "slow_consumer"
            }
            Event::ServerError(error) => {
                warn!(%error, "nats server error");
                "server_error"
            }
            // A try to reconnect that failed, by its kind alone: `away` says which server, and why.
            Event::ClientError(ClientError::Other(_)) => "client_error",
            Event::ClientError(error) => {
                warn!(%error, "nats client error");
                "client_error"
            }
            Event::LameDuckMode => "lame_duck",
            Event::Draining => "draining",
            Event::Closed => "closed",
        };
        metrics.nats_event(name);
    }
}
