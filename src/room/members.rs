//! The sockets of a room, and the fan-out to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SessionId;
use super::join::Successor;
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
    pub(super) successor: Successor,
    /// Shared with its task.
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
    pressure: Pressure,
    /// When the stream was last found to be another one.
    anew: Option<Instant>,
}

/// A notification on its way to the members that it is for.
#[derive(Debug)]
pub(super) struct Addressed {
    pub(super) mark: Mark,
    /// The notification's.
    pub(super) id: String,
    pub(super) recipients: Recipients,
    pub(super) frame: Arc<Frame>,
}

/// What a fan-out did.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    /// Notifications that sockets have: written, or in their queue.
    pub(super) delivered: u64,
    /// Those of them that the kernel has.
    pub(super) written: u64,
    /// Of their texts.
    pub(super) bytes: u64,
    /// Sockets whose queue was full; they are no members any more.
    pub(super) slow: Vec<(SessionId, Member)>,
}

impl Addressed {
    fn is_for_all(&self) -> bool {
        matches!(self.recipients, Recipients::Everyone)
    }
}

impl FanOut {
    /// Gives `frames` to one socket.
    fn push(
        &mut self,
        session: SessionId,
        member: &Member,
        frames: &[Arc<Frame>],
        sample: &mut Sample,
        slow: &mut Vec<SessionId>,
    ) {
        if frames.is_empty() {
            return;
        }
        let pushed = member.writer.push(frames, sample.next());
        self.delivered += pushed.written + pushed.queued;
        self.written += pushed.written;
        let written = usize::try_from(pushed.written).unwrap_or(usize::MAX);
        let texts = frames.iter().take(written).map(|frame| frame.len() as u64);
        self.bytes += texts.sum::<u64>();
        if pushed.overflowed {
            slow.push(session);
        }
    }
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

    /// Gives each of `batch`, in order, to the members that it is for and whose floor is below it, with one write for
    /// each socket. The deliveries to `traced` of them have spans: not always to the same ones, so that each socket
    /// of a busy room is seen now and then.
    pub(super) fn fan_out(&mut self, batch: &[Addressed], traced: usize) -> FanOut {
        let bytes = batch.iter().map(|one| one.frame.len()).sum();
        self.unseen = self.unseen.saturating_add(bytes);
        let mut out = FanOut::default();
        // For all and for some by turns, so that each socket gets them in order.
        for run in batch.chunk_by(|one, next| one.is_for_all() == next.is_for_all()) {
            match run.first() {
                Some(first) if first.is_for_all() => self.fan_out_to_all(run, traced, &mut out),
                _ => self.fan_out_to_some(run, traced, &mut out),
            }
        }
        out
    }

    fn fan_out_to_all(&mut self, run: &[Addressed], traced: usize, out: &mut FanOut) {
        let frames: Vec<_> = run.iter().map(|one| Arc::clone(&one.frame)).collect();
        let mut sample = Sample::of(run, self.by_session.len(), traced);
        let mut slow = Vec::new();
        for (session, member) in &self.by_session {
            // Who joined while these were on their way gets the later ones.
            let is_above = |one: &Addressed| member.floor.is_below(one.mark);
            if run.iter().all(is_above) {
                out.push(*session, member, &frames, &mut sample, &mut slow);
            } else {
                let above = run.iter().filter(|one| is_above(one));
                let frames: Vec<_> = above.map(|one| Arc::clone(&one.frame)).collect();
                out.push(*session, member, &frames, &mut sample, &mut slow);
            }
        }
        self.remove_slow(slow, out);
    }

