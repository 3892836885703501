//! A room as the rest of the gateway sees it, and what they may want of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use super::session_id::SessionId;
use crate::auth::UserKey;
use crate::event::{Position, WorkspaceSlug};
use crate::nats::ClaimError;
use crate::socket::Writer;

/// A cheap handle on a room's task.
#[derive(Debug, Clone)]
pub struct RoomHandle {
    workspace: WorkspaceSlug,
    /// The other end is the room's task. Unbounded, but each session has at most a few commands under way
    /// (`Pending`, `Attach`, `Barrier`, `Reclaimed`, `Left`), and sessions are bounded by
    /// `sockets.max_connections`; each user has one `Probe`; a room has at most one `Resync` coming, and an
    /// `EndIfEmpty` comes once each time that a room lingers.
    commands: mpsc::UnboundedSender<RoomCommand>,
    /// Whether the room hears its workspace. Set by the room's task.
    active: watch::Receiver<bool>,
    shared: Arc<RoomShared>,
}

/// What handles and the room's task share.
#[derive(Debug, Default)]
pub(super) struct RoomShared {
    /// Events taken so far; the order of sweeps.
    pub(super) traffic: AtomicU64,
    /// Joins under way: the room does not end meanwhile.
    pub(super) entrants: AtomicUsize,
    /// The cursor's watermark; 0 while the room has no sockets.
    pub(super) watermark: AtomicU64,
    /// More events come than its workspace may have: they wait.
    pub(super) is_slowed: AtomicBool,
    /// The ids of its subscriptions; 0, which is none of a room's, before it has them.
    subscriptions: [AtomicU64; 2],
    /// A `Resync` waits for the room.
    is_resync_queued: AtomicBool,
    /// It is for a doubt, too.
    is_doubted: AtomicBool,
}

impl RoomShared {
    /// The room has these subscriptions from now on.
    pub(super) fn listen(&self, subscriptions: [u64; 2]) {
        for (known, subscription) in self.subscriptions.iter().zip(subscriptions) {
            known.store(subscription, Ordering::Relaxed);
        }
    }

    /// The room looks now; whether it is for a doubt.
    pub(super) fn take_resync(&self) -> bool {
        // In this order, so that a doubt that comes between the two is queued again.
        self.is_resync_queued.store(false, Ordering::SeqCst);
        self.is_doubted.swap(false, Ordering::SeqCst)
    }
}

/// Why a room looks whether it missed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resync {
    /// The connection was away: what comes is buffered until it is known what was missed.
    Reconnected,
    /// Something may be missing, but most is not.
    Doubt,
}

/// What others want of a room.
#[derive(Debug)]
pub(super) enum RoomCommand {
    /// A join is about to claim.
    Pending {
        user: UserKey,
        session: SessionId,
        answer: oneshot::Sender<()>,
    },
    /// The claim is stored: from here on the socket gets what is above its start position.
    Attach {
        session: SessionId,
        request: JoinRequest,
        /// The stream's end, and when the join began, which was before that was read.
        start: (Position, Instant),
        /// The claim's sequence.
        claim: u64,
        successor: Successor,
        answer: oneshot::Sender<()>,
    },
    /// A session ended, or a join gave up.
    Left { user: UserKey, session: SessionId },
    /// Have the user's standing socket pinged. The answer's answer is the pong; `None`: there is no socket.
    Probe {
        user: UserKey,
        answer: oneshot::Sender<Option<oneshot::Receiver<()>>>,
    },
    /// A claim was made again.
    Reclaimed {
        user: UserKey,
        session: SessionId,
        result: Result<u64, ClaimError>,
    },
    /// Answer once everything stored up to `sequence` is in the queues.
    Barrier {
        sequence: u64,
        answer: oneshot::Sender<()>,
    },
    /// Look whether something is missing. One at a time: see [`RoomShared::take_resync`].
    Resync,
    /// Too many rooms linger: end now, if there are no sockets.
    EndIfEmpty,
}

/// The newer session for which one is closed, once there is one. The room sets it for the socket's task.
pub(super) type Successor = Arc<OnceLock<SessionId>>;

/// A socket that joins.
#[derive(Debug)]
pub struct JoinRequest {
    pub workspace: WorkspaceSlug,
    pub user: UserKey,
    /// The token's `sub`.
    pub subject: Arc<str>,
    pub writer: Writer,
}

impl RoomHandle {
    pub(super) fn new(
        workspace: WorkspaceSlug,
        commands: mpsc::UnboundedSender<RoomCommand>,
        active: watch::Receiver<bool>,
    ) -> Self {
        Self {
            workspace,
            commands,
            active,
            shared: Arc::default(),
        }
    }

    /// A handle on no room.
    #[cfg(test)]
    pub(crate) fn of_no_room(workspace: WorkspaceSlug) -> Self {
        let (commands, _) = mpsc::unbounded_channel();
        let (_, active) = watch::channel(false);
        Self::new(workspace, commands, active)
    }

    /// The room's workspace.
    pub fn workspace(&self) -> &WorkspaceSlug {
        &self.workspace
    }

    /// Events taken so far.
    pub fn traffic(&self) -> u64 {
        self.shared.traffic.load(Ordering::Relaxed)
    }

    /// The stream's sequence up to which nothing is missing; `None` where nobody would miss it.
    pub fn watermark(&self) -> Option<u64> {
        Some(self.shared.watermark.load(Ordering::Relaxed)).filter(|watermark| *watermark > 0)
    }

    /// Whether more events come than the workspace may have, so that they wait.
    pub fn is_slowed(&self) -> bool {
        self.shared.is_slowed.load(Ordering::Relaxed)
    }

    /// Asks the room to look whether it missed something. Asked again before it does, it looks once.
    pub fn resync(&self, why: Resync) {
        if why == Resync::Doubt {
            self.shared.is_doubted.store(true, Ordering::SeqCst);
        }
        if !self.shared.is_resync_queued.swap(true, Ordering::SeqCst) {
            self.send(RoomCommand::Resync);
        }
    }

    /// Whether one of these subscriptions is the room's.
    pub fn listens_by(&self, subscriptions: &BTreeSet<u64>) -> bool {
        let own = self.shared.subscriptions.iter();
        own.map(|own| own.load(Ordering::Relaxed))
            .any(|own| subscriptions.contains(&own))
    }

    /// Waits until everything stored up to `sequence` is in the members' queues, or the room ended.
    pub async fn barrier(&self, sequence: u64) {
        self.request(|answer| RoomCommand::Barrier { sequence, answer })
            .await;
    }

    /// Waits until the room hears its workspace. `false` if it ended before.
    pub(super) async fn is_active(&self) -> bool {
        self.active.clone().wait_for(|active| *active).await.is_ok()
    }

    /// Whether the room has ended: nobody needs what it requested.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    pub(super) fn shared(&self) -> &RoomShared {
        &self.shared
    }

    /// Whether both are of the same room, and not of two of one workspace.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn send(&self, command: RoomCommand) {
        // A room that has ended has no members: there is nobody the command could matter to.
        let _ = self.commands.send(command);
    }

    /// The room's answer; `None` from one that has ended, or does not hear its workspace yet: that one
    /// has no members, and nobody knows when it would answer.
    pub(super) async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> RoomCommand,
    ) -> Option<T> {
        if !*self.active.borrow() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.send(command(answer));
        answered.await.ok()
    }
}
