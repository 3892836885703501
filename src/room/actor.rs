//! The room's task: its state, its loop, and what begins and ends it. What the inputs do stands in
//! [`super::delivery`] and [`super::process`] (events) and [`super::claiming`] (sessions).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, debug};

use super::affinity::{Affinity, Threads};
use super::checks::Checks;
use super::claims::Claims;
use super::fan_out::{Addressed, Turn};
use super::follower::Follower;
use super::handle::{RoomCommand, RoomHandle, RoomShared};
use super::members::Members;
use super::registry::{RoomContext, Rooms};
use super::schedule::Schedule;
use super::shards::ShardReport;
use crate::codes::CloseReason;
use crate::event::{Position, WorkspaceSlug};
use crate::nats::{CheckedClaim, Repair, Repaired, RoomSubscriptions, Swept};
use crate::telemetry::{self, Traffic};

/// How long a room stays after its last socket: a reload or a reconnect finds it still there.
const LINGER: Duration = Duration::from_secs(60);
/// Pause before an activation that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How often claims that no longer matter are forgotten.
const PRUNE: Duration = Duration::from_secs(60);
/// Live messages taken in one go before commands get their turn.
const BURST: usize = 64;

/// The room's state. Only its task touches it.
pub(super) struct Room {
    pub(super) workspace: WorkspaceSlug,
    pub(super) context: Arc<RoomContext>,
    pub(super) rooms: Rooms,
    pub(super) shared: Arc<RoomShared>,
    pub(super) handle: RoomHandle,
    commands: mpsc::UnboundedReceiver<RoomCommand>,
    pub(super) swept: Answers<Swept>,
    pub(super) checked: Answers<Vec<CheckedClaim>>,
    pub(super) subscriptions: RoomSubscriptions,
    pub(super) follower: Follower,
    /// The repair under way.
    pub(super) repair: Option<Repair>,
    pub(super) members: Members,
    /// Notifications that are sent together: all of them are for everyone, or none is.
    pub(super) batch: Vec<Addressed>,
    /// Of writing to sockets.
    pub(super) turn: Turn,
    pub(super) affinity: Affinity,
    pub(super) claims: Claims,
    pub(super) checks: Checks,
    pub(super) barriers: Vec<(u64, oneshot::Sender<()>)>,
    /// What the metrics by workspace count.
    pub(super) traffic: Arc<Traffic>,
    empty_since: Option<Instant>,
    prune_at: Instant,
    /// The registry knows that the room has, or had, no sockets.
    is_lingering: bool,
    _registered: Registered,
}

/// What NATS answers to what the room asks it: each ask takes one end along.
pub(super) struct Answers<T> {
    pub(super) sender: mpsc::UnboundedSender<T>,
    all: mpsc::UnboundedReceiver<T>,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        let (sender, all) = mpsc::unbounded_channel();
        Self { sender, all }
    }
}

/// A room of `workspace` and the task that has to be run for it, which gives it back to go on elsewhere.
pub(super) fn room(
    workspace: WorkspaceSlug,
    context: Arc<RoomContext>,
    rooms: Rooms,
) -> (RoomHandle, impl Future<Output = Option<Room>> + Send) {
    let (commands_sender, commands) = mpsc::unbounded_channel();
    let (activate, active) = watch::channel(false);
    let shared = Arc::new(RoomShared::default());
    let handle = RoomHandle::new(workspace, commands_sender, active, Arc::clone(&shared));
    let task = {
        let handle = handle.clone();
        let workspace = handle.workspace().clone();
        let registered = Registered(rooms.clone(), workspace, Arc::clone(&shared));
        async move {
            let span = telemetry::activate_room(handle.workspace());
            let activated = Room::activate(handle, context, rooms, shared, commands, registered);
            let room = activated.instrument(span).await?;
            // Joins that wait hold the receiver; without any there is nobody to tell.
            activate.send_replace(true);
            debug!(workspace = %room.workspace, "room opened");
            room.run().await
        }
    };
    (handle, task)
}

/// A room in the registry. However its task ends, joins do not find it any more.
#[derive(Debug)]
struct Registered(Rooms, WorkspaceSlug, Arc<RoomShared>);

impl Drop for Registered {
    fn drop(&mut self) {
        let Self(rooms, workspace, shared) = self;
        rooms.forget(workspace, shared);
    }
}

