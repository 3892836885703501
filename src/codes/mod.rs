//! The tables of what a client gets to see: [`close`] codes of a WebSocket, HTTP [`refusal`]s before it opens, and
//! [`problem`]s of HTTP publishing. Each is written once. Sockets, metrics, `herald listen`, the docs, `api/close-codes.json` and the SDK
//! read them, or a test compares them. Pure.

mod close;
mod problem;
mod refusal;
#[cfg(test)]
mod tests;

pub(crate) use self::close::Unsent;
pub use self::close::{Advice, CLOSE_CODES, CloseReason, DEAD_PEER, close_code, code_label};
pub use self::problem::{ProblemDetails, ProblemType};
pub use self::refusal::HttpRefusal;
pub(crate) use self::refusal::whole_seconds;
