//! The running process: listeners, health, drain.

mod admin;
mod arrivals;
mod conn;
mod drain;
mod gateway;
mod health;
mod listener;
pub mod tls;

pub use self::arrivals::Arrival;
pub use self::conn::Conn;
pub use self::gateway::{Gateway, ServeError, serve};
