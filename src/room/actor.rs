//! The room's task. It takes one input after the other, gives it to the part that owns what it is about, and carries
//! out what that part returns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, debug};

use super::affinity::{Affinity, Threads};
use super::context::RoomContext;
use super::handle::{RoomCommand, RoomHandle};
use super::lifetime::{Life, Lifetime};
use super::members::{FanOutRound, Members, ShardReport};
use super::pipeline::Pipeline;
use super::registry::Rooms;
use super::sessions::{ClaimInput, Replaced, Sessions};
use super::stream::{Delivery, StreamChange, StreamInput, StreamView};
use crate::codes::CloseReason;
use crate::event::{Position, WorkspaceSlug};
use crate::nats::{RoomSubscriptions, SUBSCRIPTION_CAPACITY, Swept};
use crate::telemetry;

/// Pause before an activation that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Live messages taken in one go before commands get their turn.
const BURST: usize = 64;
/// Live messages taken before a sweep's answer is judged: they may be what it finds missing. A subscription
/// contains no more, and one is being filled meanwhile.
const BEFORE_JUDGING: usize = 2 * SUBSCRIPTION_CAPACITY;

/// A room. Only its task touches it.
pub(super) struct Room {
    handle: RoomHandle,
    rooms: Rooms,
    commands: mpsc::UnboundedReceiver<RoomCommand>,
    /// What it knows of the stream.
    stream: StreamView,
    /// Who has a claim.
    sessions: Sessions,
    /// Who is there, and what is on its way to them.
    members: Members,
    /// What becomes of an event.
    pipeline: Pipeline,
    /// Where it runs.
    affinity: Affinity,
    /// When it ends.
    lifetime: Lifetime,
    _registered: Registered,
}

/// One thing that happens to a room.
enum RoomInput {
    Command(RoomCommand),
    Claims(ClaimInput),
    Report(ShardReport),
    Stream(StreamInput),
    Time,
}

/// How long a room goes on delivering, if no socket is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Others are to have their turn.
    TurnIsOver,
    /// There is nothing more.
    End,
}

/// A room of `workspace` and the task that has to be run for it, which gives it back to go on elsewhere.
pub(super) fn room(
    workspace: WorkspaceSlug,
    rooms: Rooms,
) -> (RoomHandle, impl Future<Output = Option<Room>> + Send) {
    let (sender, commands) = mpsc::unbounded_channel();
    let (activate, active) = watch::channel(false);
    let handle = RoomHandle::new(workspace, sender, active);
    let registered = Registered(rooms.clone(), handle.clone());
    let task = async move {
        let span = telemetry::activate_room(registered.1.workspace());
        let activated = Room::activate(rooms, commands, registered);
        let room = activated.instrument(span).await?;
        // Joins that wait have the receiver; without any nobody has to know.
        activate.send_replace(true);
        debug!(workspace = %room.workspace(), "room opened");
        room.run().await
    };
    (handle, task)
}

/// A room in the registry. However its task ends, joins do not find it any more.
#[derive(Debug)]
struct Registered(Rooms, RoomHandle);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.forget(&self.1);
    }
}

impl Room {
    /// Subscribes and reads the start position, as often as it takes. `None` if nobody wants the room any more.
    async fn activate(
        rooms: Rooms,
        commands: mpsc::UnboundedReceiver<RoomCommand>,
        registered: Registered,
    ) -> Option<Self> {
        let handle = registered.1.clone();
        let context = Arc::clone(rooms.context());
        loop {
            let epoch = context.nats.epoch();
            match subscribe(&context, &handle).await {
                Some((subscriptions, start)) => {
                    let now = Instant::now();
                    let RoomSubscriptions { events, claims } = subscriptions;
                    let own = || (handle.clone(), Arc::clone(&context));
                    let (room, shared) = own();
                    let position = (start, epoch);
                    let stream = StreamView::new(room, shared, events, position, (share(), now));
                    let (room, shared) = own();
                    return Some(Self {
                        stream,
                        sessions: Sessions::new(room, shared, claims, (share(), now)),
                        members: Members::new(rooms.workers().clone()),
                        pipeline: Pipeline::new(handle.clone(), context),
                        affinity: Affinity::new(share(), now),
                        lifetime: Lifetime::new(now),
                        handle,
                        rooms,
                        commands,
                        _registered: registered,
                    });
                }
                None if rooms.close(&handle) => return None,
                None => tokio::time::sleep(RETRY).await,
            }
        }
    }

    pub(super) fn workspace(&self) -> &WorkspaceSlug {
        self.handle.workspace()
    }

    /// Where it is to run.
    pub(super) fn threads(&self) -> Threads {
        self.affinity.threads()
    }

