//! `herald listen`: prints each notification as one line of JSON, and reconnects as the contract says. The trace id of a
//! notification that brings its `traceparent` goes to standard error. The token is never printed, whatever the server says.
//!
//! `connection` is one connection. `reconnect` decides what follows from its end. `tokens` has the token.

mod connection;
mod reconnect;
#[cfg(test)]
mod tests;
mod tokens;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use self::reconnect::{Disconnect, Pace, Reconnect};
use self::tokens::{Renewal, TokenSource};
use super::target::Target;
use super::{CliError, traces};
use crate::config::Secret;
use crate::telemetry::CommandTraces;

/// Interval of the heartbeats: well within the 5 minutes of inactivity after which a gateway closes
/// a socket (4008).
const HEARTBEAT: Duration = Duration::from_secs(120);

/// From one token to the next on a connection. A gateway accepts one in 10 s.
const RENEWAL: Duration = Duration::from_secs(12);

/// Arguments of `herald listen`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the gateway: ws://host:8080/ or wss://host/. It may contain the query parameters `token` and
    /// `workspaceSlug`, instead of --token and --workspace.
    #[arg(long, value_name = "URL")]
    url: Secret,
    /// The token. The list of processes shows it, but not if it comes from the environment.
    #[arg(
        long,
        env = "HERALD_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<Secret>,
    /// A shell command that prints a token. It runs if there is none, when the token has expired, and a minute before
    /// that, to renew it on the open connection.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
    /// The workspace to listen to.
    #[arg(long, value_name = "SLUG")]
    workspace: Option<String>,
    /// PEM file with CA certificates to trust, beside the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Send no heartbeats. A gateway then closes a quiet connection after sockets.inactivity.
    #[arg(long)]
    no_heartbeat: bool,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let target = Target::parse(args.url.expose(), args.workspace.as_deref())?;
    let given = target.token().or(args.token.as_ref()).cloned();
    if given.is_none() && args.token_command.is_none() {
        return Err(CliError::usage(
            "no token: give --token, HERALD_TOKEN or --token-command",
        ));
    }
    let tls = target.trusted(args.ca).await?;
    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let mut listener = Listener {
        traces: traces::start("herald-listen"),
        target,
        tokens: TokenSource::new(given, args.token_command),
        tls,
        heartbeat: (!args.no_heartbeat).then_some(HEARTBEAT),
        renewal: RENEWAL,
        pace: Pace::CONTRACT,
    };
    let status = |line: &str| eprintln!("herald: {line}");
    let result = listener.run(&mut std::io::stdout(), status, &cancel).await;
    traces::end(&listener.traces).await;
    result
}

/// Everything that stays the same from one connection to the next, and the token.
struct Listener {
    traces: CommandTraces,
    target: Target,
    tokens: TokenSource,
    tls: Option<Arc<ClientConfig>>,
    heartbeat: Option<Duration>,
    renewal: Duration,
    pace: Pace,
}

impl Listener {
    /// Listens until the output is closed or `cancel`, which are good ends.
    ///
    /// # Errors
    /// [`CliError::Failure`] where there is no use in reconnecting (any more).
    async fn run(
        &mut self,
        out: &mut impl Write,
        status: impl Fn(&str),
        cancel: &CancellationToken,
    ) -> Result<(), CliError> {
        let mut reconnect = Reconnect::new(self.pace, self.tokens.can_renew());
        loop {
            let connected = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                connected = self.connect() => connected,
            };
            let (disconnect, open_for) = match connected {
                Err(disconnect) => (disconnect, None),
                Ok(stream) => {
                    status(&format!("connected to {}", self.target.host()));
                    let since = Instant::now();
                    let follow = connection::follow(
                        stream,
                        out,
                        (&status, &self.traces),
                        self.heartbeat,
                        Renewal::new(&mut self.tokens, self.renewal),
                        cancel,
                    );
                    match follow.await? {
                        None => return Ok(()),
                        Some(disconnect) => (disconnect, Some(since.elapsed())),
                    }
                }
            };
            let retry = reconnect.next(&disconnect, open_for, jitter());
            let retry = retry.map_err(|why| CliError::Failure(self.tokens.redact(&why)))?;
            status(&self.tokens.redact(&retry.why));
            if retry.renew_token {
                self.tokens.forget_current();
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(retry.delay) => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<connection::ClientStream, Disconnect> {
        let token = self.tokens.current().await.map_err(Disconnect::NoToken)?;
        let url = self.target.url_with(token);
        connection::connect(&url, self.tls.clone()).await
    }
}

/// A random number from 0 to 1.
fn jitter() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    u32::try_from(high >> 32).map_or(0.0, |bits| f64::from(bits) / f64::from(u32::MAX))
}
