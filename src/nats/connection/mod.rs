//! The connection to NATS: whether there is one, why not, and what it lost. Whoever needs to know asks this.

mod connect;
mod connect_error;
mod denials;
mod login;
mod losses;
pub mod permissions;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ClientError, Event, Statistics};
use futures_util::StreamExt;
use tracing::{Span, info, warn};

use self::connect::connect_reporting;
pub use self::connect::{SUBSCRIPTION_CAPACITY, check_settings, connect, event_channel};
pub use self::connect_error::ConnectError;
pub use self::denials::Denials;
use self::losses::LossLog;
pub use self::losses::Losses;
use crate::config::NatsConfig;
use crate::telemetry::{self, Metrics};

/// How often it is looked whether there is a connection again, or another one.
const POLL: Duration = Duration::from_millis(20);
/// The pause before a gateway tries again that never had a connection, at first and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// A cheap handle on the connection.
#[derive(Debug, Clone)]
pub struct Connection {
    client: Client,
    statistics: Arc<Statistics>,
    absence: Arc<Absence>,
    losses: Arc<LossLog>,
}

/// Why there is no connection, as far as that is known. A lock for a moment.
#[derive(Debug, Default)]
struct Absence(Mutex<Option<String>>);

impl Absence {
    fn cause(&self) -> Option<String> {
        let cause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cause.clone().filter(|cause| !cause.is_empty())
    }

    /// Logs each cause once.
    fn log(&self, cause: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&cause) {
            warn!(cause, "nats cannot be reached");
            *known = Some(cause);
        }
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The connection of a command: its absence has no known cause, and its losses matter to nobody.
impl From<Client> for Connection {
    fn from(client: Client) -> Self {
        Self {
            statistics: client.statistics(),
            client,
            absence: Arc::default(),
            losses: Arc::default(),
        }
    }
}

impl Connection {
    /// Connects and keeps the connection up. `denials` learns what NATS denies. Waits while no server can be
    /// reached, and reports that to the log and to `waits`. Gives up where a further try would have the same answer.
    ///
    /// # Errors
    /// [`ConnectError`] but for `Unreachable`.
    pub async fn establish(
        config: &NatsConfig,
        metrics: Arc<Metrics>,
        denials: &Denials,
        waits: impl Fn(String),
    ) -> Result<Self, ConnectError> {
        let (absence, losses) = (Arc::<Absence>::default(), Arc::<LossLog>::default());
        let [mut pause, longest] = PAUSE;
        let client = loop {
            let record = record(
                Arc::clone(&metrics),
                Arc::clone(&losses),
                Arc::clone(&absence),
            );
            let denials = denials.clone();
            let counted = Arc::clone(&metrics);
            let happens = move |event| {
                if denials.observe(&event) {
                    counted.operator_request("not_sent");
                }
                record(event);
            };
            let known = Arc::clone(&absence);
            let failed = move |cause| known.log(cause);
            match connect_reporting(config, "herald", happens, failed).await {
                Err(error @ ConnectError::Unreachable(_)) => {
                    waits(error.to_string());
                    if let ConnectError::Unreachable(cause) = error {
                        warn!(cause, "waiting for nats");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                other => break other?,
            }
        };
        metrics.nats_connected(true);
        info!("connected to nats");
        Ok(Self {
            absence,
            losses,
            ..Self::from(client)
        })
    }

    /// The client, for requests and subscriptions.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Counts the connections made so far. The client counts up before it reads the first byte of a new connection.
    /// So a message taken while this number stands came on that connection or an earlier one. The client's events
    /// come later.
    pub fn epoch(&self) -> u64 {
        self.statistics.connects.load(Ordering::Acquire)
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Why there is no connection, where there is none and the cause is known.
    pub fn absence(&self) -> Option<String> {
        self.absence.cause().filter(|_| !self.is_connected())
    }

    /// Waits until there is a connection. What is sent without one stays in the client: the server would get all of
    /// it at once after a long time, when none of it matters any more.
    pub async fn connected(&self) {
        while !self.is_connected() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until there is another connection than that of `epoch`: what it was to answer will not be answered.
    pub(in crate::nats) async fn replaced(&self, epoch: u64) {
        while self.epoch() == epoch {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until live messages may have been lost, and takes all that is known of it. For one task.
    pub async fn losses(&self) -> Losses {
        self.losses.next().await
    }

    /// Waits until the client itself has ended, after which there is no connection any more. It reconnects for ever,
    /// so this is its own failure: a panic of its task, which it does not report. All its subscriptions end then.
    pub async fn ended(&self) {
        match self.client.subscribe(self.client.new_inbox()).await {
            Ok(mut nothing) => while nothing.next().await.is_some() {},
            Err(error) => warn!(%error, "the nats client has ended"),
        }
    }
}

/// Logs and counts what happens to the connection, and records what may be lost.
fn record(
    metrics: Arc<Metrics>,
    losses: Arc<LossLog>,
    absence: Arc<Absence>,
) -> impl Fn(Event) + Send + Sync {
    let was_connected = AtomicBool::new(false);
    // Open while there is no connection.
    let absent_for = Mutex::new(Span::none());
    let reconnecting = move |span| {
        *absent_for.lock().unwrap_or_else(PoisonError::into_inner) = span;
    };
    move |event| {
        let name = match &event {
            Event::Connected => {
                metrics.nats_connected(true);
                reconnecting(Span::none());
                absence.end();
                if was_connected.swap(true, Ordering::Relaxed) {
                    metrics.nats_reconnected();
                    info!("reconnected to nats");
                    losses.reconnected();
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
                losses.full(*subscription);
                "slow_consumer"
            }
            Event::ServerError(error) => {
                warn!(%error, "nats server error");
                "server_error"
            }
            // A try to reconnect that failed, by its kind alone: [`Absence`] has the server and the cause.
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
