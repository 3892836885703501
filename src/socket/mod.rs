//! One socket, from its request to its last frame.
//!
//! [`handshake`] turns a request into a refusal or a member of a room; [`session`] is the pure machine
//! of an open socket; the pump runs it on the connection, which [`transport`] alone frames;
//! [`writer`] is how all of them write to it.

mod allowance;
mod control;
mod depth;
mod frame;
mod metered;
mod session;
mod tail;
mod transport;
mod wire;
mod writer;

pub use self::control::ControlMessage;
pub use self::depth::QueueDepth;
pub use self::frame::Frame;
pub use self::session::{Action, Session, SessionInput, SessionLimits};
pub(crate) use self::transport::{Incoming, Transport, probe_payload};
pub(crate) use self::writer::WriteTurn;
pub use self::writer::{Load, Pushed, QueueLimits, QueueStatus, SLOW_AFTER, Writer};
