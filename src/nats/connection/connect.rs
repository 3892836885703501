//! Connects to NATS by the settings, for the gateway and every command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ReconnectToServer, Server, ServerAddr,
};
use tokio::sync::mpsc;

use super::connect_error::ConnectError;
use super::{connect_error, login};
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

/// Connects as `name`, and keeps the connection up for ever; `happens` gets what happens to it, and does not
/// take long.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    config: &NatsConfig,
    name: &str,
    happens: impl Fn(Event) + Send + Sync + 'static,
) -> Result<Client, ConnectError> {
    connect_reporting(config, name, happens, |_| {}).await
}

/// As [`connect`]; `away` gets the cause why there is no connection again, before each further try.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn connect_reporting(
    config: &NatsConfig,
    name: &str,
    happens: impl Fn(Event) + Send + Sync + 'static,
    away: impl Fn(String) + Send + Sync + 'static,
) -> Result<Client, ConnectError> {
    let (happens, away) = (Arc::new(happens), Arc::new(away));
    let (_, servers) = options(config).await?;
    // Not always the same one first: many gateways start at a time.
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    let first = usize::try_from(high).unwrap_or_default() % servers.len().max(1);
    let mut causes = Vec::new();
    for server in servers.iter().cycle().skip(first).take(servers.len()) {
        let (happens, away) = (Arc::clone(&happens), Arc::clone(&away));
        let tried = try_first(config, name, server, happens, away).await;
        let error = match tried {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                return Err(ConnectError::Refused {
                    server: connect_error::address(server),
                    way: login::ways(config),
                });
            }
            ConnectErrorKind::ServerParse => return Err(ConnectError::Url),
            _ => {
                let shows_certificate = config.client_cert.is_some();
                causes.push(connect_error::explained(server, &error, shows_certificate).await);
            }
        }
    }
    Err(ConnectError::Unreachable(causes.join("; ")))
}

/// Connects to `server`, and later to whichever there is. The client would try all of them at once and tell only
/// how the last one failed, and not which it was.
async fn try_first(
    config: &NatsConfig,
    name: &str,
    server: &ServerAddr,
    happens: Arc<impl Fn(Event) + Send + Sync + 'static>,
    away: Arc<impl Fn(String) + Send + Sync + 'static>,
) -> Result<Client, async_nats::ConnectError> {
    let unreadable =
        |error| async_nats::ConnectError::with_source(ConnectErrorKind::Io, Box::new(error));
    let (options, servers) = options(config).await.map_err(unreadable)?;
    let (server, shows_certificate) = (server.clone(), config.client_cert.is_some());
    // The tries since there was a connection; the very first one is for `server`.
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = Arc::clone(&tries);
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let select = move |pool: Vec<Server>, _| {
        let first = is_first
            .swap(false, Ordering::Relaxed)
            .then(|| server.clone());
        let is_retry = first.is_none() && tries.fetch_add(1, Ordering::Relaxed) > 0;
        let away = Arc::clone(&away);
        async move {
            if is_retry {
                away(causes_in(&pool, shows_certificate).await);
            }
            first.map(|addr| ReconnectToServer {
                addr,
                // The first connection is not waited for.
                delay: Some(Duration::ZERO),
            })
        }
    };
    options
        .name(name)
        .reconnect_delay_callback(pause)
        .reconnect_to_server_callback(select)
        .event_callback(move |event| {
            if event == Event::Connected {
                tried.store(0, Ordering::Relaxed);
            }
            happens(event);
            std::future::ready(())
        })
        .connect(servers)
        .await
}

/// Why none of `pool` could be reached just now. The client keeps no cause of a name that is not known.
async fn causes_in(pool: &[Server], shows_certificate: bool) -> String {
    let mut causes = Vec::new();
    for server in pool {
        let cause = match &server.last_error {
            Some(error) => Some(connect_error::cause(error, shows_certificate)),
            None => server
                .addr
                .socket_addrs()
                .await
                .err()
                .map(|error| connect_error::cause(&error.to_string(), shows_certificate)),
        };
        let address = connect_error::address(&server.addr);
        causes.extend(cause.map(|cause| format!("{address}: {cause}")));
    }
    causes.join("; ")
}

/// The pause before each further try of whichever server: short, since sockets wait for it, 100, 200, then 400 ms.
fn pause(attempt: usize) -> Duration {
    let exponent = u32::try_from(attempt.min(3)).unwrap_or(3);
    Duration::from_millis(50 * 2u64.pow(exponent))
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

/// Reads what a connection is made with, and makes none.
///
/// # Errors
/// [`ConnectError`], but for `Refused` and `Unreachable`.
pub async fn check_settings(config: &NatsConfig) -> Result<(), ConnectError> {
    options(config).await.map(drop)
}

async fn options(config: &NatsConfig) -> Result<(ConnectOptions, Vec<ServerAddr>), ConnectError> {
    let options = ConnectOptions::new()
        .custom_inbox_prefix(&config.inbox_prefix)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .request_timeout(Some(Duration::from_secs(5)));
    login::add(options, config).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_before_further_tries_grow_and_stay_short() {
        let millis = |attempt| pause(attempt).as_millis();
        assert_eq!([1, 2, 3, 4, 1000].map(millis), [100, 200, 400, 400, 400]);
    }
}