    /// Runs the room until its end, or until it is to go on elsewhere.
    pub(super) async fn run(mut self) -> Option<Self> {
        loop {
            self.members.pass_turn().await;
            let is_done = self.proceed(Until::TurnIsOver, Instant::now());
            let pressed = self.pressed();
            // Its turn is over, or what pressed it just now is gone.
            let goes_on = !is_done && pressed.is_none();
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
            let sockets = self.members.len();
            if self.affinity.changes(sockets, is_intake_busy, now) {
                return Some(self);
            }
        }
    }

    fn show_watermark(&self) {
        let watermark = if self.members.is_empty() {
            0
        } else {
            self.stream.watermark()
        };
        let shown = &self.handle.shared().watermark;
        shown.store(watermark, Ordering::Relaxed);
    }

    /// The next input. `None` when the connection or the gateway is ending.
    async fn next(&mut self, wake: Instant, pressed: bool) -> Option<RoomInput> {
        tokio::select! {
            // Commands first: a session that leaves or is replaced gets nothing more. Then claims,
            // for the same reason. Then what is done, and what is new.
            biased;
            command = self.commands.recv() => command.map(RoomInput::Command),
            claims = self.sessions.next() => claims.map(RoomInput::Claims),
            report = self.members.next_report() => report.map(RoomInput::Report),
            input = self.stream.next(!pressed) => input.map(RoomInput::Stream),
            () = tokio::time::sleep_until(wake.into()) => Some(RoomInput::Time),
        }
    }

    fn take(&mut self, input: RoomInput) {
        let now = Instant::now();
        self.stream.notice_reconnect(now);
        match input {
            RoomInput::Command(command) => self.command(command),
            RoomInput::Claims(claims) => {
                let replaced = self.sessions.take(claims);
                self.close_replaced(replaced);
            }
            RoomInput::Report(report) => {
                self.members.reported(report);
                while let Some(round) = self.members.finished() {
                    self.fanned_out(round);
                }
            }
            RoomInput::Stream(StreamInput::Event(message)) => {
                if self.stream.heard(message, now) {
                    self.affinity.took_event();
                }
                self.take_waiting_events(BURST, Until::TurnIsOver, now);
            }
            RoomInput::Stream(StreamInput::Swept(swept)) => self.swept(&swept, now),
            RoomInput::Stream(StreamInput::Repaired(repaired)) => self.stream.repaired(repaired),
            RoomInput::Time => {}
        }
    }

    fn command(&mut self, command: RoomCommand) {
        match command {
            RoomCommand::Pending {
                user,
                session,
                answer,
            } => {
                self.sessions.pending(user, session);
                reply(answer, ());
            }
            RoomCommand::Attach {
                session,
                request,
                start,
                claim,
                successor,
                answer,
            } => {
                let user = request.user;
                self.members.join(session, request, start, successor);
                let replaced = self.sessions.acknowledged(user, session, claim);
                self.close_replaced(replaced);
                reply(answer, ());
            }
            RoomCommand::Left { user, session } => {
                self.members.leave(session);
                self.sessions.left(user, session);
            }
            RoomCommand::Probe { user, answer } => {
                let standing = self.sessions.standing(user);
                let pong = standing.and_then(|session| self.members.probe(session));
                reply(answer, pong);
            }
            RoomCommand::Reclaimed {
                user,
                session,
                result,
            } => {
                let replaced = self.sessions.reclaimed(user, session, result);
                self.close_replaced(replaced);
            }
            RoomCommand::Barrier { sequence, answer } => self.stream.add_barrier(sequence, answer),
            RoomCommand::Resync => self.resync(),
            RoomCommand::EndIfEmpty => {
                let is_empty = self.members.is_empty();
                self.lifetime.cut_short(is_empty, Instant::now());
            }
            RoomCommand::Writers(answer) => reply(answer, self.members.writers()),
        }
    }

    /// Looks whether something was missed. A reconnect each input looks for; this one makes a room look
    /// that hears nothing else.
    fn resync(&mut self) {
        let is_doubted = self.handle.shared().take_resync();
        debug!(workspace = %self.workspace(), is_doubted, "looking for what was missed");
        if is_doubted {
            let now = Instant::now();
            self.stream.doubt(now);
            self.sessions.doubt(now);
        }
    }

    fn swept(&mut self, swept: &Swept, now: Instant) {
        // What the sweep finds may have come since, and wait in front of us.
        self.take_waiting_events(BEFORE_JUDGING, Until::End, now);
        self.stream.swept(swept, !self.members.is_empty());
    }

    /// Takes up to `most` live messages that have already come, and delivers them together, as long as no socket is
    /// pressed.
    fn take_waiting_events(&mut self, most: usize, until: Until, now: Instant) {
        let mut is_empty = false;
        let mut bytes = 0;
        for _ in 0..most {
            if self.members.is_pressed_by(bytes) {
                break;
            }
            let Some(message) = self.stream.waiting_event() else {
                is_empty = true;
                break;
            };
            bytes += message.payload.len();
            if self.stream.heard(message, now) {
                self.affinity.took_event();
            }
        }
        let is_done = self.proceed(until, now);
        if is_empty && is_done && self.stream.is_live() {
            self.members.caught_up();
        }
    }

