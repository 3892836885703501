//! The running process: listeners, health, reload, drain.

mod admin;
mod drain;
mod gateway;
mod health;
mod observed;
mod reload;

pub use self::gateway::{Gateway, ServeError, serve};
pub use self::reload::Reloader;