    fn fan_out_to_some(&mut self, run: &[Addressed], traced: usize, out: &mut FanOut) {
        let reached = run.iter().flat_map(|one| {
            let sessions = self.sessions(&one.recipients);
            sessions.map(move |session| (session, one))
        });
        let mut reached: Vec<_> = reached.collect();
        // Stable: each socket keeps their order.
        reached.sort_by_key(|(session, _)| *session);
        let mut sample = Sample::of(run, reached.len(), traced);
        let mut slow = Vec::new();
        for of_one in reached.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((session, member)) = of_one
                .first()
                .and_then(|(session, _)| self.by_session.get_key_value(session))
            else {
                continue;
            };
            let above = of_one
                .iter()
                .filter(|(_, one)| member.floor.is_below(one.mark));
            let frames: Vec<_> = above.map(|(_, one)| Arc::clone(&one.frame)).collect();
            out.push(*session, member, &frames, &mut sample, &mut slow);
        }
        self.remove_slow(slow, out);
    }

    /// How many members `recipients` names.
    pub(super) fn reached(&self, recipients: &Recipients) -> usize {
        match recipients {
            Recipients::Everyone => self.by_session.len(),
            Recipients::Users(_) => self.sessions(recipients).count(),
        }
    }

    /// The sessions of those whom `recipients` name.
    fn sessions(&self, recipients: &Recipients) -> impl Iterator<Item = SessionId> {
        let users = match recipients {
            Recipients::Everyone => None,
            Recipients::Users(users) => Some(users),
        };
        users
            .into_iter()
            .flatten()
            .filter_map(|user| self.by_subject.get(user.as_str()))
            .flatten()
            .copied()
    }

    fn remove_slow(&mut self, slow: Vec<SessionId>, out: &mut FanOut) {
        for session in slow {
            if let Some(member) = self.remove(session) {
                out.slow.push((session, member));
            }
        }
    }

    /// Until when the fan-out waits for sockets that have not taken what it gave them; `None`: it goes on.
    ///
    /// It may go on for a quarter of the limit without a look, so that no queue overflows between two
    /// looks for another reason than its socket's.
    pub(super) fn pressed(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_pressed_by(0) {
            return None;
        }
        let writers = self.by_session.values().map(|member| &member.writer);
        let loads = writers.map(|writer| writer.load(now));
        let until = self.pressure.judge(now, loads);
        if until.is_none() {
            self.unseen = 0;
        }
        until
    }

    /// Whether with so many bytes more it is time for a look at the queues.
    pub(super) fn is_pressed_by(&self, bytes: usize) -> bool {
        self.unseen.saturating_add(bytes) >= self.limit() / 4
    }

    /// Bytes that may wait for one socket, as things stand.
    fn limit(&self) -> usize {
        let one = self.by_session.values().next();
        one.map_or(usize::MAX, |member| member.writer.limit())
    }

    /// Nothing more waits to be delivered.
    pub(super) fn caught_up(&mut self) {
        self.pressure.caught_up();
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
    /// Of so many deliveries of `run`, `traced`.
    fn of(run: &[Addressed], reached: usize, traced: usize) -> Self {
        let first = run.first().map_or(0, |one| one.mark.sequence);
        Self::new(first, reached, traced)
    }

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
    use proptest::prelude::*;

    use super::*;

    fn mark(sequence: u64) -> Mark {
        Mark {
            sequence,
            time: DateTime::from_timestamp_nanos(sequence.cast_signed()),
        }
    }

    fn join(members: &mut Members, number: u128, subject: &str, floor: u64) -> Writer {
        join_with(members, number, subject, floor, 1024)
    }

    fn join_with(
        members: &mut Members,
        number: u128,
        subject: &str,
        floor: u64,
        limit: usize,
    ) -> Writer {
        let writer = Writer::new(limit, Arc::default());
        members.insert(
            SessionId::from_u128(number),
            Member {
                user: UserKey::new(None, subject),
                subject: subject.into(),
                successor: Successor::default(),
                writer: writer.clone(),
                floor: Floor {
                    mark: mark(floor),
                    by_time: false,
                },
            },
        );
        writer
    }

    fn to(users: &[&str]) -> Recipients {
        Recipients::Users(users.iter().map(|user| (*user).to_owned()).collect())
    }

    fn addressed(sequence: u64, recipients: Recipients, length: usize) -> Addressed {
        Addressed {
            mark: mark(sequence),
            id: String::new(),
            recipients,
            frame: Frame::of_length(length),
        }
    }

    #[test]
    fn a_notification_goes_to_its_recipients_above_their_floor() {
        let mut members = Members::default();
        join(&mut members, 1, "ann", 5);
        join(&mut members, 2, "bob", 7);
        let delivered = |members: &mut Members, sequence, recipients| {
            let one = addressed(sequence, recipients, 1);
            members.fan_out(&[one], 0).delivered
        };
        assert_eq!(delivered(&mut members, 6, Recipients::Everyone), 1);
        assert_eq!(delivered(&mut members, 8, Recipients::Everyone), 2);
        assert_eq!(delivered(&mut members, 8, to(&["ann", "eve"])), 1);
        assert_eq!(delivered(&mut members, 8, to(&[])), 0);
        members.remove(SessionId::from_u128(1));
        assert_eq!(delivered(&mut members, 8, to(&["ann"])), 0);
    }

    #[test]
    fn a_full_queue_ends_one_membership_and_no_other() {
        let mut members = Members::default();
        join(&mut members, 1, "ann", 0);
        join(&mut members, 2, "bob", 0);
        let first = members.fan_out(&[addressed(1, to(&["ann"]), 500)], 0);
        assert_eq!((first.delivered, first.slow.len()), (1, 0));
        let batch = [
            addressed(2, to(&["ann"]), 500),
            addressed(4, Recipients::Everyone, 500),
        ];
        let second = members.fan_out(&batch, 0);
        assert_eq!((second.delivered, second.slow.len()), (1, 1));
    }

    #[test]
    fn a_burst_waits_for_a_queue_that_is_half_full_until_its_socket_has_had_its_turn() {
        let mut members = Members::default();
        let writer = join(&mut members, 1, "ann", 0);
        let mut now = Instant::now();
        assert_eq!(members.pressed(now), None);
        members.fan_out(&[addressed(1, Recipients::Everyone, 600)], 0);
        for _ in 0..10_000 {
            now = members.pressed(now).expect("a wait");
        }
        writer.end_after(crate::socket::CloseReason::Restart);
        assert_eq!(members.pressed(now), None);
    }

    proptest! {
        /// Sent together or one by one: each socket gets the same, in the same order.
        #[test]
        fn a_batch_is_its_notifications_one_after_the_other(
            floors in prop::collection::vec(0u64..12, 1..6),
            events in prop::collection::vec(prop::option::of(prop::collection::btree_set(0usize..6, 0..4)), 1..20),
        ) {
            let batch: Vec<_> = (1u64..).zip(events).map(|(sequence, users)| {
                let recipients = match users {
                    Some(users) => Recipients::Users(users.iter().map(|user| format!("u{user}")).collect()),
                    None => Recipients::Everyone,
                };
                addressed(sequence, recipients, usize::try_from(sequence).unwrap())
            }).collect();
            let got = |size: usize| {
                let mut members = Members::default();
                let writers: Vec<_> = floors.iter().enumerate().map(|(user, floor)| {
                    join_with(&mut members, user as u128, &format!("u{user}"), *floor, usize::MAX)
                }).collect();
                let parts = batch.chunks(size).map(|part| members.fan_out(part, 0).delivered);
                let delivered: u64 = parts.sum();
                (delivered, writers.iter().map(Writer::drained).collect::<Vec<_>>())
            };
            prop_assert_eq!(got(1), got(batch.len()));
        }
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
}
