//! What follows from how a connection ended. Pure. The numbers are those of the contract's NotificationManager. What a
//! client does after a close code is in the close-code table.

use std::time::Duration;

use crate::codes::{Advice, close_code};

/// Retry-After is honoured up to this. A gateway that asks for longer is as good as gone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// A delay is lengthened by up to this share of it, so that the clients of a gateway that restarts
/// do not come back in the same moment. Never shortened: the contract's delays are the least.
const JITTER: f64 = 0.5;

/// A close with 4003 sooner than this after the open is a refusal. It only looks like an open, since a browser sees
/// nothing of a failed handshake. It does not reset the attempts: a token command that prints expired tokens must come
/// to an end.
const REFUSAL_WITHIN: Duration = Duration::from_secs(5);

/// How a connection, or the attempt to make one, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disconnect {
    /// A close frame, or what would be its code.
    Closed { code: u16, reason: String },
    /// No close frame: what a browser calls 1006.
    Lost,
    /// An HTTP answer instead of the upgrade.
    Refused {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// No answer at all.
    Unreachable(String),
    /// The gateway's certificate is not trusted.
    Untrusted(String),
    /// The token command gave no token.
    NoToken(String),
}

/// The next attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Retry {
    pub(super) delay: Duration,
    pub(super) renew_token: bool,
    pub(super) why: String,
}

/// How fast and how often to reconnect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub first: Duration,
    pub longest: Duration,
    pub attempts: u32,
}

impl Pace {
    /// "Start with 1 second", "Max 30 seconds", `maxReconnectAttempts = 5`.
    pub(super) const CONTRACT: Self = Self {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        attempts: 5,
    };
}

/// The back-off from one end of a connection to the next.
#[derive(Debug)]
pub(super) struct Reconnect {
    pace: Pace,
    can_renew_token: bool,
    attempts: u32,
    delay: Duration,
}

impl Reconnect {
    pub(super) fn new(pace: Pace, can_renew_token: bool) -> Self {
        Self {
            pace,
            can_renew_token,
            attempts: 0,
            delay: pace.first,
        }
    }

    /// The attempt after `disconnect`. `open_for` is how long the connection was open, if it ever was; `jitter` is a
    /// random number from 0 to 1.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn next(
        &mut self,
        disconnect: &Disconnect,
        open_for: Option<Duration>,
        jitter: f64,
    ) -> Result<Retry, String> {
        let expired =
            matches!(disconnect, Disconnect::Closed { code, .. } if advice(*code) == Advice::Token);
        if open_for.is_some_and(|open_for| !expired || open_for >= REFUSAL_WITHIN) {
            self.attempts = 0;
            self.delay = self.pace.first;
        }
        let (what, least) = disconnect.judge(self.can_renew_token);
        let least = least.map_err(|way_out| format!("{what}: {way_out}"))?;
        let Pace {
            attempts, longest, ..
        } = self.pace;
        if self.attempts >= attempts {
            return Err(format!("{what}: gave up after {attempts} attempts"));
        }
        self.attempts += 1;
        let delay = self.delay.max(least).mul_f64(1.0 + JITTER * jitter);
        self.delay = (self.delay * 2).min(longest);
        let (this, seconds) = (self.attempts, delay.as_secs_f64());
        Ok(Retry {
            delay,
            renew_token: expired,
            why: format!("{what}; attempt {this} of {attempts} in {seconds:.1} s"),
        })
    }
}

impl Disconnect {
    /// A close without a reason.
    pub(super) const fn by_code(code: u16) -> Self {
        Self::Closed {
            code,
            reason: String::new(),
        }
    }

