//! The session machine: what one socket's inputs mean. Pure: time comes in, actions go out.

use std::time::{Duration, Instant, SystemTime};

use crate::codes::CloseReason;
use crate::config::SocketsConfig;
use crate::json::{self, Value};

/// Token frames taken: at most one in this time.
const TOKEN_EVERY: Duration = Duration::from_secs(10);
/// The same while the token that counts ends within [`TOKEN_EVERY`]: its successor cannot wait for so long.
const TOKEN_EVERY_AT_ITS_END: Duration = Duration::from_secs(1);
/// Pings that may stay unanswered.
const UNANSWERED_MAX: u32 = 2;

/// Timers that every session shares.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    pub inactivity: Duration,
    pub ping: Duration,
    pub pong_is_activity: bool,
}

impl From<&SocketsConfig> for SessionLimits {
    fn from(config: &SocketsConfig) -> Self {
        Self {
            inactivity: config.inactivity,
            ping: config.ping,
            pong_is_activity: config.pong_is_activity,
        }
    }
}

/// What happened on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionInput<'a> {
    /// A whole text message.
    Text(&'a str),
    Binary,
    Ping,
    Pong,
    /// [`Session::deadline`] has passed, or something else woke the pump.
    Time,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Nothing,
    /// Send a ping.
    Ping,
    /// It was a heartbeat. Who speaks `herald.v2` gets an answer.
    Heartbeat,
    /// It was a fresh token; from now on that one's end counts. The same.
    Renewed(SystemTime),
    /// Close now: the client's own doing.
    Close(CloseReason),
    /// Close once everything stored until now is written: Herald's own decision.
    CloseAfterCatchUp(CloseReason),
    /// The peer is dead: end the connection without a frame.
    Dead,
}

/// One socket's state.
#[derive(Debug)]
pub struct Session {
    limits: SessionLimits,
    /// When the token ends, by the wall clock.
    expires_at: SystemTime,
    active_at: Instant,
    ping_at: Instant,
    unanswered: u32,
    token_at: Option<Instant>,
    /// A close was decided; inputs change nothing any more.
    decided: bool,
}

impl Session {
    /// A session that opens `now`. Its first ping comes after `first_ping`.
    pub fn new(
        limits: SessionLimits,
        expires_at: SystemTime,
        now: Instant,
        first_ping: Duration,
    ) -> Self {
        Self {
            limits,
            expires_at,
            active_at: now,
            ping_at: now + first_ping.min(limits.ping),
            unanswered: 0,
            token_at: None,
            decided: false,
        }
    }

    /// When [`SessionInput::Time`] is due at the latest.
    pub fn deadline(&self, now: Instant, wall: SystemTime) -> Instant {
        let expiry = now
            + self
                .expires_at
                .duration_since(wall)
                .unwrap_or(Duration::ZERO)
                // The wall clock may be set: it is looked at with each ping at the latest.
                .min(self.limits.ping);
        self.ping_at
            .min(self.active_at + self.limits.inactivity)
            .min(expiry)
    }

    /// Whether a close has been decided.
    pub fn is_decided(&self) -> bool {
        self.decided
    }

    /// A notification was written `at` that time, which is activity.
    pub fn written(&mut self, at: Instant) {
        self.active_at = self.active_at.max(at);
    }

    /// Takes one input. `refresh` verifies a fresh token beside one that ends at that time, and says when the
    /// fresh one does.
    pub fn take(
        &mut self,
        input: SessionInput<'_>,
        now: Instant,
        wall: SystemTime,
        refresh: impl FnOnce(&str, SystemTime) -> Result<SystemTime, CloseReason>,
    ) -> Action {
        if self.decided {
            return Action::Nothing;
        }
        let action = match input {
            SessionInput::Text(text) => self.text(text, now, wall, refresh),
            SessionInput::Binary => Action::Close(CloseReason::Binary),
            SessionInput::Ping => {
                self.active_at = now;
                Action::Nothing
            }
            SessionInput::Pong => {
                self.unanswered = 0;
                if self.limits.pong_is_activity {
                    self.active_at = now;
                }
                Action::Nothing
            }
            SessionInput::Time => self.time(now, wall),
        };
        self.decided = matches!(
            action,
            Action::Close(_) | Action::CloseAfterCatchUp(_) | Action::Dead
        );
        action
    }

    fn text(
        &mut self,
        text: &str,
        now: Instant,
        wall: SystemTime,
        refresh: impl FnOnce(&str, SystemTime) -> Result<SystemTime, CloseReason>,
    ) -> Action {
        self.active_at = now;
        // Text that is not JSON, or not an object, is activity and nothing more.
        let Ok(Value::Object(mut message)) = json::parse(text.as_bytes()) else {
            return Action::Nothing;
        };
        match message.get("type").and_then(Value::as_str) {
            Some("token") => {}
            Some("heartbeat") => return Action::Heartbeat,
            _ => return Action::Nothing,
        }
        let least = if self.expires_at <= wall + TOKEN_EVERY {
            TOKEN_EVERY_AT_ITS_END
        } else {
            TOKEN_EVERY
        };
        if self
            .token_at
            .is_some_and(|last| now.saturating_duration_since(last) < least)
        {
            return Action::Close(CloseReason::TooManyTokens);
        }
        self.token_at = Some(now);
        match message.remove("token") {
            Some(Value::String(token)) if !token.is_empty() => {
                match refresh(&token, self.expires_at) {
                    Ok(expires_at) => {
                        self.expires_at = expires_at;
                        Action::Renewed(expires_at)
                    }
                    Err(reason) => Action::Close(reason),
                }
            }
            _ => Action::Close(CloseReason::NoToken),
        }
    }

