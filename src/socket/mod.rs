//! One open socket.
//!
//! [`session`] is its pure machine. The pump of `server/` runs it on the connection, whose frames only [`transport`]
//! reads. [`writer`] is how everyone writes to it.

mod allowance;
mod close_frame_scanner;
mod control;
mod depth;
mod frame;
mod metered;
mod session;
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
