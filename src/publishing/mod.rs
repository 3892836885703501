//! Publishing: what an event must be before it is stored ([`check`]), and HTTP publishing, for senders without a
//! connection to NATS.

mod check;
mod problem;

pub use self::check::{
    Preview, RefusedEvent, check, cloudevent_value, message, not_stored, preview, unsure,
};
pub use self::problem::PublishProblem;