    fn time(&mut self, now: Instant, wall: SystemTime) -> Action {
        if wall >= self.expires_at {
            return Action::CloseAfterCatchUp(CloseReason::TokenExpired);
        }
        if now.saturating_duration_since(self.active_at) >= self.limits.inactivity {
            return Action::CloseAfterCatchUp(CloseReason::Inactive);
        }
        if now >= self.ping_at {
            if self.unanswered >= UNANSWERED_MAX {
                return Action::Dead;
            }
            self.unanswered += 1;
            // From when it was due, so that those that are due together stay so; but where the process stood still,
            // there is one for all that were missed.
            let next = self.ping_at + self.limits.ping;
            self.ping_at = if next > now {
                next
            } else {
                now + self.limits.ping
            };
            return Action::Ping;
        }
        Action::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        inactivity: Duration::from_secs(300),
        ping: Duration::from_secs(25),
        pong_is_activity: false,
    };

    struct Clock {
        session: Session,
        start: Instant,
        wall: SystemTime,
        at: Duration,
        /// The fresh tokens that were to be verified, and what that comes to.
        tokens: Vec<String>,
        verified: Result<SystemTime, CloseReason>,
    }

    impl Clock {
        fn new(limits: SessionLimits, expires_in: u64) -> Self {
            let start = Instant::now();
            let wall = SystemTime::now();
            Self {
                session: Session::new(
                    limits,
                    wall + Duration::from_secs(expires_in),
                    start,
                    limits.ping,
                ),
                start,
                wall,
                at: Duration::ZERO,
                tokens: Vec::new(),
                verified: Ok(wall + Duration::from_secs(expires_in)),
            }
        }

        fn take(&mut self, seconds: u64, input: SessionInput<'_>) -> Action {
            self.at = Duration::from_secs(seconds);
            let refresh = |token: &str, _| {
                self.tokens.push(token.to_owned());
                self.verified
            };
            self.session
                .take(input, self.start + self.at, self.wall + self.at, refresh)
        }

        /// Lets time pass until something other than a ping is to be done; pongs answer pings.
        fn run(&mut self, pongs: bool) -> (u64, Action) {
            loop {
                let now = self.start + self.at;
                let due = self.session.deadline(now, self.wall + self.at);
                self.at += due.saturating_duration_since(now);
                match self.take(self.at.as_secs(), SessionInput::Time) {
                    Action::Nothing | Action::Heartbeat | Action::Renewed(_) => {}
                    Action::Ping if pongs => {
                        self.take(self.at.as_secs(), SessionInput::Pong);
                    }
                    Action::Ping => {}
                    action => return (self.at.as_secs(), action),
                }
            }
        }
    }

    #[test]
    fn pongs_alone_are_no_activity() {
        let mut clock = Clock::new(LIMITS, 10_000);
        assert_eq!(
            clock.run(true),
            (300, Action::CloseAfterCatchUp(CloseReason::Inactive))
        );
    }

    #[test]
    fn pongs_are_activity_where_the_setting_says_so() {
        let limits = SessionLimits {
            pong_is_activity: true,
            ..LIMITS
        };
        let mut clock = Clock::new(limits, 10_000);
        assert_eq!(
            clock.run(true),
            (10_000, Action::CloseAfterCatchUp(CloseReason::TokenExpired))
        );
    }

    #[test]
    fn pings_and_texts_are_activity() {
        for (input, action) in [
            (SessionInput::Ping, Action::Nothing),
            (
                SessionInput::Text("{\"type\":\"heartbeat\"}"),
                Action::Heartbeat,
            ),
            (SessionInput::Text("not json"), Action::Nothing),
        ] {
            let mut clock = Clock::new(LIMITS, 10_000);
            assert_eq!(clock.take(200, input), action);
            assert_eq!(
                clock.run(true),
                (500, Action::CloseAfterCatchUp(CloseReason::Inactive)),
                "{input:?}"
            );
        }
    }

    #[test]
    fn a_notification_is_activity_also_where_it_is_told_of_later() {
        let mut clock = Clock::new(LIMITS, 10_000);
        clock
            .session
            .written(clock.start + Duration::from_secs(200));
        clock.session.written(clock.start);
        assert_eq!(
            clock.run(true),
            (500, Action::CloseAfterCatchUp(CloseReason::Inactive))
        );
    }

