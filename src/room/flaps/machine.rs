//! Connections of one user that replace each other again and again: the pure machine that says when
//! newcomers are refused, and for how long. Every gateway has one, and all hear the same notices.
//!
//! Only a replacement that closed a *living* socket counts, which is what two tabs do that both
//! reconnect. A page that is loaded again, or a phone whose sockets are dead, closes none.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::auth::UserKey;
use crate::event::WorkspaceSlug;
use crate::room::SessionId;

/// Replacements of living sockets within [`WINDOW`] that make a flap.
const REPLACEMENTS: usize = 5;
/// The time in which replacements are counted.
const WINDOW: Duration = Duration::from_secs(30);
/// How long newcomers of a flapping user are refused.
const BLOCK: Duration = Duration::from_secs(60);
/// How long the answer to a probe may take, from whichever gateway has the standing socket. Who waits for
/// it is a browser that connects.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// So long a socket that answered is taken to live: a storm of newcomers costs one probe.
const ALIVE: Duration = Duration::from_secs(5);
/// Users that are remembered, at most; what further ones do is not counted.
const USERS_MAX: usize = 65_536;
/// Pause between two looks for users that can be forgotten: each goes through all of them.
const PRUNE_PAUSE: Duration = Duration::from_secs(1);

/// A user in a workspace.
pub(super) type Who = (WorkspaceSlug, UserKey);

/// What is known of all users.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    users: HashMap<Who, Flap>,
    /// When it was last looked for what no longer matters.
    pruned: Option<Instant>,
}

/// What is known of one user.
#[derive(Debug, Default)]
struct Flap {
    /// The oldest first.
    replaced: VecDeque<Replacement>,
    /// The session that stands, as far as it was heard: what a block protects.
    standing: Option<SessionId>,
    blocked_until: Option<Instant>,
    /// When the standing socket was last probed, unless it has answered.
    probed_at: Option<Instant>,
    alive_until: Option<Instant>,
    /// Newcomers who wait for an answer. It is dropped with the answer, which wakes them and nobody else.
    answer: Option<watch::Sender<()>>,
}

/// A living socket was closed for a newer one.
#[derive(Debug, Clone, Copy)]
struct Replacement {
    session: SessionId,
    by: SessionId,
    /// When that was heard.
    at: Instant,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomer {
    /// It may join.
    Welcome,
    /// It may join, and nobody stands there: all are to know.
    Vacant,
    /// The standing socket lives: come again after this time.
    Refused(Duration),
    /// Probe it, and look again with the answer.
    Probe,
    /// A probe is under way: look again with the answer, or then.
    Wait(Instant),
}

impl Flaps {
    /// Whether newcomers of `who` are not let in without a question.
    pub(super) fn is_blocked(&self, who: &Who, now: Instant) -> bool {
        self.users
            .get(who)
            .is_some_and(|flap| flap.blocked(now).is_some())
    }

    /// A living socket of `who`, that of `session`, was closed for that of `by`. It may be heard twice. `true`
    /// if newcomers are refused from now on.
    pub(super) fn replaced(
        &mut self,
        who: Who,
        session: SessionId,
        by: SessionId,
        now: Instant,
    ) -> bool {
        if !self.can_remember(&who, now) {
            return false;
        }
        let flap = self.users.entry(who).or_default();
        flap.forget_old(now);
        if flap.blocked(now).is_some() {
            // A newcomer was on its way in when the block began.
            if flap.standing == Some(session) {
                flap.standing = Some(by);
            }
            return false;
        }
        if flap.successor(session).is_some() {
            return false;
        }
        let at = now;
        flap.replaced.push_back(Replacement { session, by, at });
        flap.standing = Some(flap.latest(by));
        let is_flap = flap.replaced.len() >= REPLACEMENTS;
        if is_flap {
            // They stay known: another gateway may report them once more.
            flap.blocked_until = Some(now + BLOCK);
        }
        is_flap
    }

    /// The session `session` of `who` has ended: if it is the standing one, a block has nothing to protect.
    /// The end of another one, reported late by a gateway that was cut off, says nothing.
    pub(super) fn left(&mut self, who: &Who, session: SessionId) {
        let stood = |flap: &Flap| flap.standing == Some(session);
        if self.users.get(who).is_some_and(stood) {
            self.users.remove(who);
        }
    }

    /// Wakes with the next answer for `who`, and with the end of the block.
    pub(super) fn answer(&mut self, who: &Who) -> watch::Receiver<()> {
        let flap = self.users.entry(who.clone()).or_default();
        flap.answer.get_or_insert_default().subscribe()
    }

