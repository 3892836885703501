//! Control messages: what a client that offers `herald.v2` gets beside notifications. Pure.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Bytes;

use super::frame::text_frame;
use super::session::SessionLimits;

/// How each control message begins, and no notification.
const BEGINNING: &str = "{\"herald\":";
/// JavaScript's numbers are exact up to here.
const INTEGER_MAX: u128 = (1 << 53) - 1;

/// One message. Times are in milliseconds, `expiresAt` since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "herald",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum ControlMessage {
    /// The first message. `heartbeat` is how often a client may well send one.
    Hello {
        session: String,
        expires_at: u64,
        heartbeat: u64,
    },
    /// The answer to a heartbeat: all that was queued before it came is written.
    Heartbeat,
    /// The answer to a fresh token.
    Token { expires_at: u64 },
}

impl ControlMessage {
    /// The first message of a session.
    pub(crate) fn hello(session: String, expires_at: SystemTime, limits: &SessionLimits) -> Self {
        Self::Hello {
            session,
            expires_at: since_1970(expires_at),
            heartbeat: integer(every(limits).as_millis()),
        }
    }

    /// The answer to a token.
    pub(crate) fn token(expires_at: SystemTime) -> Self {
        Self::Token {
            expires_at: since_1970(expires_at),
        }
    }

    /// Whether a message is a control message, perhaps one that only a newer gateway knows.
    pub(crate) fn is_one(text: &str) -> bool {
        text.starts_with(BEGINNING)
    }

    /// Reads one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As a frame.
    pub(crate) fn frame(&self) -> Bytes {
        // Texts and integers always make JSON.
        let text = serde_json::to_string(self).unwrap_or_default();
        text_frame(&text)
    }
}

/// As often as the gateway pings, and twice before a socket counts as inactive.
fn every(limits: &SessionLimits) -> Duration {
    limits.ping.min(limits.inactivity / 2)
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    integer(since.unwrap_or_default().as_millis())
}

fn integer(number: u128) -> u64 {
    u64::try_from(number.min(INTEGER_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        inactivity: Duration::from_secs(300),
        ping: Duration::from_secs(25),
        pong_is_activity: false,
    };

    #[test]
    fn messages_are_as_the_docs_have_them() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        for (message, text) in [
            (
                ControlMessage::hello("abc".to_owned(), at, &LIMITS),
                r#"{"herald":"hello","session":"abc","expiresAt":1800000000123,"heartbeat":25000}"#,
            ),
            (ControlMessage::Heartbeat, r#"{"herald":"heartbeat"}"#),
            (
                ControlMessage::token(at),
                r#"{"herald":"token","expiresAt":1800000000123}"#,
            ),
        ] {
            let frame = message.frame();
            assert!(frame.ends_with(text.as_bytes()), "{frame:?}");
            assert_eq!(ControlMessage::parse(text), Some(message));
        }
        let later = r#"{"herald":"later"}"#;
        assert!(ControlMessage::is_one(later) && ControlMessage::parse(later).is_none());
        assert!(!ControlMessage::is_one(
            r#"{"id":"1","herald":"heartbeat"}"#
        ));
    }

    #[test]
    fn heartbeats_come_twice_within_the_inactivity() {
        let quick = SessionLimits {
            inactivity: Duration::from_secs(2),
            ..LIMITS
        };
        let hello = ControlMessage::hello(String::new(), SystemTime::UNIX_EPOCH, &quick);
        assert!(matches!(
            hello,
            ControlMessage::Hello {
                heartbeat: 1000,
                expires_at: 0,
                ..
            }
        ));
    }
}
