//! Herald: a live notification gateway.
//!
//! # Layout
//!
//! The modules stand in the order in which an event meets them:
//!
//! 1. [`config`]: what can be set.
//! 2. [`ingest`]: the NATS edge. Live messages come in by interest; what the live path lost is
//!    found by the sweep and fetched by the repair; bad events go out as dead letters.
//! 3. [`event`]: bytes and headers become an [`event::Event`]. Pure.
//! 4. [`projection`]: an event becomes a notification, encoded once. Pure.
//! 5. [`room`]: who gets it: members, order, cursor, claims.
//! 6. [`socket`]: the handshake, the session machine, the pump that owns the connection.
//!
//! Beside the flow: `admission` (who may come in, how many and how fast), [`auth`] (tokens),
//! [`json`] (how it is read), `schema` (the contract, for programs), [`migrate`] (JetStream objects), [`telemetry`],
//! [`ops`] (the running process) and [`cli`].

mod admission;
pub mod auth;
pub mod cli;
pub mod config;
pub mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod ingest;
pub mod json;
pub mod migrate;
pub mod ops;
pub mod projection;
pub mod room;
mod schema;
pub mod socket;
pub mod telemetry;