    /// What becomes of a newcomer. Of several, one gets [`Newcomer::Probe`].
    pub(super) fn newcomer(&mut self, who: &Who, now: Instant) -> Newcomer {
        let Some(flap) = self.users.get_mut(who) else {
            return Newcomer::Welcome;
        };
        let Some(blocked) = flap.blocked(now) else {
            return Newcomer::Welcome;
        };
        if flap.alive_until.is_some_and(|until| until > now) {
            return Newcomer::Refused(blocked);
        }
        match flap.probed_at {
            Some(probed_at) if now < probed_at + ANSWER => Newcomer::Wait(probed_at + ANSWER),
            // No gateway has a socket of the user, or the one that has it is cut off.
            Some(probed_at) if now < probed_at + 2 * ANSWER => {
                self.users.remove(who);
                Newcomer::Vacant
            }
            Some(_) | None => {
                flap.probed_at = Some(now);
                Newcomer::Probe
            }
        }
    }

    /// Some gateway probes the standing socket of `who`. The answer will be heard here, too.
    pub(super) fn probed(&mut self, who: &Who, now: Instant) {
        if let Some(flap) = self.users.get_mut(who) {
            flap.probed_at = Some(now);
        }
    }

    /// The standing socket of `who` lives, or does not.
    pub(super) fn answered(&mut self, who: &Who, is_alive: bool, now: Instant) {
        if !is_alive {
            self.users.remove(who);
        } else if let Some(flap) = self.users.get_mut(who) {
            flap.probed_at = None;
            flap.alive_until = Some(now + ALIVE);
            flap.answer = None;
        }
    }

    /// Whether `who` is remembered, or can be.
    fn can_remember(&mut self, who: &Who, now: Instant) -> bool {
        if self.users.len() < USERS_MAX || self.users.contains_key(who) {
            return true;
        }
        let is_due = self
            .pruned
            .is_none_or(|pruned| now.saturating_duration_since(pruned) >= PRUNE_PAUSE);
        if is_due {
            self.pruned = Some(now);
            self.users.retain(|_, flap| flap.matters(now));
        }
        self.users.len() < USERS_MAX
    }
}

impl Flap {
    /// For how long newcomers are still refused, if they are.
    fn blocked(&self, now: Instant) -> Option<Duration> {
        let left = self.blocked_until?.checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }

    fn matters(&self, now: Instant) -> bool {
        let is_recent = |replaced: &Replacement| is_within(replaced.at, now);
        self.blocked(now).is_some() || self.replaced.back().is_some_and(is_recent)
    }

    /// What `session` was replaced by.
    fn successor(&self, session: SessionId) -> Option<SessionId> {
        let mut replaced = self.replaced.iter();
        Some(replaced.find(|known| known.session == session)?.by)
    }

    /// What stands where `session` was: notices of several gateways come in any order.
    fn latest(&self, session: SessionId) -> SessionId {
        // Also in a circle, which no gateway reports, this ends.
        let replaced = self.replaced.iter();
        replaced.fold(session, |latest, _| {
            self.successor(latest).unwrap_or(latest)
        })
    }

    fn forget_old(&mut self, now: Instant) {
        while self
            .replaced
            .front()
            .is_some_and(|replaced| !is_within(replaced.at, now))
        {
            self.replaced.pop_front();
        }
    }
}

fn is_within(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Who {
        user("ann")
    }

    fn user(name: &str) -> Who {
        (
            WorkspaceSlug::parse("acme").unwrap(),
            UserKey::new(None, name),
        )
    }

    fn id(number: u128) -> SessionId {
        SessionId::from_u128(number)
    }

    /// A living socket of `who` was closed for that with the next number.
    fn replace(flaps: &mut Flaps, who: Who, number: u128, now: Instant) -> bool {
        flaps.replaced(who, id(number), id(number + 1), now)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A machine that has ann blocked since `now`.
    fn blocked(now: Instant) -> Flaps {
        let mut flaps = Flaps::default();
        for number in 0..5 {
            assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Welcome);
            replace(&mut flaps, ann(), number, now);
        }
        assert!(flaps.is_blocked(&ann(), now));
        flaps
    }

    #[test]
    fn five_replacements_in_thirty_seconds_block_for_a_minute() {
        let start = Instant::now();
        let mut flaps = Flaps::default();
        for number in 0..5 {
            let now = start + seconds(7 * number);
            replace(&mut flaps, ann(), number.into(), now);
            assert_eq!(flaps.is_blocked(&ann(), now), number == 4, "{number}");
        }
        let since = start + seconds(28);
        assert!(!flaps.is_blocked(&user("bob"), since));
        assert!(flaps.is_blocked(&ann(), since + seconds(59)));
        assert!(!flaps.is_blocked(&ann(), since + seconds(60)));
        assert_eq!(
            flaps.newcomer(&ann(), since + seconds(60)),
            Newcomer::Welcome
        );
    }

    #[test]
    fn slower_replacements_block_nobody_and_none_counts_twice() {
        let start = Instant::now();
        let mut flaps = Flaps::default();
        for number in 0..50 {
            let now = start + seconds(8 * number);
            // Here, and from the gateway that tells of it.
            replace(&mut flaps, ann(), number.into(), now);
            replace(&mut flaps, ann(), number.into(), now);
            assert!(!flaps.is_blocked(&ann(), now));
        }
    }

    #[test]
    fn what_is_told_late_does_not_block_again() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        for number in 3..20 {
            replace(&mut flaps, ann(), number, now + seconds(1));
        }
        assert!(!flaps.is_blocked(&ann(), now + seconds(60)));
    }