    /// What happened, and the least delay before a reconnect or, where that is of no use, the way out.
    fn judge(&self, can_renew_token: bool) -> (String, Result<Duration, &'static str>) {
        let soon = Ok(Duration::ZERO);
        match self {
            Self::Closed { code, reason } => {
                // The reason is another's text: shown, but not able to steer a terminal.
                let reason = match reason.as_str() {
                    "" => close_code(*code)
                        .map_or("no reason given", |row| row.when)
                        .into(),
                    reason => reason.escape_debug().to_string(),
                };
                let least = match (advice(*code), code) {
                    (Advice::Token, _) if !can_renew_token => {
                        Err("give a new token, or --token-command to have one made")
                    }
                    (Advice::Token | Advice::BackOff | Advice::Now, _) => soon,
                    (Advice::Stop, 4001) => Err("check the token and its workspaces"),
                    (Advice::Stop, 4002) => Err("give --workspace with the workspace's slug"),
                    (Advice::Stop, 4009) => {
                        Err("one connection per user and workspace, and the newest stays")
                    }
                    (Advice::Stop, _) => Err("the two sides do not speak the same protocol"),
                };
                (format!("closed with {code} ({reason})"), least)
            }
            Self::Lost => ("connection lost (1006)".to_owned(), soon),
            Self::Refused {
                status,
                retry_after,
            } => {
                let least = match status {
                    409 | 429 | 500 | 502..=504 => {
                        Ok(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
                    }
                    _ => Err("check that the address is a Herald gateway's"),
                };
                (format!("refused with HTTP {status}"), least)
            }
            Self::Unreachable(error) => (format!("cannot connect: {error}"), soon),
            Self::Untrusted(error) => {
                let way_out = "check the address, or give the authority with --ca";
                (format!("no trust: {error}"), Err(way_out))
            }
            Self::NoToken(error) => (format!("no token: {error}"), soon),
        }
    }
}

fn advice(code: u16) -> Advice {
    close_code(code).map_or(Advice::BackOff, |row| row.client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16) -> Disconnect {
        Disconnect::by_code(code)
    }

    fn refused(status: u16) -> Disconnect {
        Disconnect::Refused {
            status,
            retry_after: None,
        }
    }

    fn first(outcome: &Disconnect, can_renew: bool) -> Result<Retry, String> {
        let open_for = matches!(outcome, Disconnect::Closed { .. } | Disconnect::Lost)
            .then_some(Duration::from_secs(60));
        Reconnect::new(Pace::CONTRACT, can_renew).next(outcome, open_for, 0.0)
    }

    #[test]
    fn some_ends_are_final() {
        for (outcome, expected) in [
            (closed(4001), "check the token"),
            (closed(4002), "--workspace"),
            (closed(4003), "token expired"),
            (closed(4009), "the newest stays"),
            (closed(1002), "protocol"),
            (closed(1003), "protocol"),
            (closed(1007), "protocol"),
            (closed(1009), "protocol"),
            (refused(200), "address"),
            (refused(301), "address"),
            (refused(400), "address"),
            (refused(401), "address"),
            (refused(404), "address"),
            (refused(426), "address"),
            (refused(501), "address"),
            (Disconnect::Untrusted("UnknownIssuer".to_owned()), "--ca"),
        ] {
            match first(&outcome, false) {
                Err(why) => assert!(why.contains(expected), "{outcome:?}: {why}"),
                Ok(retry) => panic!("{outcome:?}: {retry:?}"),
            }
        }
    }

    #[test]
    fn other_ends_are_waited_out() {
        for outcome in [
            closed(4008),
            closed(4010),
            closed(4029),
            closed(1000),
            closed(1001),
            closed(1005),
            closed(1011),
            closed(1012),
            closed(1013),
            closed(4999),
            Disconnect::Lost,
            refused(409),
            refused(429),
            refused(500),
            refused(502),
            refused(503),
            refused(504),
            Disconnect::Unreachable("refused".to_owned()),
            Disconnect::NoToken("it failed".to_owned()),
        ] {
            let retry = first(&outcome, false).unwrap();
            assert_eq!(retry.delay, Duration::from_secs(1), "{outcome:?}");
            assert!(!retry.renew_token, "{outcome:?}");
        }
    }

    #[test]
    fn an_expired_token_is_renewed_where_there_is_a_command() {
        assert!(first(&closed(4003), true).unwrap().renew_token);
    }

    fn delays(
        reconnect: &mut Reconnect,
        outcome: &Disconnect,
        open_for: Option<Duration>,
    ) -> Vec<u64> {
        let mut delays = Vec::new();
        while let Ok(retry) = reconnect.next(outcome, open_for, 0.0) {
            delays.push(retry.delay.as_secs());
            assert!(delays.len() < 10, "it never stops");
        }
        delays
    }

    #[test]
    fn the_delay_doubles_and_the_fifth_attempt_is_the_last() {
        let mut reconnect = Reconnect::new(Pace::CONTRACT, false);
        assert_eq!(
            delays(&mut reconnect, &Disconnect::Lost, None),
            [1, 2, 4, 8, 16]
        );
        let long = Pace {
            attempts: 8,
            ..Pace::CONTRACT
        };
        let mut reconnect = Reconnect::new(long, false);
        assert_eq!(
            delays(&mut reconnect, &Disconnect::Lost, None),
            [1, 2, 4, 8, 16, 30, 30, 30]
        );
        let why = reconnect.next(&Disconnect::Lost, None, 0.0).unwrap_err();
        assert!(why.contains("gave up after 8 attempts"), "{why}");
    }

    #[test]
    fn an_open_resets_the_attempts() {
        let mut reconnect = Reconnect::new(Pace::CONTRACT, true);
        let unreachable = Disconnect::Unreachable(String::new());
        let mut delay_after = |outcome: &Disconnect, open_for| {
            let retry = reconnect.next(outcome, open_for, 0.0).unwrap();
            retry.delay.as_secs()
        };
        for _ in 0..3 {
            // However short it was.
            assert_eq!(delay_after(&closed(1012), Some(Duration::ZERO)), 1);
            for expected in [2, 4, 8, 16] {
                assert_eq!(delay_after(&unreachable, None), expected);
            }
            // A connection that was open until its token expired was open, too.
            assert_eq!(delay_after(&closed(4003), Some(REFUSAL_WITHIN)), 1);
            assert_eq!(delay_after(&unreachable, None), 2);
        }
    }

    /// A token command that gives out expired tokens: each is refused right after the upgrade.
    #[test]
    fn tokens_that_are_expired_from_the_start_come_to_an_end() {
        let mut reconnect = Reconnect::new(Pace::CONTRACT, true);
        let soon = Some(Duration::from_millis(20));
        assert_eq!(
            delays(&mut reconnect, &closed(4003), soon),
            [1, 2, 4, 8, 16]
        );
    }

    #[test]
    fn retry_after_is_the_least_delay() {
        for (wanted, expected) in [(0, 1), (1, 1), (60, 60), (600, 600), (86_400, 600)] {
            let outcome = Disconnect::Refused {
                status: 503,
                retry_after: Some(Duration::from_secs(wanted)),
            };
            let retry = first(&outcome, false).unwrap();
            assert_eq!(retry.delay.as_secs(), expected);
        }
    }

    #[test]
    fn jitter_lengthens_a_delay_and_never_shortens_it() {
        for (jitter, expected) in [(0.0, 1000), (0.5, 1250), (1.0, 1500)] {
            let mut reconnect = Reconnect::new(Pace::CONTRACT, false);
            let retry = reconnect.next(&Disconnect::Lost, None, jitter).unwrap();
            assert_eq!(retry.delay.as_millis(), expected);
        }
    }

    #[test]
    fn a_close_reason_cannot_steer_the_terminal() {
        let outcome = Disconnect::Closed {
            code: 4001,
            reason: "\u{1b}[2Jgone\n".to_owned(),
        };
        assert!(!outcome.judge(false).0.contains(['\u{1b}', '\n']));
    }
}
