//! The sockets of a room, and the fan-out to them.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SessionId;
use super::pressure::Pressure;
use crate::auth::UserKey;
use crate::event::Mark;
use crate::projection::Recipients;
use crate::socket::{Frame, Writer};

/// A join that read its floor before the stream was found to be another one has ended by then.
const JOINS_LAST: Duration = Duration::from_secs(30);

/// One socket as its room knows it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) user: UserKey,
    /// The token's `sub`, which `recipients` name.
    pub(super) subject: Arc<str>,
    /// The pump has the other end.
    pub(super) writer: Writer,
    /// Only what is stored above it is for this socket.
    pub(super) floor: Floor,
}

/// What separates, for one socket, the events from before it asked to join from those after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    mark: Mark,
    /// The stream may be another one than the floor was read from: its sequence says nothing.
    by_time: bool,
}

impl Floor {
    fn is_below(&self, event: Mark) -> bool {
        if self.by_time {
            self.mark.time < event.time
        } else {
            self.mark.sequence < event.sequence
        }
    }
}

/// Members by session, and by the subject that recipients name.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_session: HashMap<SessionId, Member>,
    by_subject: HashMap<Arc<str>, Vec<SessionId>>,
    /// Bytes that each queue may have got since it was last looked at them.
    unseen: usize,
    /// Bytes that each may have got since nothing more waited to be delivered.
    burst: usize,
    pressure: Pressure,
    /// When the stream was last found to be another one.
    anew: Option<Instant>,
}

