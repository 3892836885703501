//! The first join of a workspace opens its room. A room that changes its threads is run again there.

use tracing::debug;

use super::actor::{self, Room};
use super::affinity::Threads;
use super::handle::RoomHandle;
use super::registry::{JoinGuard, Rooms};
use crate::event::WorkspaceSlug;

/// The room of `workspace`, opened if there is none.
pub(super) fn enter(rooms: &Rooms, workspace: &WorkspaceSlug) -> JoinGuard {
    rooms.enter(workspace, || open(rooms, workspace.clone()))
}

fn open(rooms: &Rooms, workspace: WorkspaceSlug) -> RoomHandle {
    let (handle, task) = actor::room(workspace, rooms.clone());
    run(rooms, task, Threads::Intake);
    handle
}

/// Runs a room on `threads`, and wherever it wants to go on.
fn run(rooms: &Rooms, task: impl Future<Output = Option<Room>> + Send + 'static, threads: Threads) {
    let all = rooms.clone();
    let task = async move {
        if let Some(room) = task.await {
            let threads = room.threads();
            debug!(workspace = %room.workspace(), ?threads, "room moved to other threads");
            run(&all, room.run(), threads);
        }
    };
    rooms.spawn(task, threads);
}
