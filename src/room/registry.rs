//! All rooms of a gateway: opened by the first join, ended some time after the last socket.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor;
use super::flaps::Damper;
use super::handle::{Command, Resync, RoomHandle, Shared};
use super::hold::HoldBudget;
use crate::config::Names;
use crate::event::WorkspaceSlug;
use crate::ingest::{
    ClaimCheckHandle, ClaimWriter, DeadLetters, FloorReader, Link, Readable, Repairer, SweepHandle,
};
use crate::ops::Live;
use crate::telemetry::{Metrics, Tracing};

/// Rooms that linger without sockets, at most: each has some 20 KiB, and a client that goes through
/// workspace after workspace would else have the gateway keep a minute's worth of them.
const LINGERING_MAX: usize = 1000;

/// What every room works with.
#[derive(Debug)]
pub struct RoomContext {
    pub link: Link,
    pub readable: Readable,
    /// What streams and subjects are called.
    pub names: Names,
    pub floor: FloorReader,
    pub repairer: Repairer,
    /// What may wait in all rooms while they repair.
    pub holds: HoldBudget,
    pub sweeps: SweepHandle,
    pub claim_checks: ClaimCheckHandle,
    pub claims: ClaimWriter,
    pub damper: Damper,
    /// The rules in force.
    pub live: Live,
    pub dead_letters: DeadLetters,
    pub metrics: Arc<Metrics>,
    /// `None` where traces are not exported.
    pub(crate) tracing: Option<Arc<Tracing>>,
}

/// A cheap handle on all rooms.
#[derive(Debug, Clone)]
pub struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Arc<RoomContext>,
    /// A lock, held for a look-up only: joins come from many tasks and must agree on one room.
    rooms: Mutex<HashMap<WorkspaceSlug, RoomHandle>>,
    /// Rooms without sockets, the longest first. Some may have ended, or have sockets again.
    lingering: Mutex<VecDeque<RoomHandle>>,
    tasks: TaskTracker,
    /// Where the shards of large rooms run, on all its workers.
    workers: Handle,
    cancel: CancellationToken,
}

/// A join under way. While it lives, its room does not end.
#[derive(Debug)]
pub(super) struct Entrance(RoomHandle);

impl Rooms {
    /// No rooms yet. `cancel` ends those to come; the runtime that this is called on writes for the large ones.
    pub fn new(context: Arc<RoomContext>, cancel: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            context,
            rooms: Mutex::default(),
            lingering: Mutex::default(),
            tasks: TaskTracker::new(),
            workers: Handle::current(),
            cancel,
        }))
    }

    /// Tells the rooms with these subscriptions to look whether they missed something.
    pub fn resync_listening(&self, subscriptions: &BTreeSet<u64>) {
        for room in self.all() {
            if room.listens_by(subscriptions) {
                room.resync(Resync::Doubt);
            }
        }
    }

    /// Tells all rooms to look whether they missed something.
    pub fn resync(&self, why: Resync) {
        for room in self.all() {
            room.resync(why);
        }
    }

    /// All rooms there are now.
    pub fn all(&self) -> Vec<RoomHandle> {
        self.lock().values().cloned().collect()
    }

    /// The lowest watermark of the rooms with sockets.
    pub fn lowest_watermark(&self) -> Option<u64> {
        self.lock().values().filter_map(RoomHandle::watermark).min()
    }

    /// What the rooms work with.
    pub fn context(&self) -> &RoomContext {
        &self.0.context
    }

    /// The room of `workspace`, if there is one.
    pub(super) fn get(&self, workspace: &WorkspaceSlug) -> Option<RoomHandle> {
        self.lock().get(workspace).cloned()
    }

    /// The room of `workspace`, opened if there is none.
    pub(super) fn enter(&self, workspace: &WorkspaceSlug) -> Entrance {
        let mut rooms = self.lock();
        let room = rooms
            .entry(workspace.clone())
            .or_insert_with(|| self.open(workspace.clone()));
        room.shared().entrants.fetch_add(1, Ordering::Relaxed);
        Entrance(room.clone())
    }

    /// Removes the room that `shared` belongs to, unless somebody is entering. `true` if it may end.
    pub(super) fn close(&self, workspace: &WorkspaceSlug, shared: &Arc<Shared>) -> bool {
        let mut rooms = self.lock();
        // Entering counts under the same lock, so nobody enters between the look and the removal.
        if shared.entrants.load(Ordering::Relaxed) > 0 {
            return false;
        }
        remove(&mut rooms, workspace, shared);
        true
    }

    /// Whether the gateway is ending, and its rooms with it.
    pub(super) fn is_ending(&self) -> bool {
        self.0.cancel.is_cancelled()
    }

    /// Where the shards of large rooms run.
    pub(super) fn workers(&self) -> &Handle {
        &self.0.workers
    }

    /// Removes the room that `shared` belongs to, whoever is entering: it has ended.
    pub(super) fn forget(&self, workspace: &WorkspaceSlug, shared: &Arc<Shared>) {
        remove(&mut self.lock(), workspace, shared);
    }

    /// A room has no sockets. Where too many linger, the one that did so the longest is told to end.
    pub(super) fn linger(&self, room: &RoomHandle) {
        let mut lingering = self
            .0
            .lingering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lingering.push_back(room.clone());
        if lingering.len() > LINGERING_MAX
            && let Some(longest) = lingering.pop_front()
        {
            longest.tell(Command::EndIfEmpty);
        }
    }

    fn open(&self, workspace: WorkspaceSlug) -> RoomHandle {
        let (handle, task) = actor::room(workspace, Arc::clone(&self.0.context), self.clone());
        let cancel = self.0.cancel.clone();
        self.0
            .tasks
            .spawn(async move { cancel.run_until_cancelled(task).await });
        handle
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceSlug, RoomHandle>> {
        // No code that holds the lock can panic half-way through a change.
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(
    rooms: &mut HashMap<WorkspaceSlug, RoomHandle>,
    workspace: &WorkspaceSlug,
    shared: &Arc<Shared>,
) {
    // There may be another one by now.
    if rooms.get(workspace).is_some_and(|room| room.is(shared)) {
        rooms.remove(workspace);
    }
}

impl Entrance {
    pub(super) fn room(&self) -> &RoomHandle {
        &self.0
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.shared().entrants.fetch_sub(1, Ordering::Relaxed);
    }
}