/// What a fan-out did.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    /// Sockets that have it: written, or in their queue.
    pub(super) delivered: u64,
    /// Those of them whose kernel has it.
    pub(super) written: u64,
    /// Sockets whose queue was full; they are no members any more.
    pub(super) slow: Vec<(SessionId, Member)>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.by_session.is_empty()
    }

    pub(super) fn insert(&mut self, session: SessionId, member: Member) {
        self.by_subject
            .entry(Arc::clone(&member.subject))
            .or_default()
            .push(session);
        self.by_session.insert(session, member);
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Member> {
        self.by_session.get(&session)
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Member> {
        let member = self.by_session.remove(&session)?;
        if let Some(sessions) = self.by_subject.get_mut(&member.subject) {
            sessions.retain(|known| *known != session);
            if sessions.is_empty() {
                self.by_subject.remove(&member.subject);
            }
        }
        Some(member)
    }

    /// The floor of a socket that joins `now`, as it was read.
    pub(super) fn floor(&self, mark: Mark, now: Instant) -> Floor {
        Floor {
            mark,
            by_time: self
                .anew
                .is_some_and(|anew| now.saturating_duration_since(anew) < JOINS_LAST),
        }
    }

    /// Puts `frame` in the queue of each member that it is for and whose floor is below `event`.
    /// The deliveries to `traced` of them have spans: not always to the same ones, so that each socket
    /// of a busy room is seen now and then.
    pub(super) fn fan_out(
        &mut self,
        event: Mark,
        recipients: &Recipients,
        frame: &Arc<Frame>,
        traced: usize,
    ) -> FanOut {
        self.unseen = self.unseen.saturating_add(frame.len());
        self.burst = self.burst.saturating_add(frame.len());
        let mut out = FanOut::default();
        let mut slow = Vec::new();
        let reached = if traced == 0 {
            0
        } else {
            self.reached(recipients)
        };
        let mut sample = Sample::new(event.sequence, reached, traced);
        let mut push = |session: SessionId, member: &Member| {
            if !member.floor.is_below(event) {
                return;
            }
            let pushed = member.writer.push(slice::from_ref(frame), sample.next());
            out.written += pushed.written;
            out.delivered += pushed.written + pushed.queued;
            if pushed.overflowed {
                slow.push(session);
            }
        };
        match recipients {
            Recipients::Everyone => {
                for (session, member) in &self.by_session {
                    push(*session, member);
                }
            }
            Recipients::Users(users) => {
                for session in users
                    .iter()
                    .filter_map(|user| self.by_subject.get(user.as_str()))
                    .flatten()
                {
                    if let Some(member) = self.by_session.get(session) {
                        push(*session, member);
                    }
                }
            }
        }
        for session in slow {
            if let Some(member) = self.remove(session) {
                out.slow.push((session, member));
            }
        }
        out
    }

    /// How many members a notification for `recipients` goes to, if none has joined since.
    fn reached(&self, recipients: &Recipients) -> usize {
        match recipients {
            Recipients::Everyone => self.by_session.len(),
            Recipients::Users(users) => users
                .iter()
                .filter_map(|user| self.by_subject.get(user.as_str()))
                .map(Vec::len)
                .sum(),
        }
    }

    /// Until when the fan-out waits for sockets that have not taken what it gave them; `None`: it goes on.
    ///
    /// It may go on for a quarter of the limit without a look, so that no queue overflows between two
    /// looks for another reason than its socket's. More than that at once is a burst.
    pub(super) fn pressed(&mut self, now: Instant) -> Option<Instant> {
        if self.is_unpressed() {
            return None;
        }
        let is_burst = self.burst >= self.limit() / 4;
        let loads = self.by_session.values().map(|member| member.writer.load());
        let until = self.pressure.judge(now, is_burst, loads);
        if until.is_none() {
            self.unseen = 0;
        }
        until
    }

    /// Whether the fan-out may go on without a look at the queues.
    pub(super) fn is_unpressed(&self) -> bool {
        self.unseen < self.limit() / 4
    }

    /// Bytes that may wait for one socket, as things stand.
    fn limit(&self) -> usize {
        let one = self.by_session.values().next();
        one.map_or(usize::MAX, |member| member.writer.limit())
    }

    /// Nothing more waits to be delivered: if there was a burst, it is over.
    pub(super) fn caught_up(&mut self) {
        self.burst = 0;
    }

    /// The stream is another one: of the sequences of all floors read so far nothing follows any more.
    pub(super) fn refloor(&mut self, now: Instant) {
        self.anew = Some(now);
        for member in self.by_session.values_mut() {
            member.floor.by_time = true;
        }
    }

    /// The queues of all members.
    pub(super) fn writers(&self) -> Vec<Writer> {
        self.by_session
            .values()
            .map(|member| member.writer.clone())
            .collect()
    }
}

/// Which of the members, in the order in which they are met, are traced: some neighbours, from a
/// place that moves with each event.
struct Sample {
    before: usize,
    left: usize,
}

impl Sample {
    fn new(sequence: u64, members: usize, traced: usize) -> Self {
        let places = members.saturating_sub(traced) as u64 + 1;
        Self {
            before: usize::try_from(sequence % places).unwrap_or(0),
            left: traced,
        }
    }

    fn next(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let is_in = self.before == 0;
        self.before = self.before.saturating_sub(1);
        self.left -= usize::from(is_in);
        is_in
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::DateTime;

    use super::*;

    fn mark(sequence: u64) -> Mark {
        Mark {
            sequence,
            time: DateTime::from_timestamp_nanos(sequence.cast_signed()),
        }
    }

    fn join(members: &mut Members, number: u128, subject: &str, floor: u64) -> Writer {
        let writer = Writer::new(1024, Arc::default());
        members.insert(
            SessionId::from_u128(number),
            Member {
                user: UserKey::new(None, subject),
                subject: subject.into(),
                writer: writer.clone(),
                floor: Floor {
                    mark: mark(floor),
                    by_time: false,
                },
            },
        );
        writer
    }

    #[test]
    fn a_notification_goes_to_its_recipients_above_their_floor() {
        let mut members = Members::default();
        join(&mut members, 1, "ann", 5);
        join(&mut members, 2, "bob", 7);
        let frame = Frame::of_length(1);
        let to = |users: &[&str]| {
            Recipients::Users(
                users
                    .iter()
                    .map(|user| (*user).to_owned())
                    .collect::<BTreeSet<_>>(),
            )
        };
        assert_eq!(
            members
                .fan_out(mark(6), &Recipients::Everyone, &frame, 0)
                .delivered,
            1
        );
        assert_eq!(
            members
                .fan_out(mark(8), &Recipients::Everyone, &frame, 0)
                .delivered,
            2
        );
        assert_eq!(
            members
                .fan_out(mark(8), &to(&["ann", "eve"]), &frame, 0)
                .delivered,
            1
        );
        assert_eq!(members.fan_out(mark(8), &to(&[]), &frame, 0).delivered, 0);
        members.remove(SessionId::from_u128(1));
        assert_eq!(
            members.fan_out(mark(8), &to(&["ann"]), &frame, 0).delivered,
            0
        );
    }

    #[test]
    fn a_full_queue_ends_one_membership_and_no_other() {
        let mut members = Members::default();
        join(&mut members, 1, "ann", 0);
        join(&mut members, 2, "bob", 0);
        let frame = Frame::of_length(500);
        let recipients = Recipients::Users(BTreeSet::from(["ann".to_owned()]));
        assert_eq!(
            members.fan_out(mark(1), &recipients, &frame, 0).delivered,
            1
        );
        let out = members.fan_out(mark(2), &recipients, &frame, 0);
        assert_eq!(out.slow.len(), 1);
        assert_eq!(
            members
                .fan_out(mark(4), &Recipients::Everyone, &frame, 0)
                .delivered,
            1
        );
    }

    #[test]
    fn a_burst_waits_for_a_queue_that_is_half_full_until_its_socket_has_had_its_turn() {
        let mut members = Members::default();
        let writer = join(&mut members, 1, "ann", 0);
        let frame = Frame::of_length(600);
        let mut now = Instant::now();
        assert_eq!(members.pressed(now), None);
        members.fan_out(mark(1), &Recipients::Everyone, &frame, 0);
        for _ in 0..10_000 {
            now = members.pressed(now).expect("a wait");
        }
        writer.end_after(crate::socket::CloseReason::Restart);
        assert_eq!(members.pressed(now), None);
    }

    #[test]
    fn every_member_is_traced_now_and_then_and_never_more_than_asked() {
        for (members, traced) in [(1, 2), (2, 2), (5, 2), (100, 3), (7, 0), (0, 2)] {
            let mut seen = BTreeSet::new();
            for sequence in 0..200 {
                let mut sample = Sample::new(sequence, members, traced);
                let picked: Vec<usize> = (0..members).filter(|_| sample.next()).collect();
                assert_eq!(picked.len(), traced.min(members));
                seen.extend(picked);
            }
            assert_eq!(seen.len(), if traced == 0 { 0 } else { members });
        }
    }

    #[test]
    fn of_recipients_only_those_who_are_there_are_counted_for_the_sample() {
        let mut members = Members::default();
        for number in 0..50 {
            join(&mut members, number, &format!("u{number}"), 0);
        }
        let users = (40..90).map(|number| format!("u{number}")).collect();
        assert_eq!(members.reached(&Recipients::Users(users)), 10);
        assert_eq!(members.reached(&Recipients::Everyone), 50);
    }
}
