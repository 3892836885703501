//! One socket, from its request to its last frame.
//!
//! [`handshake`] turns a request into a refusal or a member of a room; [`session`] is the pure machine
//! of an open socket; the pump runs it on the connection, which [`transport`] alone frames;
//! [`outbox`] is what its room queues for it.

mod allowance;
mod close;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod in_flight;
mod metered;
mod outbox;
mod parcel;
mod pump;
mod refusal;
mod request;
mod session;
mod tail;
mod transport;
mod upgrade;

pub use self::close::{CloseReason, code_label};
pub use self::handshake::{Doorway, upgrade};
pub use self::outbox::{Load, Outbox, Push, QueueLimits, SLOW_AFTER, Standing};
pub use self::parcel::Parcel;
pub use self::session::{Action, Input, Session, SessionLimits};
pub use self::upgrade::elsewhere;