    /// Delivers what can be, until a socket is pressed, and does what the stream needs. Whether nothing is left
    /// that could be delivered. `now` is when it begins, which is near enough for when to look again.
    fn proceed(&mut self, until: Until, now: Instant) -> bool {
        let mut is_done = false;
        while (until == Until::End || !self.members.is_turn_over()) && self.pressed().is_none() {
            let watched = !self.members.is_empty();
            match self.stream.deliver(watched, now) {
                Some(delivery) => self.deliver(&delivery),
                None => {
                    is_done = true;
                    break;
                }
            }
        }
        if let Some(made_at) = self.members.batched_at() {
            self.flush(made_at);
        }
        loop {
            for answer in self.stream.reached_barriers(now) {
                self.members.when_written(answer);
            }
            match self.stream.carry_out() {
                // Claims may have been lost, too.
                Some(StreamChange::Reconnected) => self.sessions.doubt(Instant::now()),
                Some(StreamChange::OtherStream) => {
                    self.members.forget_start_positions(Instant::now());
                }
                None => return is_done,
            }
        }
    }

    /// Until when delivering waits for the sockets; `None`: it goes on.
    fn pressed(&mut self) -> Option<Instant> {
        if self.stream.is_suspect() {
            // Nothing is delivered, and what waits is not to be counted against the sockets.
            return None;
        }
        self.members.pressed(Instant::now)
    }

    /// Delivers an event to the members that it is for.
    fn deliver(&mut self, delivery: &Delivery) {
        let decoded = self.pipeline.decode(delivery);
        if decoded.is_traced() {
            // What came before goes first, and is no part of this trace.
            self.flush(decoded.at);
        }
        let Some((addressed, trace)) = self.pipeline.project(decoded) else {
            return;
        };
        let now = addressed.frame.made.at;
        if let Some(trace) = trace {
            let done = self.members.send_traced(addressed, trace, now);
            return done.into_iter().for_each(|round| self.fanned_out(round));
        }
        if !self.members.joins_batch(&addressed) {
            self.flush(now);
        }
        if self.members.add(addressed) {
            self.flush(now);
        }
    }

    /// Sends what waits to be sent together, from `began` on.
    fn flush(&mut self, began: Instant) {
        if let Some(round) = self.members.flush(began) {
            self.fanned_out(round);
        }
    }

    /// Does what follows from a round that is done.
    fn fanned_out(&mut self, round: FanOutRound) {
        let current = round.trace.as_ref().map(|(trace, _)| trace.enter());
        self.pipeline.record(&round, &self.members);
        self.affinity.wrote(round.out.writes, round.out.bytes);
        for session in &round.out.slow {
            if let Some(user) = self.members.leave(*session) {
                debug!(%session, "socket too slow");
                self.sessions.left(user, *session);
            }
        }
        drop(current);
        self.members.recycle(round.end());
    }

    fn close_replaced(&mut self, replaced: Vec<Replaced>) {
        for Replaced { session, by } in replaced {
            self.members.replace(session, by);
        }
    }

    /// Does what is due. `false` if the room ends.
    fn on_time(&mut self, now: Instant) -> bool {
        self.stream.time(now);
        self.sessions.time(now);
        match self.lifetime.look(self.members.is_empty(), now) {
            Life::GoesOn => {}
            Life::Lingers => self.rooms.linger(&self.handle),
            Life::Over if self.rooms.close(&self.handle) => return false,
            Life::Over => self.lifetime.extend(now),
        }
        true
    }

    fn wake(&self, pressed: Option<Instant>) -> Instant {
        [self.stream.deadline(), self.lifetime.deadline(), pressed]
            .into_iter()
            .flatten()
            .fold(self.sessions.deadline(), Instant::min)
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
        debug!(workspace = %self.workspace(), "room closed");
    }
}

fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    // Who wanted it may have given up. A join that does so leaves.
    let _ = answer.send(value);
}

/// The low bits of a random UUID: nothing here needs a better generator.
fn share() -> u16 {
    (uuid::Uuid::new_v4().as_u128() & 0xffff) as u16
}

/// Subscribes, and proves by a read sent afterwards on the same connection that it is in force.
async fn subscribe(
    context: &RoomContext,
    room: &RoomHandle,
) -> Option<(RoomSubscriptions, Position)> {
    let workspace = room.workspace();
    let opened = RoomSubscriptions::open(&context.nats, &context.names, workspace);
    let subscriptions = opened.await?;
    // Before the read: what the subscriptions drop meanwhile is to be looked for.
    room.shared().listen(subscriptions.ids());
    match context.stream_end.read().await {
        Ok(start) => Some((subscriptions, start)),
        Err(error) => {
            debug!(?error, %workspace, "room not active yet");
            None
        }
    }
}
