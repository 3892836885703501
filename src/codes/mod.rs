//! The two tables of what a client gets to see: [`close`] codes of a WebSocket, and HTTP [`refusal`]s before it
//! opens. Each is written once. Sockets, metrics, `herald listen`, the docs, `api/close-codes.json` and the SDK
//! read them, or a test compares them. Pure.

mod close;
mod refusal;
#[cfg(test)]
mod tests;

pub(crate) use self::close::Unsent;
pub use self::close::{Advice, CLOSE_CODES, CloseReason, DEAD_PEER, close_code, code_label};
pub use self::refusal::HttpRefusal;
