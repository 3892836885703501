//! Measures gateways from outside: what a delivery costs, how late it is, and whether it came.
//!
//! # Layout
//! [`scenario`] says what is to happen. [`publish`] stores the events, at the times of a plan, in some scenarios by [`http`]. [`sockets`] holds the
//! clients, each a [`slot`], which speak [`frame`]s and find each event by its [`marker`]; a [`tally`] counts them. [`stored`] reads
//! afterwards when each event was stored, and [`measure`] puts it together with what [`process`] saw of the processes, as a [`round`]. [`run`] does it for each [`target`], which some scenarios put through `hardship`,
//! and [`report`] says what came of it, as [`chart`]s, too. [`own`] measures a gateway that is there already.
//!
//! It depends on nothing of the gateway.

#![allow(
    missing_debug_implementations,
    reason = "what holds a token or a socket has none, and nothing else here is printed"
)]

pub mod chart;
pub mod frame;
mod hardship;
pub mod http;
pub mod marker;
pub mod measure;
pub mod nats;
pub mod own;
pub mod process;
pub mod publish;
pub mod report;
pub mod round;
pub mod run;
pub mod scenario;
pub mod slot;
pub mod sockets;
pub mod spread;
pub mod stored;
pub mod tally;
pub mod target;
pub mod tokens;
pub mod wire;

/// What ends a benchmark.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that is needed could not be had; the text says which, and the way out.
    #[error("{0}")]
    Failed(String),
    /// The user asked for the end.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An error with what was tried, and what came of it.
    pub(crate) fn of(tried: &str, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{tried}: {error}"))
    }
}

/// Says something on standard error, where progress and warnings go.
#[allow(clippy::print_stderr, reason = "a benchmark tells how far it is")]
pub(crate) fn say(line: &str) {
    eprintln!("bench: {line}");
}
