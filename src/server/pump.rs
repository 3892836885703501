//! The pump: one task that owns an open socket and runs its session machine on it.
//!
//! Its inputs are the connection, the end of the writer, the machine's next deadline, and the catch-up of a
//! close that Herald decided. It only does what the machine says. It writes what the room could not.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Bytes;
use tracing::{debug, warn};

use super::acceptor::Acceptor;
use super::directory::DirectoryEntry;
use crate::codes::{CloseReason, DEAD_PEER, code_label};
use crate::room::{Membership, SessionId};
use crate::socket::{
    Action, ControlMessage, Incoming, Session, SessionInput, Transport, WriteTurn, Writer,
    probe_payload,
};
use crate::telemetry::{ConnectionTrace, Sent};

/// How long a close of Herald's own waits for what was stored before it. With NATS away it cannot be
/// known what that is.
const CATCH_UP: Duration = Duration::from_secs(5);
/// A socket that is to be closed first gets what waits for it, unless it takes nothing for this long. A pong is no proof
/// that it reads: a client may send one without a ping.
const STANDSTILL: Duration = Duration::from_secs(10);
/// Later than anything.
const FAR: Duration = Duration::from_secs(86_400);

/// An open socket.
pub(super) struct Pump {
    pub(super) transport: Transport,
    pub(super) session: Session,
    pub(super) socket: DirectoryEntry,
    pub(super) membership: Membership,
    pub(super) acceptor: Arc<Acceptor>,
    /// The spans of its end, where it is recorded.
    pub(super) trace: Option<Box<ConnectionTrace>>,
    pub(super) opened: Instant,
    /// The client asked for control messages.
    pub(super) has_control: bool,
    /// Who waits for a pong, and the payload of that pong.
    pub(super) probe: Option<Box<(Bytes, oneshot::Sender<()>)>>,
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketEnd {
    /// We close with this reason.
    Ours(CloseReason),
    /// The peer closed with this code.
    Peer(u16),
    /// The connection was gone.
    Gone,
    /// The peer answered no ping.
    Dead,
}

impl SocketEnd {
    fn label(self) -> &'static str {
        match self {
            Self::Ours(reason) => code_label(reason.code()),
            Self::Peer(code) => code_label(code),
            Self::Gone => code_label(1006),
            Self::Dead => DEAD_PEER,
        }
    }

    /// The code and what it is for, for the span; 1006 is no code that was sent (RFC 6455 7.4.1).
    fn code_and_text(self) -> (u16, &'static str) {
        match self {
            Self::Ours(reason) => (reason.code(), reason.text()),
            Self::Peer(code) => (code, "closed by the client"),
            Self::Gone => (1006, "connection gone"),
            Self::Dead => (1006, "pings not answered"),
        }
    }
}

/// What woke the pump.
enum PumpEvent {
    Incoming(Incoming),
    Written,
    /// All that was to be written is, or the connection was gone while writing.
    End(SocketEnd),
    Time,
    CaughtUp,
    /// The socket is to be closed after what waits for it.
    Ending(CloseReason),
}

/// A socket that is to be closed, and how it takes what waits until then.
#[derive(Debug, Clone, Copy)]
struct Closing {
    reason: CloseReason,
    /// What it had taken when it was looked at last.
    taken: u64,
    /// When it was last seen that it had taken more.
    since: Instant,
}

impl Closing {
    fn new(reason: CloseReason, writer: &Writer) -> Self {
        Self {
            reason,
            taken: writer.progress().0,
            since: Instant::now(),
        }
    }

    /// Whether the socket has taken nothing for [`STANDSTILL`].
    fn stands_still(&mut self, writer: &Writer) -> bool {
        let now = Instant::now();
        let (taken, _) = writer.progress();
        if self.taken != taken {
            (self.taken, self.since) = (taken, now);
        }
        now >= self.since + STANDSTILL
    }
}

/// A close that waits for what was stored before it.
type CatchUp = Pin<Box<dyn Future<Output = CloseReason> + Send>>;

impl Pump {
    /// Runs the socket until it is to end.
    pub(super) async fn run(&mut self) -> SocketEnd {
        self.acceptor.metrics().connection_opened();
        self.pump().await
    }

