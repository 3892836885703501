//! The gateway's one connection to NATS and what is known about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, Event, Statistics};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connection::epoch;
use super::{ConnectError, connect};
use crate::config::NatsConfig;
use crate::telemetry::Metrics;

/// What the rooms and health need to know of the connection, from its own reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// There is a connection again: what was stored meanwhile was not heard.
    Reconnected,
    /// Messages were dropped on our side because a subscription was full.
    SlowConsumer,
}

/// A cheap handle on the connection.
#[derive(Debug, Clone)]
pub struct Link {
    client: Client,
    statistics: Arc<Statistics>,
    since: watch::Receiver<Presence>,
    lost: CancellationToken,
}

/// Whether NATS is there, and since when.
#[derive(Debug, Clone, Copy)]
pub struct Presence {
    pub connected: bool,
    pub since: Instant,
}

impl Link {
    /// Connects and keeps the connection up; `disturbances` hears what needs repair. Waits while no
    /// server can be reached, saying so, and gives up where the answer would not change by itself.
    ///
    /// # Errors
    /// [`ConnectError`] but for `Unreachable`.
    pub async fn establish(
        config: &NatsConfig,
        metrics: Arc<Metrics>,
        disturbances: mpsc::UnboundedSender<Disturbance>,
    ) -> Result<Self, ConnectError> {
        let mut pause = Duration::from_millis(250);
        let (events_in, events) = mpsc::unbounded_channel();
        let client = loop {
            match connect(config, "herald", Some(events_in.clone())).await {
                Err(ConnectError::Unreachable(cause)) => {
                    warn!(cause, "waiting for nats");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                other => break other?,
            }
        };
        info!("connected to nats");
        let (presence, since) = watch::channel(Presence {
            connected: true,
            since: Instant::now(),
        });
        tokio::spawn(follow(events, presence, metrics, disturbances));
        let lost = CancellationToken::new();
        tokio::spawn(watch_over(client.clone(), lost.clone()));
        Ok(Self {
            lost,
            statistics: client.statistics(),
            client,
            since,
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

    /// Whether NATS is there now, as far as is known.
    pub fn presence(&self) -> Presence {
        *self.since.borrow()
    }

    /// Waits until the client itself has ended, after which there will be no connection any more. It
    /// reconnects for ever, so this is its own failure: a panic of its task, of which it says nothing.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Waits until NATS is there. `false` if the connection has ended for good.
    pub async fn connected(&self) -> bool {
        self.since
            .clone()
            .wait_for(|presence| presence.connected)
            .await
            .is_ok()
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

async fn follow(
    mut events: mpsc::UnboundedReceiver<Event>,
    presence: watch::Sender<Presence>,
    metrics: Arc<Metrics>,
    disturbances: mpsc::UnboundedSender<Disturbance>,
) {
    let mut first = true;
    metrics.nats_connected(true);
    let turn = |connected| {
        metrics.nats_connected(connected);
        presence.send_if_modified(|now| {
            let changed = now.connected != connected;
            if changed {
                *now = Presence {
                    connected,
                    since: Instant::now(),
                };
            }
            changed
        });
    };
    while let Some(event) = events.recv().await {
        let (name, disturbance) = match &event {
            Event::Connected => {
                turn(true);
                let again = !std::mem::take(&mut first);
                if again {
                    metrics.nats_reconnected();
                    info!("reconnected to nats");
                }
                ("connected", again.then_some(Disturbance::Reconnected))
            }
            Event::Disconnected => {
                turn(false);
                warn!("disconnected from nats");
                ("disconnected", None)
            }
            Event::SlowConsumer(_) => {
                metrics.nats_slow_consumer();
                warn!("messages dropped, a subscription was full");
                ("slow_consumer", Some(Disturbance::SlowConsumer))
            }
            Event::ServerError(error) => {
                warn!(%error, "nats server error");
                ("server_error", None)
            }
            Event::ClientError(error) => {
                warn!(%error, "nats client error");
                ("client_error", None)
            }
            Event::LameDuckMode => ("lame_duck", None),
            Event::Draining => ("draining", None),
            Event::Closed => ("closed", None),
        };
        metrics.nats_event(name);
        if let Some(disturbance) = disturbance {
            // The receiver is gone only when the gateway is ending.
            let _ = disturbances.send(disturbance);
        }
    }
}
