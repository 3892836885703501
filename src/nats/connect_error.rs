//! Why there is no connection to NATS.

use std::io;

/// Why there is no connection. `Display` names no URL, because a URL may carry a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that the settings name cannot be read, or is not what it has to be.
    #[error("cannot read {setting} {path}: {source}")]
    File {
        setting: &'static str,
        path: String,
        source: io::Error,
    },
    /// A user in `nats.url`, and another way in.
    #[error("nats.url names a user, and {0} is set: these are two ways in, set one of them")]
    TwoWays(&'static str),
    /// `nats.url` has an entry that is no URL.
    #[error(
        "nats.url holds an entry that is not a NATS URL, such as nats://host:4222 or tls://host:4222"
    )]
    Url,
    /// `nats.url` has entries with different users; a connection has one, whatever server it is to.
    #[error("nats.url names different users or passwords: all its servers take the same")]
    Logins,
    /// The server refused who we are.
    #[error("NATS refused the credentials: {server}: authorization violation. {way}")]
    Refused { server: String, way: String },
    /// No server could be reached: each with its cause.
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
}