impl Room {
    /// Subscribes and reads the floor, as often as it takes. `None` if nobody wants it any more.
    async fn activate(
        handle: RoomHandle,
        context: Arc<RoomContext>,
        rooms: Rooms,
        shared: Arc<RoomShared>,
        commands: mpsc::UnboundedReceiver<RoomCommand>,
        registered: Registered,
    ) -> Option<Self> {
        let workspace = handle.workspace().clone();
        loop {
            let epoch = context.nats.epoch();
            match subscribe(&context, &workspace, &shared).await {
                Some((subscriptions, start_position)) => {
                    let now = Instant::now();
                    let traffic = context.metrics.room_opened(&workspace);
                    return Some(Self {
                        traffic,
                        follower: Follower::new(
                            start_position,
                            epoch,
                            context.reorder_budget.clone(),
                            share(),
                            now,
                        ),
                        repair: None,
                        members: Members::default(),
                        batch: Vec::new(),
                        turn: Turn::default(),
                        affinity: Affinity::new(share(), now),
                        claims: Claims::default(),
                        checks: Checks::new(Schedule::new(share(), now)),
                        barriers: Vec::new(),
                        empty_since: Some(now),
                        prune_at: now + PRUNE,
                        is_lingering: false,
                        _registered: registered,
                        workspace,
                        context,
                        rooms,
                        shared,
                        handle,
                        commands,
                        swept: Answers::default(),
                        checked: Answers::default(),
                        subscriptions,
                    });
                }
                None if rooms.close(&workspace, &shared) => return None,
                None => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Where it is to run.
    pub(super) fn threads(&self) -> Threads {
        self.affinity.threads()
    }

    /// Runs the room until its end, or until it is to go on elsewhere.
    pub(super) async fn run(mut self) -> Option<Self> {
        loop {
            self.turn.pass().await;
            let is_done = self.proceed(Until::TurnIsOver, Instant::now());
            let goes_on = !is_done && self.turn.is_over();
            let pressed = self.pressed();
            let wake = if goes_on {
                Instant::now()
            } else {
                self.wake(pressed)
            };
            let input = self.next(wake, goes_on || pressed.is_some()).await?;
            self.take(input);
            let now = Instant::now();
            if !self.on_time(now) {
                return None;
            }
            self.show_watermark();
            let is_intake_busy = self.rooms.intake().is_busy();
            if self
                .affinity
                .changes(self.members.len(), is_intake_busy, now)
            {
                return Some(self);
            }
        }
    }

    fn show_watermark(&self) {
        let watermark = if self.members.is_empty() {
            0
        } else {
            self.follower.watermark()
        };
        self.shared.watermark.store(watermark, Ordering::Relaxed);
    }

    /// The next input. `None` when the connection or the gateway is ending.
    async fn next(&mut self, wake: Instant, pressed: bool) -> Option<RoomInput> {
        // What is held is bounded, so it may always come; what is delivered may not outrun the sockets.
        let events = !pressed || !self.follower.is_live();
        tokio::select! {
            // Commands first: a session that leaves or is replaced gets nothing more. Then claims,
            // for the same reason. Then what is done, and a repair, which live messages wait for anyway.
            biased;
            command = self.commands.recv() => command.map(RoomInput::RoomCommand),
            swept = self.swept.all.recv() => swept.map(RoomInput::Swept),
            checked = self.checked.all.recv() => checked.map(RoomInput::Checked),
            claim = self.subscriptions.claims.next() => claim.map(RoomInput::Claim),
            report = self.members.next_report() => report.map(RoomInput::ShardReport),
            repaired = repaired(&mut self.repair) => Some(RoomInput::Repaired(repaired)),
            event = self.subscriptions.events.next(), if events => event.map(RoomInput::Event),
            () = tokio::time::sleep_until(wake.into()) => Some(RoomInput::Time),
        }
    }

    fn take(&mut self, input: RoomInput) {
        let now = Instant::now();
        self.notice_reconnect(now);
        match input {
            RoomInput::RoomCommand(command) => self.command(command),
            RoomInput::Swept(swept) => self.swept(&swept),
            RoomInput::Checked(claims) => self.checked(claims),
            RoomInput::Claim(message) => self.heard(message),
            RoomInput::ShardReport(report) => self.reported(report),
            RoomInput::Repaired(repaired) => self.repaired(repaired),
            RoomInput::Event(message) => {
                self.event(message, now);
                self.take_waiting_events(BURST, Until::TurnIsOver, now);
            }
            RoomInput::Time => {}
        }
    }

    /// Until when delivering waits for the sockets; `None`: it goes on.
    pub(super) fn pressed(&mut self) -> Option<Instant> {
        if self.follower.is_suspect() {
            // Nothing is delivered, and what waits is not to be counted against the sockets.
            return None;
        }
        self.members.pressed(Instant::now)
    }

    fn command(&mut self, command: RoomCommand) {
        match command {
            RoomCommand::Pending {
                user,
                session,
                answer,
            } => self.pending(user, session, answer),
            RoomCommand::Attach {
                session,
                attach,
                answer,
            } => self.attach(session, attach, answer),
            RoomCommand::Left { user, session } => self.left(user, session),
            RoomCommand::Probe { user, answer } => self.probe(user, answer),
            RoomCommand::Reclaimed {
                user,
                session,
                result,
            } => self.reclaimed(user, session, result),
            RoomCommand::Barrier { sequence, answer } => self.barrier(sequence, answer),
            RoomCommand::Resync => self.resync(),
            RoomCommand::EndIfEmpty => {
                self.is_lingering = false;
                if self.members.is_empty() {
                    self.empty_since = Instant::now().checked_sub(LINGER);
                }
            }
            RoomCommand::Writers(answer) => {
                // The drain that asked may have run out of time.
                let _ = answer.send(self.members.writers());
            }
        }
    }

    /// Does what the time asks for. `false` if the room ends.
    fn on_time(&mut self, now: Instant) -> bool {
        self.follower.time(now);
        self.check_claims_on_time(now);
        if now >= self.prune_at {
            self.claims.prune(now);
            self.prune_at = now + PRUNE;
        }
        if !self.members.is_empty() {
            self.empty_since = None;
            return true;
        }
        let since = *self.empty_since.get_or_insert(now);
        if now < since + LINGER {
            if !std::mem::replace(&mut self.is_lingering, true) {
                self.rooms.linger(&self.handle);
            }
            return true;
        }
        if self.rooms.close(&self.workspace, &self.shared) {
            return false;
        }
        self.empty_since = Some(now);
        true
    }

    fn wake(&self, pressed: Option<Instant>) -> Instant {
        [
            self.follower.deadline(),
            self.checks.deadline(),
            self.empty_since.map(|since| since + LINGER),
            pressed,
        ]
        .into_iter()
        .flatten()
        .fold(self.prune_at, Instant::min)
    }
}

/// Also where the task panics: its sockets must not stay open and hear nothing.
impl Drop for Room {
    fn drop(&mut self) {
        let reason = if self.rooms.is_ending() {
            CloseReason::Restart
        } else {
            CloseReason::Internal
        };
        for writer in self.members.writers() {
            writer.end_after(reason);
        }
        self.context
            .metrics
            .room_closed(&self.workspace, &self.traffic);
        debug!(workspace = %self.workspace, "room closed");
    }
}

/// How long a room goes on delivering, if no socket is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Others are to have their turn.
    TurnIsOver,
    /// There is nothing more.
    End,
}

/// One thing that happens to a room.
enum RoomInput {
    RoomCommand(RoomCommand),
    Swept(Swept),
    Checked(Vec<CheckedClaim>),
    Claim(async_nats::Message),
    ShardReport(ShardReport),
    Repaired(Option<Repaired>),
    Event(async_nats::Message),
    Time,
}

/// The low bits of a random UUID: nothing here needs a better generator.
fn share() -> u16 {
    (uuid::Uuid::new_v4().as_u128() & 0xffff) as u16
}

/// What comes of the repair under way; waits for ever if there is none.
async fn repaired(repair: &mut Option<Repair>) -> Option<Repaired> {
    match repair {
        Some(repair) => repair.next().await,
        None => std::future::pending().await,
    }
}

/// Subscribes, and proves by a read sent afterwards on the same connection that it is in force.
async fn subscribe(
    context: &RoomContext,
    workspace: &WorkspaceSlug,
    shared: &RoomShared,
) -> Option<(RoomSubscriptions, Position)> {
    let opened = RoomSubscriptions::open(&context.nats, &context.names, workspace);
    let subscriptions = opened.await?;
    // Before the read: what the subscriptions drop meanwhile is to be looked for.
    shared.listen(subscriptions.ids());
    match context.start_position.read().await {
        Ok(start_position) => Some((subscriptions, start_position)),
        Err(error) => {
            debug!(?error, %workspace, "room not active yet");
            None
        }
    }
}
