//! What one socket is still to be given, and in which order. Pure: the time is given, and the caller writes.
//!
//! The order: what is left of a frame that is begun, the newest pong (RFC 6455 5.5.3), a ping, the hello, the
//! queue, the close frame. An answer is in the queue where it was given: a client that reads it has read all before.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Bytes;

use super::slow::{Load, Uptake};
use crate::codes::CloseReason;
use crate::socket::Frame;
use crate::socket::depth::ENTRY_BYTES;
use crate::telemetry::SendSpan;

/// Frames that are written with one system call, at most.
pub(super) const FRAMES_AT_ONCE: usize = 64;

/// Where the socket stands on its way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriterPhase {
    /// The 101 is not out: nothing may be written.
    #[default]
    Joining,
    Open,
    /// The close frame is the last thing that is written.
    Closing,
    /// Nothing is written any more.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct WriterState {
    pub(super) phase: WriterPhase,
    begun: Option<Begun>,
    /// Boxed: an idle socket has none.
    control: Option<Box<ControlFrames>>,
    queue: VecDeque<QueuedFrame>,
    /// Of the queue.
    bytes: usize,
    /// What the kernel takes.
    pub(super) uptake: Uptake,
    /// When a notification was written last.
    pub(super) active_at: Option<Instant>,
    /// What was written of the queue, and not reported yet.
    unreported: Option<Box<Written>>,
    /// Nothing more is taken; why.
    pub(super) end: Option<CloseReason>,
    /// A ping that is to be sent for somebody, who gets the pong.
    pub(super) probe: Option<oneshot::Sender<()>>,
}

/// What is left of a frame of which the kernel has a part.
#[derive(Debug)]
struct Begun {
    left: Bytes,
    /// If it is a notification.
    entry: Option<QueuedFrame>,
}

#[derive(Debug, Default)]
struct ControlFrames {
    pong: Option<Bytes>,
    ping: Option<Bytes>,
    /// Before any notification.
    hello: Option<Bytes>,
    /// To what the client said. At most one waits.
    answer: Option<Bytes>,
    /// Entries of the queue that go before the answer.
    before_answer: usize,
    close: Option<Bytes>,
}

/// One notification for this socket.
#[derive(Debug, Clone)]
pub(super) struct QueuedFrame {
    pub(super) frame: Arc<Frame>,
    /// The span of its delivery, if that has one. Boxed: most have none.
    pub(super) span: Option<Box<SendSpan>>,
}

impl QueuedFrame {
    pub(super) fn of(frame: &Arc<Frame>) -> Self {
        Self {
            frame: Arc::clone(frame),
            span: None,
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.frame.bytes.len() + ENTRY_BYTES
    }
}

/// Notifications that are not written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropped {
    /// Of the queue.
    pub(super) entries: u64,
    pub(super) cost: u64,
    /// Of which the kernel has a part.
    pub(super) begun: u64,
}

/// Notifications that waited, and that the kernel has now.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) notifications: u64,
    /// Of their texts.
    pub(crate) bytes: u64,
    /// When the one was made that waited the longest.
    pub(crate) oldest: Option<Instant>,
    /// When the writing of what has a span began.
    pub(crate) began: Option<Instant>,
    /// Those whose delivery has a span.
    pub(crate) traced: Vec<(Arc<Frame>, SendSpan)>,
}

