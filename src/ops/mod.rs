//! The running process: listeners, health, reload, drain.

mod admin;
mod closing;
mod console;
mod drain;
mod error;
mod gateway;
mod health;
mod observed;
pub(crate) mod operator;
mod reload;
mod revoked_sockets;
mod startup;
mod watch;
mod withdrawn_keys;

pub use self::console::{Development, SignToken};
pub use self::error::ServeError;
pub use self::gateway::{Gateway, serve};
pub use self::reload::Reloader;
