//! One socket, from its request to its last frame.
//!
//! [`handshake`] turns a request into a refusal or a member of a room; [`session`] is the pure machine
//! of an open socket; the pump runs it on the connection, which [`transport`] alone frames;
//! [`writer`] is how all of them write to it.

mod allowance;
mod close;
mod control;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod metered;
mod pump;
mod refusal;
mod request;
mod session;
mod tail;
mod transport;
mod upgrade;
mod wire;
mod writer;

pub use self::close::{Advice, CloseReason, close_code, code_label};
pub use self::control::Control;
pub use self::frame::Frame;
pub use self::handshake::{Doorway, upgrade};
pub use self::session::{Action, Input, Session, SessionLimits};
pub use self::upgrade::elsewhere;
pub use self::writer::{Load, Pushed, QueueDepth, QueueLimits, SLOW_AFTER, Standing, Writer};