impl WriterState {
    /// Whether a frame may be written at once: nothing waits, and the kernel is not known to refuse.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == WriterPhase::Open && self.end.is_none() && !self.has_output()
    }

    /// Whether there is something to write, and it may be.
    pub(super) fn has_output(&self) -> bool {
        let has_some = self.begun.is_some() || self.control.is_some() || !self.queue.is_empty();
        has_some && matches!(self.phase, WriterPhase::Open | WriterPhase::Closing)
    }

    /// How the queue stands `now`, of which `limit` may wait.
    pub(super) fn load(&mut self, now: Instant, limit: usize) -> Load {
        let is_clear = self.end.is_some() || self.queue.is_empty();
        let (status, moves) = self.uptake.status(is_clear, now, limit);
        Load {
            status,
            moves,
            is_half_full: !is_clear && self.bytes > limit / 2,
            oldest: self.queue.front().map(|entry| entry.frame.made.at),
        }
    }

    /// Whether one more entry of `cost` fits. One always fits an empty queue: a socket that has taken all
    /// before keeps up.
    pub(super) fn fits(&self, cost: usize, limit: usize) -> bool {
        self.queue.is_empty() || self.bytes + cost <= limit
    }

    pub(super) fn push(&mut self, entry: QueuedFrame) {
        if self.queue.is_empty() {
            // Before, it kept up.
            self.uptake.watch(entry.frame.made.at);
        }
        self.bytes += entry.cost();
        self.queue.push_back(entry);
    }

    /// Bytes of the queue.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The kernel has a part of this frame.
    pub(super) fn begin(&mut self, left: Bytes, entry: QueuedFrame) {
        self.begun = Some(Begun {
            left,
            entry: Some(entry),
        });
    }

    /// The newest pong replaces one that waits.
    pub(super) fn pong(&mut self, frame: Bytes) {
        self.control.get_or_insert_default().pong = Some(frame);
    }

    pub(super) fn ping(&mut self, frame: Bytes) {
        self.control.get_or_insert_default().ping = Some(frame);
    }

    /// What is written before any notification.
    pub(super) fn hello(&mut self, frame: Bytes) {
        self.control.get_or_insert_default().hello = Some(frame);
    }

    /// An answer to the client, behind what waits. Where one waits already that one is enough, but for one that
    /// says more, which replaces it.
    pub(super) fn answer(&mut self, frame: Bytes, says_more: bool) {
        if self.phase != WriterPhase::Open {
            return;
        }
        let queued = self.queue.len();
        let control = self.control.get_or_insert_default();
        match &mut control.answer {
            Some(waiting) if says_more => *waiting = frame,
            Some(_) => {}
            none => {
                *none = Some(frame);
                control.before_answer = queued;
            }
        }
    }

    /// `frame` is the last thing that is written. What waits is dropped.
    pub(super) fn close(&mut self, frame: Bytes) -> Dropped {
        self.phase = WriterPhase::Closing;
        let control = self.control.get_or_insert_default();
        control.close = Some(frame);
        control.answer = None;
        self.drop_queue()
    }

    /// Drops what waits.
    pub(super) fn drop_queue(&mut self) -> Dropped {
        if let Some(control) = &mut self.control {
            control.before_answer = 0;
        }
        Dropped {
            entries: std::mem::take(&mut self.queue).len() as u64,
            cost: std::mem::take(&mut self.bytes) as u64,
            begun: 0,
        }
    }

    /// Drops all there is, begun or not. Nothing is written any more.
    pub(super) fn clear(&mut self) -> Dropped {
        self.phase = WriterPhase::Over;
        self.control = None;
        let begun = self.begun.take().and_then(|begun| begun.entry);
        Dropped {
            begun: u64::from(begun.is_some()),
            ..self.drop_queue()
        }
    }

    /// Something is about to be written. Only for a span is the clock looked at.
    pub(super) fn begins(&mut self) {
        if self.queue.front().is_some_and(|entry| entry.span.is_some()) {
            let unreported = self.unreported.get_or_insert_default();
            unreported.began.get_or_insert_with(Instant::now);
        }
    }

    /// Puts what is to be written next, in its order, into `slices`; how many there are.
    pub(super) fn fill_slices<'a>(&'a self, slices: &mut [IoSlice<'a>; FRAMES_AT_ONCE]) -> usize {
        let control = self.control.as_deref();
        let begun = self.begun.as_ref().map(|begun| &begun.left);
        let pong = control.and_then(|control| control.pong.as_ref());
        let ping = control.and_then(|control| control.ping.as_ref());
        let hello = control.and_then(|control| control.hello.as_ref());
        let answer = control.and_then(|control| control.answer.as_ref());
        let before = control.map_or(0, |control| control.before_answer);
        let queue = self.queue.iter().map(|entry| &entry.frame.bytes);
        let close = control.and_then(|control| control.close.as_ref());
        let all = begun
            .into_iter()
            .chain(pong)
            .chain(ping)
            .chain(hello)
            .chain(queue.clone().take(before))
            .chain(answer)
            .chain(queue.skip(before))
            .chain(close);
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(all) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// What was written of the queue since the last call.
    pub(super) fn take_written(&mut self) -> Option<Box<Written>> {
        self.unreported.take()
    }

    /// The kernel has all of a frame that never waited.
    pub(super) fn note_written(&mut self, frame: &Frame) {
        self.active_at = Some(frame.made.at);
    }

    /// The kernel has taken the first `count` bytes of what [`WriterState::fill_slices`] gave; how many entries left the
    /// queue, and their cost.
    pub(super) fn wrote(&mut self, mut count: usize) -> (u64, u64) {
        let (mut entries, mut cost) = (0, 0);
        if count == 0 {
            return (0, 0);
        }
        self.uptake.took(count);
        if let Some(mut begun) = self.begun.take() {
            let whole = take(&mut begun.left, &mut count);
            if !whole {
                self.begun = Some(begun);
                return (0, 0);
            }
            if let Some(entry) = begun.entry {
                self.delivered(entry);
            }
        }
        let mut control = self.control.take();
        if let Some(control) = &mut control {
            for slot in [&mut control.pong, &mut control.ping, &mut control.hello] {
                self.begun = take_slot(slot, &mut count);
                if self.begun.is_some() {
                    break;
                }
            }
        }
        while count > 0 && self.begun.is_none() {
            if let Some(control) = &mut control
                && control.answer.is_some()
            {
                if control.before_answer == 0 {
                    self.begun = take_slot(&mut control.answer, &mut count);
                    continue;
                }
                control.before_answer -= 1;
            }
            let Some(entry) = self.queue.pop_front() else {
                break;
            };
            self.bytes -= entry.cost();
            entries += 1;
            cost += entry.cost() as u64;
            let mut left = entry.frame.bytes.clone();
            if take(&mut left, &mut count) {
                self.delivered(entry);
            } else {
                self.begin(left, entry);
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            // An idle socket keeps no buffer from its last burst.
            self.queue = VecDeque::new();
        }
        if let Some(control) = &mut control
            && self.begun.is_none()
        {
            self.begun = take_slot(&mut control.close, &mut count);
        }
        self.control = control.filter(|control| control.has_some());
        (entries, cost)
    }

    fn delivered(&mut self, entry: QueuedFrame) {
        let QueuedFrame { frame, span } = entry;
        self.note_written(&frame);
        let unreported = self.unreported.get_or_insert_default();
        unreported.notifications += 1;
        unreported.bytes += frame.size as u64;
        unreported.oldest.get_or_insert(frame.made.at);
        if let Some(span) = span {
            unreported.traced.push((frame, *span));
        }
    }
}

impl ControlFrames {
    fn has_some(&self) -> bool {
        let Self {
            pong,
            ping,
            hello,
            answer,
            before_answer: _,
            close,
        } = self;
        [pong, ping, hello, answer, close]
            .iter()
            .any(|slot| slot.is_some())
    }
}

/// Takes up to `count` bytes from the front of `bytes`; whether that is all of them.
fn take(bytes: &mut Bytes, count: &mut usize) -> bool {
    let taken = bytes.len().min(*count);
    *bytes = bytes.slice(taken..);
    *count -= taken;
    bytes.is_empty()
}

/// Takes a control frame, of which a part may be left.
fn take_slot(slot: &mut Option<Bytes>, count: &mut usize) -> Option<Begun> {
    if *count == 0 {
        return None;
    }
    let mut left = slot.take()?;
    (!take(&mut left, count)).then_some(Begun { left, entry: None })
}