    #[test]
    fn two_unanswered_pings_mean_a_dead_peer() {
        let mut clock = Clock::new(LIMITS, 10_000);
        assert_eq!(clock.run(false), (75, Action::Dead));
    }

    #[test]
    fn a_ping_that_is_late_delays_no_other_and_many_that_were_missed_are_one() {
        let mut clock = Clock::new(LIMITS, 10_000);
        let pings = |clock: &mut Clock, at| {
            assert_eq!(clock.take(at, SessionInput::Time), Action::Ping, "{at}");
            clock.take(at, SessionInput::Pong);
            assert_eq!(clock.take(at, SessionInput::Time), Action::Nothing, "{at}");
        };
        for at in [26, 50, 140, 165] {
            pings(&mut clock, at);
        }
    }

    #[test]
    fn a_fresh_token_moves_the_expiry_and_a_bad_one_closes() {
        let mut clock = Clock::new(LIMITS, 100);
        // Also after a byte order mark, and beside what other readers of JSON refuse.
        let token = "\u{feff}{\"type\":\"token\",\"token\":\"t\",\"x\":[1e400,\"\\ud83d\"]}";
        let later = clock.wall + Duration::from_secs(200);
        clock.verified = Ok(later);
        assert_eq!(
            clock.take(50, SessionInput::Text(token)),
            Action::Renewed(later)
        );
        assert_eq!(clock.tokens, ["t"]);
        assert_eq!(
            clock.run(true),
            (200, Action::CloseAfterCatchUp(CloseReason::TokenExpired))
        );
        let mut clock = Clock::new(LIMITS, 100);
        clock.verified = Err(CloseReason::BadToken);
        assert_eq!(
            clock.take(1, SessionInput::Text(token)),
            Action::Close(CloseReason::BadToken)
        );
        assert_eq!(
            clock.take(2, SessionInput::Binary),
            Action::Nothing,
            "it is decided"
        );
    }

    #[test]
    fn token_frames_come_at_most_once_in_ten_seconds() {
        let token = "{\"type\":\"token\",\"token\":\"t\"}";
        let mut clock = Clock::new(LIMITS, 100);
        for at in [1, 11] {
            assert!(matches!(
                clock.take(at, SessionInput::Text(token)),
                Action::Renewed(_)
            ));
        }
        assert_eq!(
            clock.take(20, SessionInput::Text(token)),
            Action::Close(CloseReason::TooManyTokens)
        );
        assert_eq!(clock.tokens.len(), 2);
    }

    /// A client whose tokens live for 5 s could not stay otherwise.
    #[test]
    fn a_token_that_ends_soon_may_be_followed_sooner_but_once_a_second() {
        let token = "{\"type\":\"token\",\"token\":\"t\"}";
        let mut clock = Clock::new(LIMITS, 5);
        for at in [3, 6, 9, 12] {
            let until = clock.wall + Duration::from_secs(at + 5);
            clock.verified = Ok(until);
            let taken = clock.take(at, SessionInput::Text(token));
            assert_eq!(taken, Action::Renewed(until), "{at}");
        }
        assert_eq!(
            clock.take(12, SessionInput::Text(token)),
            Action::Close(CloseReason::TooManyTokens)
        );
    }

    #[test]
    fn a_token_frame_without_a_token_is_a_missing_token() {
        for frame in [
            "{\"type\":\"token\"}",
            "{\"type\":\"token\",\"token\":\"\"}",
            "{\"type\":\"token\",\"token\":7}",
        ] {
            let mut clock = Clock::new(LIMITS, 100);
            assert_eq!(
                clock.take(1, SessionInput::Text(frame)),
                Action::Close(CloseReason::NoToken),
                "{frame}"
            );
        }
    }

    #[test]
    fn other_valid_text_is_ignored() {
        for text in ["", "[]", "{\"type\":7}", "{\"type\":\"subscribe\"}", "null"] {
            let mut clock = Clock::new(LIMITS, 100);
            assert_eq!(
                clock.take(1, SessionInput::Text(text)),
                Action::Nothing,
                "{text}"
            );
        }
    }

    #[test]
    fn a_decided_close_is_not_decided_again() {
        let mut clock = Clock::new(LIMITS, 10);
        assert!(matches!(
            clock.take(10, SessionInput::Time),
            Action::CloseAfterCatchUp(_)
        ));
        assert_eq!(clock.take(11, SessionInput::Time), Action::Nothing);
        assert_eq!(clock.take(11, SessionInput::Binary), Action::Nothing);
    }

    #[test]
    fn a_wall_clock_that_is_set_is_noticed_with_the_next_ping() {
        let mut clock = Clock::new(LIMITS, 5_000);
        let due = clock.session.deadline(clock.start, clock.wall);
        assert_eq!(due - clock.start, LIMITS.ping);
        clock.wall += Duration::from_secs(10_000);
        assert_eq!(
            clock.take(25, SessionInput::Time),
            Action::CloseAfterCatchUp(CloseReason::TokenExpired)
        );
    }
}