    #[test]
    fn newcomers_share_one_question_and_its_answer_until_that_is_old() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Probe);
        for _ in 0..10 {
            assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Wait(now + ANSWER));
        }
        flaps.answered(&ann(), true, now + seconds(1));
        let refused = |left| Newcomer::Refused(seconds(left));
        assert_eq!(flaps.newcomer(&ann(), now + seconds(1)), refused(59));
        assert_eq!(flaps.newcomer(&ann(), now + seconds(5)), refused(55));
        assert_eq!(flaps.newcomer(&ann(), now + seconds(6)), Newcomer::Probe);
    }

    #[test]
    fn another_gateways_question_is_everybodys() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        flaps.probed(&ann(), now);
        assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Wait(now + ANSWER));
    }

    #[test]
    fn a_dead_socket_gives_way() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        flaps.answered(&ann(), false, now);
        assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Welcome);
    }

    #[test]
    fn without_an_answer_nobody_stands_there() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Probe);
        assert_eq!(flaps.newcomer(&ann(), now + ANSWER), Newcomer::Vacant);
        assert_eq!(flaps.newcomer(&ann(), now + ANSWER), Newcomer::Welcome);
        assert!(!flaps.is_blocked(&ann(), now + ANSWER));
        // A question that nobody waited for says nothing.
        let mut flaps = blocked(now);
        assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Probe);
        assert_eq!(flaps.newcomer(&ann(), now + 2 * ANSWER), Newcomer::Probe);
    }

    #[test]
    fn the_block_ends_with_the_socket_that_it_protects_and_the_count_begins_anew() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        for other in [0, 3, 4, 77] {
            flaps.left(&ann(), id(other));
            assert!(flaps.is_blocked(&ann(), now), "{other}");
        }
        flaps.left(&ann(), id(5));
        for number in 10..14 {
            assert_eq!(flaps.newcomer(&ann(), now), Newcomer::Welcome);
            replace(&mut flaps, ann(), number, now);
        }
        assert!(!flaps.is_blocked(&ann(), now));
    }

    #[test]
    fn what_a_block_protects_is_known_in_whatever_order_gateways_tell() {
        let now = Instant::now();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]] {
            let mut flaps = Flaps::default();
            for number in order {
                replace(&mut flaps, ann(), number, now);
            }
            // One more was on its way in.
            replace(&mut flaps, ann(), 5, now);
            for number in 0..6 {
                flaps.left(&ann(), id(number));
                assert!(flaps.is_blocked(&ann(), now), "{order:?} {number}");
            }
            flaps.left(&ann(), id(6));
            assert!(!flaps.is_blocked(&ann(), now), "{order:?}");
        }
        // Nobody tells a circle; it would be no endless one.
        let mut flaps = Flaps::default();
        flaps.replaced(ann(), id(1), id(2), now);
        flaps.replaced(ann(), id(2), id(1), now);
    }

    #[test]
    fn an_answer_wakes_those_who_wait_for_it_and_nobody_else() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        for number in 0..5 {
            replace(&mut flaps, user("bob"), number, now);
        }
        let is_woken = |answer: &watch::Receiver<()>| answer.has_changed().is_err();
        for is_alive in [true, false] {
            let (ann_waits, bob_waits) = (flaps.answer(&ann()), flaps.answer(&user("bob")));
            flaps.answered(&ann(), is_alive, now);
            assert!(is_woken(&ann_waits) && !is_woken(&bob_waits));
        }
        let bob_waits = flaps.answer(&user("bob"));
        flaps.left(&user("bob"), id(5));
        assert!(is_woken(&bob_waits));
    }

    #[test]
    fn the_number_of_users_is_bounded_and_those_that_no_longer_matter_make_room() {
        let now = Instant::now();
        let mut flaps = blocked(now);
        for number in 0..USERS_MAX + 10 {
            replace(&mut flaps, user(&number.to_string()), 1, now);
        }
        assert_eq!(flaps.users.len(), USERS_MAX);
        let later = now + WINDOW;
        replace(&mut flaps, user("bob"), 2, later);
        assert_eq!(flaps.users.len(), 2);
        assert!(flaps.is_blocked(&ann(), later));
    }
}
