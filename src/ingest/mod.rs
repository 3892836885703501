//! The NATS edge: live messages in by interest, repair of what was lost, dead letters out.

mod connection;

pub use self::connection::{ConnectError, connect};
