//! When a room ends: some time after its last socket. Pure.

use std::time::{Duration, Instant};

/// How long a room stays after its last socket: a reload or a reconnect finds it still there.
const LINGER: Duration = Duration::from_secs(60);

/// Since when a room has no sockets.
#[derive(Debug)]
pub(super) struct Lifetime {
    empty_since: Option<Instant>,
    /// The registry knows that the room has, or had, no sockets.
    is_lingering: bool,
}

/// Whether a room goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    GoesOn,
    /// It has no sockets any more, which the registry does not know yet.
    Lingers,
    /// It may end.
    Over,
}

impl Lifetime {
    /// Of a room that begins, without sockets.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            empty_since: Some(now),
            is_lingering: false,
        }
    }

    /// Looks whether a room goes on that has no sockets if it `is_empty`.
    pub(super) fn look(&mut self, is_empty: bool, now: Instant) -> Life {
        if !is_empty {
            self.empty_since = None;
            return Life::GoesOn;
        }
        let since = *self.empty_since.get_or_insert(now);
        if now >= since + LINGER {
            return Life::Over;
        }
        if std::mem::replace(&mut self.is_lingering, true) {
            Life::GoesOn
        } else {
            Life::Lingers
        }
    }

    /// The room is not to end yet: somebody is about to join.
    pub(super) fn extend(&mut self, now: Instant) {
        self.empty_since = Some(now);
    }

    /// Too many rooms linger: this one ends now, if it has no sockets.
    pub(super) fn cut_short(&mut self, is_empty: bool, now: Instant) {
        self.is_lingering = false;
        if is_empty {
            self.empty_since = now.checked_sub(LINGER);
        }
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.empty_since.map(|since| since + LINGER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_ends_a_minute_after_its_last_socket_or_when_too_many_linger() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(start);
        assert_eq!(lifetime.look(true, start), Life::Lingers);
        assert_eq!(lifetime.look(false, start + LINGER), Life::GoesOn);
        let empty = start + 2 * LINGER;
        assert_eq!(lifetime.look(true, empty), Life::GoesOn, "it is known");
        assert_eq!(lifetime.deadline(), Some(empty + LINGER));
        assert_eq!(lifetime.look(true, empty + LINGER), Life::Over);
        lifetime.extend(empty + LINGER);
        assert_eq!(lifetime.look(true, empty + LINGER), Life::GoesOn);
        lifetime.cut_short(true, empty + LINGER);
        assert_eq!(lifetime.look(true, empty + LINGER), Life::Over);
    }
}
