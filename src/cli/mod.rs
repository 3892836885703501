//! The command line. Messages go to standard error, data to standard output; the exit code is 0, 1
//! for a failure and 2 for wrong usage or configuration.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line is the one place that prints"
)]

mod bench;
mod check;
mod dead_letters;
mod dev;
mod disconnect;
mod drain;
mod gateways;
mod health;
mod listen;
mod migrate;
mod nats;
mod operator;
mod output;
mod publish;
mod replay;
mod revoke;
mod schema;
mod serve;
mod sessions;
mod signals;
mod target;
mod tls;
mod token;
mod traces;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// The configuration file that is read if `--config` names none and this one exists.
const CONFIG_FILE: &str = "herald.toml";

/// A live notification gateway: NATS JetStream events to authenticated WebSockets.
#[derive(Debug, Parser)]
#[command(name = "herald", version)]
struct Cli {
    /// Configuration file (TOML) [default: herald.toml, if it exists]. Each setting can also come from the environment,
    /// as HERALD_<TABLE>__<KEY>.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the gateway.
    Serve(serve::Args),
    /// Create and update the JetStream objects that Herald needs.
    Migrate(migrate::Args),
    /// Check the configuration and the rules and, with --nats, the NATS server.
    Check(check::Args),
    /// Print a token for development.
    Token(token::Args),
    /// Publish an event.
    Publish(publish::Args),
    /// Connect to a gateway and print notifications as they arrive, one JSON object a line.
    Listen(listen::Args),
    /// Print the notifications that past events would become now.
    Replay(replay::Args),
    /// List the events that could not become notifications.
    DeadLetters(dead_letters::Args),
    /// Revoke tokens, by their user, by themselves or by their key; undo it; list it.
    Revoke(revoke::Args),
    /// List the sockets that are open on all gateways.
    Sessions(sessions::Args),
    /// End a session, or those of a user or a workspace, on all gateways.
    Disconnect(disconnect::Args),
    /// List the gateways and how they are; set what one of them logs.
    Gateways(gateways::Args),
    /// Have one gateway drain and end.
    Drain(drain::Args),
    /// Check whether a gateway on this host is alive or, with --ready, ready for sockets.
    Health(health::Args),
    /// Print the contract for clients and publishers: an AsyncAPI document, or the JSON Schema of one message.
    Schema(schema::Args),
    /// Measure your gateway: open sockets, publish events, and print how late they arrive.
    Bench(bench::Args),
    /// Start a local NATS and a gateway for development.
    Dev(dev::Args),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit code 1.
    #[error("{0}")]
    Failure(String),
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    fn failure(error: impl Display) -> Self {
        Self::Failure(error.to_string())
    }

    fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<crate::nats::ConnectError> for CliError {
    fn from(error: crate::nats::ConnectError) -> Self {
        use crate::nats::ConnectError;
        match error {
            ConnectError::File { .. }
            | ConnectError::Url
            | ConnectError::Logins
            | ConnectError::TwoWays(_) => Self::usage(error),
            ConnectError::Refused { .. } | ConnectError::Unreachable(_) => Self::failure(error),
        }
    }
}

/// Parses the process' arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, CliCommand::Sessions(_)) {
        // A long list gives way to gateways on the same machine. If this is not allowed, they share.
        let _ = rustix::process::nice(19);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("herald: cannot start the runtime: {error}");
            return ExitCode::from(1);
        }
    };
    let code = match runtime.block_on(run(cli)) {
        Ok(()) => 0,
        Err(error) => {
            output::messages(error.to_string().lines());
            match error {
                CliError::Failure(_) => 1,
                CliError::Usage(_) => 2,
            }
        }
    };
    // Everything that had to end has ended. The exporters of telemetry would, when dropped, wait some seconds for a
    // collector that hangs.
    std::process::exit(code)
}

/// The file that settings are read from: the one that `--config` names, else [`CONFIG_FILE`], if it exists.
fn config_file(named: Option<PathBuf>) -> Option<PathBuf> {
    let usual = PathBuf::from(CONFIG_FILE);
    named.or_else(|| usual.exists().then_some(usual))
}

/// Runs what reads files in a thread of its own, since a dead mount may block it for long.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CliError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| CliError::Failure(format!("cannot read files: {error}")))
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let file = cli.config;
    let path = || config_file(file.clone());
    // Only the tables that a command reads have to be right.
    let read = |tables: &[&str]| Config::read(path().as_deref())?.of(tables);
    match cli.command {
        // These two listen for signals before anything is read.
        CliCommand::Serve(args) => Box::pin(serve::run(args, file)).await,
        CliCommand::Dev(args) => Box::pin(dev::run(args, file)).await,
        CliCommand::Migrate(args) => migrate::run(args, read(&["nats", "auth"])?).await,
        // It goes on after wrong settings, to check the files as well. The others stop here.
        CliCommand::Check(args) => {
            check::run(args, Config::read(path().as_deref())?, path().as_deref()).await
        }
        CliCommand::Token(args) => token::run(args, read(&["auth"])?).await,
        CliCommand::Publish(args) => publish::run(args, read(&["nats", "projection"])?).await,
        CliCommand::Listen(args) => listen::run(args).await,
        CliCommand::Replay(args) => replay::run(args, read(&["nats", "projection"])?).await,
        CliCommand::DeadLetters(args) => dead_letters::run(args, read(&["nats"])?).await,
        CliCommand::Revoke(args) => revoke::run(args, read(&["nats", "auth"])?).await,
        CliCommand::Sessions(args) => sessions::run(args, read(&["nats"])?).await,
        CliCommand::Disconnect(args) => disconnect::run(args, read(&["nats"])?).await,
        CliCommand::Gateways(args) => gateways::run(args, read(&["nats"])?).await,
        CliCommand::Drain(args) => drain::run(args, read(&["nats"])?).await,
        CliCommand::Bench(args) => {
            let config = read(args.tables())?;
            bench::run(args, config).await
        }
        CliCommand::Schema(args) => schema::run(&args),
        CliCommand::Health(args) => health::run(args, path().as_deref()).await,
    }
}
