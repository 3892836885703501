//! All rooms of a gateway: opened by the first join, ended some time after the last socket.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::affinity::Threads;
use super::context::RoomContext;
use super::handle::{Resync, RoomCommand, RoomHandle};
use crate::auth::UserKey;
use crate::event::WorkspaceSlug;
use crate::nats::{Intake, Notice};

/// Rooms that linger without sockets, at most: each has some 20 KiB, and a client that goes through
/// workspace after workspace would else have the gateway keep a minute's worth of them.
const LINGERING_MAX: usize = 1000;

/// A cheap handle on all rooms.
#[derive(Debug, Clone)]
pub struct Rooms(Arc<RoomsShared>);

#[derive(Debug)]
struct RoomsShared {
    context: Arc<RoomContext>,
    /// A lock, for a look-up only: joins come from many tasks and must agree on one room.
    rooms: Mutex<HashMap<WorkspaceSlug, RoomHandle>>,
    /// Rooms without sockets, the longest first. Some may have ended, or have sockets again.
    lingering: Mutex<VecDeque<RoomHandle>>,
    tasks: TaskTracker,
    threads: RoomThreads,
}

/// Where rooms run, and what ends them.
#[derive(Debug)]
pub struct RoomThreads {
    /// Those of few sockets run here.
    pub intake: Intake,
    /// Here the others run, and the shards of the large ones.
    pub workers: Handle,
    /// Ends them all.
    pub cancel: CancellationToken,
}

/// A join under way. While it lives, its room does not end.
#[derive(Debug)]
pub(super) struct JoinGuard(RoomHandle);

impl Rooms {
    /// No rooms yet.
    pub fn new(context: Arc<RoomContext>, threads: RoomThreads) -> Self {
        Self(Arc::new(RoomsShared {
            context,
            rooms: Mutex::default(),
            lingering: Mutex::default(),
            tasks: TaskTracker::new(),
            threads,
        }))
    }

    /// Has the rooms with these subscriptions look whether they missed something. Whether all of them are slowed.
    pub fn resync_listening(&self, subscriptions: &BTreeSet<u64>) -> bool {
        let mut rooms = self.all();
        rooms.retain(|room| room.listens_by(subscriptions));
        for room in &rooms {
            room.resync(Resync::Doubt);
        }
        !rooms.is_empty() && rooms.iter().all(RoomHandle::is_slowed)
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

    /// The lowest watermark of the rooms with sockets that are not slowed: those are to be behind.
    pub fn lowest_watermark(&self) -> Option<u64> {
        let rooms = self.lock();
        let rooms = rooms.values().filter(|room| !room.is_slowed());
        rooms.filter_map(RoomHandle::watermark).min()
    }

    /// What the rooms work with.
    pub fn context(&self) -> &Arc<RoomContext> {
        &self.0.context
    }

    /// The room of `workspace`, if there is one.
    fn get(&self, workspace: &WorkspaceSlug) -> Option<RoomHandle> {
        self.lock().get(workspace).cloned()
    }

    /// The room of `workspace`; if there is none, that which `open` makes.
    pub(super) fn enter(
        &self,
        workspace: &WorkspaceSlug,
        open: impl FnOnce() -> RoomHandle,
    ) -> JoinGuard {
        let mut rooms = self.lock();
        let room = rooms.entry(workspace.clone()).or_insert_with(open);
        room.shared().entrants.fetch_add(1, Ordering::Relaxed);
        JoinGuard(room.clone())
    }

    /// Takes a notice of a gateway, maybe this one.
    pub fn noticed(&self, workspace: WorkspaceSlug, user: UserKey, notice: Notice) {
        let room = self.get(&workspace);
        self.context().damper.noticed(workspace, user, notice, room);
    }

    /// Runs `task` on `threads`, until it or the gateway ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, threads: Threads) {
        let cancel = self.0.threads.cancel.clone();
        let task = async move {
            cancel.run_until_cancelled(task).await;
        };
        let threads = match threads {
            Threads::Intake => self.0.threads.intake.runtime(),
            Threads::Workers => &self.0.threads.workers,
        };
        self.0.tasks.spawn_on(task, threads);
    }

    /// Removes a room, unless somebody is entering. `true` if it may end.
    pub(super) fn close(&self, room: &RoomHandle) -> bool {
        let mut rooms = self.lock();
        // Entering counts under the same lock, so nobody enters between the look and the removal.
        if room.shared().entrants.load(Ordering::Relaxed) > 0 {
            return false;
        }
        remove(&mut rooms, room);
        true
    }

    /// Whether the gateway is ending, and its rooms with it.
    pub(super) fn is_ending(&self) -> bool {
        self.0.threads.cancel.is_cancelled()
    }

    /// Where rooms of few sockets run.
    pub(super) fn intake(&self) -> &Intake {
        &self.0.threads.intake
    }

    /// Where the shards of large rooms run.
    pub(super) fn workers(&self) -> &Handle {
        &self.0.threads.workers
    }

    /// Removes a room, whoever is entering: it has ended.
    pub(super) fn forget(&self, room: &RoomHandle) {
        remove(&mut self.lock(), room);
    }

    /// A room has no sockets. Where too many linger, the one that has done so the longest ends.
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
            longest.send(RoomCommand::EndIfEmpty);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceSlug, RoomHandle>> {
        // No code under the lock can panic half-way through a change.
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(rooms: &mut HashMap<WorkspaceSlug, RoomHandle>, room: &RoomHandle) {
    // There may be another one by now.
    let known = rooms.get(room.workspace());
    if known.is_some_and(|known| known.is(room)) {
        rooms.remove(room.workspace());
    }
}

impl JoinGuard {
    pub(super) fn room(&self) -> &RoomHandle {
        &self.0
    }
}

impl Drop for JoinGuard {
    fn drop(&mut self) {
        self.0.shared().entrants.fetch_sub(1, Ordering::Relaxed);
    }
}
