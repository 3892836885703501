//! Why a gateway does not run.

use std::net::SocketAddr;

use crate::migrate;
use crate::nats::ConnectError;

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that cannot be bound.
    #[error("cannot listen on {setting} {address}: {source}")]
    Bind {
        setting: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateError),
    /// What the NATS user lacks, one sentence each.
    #[error("{}", .0.join("\n"))]
    Denied(Vec<String>),
    /// A task without which nothing works ended by itself, which it never should.
    #[error("a part of the gateway has failed, see the log: start the gateway again")]
    Failed,
    /// The NATS client ended by itself, which it never should.
    #[error("the NATS client has failed and will not reconnect: start the gateway again")]
    Lost,
}
