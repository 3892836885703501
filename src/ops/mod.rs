//! The running process: listeners, health, reload, drain.

mod admin;
mod arrivals;
pub mod conn;
mod drain;
mod files;
mod gateway;
mod health;
mod listener;
mod live;
mod overhead;
mod proxied;
mod reload;
pub mod tls;

pub use self::arrivals::Arrival;
pub use self::conn::Conn;
pub use self::gateway::{Gateway, ServeError, serve};
pub use self::live::{Building, Live, Setup};
pub(crate) use self::overhead::TooMuchOverhead;
pub use self::reload::Reloader;
