//! Gives notifications to sockets: in their order, with one write for each socket.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::event::Position;
use crate::projection::Recipients;
use crate::room::SessionId;
use crate::socket::{Frame, Writer};
use crate::telemetry::{EventTrace, FanOutTrace};

/// Writes without a pause, some: one that does not wait spends none of the runtime's budget for a task, and
/// others have a turn within a millisecond or two.
pub(in crate::room) const WRITES_A_TURN: usize = 128;

/// A notification on its way to the members that it is for.
#[derive(Debug)]
pub(in crate::room) struct Addressed {
    pub(in crate::room) position: Position,
    /// The notification's.
    pub(in crate::room) id: String,
    pub(in crate::room) recipients: Recipients,
    pub(in crate::room) frame: Arc<Frame>,
}

/// What a fan-out needs of a member.
#[derive(Debug, Clone)]
pub(in crate::room) struct Sink {
    /// Shared with the socket's task.
    pub(in crate::room) writer: Writer,
    /// Only what is stored above this sequence is for this socket.
    pub(in crate::room) start_position: u64,
}

/// Notifications that are given out together, and what became of them.
#[derive(Debug)]
pub(in crate::room) struct FanOutRound {
    /// In order; all of them are for everyone, or none is.
    pub(in crate::room) batch: Vec<Addressed>,
    /// Where the trace of the only one is recorded.
    pub(in crate::room) trace: Option<(EventTrace, FanOutTrace)>,
    pub(in crate::room) began: Instant,
    /// When the last of its sockets had its turn.
    pub(in crate::room) ended: Instant,
    pub(in crate::room) out: FanOut,
    /// Who waits for its end.
    pub(in crate::room) answers: Vec<oneshot::Sender<()>>,
}

/// What a fan-out did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::room) struct FanOut {
    /// Sockets that were given something, which is a write each.
    pub(in crate::room) writes: usize,
    /// Notifications that sockets have: written, or in their queue.
    pub(in crate::room) delivered: u64,
    /// Those of them that the kernel has.
    pub(in crate::room) written: u64,
    /// Of their texts.
    pub(in crate::room) bytes: u64,
    /// Sockets whose queue was full.
    pub(in crate::room) slow: Vec<SessionId>,
}

/// What a task has written since others had their turn.
#[derive(Debug, Default)]
pub(in crate::room) struct Turn(usize);

impl Turn {
    /// So many writes more.
    pub(in crate::room) fn spend(&mut self, writes: usize) {
        self.0 += writes;
    }

    pub(in crate::room) fn is_over(&self) -> bool {
        self.0 >= WRITES_A_TURN
    }

    /// Lets others have theirs, if this one is over.
    pub(in crate::room) async fn pass(&mut self) {
        if self.is_over() {
            self.0 = 0;
            yield_now().await;
        }
    }
}

/// Which of the members, in the order in which they are met, are traced: some neighbours, which
/// change with each event.
#[derive(Debug)]
pub(in crate::room) struct Sample {
    before: usize,
    left: usize,
}

impl Addressed {
    pub(in crate::room) fn is_for_all(&self) -> bool {
        matches!(self.recipients, Recipients::Everyone)
    }
}

impl FanOutRound {
    /// Whether it is for all members.
    pub(in crate::room) fn is_for_all(&self) -> bool {
        self.batch.first().is_some_and(Addressed::is_for_all)
    }

    /// Which of so many deliveries have a span.
    pub(in crate::room) fn sample(&self, reached: usize) -> Sample {
        let first = self.batch.first().map_or(0, |one| one.position.sequence);
        let traced = self.trace.as_ref().map_or(0, |(_, span)| span.sample());
        Sample::new(first, reached, traced)
    }

    /// What goes out from `began` on.
    pub(in crate::room) fn new(
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

    /// Ends its trace, and answers those who wait for it. Returns the batch, whose memory can be used again.
    pub(in crate::room) fn end(self) -> Vec<Addressed> {
        if let Some((_, span)) = self.trace {
            span.end(self.out.delivered, self.out.slow.len(), self.ended);
        }
        for answer in self.answers {
            // Who waits may have run out of time.
            let _ = answer.send(());
        }
        self.batch
    }

    /// Bytes that a socket gets of it, if all of it is for it.
    pub(in crate::room) fn bytes(&self) -> usize {
        self.batch.iter().map(|one| one.frame.len()).sum()
    }
}

impl FanOut {
    /// Gives `frames`, which have these `positions`, to each of `sinks` whose start position is below.
    pub(in crate::room) fn push_to_all<'a>(
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
    pub(in crate::room) fn push(
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
    pub(in crate::room) fn add(&mut self, part: Self) {
        self.writes += part.writes;
        self.delivered += part.delivered;
        self.written += part.written;
        self.bytes += part.bytes;
        self.slow.extend(part.slow);
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
    pub(in crate::room) fn split(&mut self, count: usize) -> Self {
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
