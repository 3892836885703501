//! What a socket is given, written by whoever has it: its room writes a frame at once where nothing waits, and
//! the socket's own task what the kernel did not take then.
//!
//! The room never waits, and is never woken by the connection: tokio keeps one waker for each
//! direction, and that is the task's. What does not go waits in a queue bounded in bytes. All queues share one
//! ceiling. A queue may have a part of what is free below it, so that the fuller the gateway is, the less may
//! wait for one socket (the dynamic thresholds of switches with shared memory, Choudhury and Hahne 1998): the
//! fullest queues end first, and give back what they had, while a socket that keeps up never notices.

mod limits;
mod slow;
mod state;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Bytes;

pub use self::limits::QueueLimits;
pub use self::slow::{Load, QueueStatus, SLOW_AFTER};
pub(crate) use self::state::Written;
use self::state::{Dropped, FRAMES_AT_ONCE, QueuedFrame, WriterPhase, WriterState};
use super::Frame;
use super::depth::{QueueDepth, Undelivered};
use crate::codes::CloseReason;

/// What the socket's task writes before it looks at what came in, in system calls.
const WRITES_A_TURN: usize = 4;

/// The writing side of one socket. Cheap to clone; idle, it has allocated nothing beyond itself.
#[derive(Debug, Clone)]
pub struct Writer(Arc<WriterShared>);

#[derive(Debug)]
struct WriterShared {
    /// The connection, once the 101 is out. There is none where it goes over TLS: its task alone writes there.
    tcp: OnceLock<TcpStream>,
    /// A lock and not a channel: whoever has something writes it, in one order, and "close now" overtakes what
    /// waits. It is locked for one system call that does not wait.
    state: Mutex<WriterState>,
    task: AtomicWaker,
    limits: QueueLimits,
    /// Of all queues of the gateway.
    depth: Arc<QueueDepth>,
}

/// What became of frames that a socket was given.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The kernel has them.
    pub written: u64,
    /// They wait.
    pub queued: u64,
    /// One did not fit: the writer has ended with [`CloseReason::TooSlow`], and nothing waits any more.
    pub overflowed: bool,
}

/// How far a turn of the socket's task came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteTurn {
    /// The kernel has all there was.
    Done,
    /// There may be more.
    More,
}

impl Writer {
    /// A writer of a socket that is joining. What waits is counted in `depth`, the one of all queues with these
    /// limits.
    pub fn new(limits: impl Into<QueueLimits>, depth: Arc<QueueDepth>) -> Self {
        Self(Arc::new(WriterShared {
            tcp: OnceLock::new(),
            state: Mutex::default(),
            task: AtomicWaker::new(),
            limits: limits.into(),
            depth,
        }))
    }

    /// The 101 is out. Over `tcp`, if there is no TLS.
    pub(crate) fn open(&self, tcp: Option<TcpStream>) {
        if let Some(tcp) = tcp {
            // It is opened once, so there is none yet.
            let _ = self.0.tcp.set(tcp);
        }
        let mut state = self.lock();
        if state.phase == WriterPhase::Joining {
            state.phase = WriterPhase::Open;
        }
    }