    /// Leaves the room, then ends the connection. Boxed, and no part of the future that every idle
    /// socket keeps: it is several times larger than that one.
    pub(super) fn finish(self, end: SocketEnd) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let successor = self.membership.successor();
        // Out of the room and the directory before anything slow.
        drop(self.membership);
        let (session, user) = (self.socket.session, self.socket.user());
        let workspace = self.socket.workspace().clone();
        let writer = self.socket.writer.clone();
        drop(self.socket);
        let Self {
            mut transport,
            acceptor,
            trace,
            opened,
            ..
        } = self;
        acceptor.metrics().connection_closed(end.label());
        {
            let _current = trace.as_ref().map(|trace| trace.enter());
            debug!(%session, end = end.label(), "socket closed");
        }
        let close = trace
            .as_ref()
            .map(|trace| trace.close(end.code_and_text(), &session.to_string(), opened.elapsed()));
        Box::pin(async move {
            let is_written = match end {
                SocketEnd::Ours(reason) => transport.close(reason).await,
                SocketEnd::Peer(_) => transport.answer_close().await,
                SocketEnd::Gone | SocketEnd::Dead => false,
            };
            report(&writer, &acceptor, session, trace.as_deref());
            // The peer may take its time, and what else the socket had is not to wait for it.
            let damper = acceptor.damper();
            drop((close, writer, trace, acceptor));
            match end {
                SocketEnd::Ours(reason) if !is_written => transport.give_up(reason.unsent()).await,
                _ if !is_written => transport.reset(),
                SocketEnd::Ours(reason) => {
                    let answer = transport.finish(reason.unsent()).await;
                    debug!(%session, ?answer, "closing handshake ended");
                    let replaced = CloseReason::Replaced;
                    if reason == replaced
                        && answer.is_to(replaced.code())
                        && let (Some(damper), Some(by)) = (damper, successor)
                    {
                        damper.replaced(&workspace, user, session, by);
                    }
                    transport.end_after(answer, reason.unsent()).await;
                }
                SocketEnd::Peer(_) | SocketEnd::Gone | SocketEnd::Dead => transport.end().await,
            }
        })
    }

    async fn pump(&mut self) -> SocketEnd {
        let mut timer = Box::pin(sleep_until(self.deadline(None).into()));
        let mut catch_up: Option<CatchUp> = None;
        let mut closing: Option<Closing> = None;
        let mut reads_first = false;
        loop {
            let is_ending = closing.is_some();
            let event = poll_fn(|cx| {
                self.poll_event(cx, timer.as_mut(), &mut catch_up, is_ending, reads_first)
            })
            .await;
            // They take turns: a queue that is never empty does not keep the client from being heard.
            reads_first = matches!(event, PumpEvent::Written);
            let action = match event {
                PumpEvent::Incoming(incoming) => match self.incoming(incoming) {
                    Ok(action) => action,
                    Err(end) => return end,
                },
                PumpEvent::Written => Action::Nothing,
                PumpEvent::Time => {
                    if let (_, Some(at)) = self.socket.writer.progress() {
                        self.session.written(at);
                    }
                    if let Some(closing) = &mut closing
                        && closing.stands_still(&self.socket.writer)
                    {
                        return SocketEnd::Ours(closing.reason);
                    }
                    self.take(SessionInput::Time)
                }
                PumpEvent::End(end) => return end,
                PumpEvent::CaughtUp => Action::Nothing,
                PumpEvent::Ending(reason) => {
                    closing = Some(Closing::new(reason, &self.socket.writer));
                    Action::Nothing
                }
            };
            match action {
                Action::Nothing => {}
                Action::Ping => self.transport.ping(&[]),
                Action::Heartbeat => self.answer(&ControlMessage::Heartbeat),
                Action::Renewed(until) => self.answer(&ControlMessage::token(until)),
                Action::Close(reason) => return SocketEnd::Ours(reason),
                Action::CloseAfterCatchUp(reason) => catch_up = Some(self.catch_up(reason)),
                Action::Dead => return SocketEnd::Dead,
            }
            // Activity moves the deadline away; the timer follows only when it fires, so that a busy
            // socket does not touch it for every notification.
            let deadline = self.deadline(closing);
            if timer.is_elapsed() || deadline < timer.deadline().into_std() {
                timer.as_mut().reset(deadline.into());
            }
        }
    }

    /// The next event, in the order in which they matter.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        catch_up: &mut Option<CatchUp>,
        is_ending: bool,
        reads_first: bool,
    ) -> Poll<PumpEvent> {
        self.socket.writer.watch(cx);
        if let Some(answer) = self.socket.writer.take_probe() {
            let payload = probe_payload();
            self.transport.ping(&payload);
            self.probe = Some(Box::new((payload, answer)));
        }
        match self.socket.writer.ending() {
            Some(reason) if reason.is_immediate() => {
                return Poll::Ready(PumpEvent::End(SocketEnd::Ours(reason)));
            }
            Some(reason) if !is_ending => return Poll::Ready(PumpEvent::Ending(reason)),
            Some(_) | None => {}
        }
        if let Some(waiting) = catch_up
            && let Poll::Ready(reason) = waiting.as_mut().poll(cx)
        {
            *catch_up = None;
            self.socket.writer.end_after(reason);
            return Poll::Ready(PumpEvent::CaughtUp);
        }
        if reads_first && let Poll::Ready(event) = self.poll_read(cx, timer.as_mut()) {
            return Poll::Ready(event);
        }
        let written = self.poll_write(cx);
        if reads_first || written.is_ready() {
            return written;
        }
        self.poll_read(cx, timer)
    }

    /// What came in, or else that it is time for something. In this order, since what came may have moved
    /// the time; and a peer may not send so much that the time would never come.
    fn poll_read(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<PumpEvent> {
        match self.transport.poll_incoming(cx) {
            Poll::Ready(incoming) => Poll::Ready(PumpEvent::Incoming(incoming)),
            Poll::Pending => timer.poll(cx).map(|()| PumpEvent::Time),
        }
    }

    /// Writes what waits. [`PumpEvent::Written`] if there may be more, so that others get their turn.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<PumpEvent> {
        let written = self.transport.poll_write(cx);
        let session = self.socket.session;
        report(
            &self.socket.writer,
            &self.acceptor,
            session,
            self.trace.as_deref(),
        );
        match written {
            Poll::Ready(Err(_)) => Poll::Ready(PumpEvent::End(SocketEnd::Gone)),
            Poll::Ready(Ok(WriteTurn::More)) => Poll::Ready(PumpEvent::Written),
            Poll::Ready(Ok(WriteTurn::Done)) => match self.socket.writer.ending() {
                Some(reason) => Poll::Ready(PumpEvent::End(SocketEnd::Ours(reason))),
                None => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }

    fn incoming(&mut self, incoming: Incoming) -> Result<Action, SocketEnd> {
        Ok(match incoming {
            Incoming::Text(text) => self.take(SessionInput::Text(&text)),
            Incoming::Binary => self.take(SessionInput::Binary),
            Incoming::Ping(payload) => {
                self.transport.pong(&payload);
                self.take(SessionInput::Ping)
            }
            Incoming::Pong(payload) => {
                let probe = self.probe.take_if(|probe| probe.0 == payload);
                if let Some(probe) = probe {
                    // The one who wanted it may have given up.
                    let _ = probe.1.send(());
                }
                self.take(SessionInput::Pong)
            }
            Incoming::Closed(code) => return Err(SocketEnd::Peer(code)),
            Incoming::Violation(reason) => return Err(SocketEnd::Ours(reason)),
            Incoming::Gone => return Err(SocketEnd::Gone),
        })
    }

    /// Answers a client that asked for it.
    fn answer(&self, control: &ControlMessage) {
        if self.has_control {
            let says_more = *control != ControlMessage::Heartbeat;
            self.socket.writer.answer(control.frame(), says_more);
        }
    }

    fn take(&mut self, input: SessionInput<'_>) -> Action {
        let refresh = |token: &str, until| self.acceptor.refresh(token, &self.socket, until);
        self.session
            .take(input, Instant::now(), SystemTime::now(), refresh)
    }

    /// Once a close is decided the session has no deadline any more, but its end has.
    fn deadline(&self, closing: Option<Closing>) -> Instant {
        let now = Instant::now();
        let session = if self.session.is_decided() {
            now + FAR
        } else {
            self.session.deadline(now, SystemTime::now())
        };
        closing.map_or(session, |closing| session.min(closing.since + STANDSTILL))
    }

    /// Waits until everything stored before now is queued, or for [`CATCH_UP`].
    fn catch_up(&self, reason: CloseReason) -> CatchUp {
        let acceptor = Arc::clone(&self.acceptor);
        let room = self.membership.room().clone();
        Box::pin(async move {
            if timeout(CATCH_UP, acceptor.catch_up(&room)).await.is_err() {
                acceptor.metrics().closed_behind(1);
                let (code, workspace) = (reason.code(), room.workspace());
                if room.is_slowed() {
                    warn!(code, %workspace, "socket closed without the last stored events, its workspace is over its event rate");
                } else {
                    warn!(code, %workspace, "socket closed without the last stored events, nats does not answer");
                }
            }
            reason
        })
    }
}

/// Records what was written of the queue since the last call.
fn report(
    writer: &Writer,
    acceptor: &Acceptor,
    session: SessionId,
    trace: Option<&ConnectionTrace>,
) {
    let Some(written) = writer.take_written() else {
        return;
    };
    let metrics = acceptor.metrics();
    metrics.written(written.notifications, written.bytes);
    let now = Instant::now();
    if let Some(oldest) = written.oldest {
        metrics.waited(now.saturating_duration_since(oldest));
    }
    for (frame, send) in written.traced {
        let span = send.sent(Sent {
            session: session.to_string(),
            connection: trace.map(ConnectionTrace::span),
            size: frame.size,
            queued: frame.made,
            taken: written.began.unwrap_or(now),
            written: now,
        });
        metrics.exemplar(
            frame.age + now.saturating_duration_since(frame.made.at),
            &span,
        );
    }
}
