//! The sockets' listener: accepts connections, answers handshakes, and runs each socket until its end.

mod acceptor;
mod directory;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod listener;
mod pending_connections;
mod proxied;
mod pump;
mod refusal;
mod request;
mod upgrade;

pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::directory::{Directory, OpenSocket};
pub(crate) use self::files::OpenFiles;
pub(crate) use self::handshake::elsewhere;
pub(crate) use self::handshake::upgrade;
pub(crate) use self::listener::{accept, bind};
pub(crate) use self::pending_connections::PendingConnections;