    /// The connection, where there is no TLS.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        self.0.tcp.get()
    }

    /// Gives the socket `frames`, in this order; the delivery has a span if `is_traced`. They are written at
    /// once where nothing waits.
    pub fn push(&self, frames: &[Arc<Frame>], is_traced: bool) -> Pushed {
        let mut pushed = Pushed::default();
        let mut state = self.lock();
        if state.end.is_some() {
            return pushed;
        }
        let mut rest = frames;
        // A span has the session's id, which the socket's task knows.
        if !is_traced
            && state.is_idle()
            && let Some(tcp) = self.0.tcp.get()
        {
            rest = write_frames(tcp, &mut state, frames, &mut pushed);
            if rest.is_empty() && !state.has_output() {
                return pushed;
            }
        }
        for frame in rest {
            let trace = frame.trace.as_ref().filter(|_| is_traced);
            let entry = QueuedFrame {
                span: trace.map(|trace| Box::new(trace.queued())),
                ..QueuedFrame::of(frame)
            };
            if !self.0.queue(&mut state, entry) {
                pushed.overflowed = true;
                break;
            }
            pushed.queued += 1;
        }
        drop(state);
        self.0.task.wake();
        pushed
    }

    /// Ends the queue after what already waits.
    pub fn end_after(&self, reason: CloseReason) {
        self.lock().end.get_or_insert(reason);
        self.0.task.wake();
    }

    /// Ends the socket at once, for a reason that [is immediate](CloseReason::is_immediate): what waits is dropped.
    pub fn end_now(&self, reason: CloseReason) {
        debug_assert!(reason.is_immediate(), "{reason:?}");
        let mut state = self.lock();
        // It overtakes an end that waits for the queue.
        if !state.end.is_some_and(CloseReason::is_immediate) {
            state.end = Some(reason);
        }
        self.0.dropped(state.drop_queue(), Undelivered::Closed);
        drop(state);
        self.0.task.wake();
    }

    /// Has the socket pinged. The answer is the pong; its end without one, that of the socket.
    pub(crate) fn probe(&self) -> oneshot::Receiver<()> {
        let (answer, pong) = oneshot::channel();
        self.lock().probe = Some(answer);
        self.0.task.wake();
        pong
    }

    /// A ping that is to be sent; the sender is for its pong.
    pub(crate) fn take_probe(&self) -> Option<oneshot::Sender<()>> {
        self.lock().probe.take()
    }

    /// How the queue stands `now`.
    pub fn load(&self, now: Instant) -> Load {
        self.lock().load(now, self.0.limit_now())
    }

    /// Bytes that may wait, as things stand.
    pub fn limit(&self) -> usize {
        self.0.limit_now()
    }

    /// Bytes that the kernel took, and when the last notification that was written was made.
    pub(crate) fn progress(&self) -> (u64, Option<Instant>) {
        let state = self.lock();
        (state.uptake.taken, state.active_at)
    }

    /// Wakes `cx` at the next change. To be called before looking, so that no change is missed.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        self.0.task.register(cx.waker());
    }

    /// Why nothing more is taken, or will be once what waits is written. Of a reason that
    /// [is immediate](CloseReason::is_immediate) nothing waits.
    pub(crate) fn ending(&self) -> Option<CloseReason> {
        self.lock().end
    }

    /// The newest pong; one that waits is dropped.
    pub(crate) fn pong(&self, frame: Bytes) {
        self.lock().pong(frame);
    }

    pub(crate) fn ping(&self, frame: Bytes) {
        self.lock().ping(frame);
    }

    /// What is written before any notification. To be called before [`Writer::open`].
    pub(crate) fn hello(&self, frame: Bytes) {
        self.lock().hello(frame);
    }

    /// An answer to the client, behind what waits; one is enough, but for one that `says_more`.
    pub(crate) fn answer(&self, frame: Bytes, says_more: bool) {
        self.lock().answer(frame, says_more);
    }

    /// `frame` is the last thing that is written, after what is begun and pings; what waits is dropped.
    pub(crate) fn close(&self, frame: Bytes, why: Undelivered) {
        let mut state = self.lock();
        // Whoever is behind with taking it out of a list must not queue more.
        state.end.get_or_insert(CloseReason::Internal);
        let dropped = state.close(frame);
        self.0.dropped(dropped, why);
    }

    /// Nothing more is written.
    pub(crate) fn over(&self, why: Undelivered) {
        let mut state = self.lock();
        state.end.get_or_insert(CloseReason::Internal);
        let dropped = state.clear();
        self.0.dropped(dropped, why);
    }

    /// What was written from the queue since the last call.
    pub(crate) fn take_written(&self) -> Option<Box<Written>> {
        self.lock().take_written()
    }

    /// Writes what there is, as the socket's task: the kernel wakes `cx` when it takes something again.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<WriteTurn>> {
        let Some(tcp) = self.0.tcp.get() else {
            return Poll::Ready(Ok(WriteTurn::Done));
        };
        for _ in 0..WRITES_A_TURN {
            let mut state = self.lock();
            if !state.has_output() {
                return Poll::Ready(Ok(WriteTurn::Done));
            }
            match tcp.poll_write_ready(cx) {
                Poll::Ready(is_ready) => is_ready?,
                Poll::Pending => {
                    state.uptake.refused(Instant::now());
                    return Poll::Pending;
                }
            }
            match self
                .0
                .write_out(&mut state, |slices| tcp.try_write_vectored(slices))
            {
                // The readiness was out of date. Asked again, it is not.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => result?,
            }
        }
        Poll::Ready(Ok(WriteTurn::More))
    }

    /// Puts what is to be written next behind `into`, up to `most` bytes in all, for a task that writes it by another way.
    pub(crate) fn take_bytes(&self, most: usize, into: &mut Vec<u8>) {
        let mut state = self.lock();
        if !state.has_output() {
            return;
        }
        let before = into.len();
        let taken = self.0.write_out(&mut state, |slices| {
            for slice in slices {
                let room = most.saturating_sub(into.len()).min(slice.len());
                into.extend_from_slice(slice.get(..room).unwrap_or_default());
            }
            Ok(into.len() - before)
        });
        debug_assert!(taken.is_ok(), "a copy does not fail");
    }

    /// The kernel takes nothing of what was taken from here.
    pub(crate) fn refused(&self) {
        self.lock().uptake.refused(Instant::now());
    }

    /// All that waits, as if it were written.
    #[cfg(test)]
    pub(crate) fn drained(&self) -> Vec<u8> {
        self.open(None);
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            self.take_bytes(usize::MAX, &mut bytes);
            if bytes.len() == before {
                return bytes;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, WriterState> {
        // No code under the lock can panic half-way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriterShared {
    /// What may wait in the queue, as full as the gateway is.
    fn limit_now(&self) -> usize {
        self.limits.now(self.depth.memory())
    }

    /// Puts one more behind what waits. `false` if it does not fit: nothing waits then, and nothing more will.
    fn queue(&self, state: &mut WriterState, entry: QueuedFrame) -> bool {
        let cost = entry.cost();
        if !state.fits(cost, self.limit_now()) {
            self.try_again(state);
            if !state.fits(cost, self.limit_now()) {
                state.end.get_or_insert(CloseReason::TooSlow);
                self.dropped(state.drop_queue(), Undelivered::Slow);
                return false;
            }
        }
        state.push(entry);
        self.depth.queued(1, cost as u64);
        true
    }

    /// Tries the kernel once more, since slow is what the kernel does not take. The runtime may have had no time to
    /// hear that it does.
    fn try_again(&self, state: &mut WriterState) {
        let Some(tcp) = self.tcp.get() else {
            return;
        };
        let socket = SockRef::from(tcp);
        // Whatever it says, the socket's task finds out.
        while state.has_output()
            && self
                .write_out(state, |slices| socket.send_vectored(slices))
                .is_ok()
        {}
    }

    /// Writes by `write` what comes next.
    fn write_out(
        &self,
        state: &mut WriterState,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        state.begins();
        let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
        let count = state.fill_slices(&mut slices);
        let wrote = write(slices.get(..count).unwrap_or_default())?;
        let (entries, cost) = state.wrote(wrote);
        self.depth.taken(entries, cost);
        Ok(())
    }

    fn dropped(&self, dropped: Dropped, why: Undelivered) {
        self.depth.taken(dropped.entries, dropped.cost);
        self.depth.dropped(dropped.entries + dropped.begun, why);
    }
}

impl Drop for WriterShared {
    fn drop(&mut self) {
        let mut state =
            std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.dropped(state.clear(), Undelivered::Closed);
    }
}

/// Writes as many of `frames` as the kernel takes at once; those of which it has no byte.
fn write_frames<'a>(
    tcp: &TcpStream,
    state: &mut WriterState,
    frames: &'a [Arc<Frame>],
    pushed: &mut Pushed,
) -> &'a [Arc<Frame>] {
    let socket = SockRef::from(tcp);
    let wrote = match frames {
        [frame] => socket.send(&frame.bytes),
        frames => {
            let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
            for (slice, frame) in slices.iter_mut().zip(frames) {
                *slice = IoSlice::new(&frame.bytes);
            }
            let count = frames.len().min(FRAMES_AT_ONCE);
            socket.send_vectored(slices.get(..count).unwrap_or_default())
        }
    };
    // What is wrong with the connection its task finds out, which has what waits.
    let mut left = wrote.unwrap_or(0);
    state.uptake.taken += left as u64;
    let mut rest = frames.iter();
    while let Some(frame) = rest.as_slice().first()
        && left >= frame.bytes.len()
    {
        left -= frame.bytes.len();
        state.note_written(frame);
        pushed.written += 1;
        rest.next();
    }
    if let Some(frame) = rest.as_slice().first() {
        state.uptake.refused(Instant::now());
        if left > 0 {
            state.begin(frame.bytes.slice(left..), QueuedFrame::of(frame));
            pushed.queued += 1;
            rest.next();
        }
    }
    rest.as_slice()
}
