//! Close codes: the one table of each code's number, when it comes, what a client does next, and the reasons with
//! which Herald sends it.

use serde::Serialize;

use crate::auth::AuthError;

/// What a client does after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Advice {
    /// The same would happen again.
    Stop,
    /// A new token first, then reconnect.
    Token,
    /// Wait, longer each time and by chance, then reconnect.
    BackOff,
    /// Reconnect.
    Now,
}

/// What becomes of what the kernel has still to send to a peer that answers no close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The connection is reset: the peer is at fault, or it is dead.
    Dropped,
    /// The kernel sends it, with nobody here who reads: it gives up if the peer says anything more. A drain does
    /// not wait for long, and an inactive peer has read all there was.
    Left,
    /// The same, but the peer is read for longer before, since it may have a pong or a heartbeat to say. All that
    /// was stored before is for this peer.
    Awaited,
}

/// A close code: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct CloseCode {
    pub number: u16,
    /// In metrics.
    pub label: &'static str,
    /// When a client sees it.
    pub when: &'static str,
    pub client: Advice,
    /// The reasons that Herald gives; none if the code comes from others only.
    pub reasons: &'static [&'static str],
}

macro_rules! close_codes {
    ($(
        $number:literal $client:ident $when:literal {
            $( $(#[$doc:meta])* $reason:ident $unsent:ident $text:literal )*
        }
    )+) => {
        /// Why Herald closes a socket. A code says what the client does next. The reason is a short fixed sentence,
        /// never the text of a cause: a close frame has 123 bytes for it (RFC 6455 5.5).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseReason {
            $( $( $(#[$doc])* $reason, )* )+
        }

        impl CloseReason {
            pub const ALL: &[Self] = &[$( $( Self::$reason, )* )+];

            /// The close code of RFC 6455 7.4.
            pub const fn code(self) -> u16 {
                match self {
                    $( $( Self::$reason => $number, )* )+
                }
            }

            /// The reason text of the close frame.
            pub const fn text(self) -> &'static str {
                match self {
                    $( $( Self::$reason => $text, )* )+
                }
            }

            /// Whether the socket gets nothing more, not even what waits for it: it is too slow for that, or has no right
            /// to it.
            pub(crate) const fn is_immediate(self) -> bool {
                matches!(self.code(), 4001 | 4010)
            }

            pub(crate) const fn unsent(self) -> Unsent {
                match self {
                    $( $( Self::$reason => Unsent::$unsent, )* )+
                }
            }
        }

        /// All codes that are expected, those that only others send included.
        pub const CLOSE_CODES: &[CloseCode] = &[$(
            CloseCode {
                number: $number,
                label: stringify!($number),
                when: $when,
                client: Advice::$client,
                reasons: &[$( $text ),*],
            },
        )+];
    };
}

// Each code: what the client does, when it comes; then the reasons that Herald gives with it.
close_codes! {
    1000 BackOff "normal, not by the gateway" {}
    1001 BackOff "the other side goes away" {}
    1002 Stop "protocol error" {
        /// The client broke RFC 6455.
        Protocol Dropped "protocol error"
    }
    1003 Stop "binary data" {
        Binary Dropped "binary messages are not supported"
    }
    1005 BackOff "no code was sent" {}
    1006 BackOff "the connection broke, or the handshake failed" {}
    1007 Stop "invalid UTF-8" {
        Utf8 Dropped "text message is not valid UTF-8"
    }
    1009 Stop "message too long" {
        /// A message went over `sockets.max_message_bytes`.
        MessageTooBig Dropped "message too big"
    }
    1011 BackOff "fault of the gateway" {
        Internal Left "internal error"
    }
    1012 BackOff "gateway restarts" {
        Restart Left "gateway restarting"
    }
    4001 Stop "token missing or invalid, or no access to the workspace" {
        NoToken Left "missing token"
        BadToken Left "invalid token"
        /// A fresh token over the open socket names another user.
        OtherUser Left "token is for another user"
        NoAccess Left "no access to this workspace"
        /// The user, the token or its key was revoked while the socket was open.
        Revoked Dropped "revoked"
    }
    4002 Stop "workspace missing or malformed" {
        NoWorkspace Left "missing workspaceSlug"
        BadWorkspace Left "malformed workspaceSlug"
    }
    4003 Token "token expired" {
        TokenExpired Awaited "token expired"
    }
    4008 Now "inactive" {
        Inactive Left "inactive"
    }
    4009 Stop "replaced by a newer connection" {
        Replaced Dropped "replaced by a newer connection"
    }
    4010 BackOff "too slow" {
        TooSlow Dropped "too slow to keep up"
    }
    4029 BackOff "too many messages" {
        /// Token frames came faster than one in 10 s.
        TooManyTokens Dropped "too many token messages"
        /// Frames of whatever kind came faster than the limit.
        TooManyMessages Dropped "too many messages"
        TooManyBytes Dropped "too many bytes"
    }
}

/// In metrics, a peer that answered no ping: it gets no close frame.
pub const DEAD_PEER: &str = "dead_peer";

impl From<AuthError> for CloseReason {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::NoToken,
            // Before the upgrade the client gets "try again later" instead.
            AuthError::Invalid(_)
            | AuthError::NotJson(..)
            | AuthError::NotYet(_)
            | AuthError::UnknownKey => Self::BadToken,
            AuthError::Revoked => Self::Revoked,
            AuthError::Expired => Self::TokenExpired,
        }
    }
}

/// The row of a code.
pub fn close_code(number: u16) -> Option<&'static CloseCode> {
    CLOSE_CODES.iter().find(|code| code.number == number)
}

/// A close code as a metric's label: the code itself if it is expected.
pub fn code_label(number: u16) -> &'static str {
    close_code(number).map_or("other", |code| code.label)
}
