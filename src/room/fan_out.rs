//! Gives notifications to sockets: in their order, with one write for each socket.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::SessionId;
use crate::event::Position;
use crate::projection::Recipients;
use crate::socket::{Frame, Writer};
use crate::telemetry::{EventTrace, FanOutTrace};

/// Writes without a pause, some: one that does not wait spends none of the runtime's budget for a task, and
/// others have a turn within a millisecond or two.
pub(super) const WRITES_A_TURN: usize = 128;

/// A notification on its way to the members that it is for.
#[derive(Debug)]
pub(super) struct Addressed {
    pub(super) position: Position,
    /// The notification's.
    pub(super) id: String,
    pub(super) recipients: Recipients,
    pub(super) frame: Arc<Frame>,
}

/// What a fan-out needs of a member.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    /// Shared with the socket's task.
    pub(super) writer: Writer,
    /// Only what is stored above this sequence is for this socket.
    pub(super) start_position: u64,
}

/// Notifications that are given out together, and what became of them.
#[derive(Debug)]
pub(super) struct FanOutRound {
    /// In order; all of them are for everyone, or none is.
    pub(super) batch: Vec<Addressed>,
    /// Where the trace of the only one is recorded.
    pub(super) trace: Option<(EventTrace, FanOutTrace)>,
    pub(super) began: Instant,
    /// When the last of its sockets had its turn.
    pub(super) ended: Instant,
    pub(super) out: FanOut,
    /// Who waits for its end.
    pub(super) answers: Vec<oneshot::Sender<()>>,
}

/// What a fan-out did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FanOut {
    /// Sockets that were given something, which is a write each.
    pub(super) writes: usize,
    /// Notifications that sockets have: written, or in their queue.
    pub(super) delivered: u64,
    /// Those of them that the kernel has.
    pub(super) written: u64,
    /// Of their texts.
    pub(super) bytes: u64,
    /// Sockets whose queue was full.
    pub(super) slow: Vec<SessionId>,
}

/// What a task has written since others had their turn.
#[derive(Debug, Default)]
pub(super) struct Turn(usize);

impl Turn {
    /// So many writes more.
    pub(super) fn spend(&mut self, writes: usize) {
        self.0 += writes;
    }

    pub(super) fn is_over(&self) -> bool {
        self.0 >= WRITES_A_TURN
    }

    /// Lets others have theirs, if this one is over.
    pub(super) async fn pass(&mut self) {
        if self.is_over() {
            self.0 = 0;
            yield_now().await;
        }
    }
}

/// Which of the members, in the order in which they are met, are traced: some neighbours, from a
/// place that moves with each event.
#[derive(Debug)]
pub(super) struct Sample {
    before: usize,
    left: usize,
}

impl Addressed {
    pub(super) fn is_for_all(&self) -> bool {
        matches!(self.recipients, Recipients::Everyone)
    }
}

impl FanOutRound {
    /// Whether it is for all members.
    pub(super) fn is_for_all(&self) -> bool {
        self.batch.first().is_some_and(Addressed::is_for_all)
    }

    /// Which of so many deliveries have a span.
    pub(super) fn sample(&self, reached: usize) -> Sample {
        let first = self.batch.first().map_or(0, |one| one.position.sequence);
        let traced = self.trace.as_ref().map_or(0, |(_, span)| span.sample());
        Sample::new(first, reached, traced)
    }

    /// What goes out from `began` on.
    pub(super) fn new(
        batch: Vec<Addressed>,
        trace: Option<(EventTrace, FanOutTrace)>,
        began: Instant,
    ) -> Self {
        Self {
            batch,
            trace,
            began,
            ended: began,
            out: FanOut::default(),
            answers: Vec::new(),
        }
    }

    /// Bytes that a socket gets of it, if all of it is for it.
    pub(super) fn bytes(&self) -> usize {
        self.batch.iter().map(|one| one.frame.len()).sum()
    }
}

impl FanOut {
    /// Gives `frames`, which have these `positions`, to each of `sinks` whose floor is below.
    pub(super) fn push_to_all<'a>(
        &mut self,
        frames: &[Arc<Frame>],
        positions: &(impl Iterator<Item = Position> + Clone),
        sinks: impl Iterator<Item = (SessionId, &'a Sink)>,
        sample: &mut Sample,
    ) {
        for (session, sink) in sinks {
            if positions
                .clone()
                .all(|position| sink.start_position < position.sequence)
            {
                self.push(session, &sink.writer, frames, sample);
                continue;
            }
            // Who joined while these were on their way gets the later ones.
            let above = frames
                .iter()
                .zip(positions.clone())
                .filter(|(_, position)| sink.start_position < position.sequence);
            let frames: Vec<_> = above.map(|(frame, _)| Arc::clone(frame)).collect();
            self.push(session, &sink.writer, &frames, sample);
        }
    }

    /// Gives `frames` to one socket.
    #[inline]
    pub(super) fn push(
        &mut self,
        session: SessionId,
        writer: &Writer,
        frames: &[Arc<Frame>],
        sample: &mut Sample,
    ) {
        if frames.is_empty() {
            return;
        }
        let pushed = writer.push(frames, sample.next());
        self.writes += 1;
        self.delivered += pushed.written + pushed.queued;
        self.written += pushed.written;
        let written = usize::try_from(pushed.written).unwrap_or(usize::MAX);
        let texts = frames.iter().take(written).map(|frame| frame.len() as u64);
        self.bytes += texts.sum::<u64>();
        if pushed.overflowed {
            self.slow.push(session);
        }
    }

    /// What another part of the same did.
    pub(super) fn add(&mut self, part: Self) {
        let Self {
            writes,
            delivered,
            written,
            bytes,
            slow,
        } = part;
        self.writes += writes;
        self.delivered += delivered;
        self.written += written;
        self.bytes += bytes;
        self.slow.extend(slow);
    }
}

impl Sample {
    /// Of so many deliveries of the event of this sequence, `traced`.
    fn new(sequence: u64, members: usize, traced: usize) -> Self {
        let offsets = members.saturating_sub(traced) as u64 + 1;
        Self {
            before: usize::try_from(sequence % offsets).unwrap_or(0),
            left: traced,
        }
    }

    fn next(&mut self) -> bool {
        self.left > 0 && self.split(1).left > 0
    }

    /// Takes the part of the next `count` members.
    pub(super) fn split(&mut self, count: usize) -> Self {
        let part = Self {
            before: self.before,
            left: self.left.min(count.saturating_sub(self.before)),
        };
        self.before = self.before.saturating_sub(count);
        self.left -= part.left;
        part
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_member_is_traced_now_and_then_and_never_more_than_asked() {
        for (members, traced) in [(1, 2), (2, 2), (5, 2), (100, 3), (7, 0), (0, 2)] {
            let mut seen = BTreeSet::new();
            for sequence in 0..200 {
                let mut sample = Sample::new(sequence, members, traced);
                // In shards, of which the second is the larger one.
                let mut first = sample.split(members / 3);
                let picked: Vec<usize> = (0..members)
                    .filter(|at| {
                        if *at < members / 3 {
                            first.next()
                        } else {
                            sample.next()
                        }
                    })
                    .collect();
                assert_eq!(picked.len(), traced.min(members));
                seen.extend(picked);
            }
            assert_eq!(seen.len(), if traced == 0 { 0 } else { members });
        }
    }
}
