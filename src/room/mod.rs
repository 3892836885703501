//! Who gets it: one room for each workspace that has a socket here.
//!
//! A room is one task that owns all its state, in parts. [`actor`] takes what happens and gives it to the part whose it
//! is. It never waits for a socket.

mod actor;
mod affinity;
mod context;
mod flaps;
mod handle;
mod join;
mod lifetime;
mod members;
#[cfg(test)]
mod model_tests;
mod opening;
mod pace;
mod pipeline;
mod registry;
mod reorder_budget;
mod schedule;
mod session_id;
mod sessions;
mod stream;

pub use self::context::RoomContext;
pub use self::flaps::{Damper, Flapping};
pub use self::handle::{JoinRequest, Resync, RoomHandle};
pub use self::join::{JoinError, Membership};
pub use self::registry::{RoomThreads, Rooms};
pub use self::reorder_budget::ReorderBudget;
pub use self::session_id::SessionId;
