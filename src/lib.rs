//! Herald: a live notification gateway.
//!
//! # Layout
//!
//! The modules stand so that each uses only those before it:
//!
//! 1. `word_enum`: enums whose variants are words. [`config`]: what can be set. [`json`]: how foreign JSON is read.
//! 2. [`event`]: bytes and headers become an [`event::Event`]. [`projection`]: an event becomes a notification, encoded
//!    once. Both are pure.
//! 3. [`auth`] (tokens), [`codes`] (close codes and HTTP refusals), `admission` (how many may come in, and how fast), `conn` (an accepted connection), [`telemetry`].
//! 4. [`nats`]: the NATS edge. Live messages come in by interest; what the live path lost is found by the sweep and
//!    fetched by the repair; bad events go out as dead letters.
//! 5. [`setup`]: all that a reload replaces.
//! 6. [`socket`]: how a socket is written and read, and what its messages mean.
//! 7. [`room`]: who gets an event: members, order, cursor, claims.
//! 8. `server`: the listener, the handshake, the task of each socket.
//! 9. [`migrate`] (JetStream objects), `schema` (the contract, for programs), [`publishing`] (events that
//!    come by HTTP), [`ops`] (the running process), [`cli`].

mod word_enum;
pub mod config;
pub mod json;
pub mod event;
pub mod projection;
pub mod auth;
pub mod codes;
mod admission;
mod conn;
pub mod telemetry;
pub mod nats;
pub mod setup;
pub mod socket;
pub mod room;
mod server;
pub mod migrate;
mod schema;
pub mod publishing;
pub mod ops;
pub mod cli;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
