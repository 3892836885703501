//! Who gets it: one room for each workspace that has a socket here.
//!
//! A room is one task that owns all its state: members, cursor, claims. It takes live messages,
//! repairs and commands, and never waits for a socket. [`cursor`] and [`claims`] are pure.

mod actor;
mod affinity;
mod checks;
mod claiming;
mod claims;
mod cursor;
mod delivery;
mod fan_out;
mod flaps;
mod follower;
mod handle;
mod reorder_buffer;
mod join;
#[cfg(test)]
mod model_tests;
mod members;
mod opening;
mod pressure;
mod process;
mod registry;
mod schedule;
mod session_id;
mod shards;

pub use self::cursor::{Cursor, Judgement};
pub use self::flaps::{Damper, Flapping};
pub use self::handle::{Resync, RoomHandle};
pub use self::join::{JoinError, JoinRequest, Membership};
pub use self::registry::{RoomContext, RoomThreads, Rooms};
pub use self::reorder_buffer::ReorderBudget;
pub use self::session_id::SessionId;
