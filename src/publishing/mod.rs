//! Publishing: what an event must be before it is stored ([`check`]), and HTTP publishing, for senders without a
//! connection to NATS.
//!
//! `service` takes a request: `guard` refuses what no right client sends, `authorize` says who may publish, `limits` how
//! much, `request` reads it, `check` maps each event as a gateway would, and `store` sends it to JetStream. `answer` says
//! what is stored, `problem` what is refused. `coalescing` makes many requests cheaper.
//! **Invariant:** an answer of 2xx comes after JetStream's acknowledgement, and from nothing else.

mod answer;
mod authorize;
mod check;
mod coalescing;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod limits;
mod problem;
mod request;
mod service;
mod store;

pub use self::check::{
    Preview, RefusedEvent, check, cloudevent_value, message, not_stored, preview, unsure,
};
pub use self::problem::{PublishMembers, PublishProblem};
pub use self::service::Publishing;
pub(crate) use self::store::StoreSettings;
