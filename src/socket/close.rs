//! Close codes: the one table of the code, its reason in plain words, and what a client does next.

use crate::auth::AuthError;

/// Why Herald closes a socket. A code says what the client does next; the reason is a short fixed
/// sentence of ours, never the text of a cause (a close frame holds 123 bytes of it, RFC 6455 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// 1002, stop: the client broke RFC 6455.
    Protocol,
    /// 1003, stop: the client sent a binary message.
    Binary,
    /// 1007, stop: a text message was not UTF-8.
    Utf8,
    /// 1009, stop: a message went over `sockets.max_message_bytes`.
    MessageTooBig,
    /// 1011, back off and reconnect: a fault of the gateway's own.
    Internal,
    /// 1012, reconnect with jitter: the gateway restarts.
    Restart,
    /// 4001, stop: no token.
    NoToken,
    /// 4001, stop: a bad token.
    BadToken,
    /// 4001, stop: a fresh token names another user.
    OtherUser,
    /// 4001, stop: the token is not good for the workspace.
    NoAccess,
    /// 4002, stop: no workspaceSlug.
    NoWorkspace,
    /// 4002, stop: a malformed workspaceSlug.
    BadWorkspace,
    /// 4003, get a new token and reconnect.
    TokenExpired,
    /// 4008, reconnect when needed.
    Inactive,
    /// 4009, stop: a newer connection of the same user took over.
    Replaced,
    /// 4010, back off and reconnect: too slow to keep up.
    TooSlow,
    /// 4029, back off: token frames faster than one in 10 s.
    TooManyTokens,
    /// 4029, back off: frames, of whatever kind, faster than the limit.
    TooManyMessages,
    /// 4029, back off: bytes faster than the limit.
    TooManyBytes,
}

impl CloseReason {
    /// The close code of RFC 6455 7.4.
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::Utf8 => 1007,
            Self::MessageTooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::NoToken | Self::BadToken | Self::OtherUser | Self::NoAccess => 4001,
            Self::NoWorkspace | Self::BadWorkspace => 4002,
            Self::TokenExpired => 4003,
            Self::Inactive => 4008,
            Self::Replaced => 4009,
            Self::TooSlow => 4010,
            Self::TooManyTokens | Self::TooManyMessages | Self::TooManyBytes => 4029,
        }
    }

    /// The reason text of the close frame.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Protocol => "protocol error",
            Self::Binary => "binary messages are not supported",
            Self::Utf8 => "text message is not valid UTF-8",
            Self::MessageTooBig => "message too big",
            Self::Internal => "internal error",
            Self::Restart => "gateway restarting",
            Self::NoToken => "missing token",
            Self::BadToken => "invalid token",
            Self::OtherUser => "token is for another user",
            Self::NoAccess => "no access to this workspace",
            Self::NoWorkspace => "missing workspaceSlug",
            Self::BadWorkspace => "malformed workspaceSlug",
            Self::TokenExpired => "token expired",
            Self::Inactive => "inactive",
            Self::Replaced => "replaced by a newer connection",
            Self::TooSlow => "too slow to keep up",
            Self::TooManyTokens => "too many token messages",
            Self::TooManyMessages => "too many messages",
            Self::TooManyBytes => "too many bytes",
        }
    }

    /// What to do with what the kernel has still to send to a peer that answers no close frame.
    pub(super) const fn unsent(self) -> Unsent {
        match self {
            // All that was stored before is for the peer.
            Self::TokenExpired => Unsent::Awaited,
            // The same, but a drain does not wait for long, and who is inactive has read all there was.
            Self::Restart
            | Self::Inactive
            | Self::Internal
            | Self::NoToken
            | Self::BadToken
            | Self::OtherUser
            | Self::NoAccess
            | Self::NoWorkspace
            | Self::BadWorkspace => Unsent::Left,
            // The peer is at fault, or it is dead.
            Self::Protocol
            | Self::Binary
            | Self::Utf8
            | Self::MessageTooBig
            | Self::Replaced
            | Self::TooSlow
            | Self::TooManyTokens
            | Self::TooManyMessages
            | Self::TooManyBytes => Unsent::Dropped,
        }
    }
}

/// What becomes of what the kernel has still to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The connection is reset.
    Dropped,
    /// The kernel sends it, with nobody here who reads: it gives up if the peer says anything more.
    Left,
    /// The same, but the peer is read for longer before, since it may have a pong or a heartbeat to say.
    Awaited,
}

impl From<AuthError> for CloseReason {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::NoToken,
            // Where it can still be said, it is told to come later instead.
            AuthError::Invalid(_) | AuthError::NotJson(..) | AuthError::NotYet(_) => Self::BadToken,
            AuthError::Expired => Self::TokenExpired,
        }
    }
}

/// A close code as a metric's label: the code itself where it is one that is expected.
pub fn code_label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1003 => "1003",
        1005 => "1005",
        1006 => "1006",
        1007 => "1007",
        1009 => "1009",
        1011 => "1011",
        1012 => "1012",
        4001 => "4001",
        4002 => "4002",
        4003 => "4003",
        4008 => "4008",
        4009 => "4009",
        4010 => "4010",
        4029 => "4029",
        _ => "other",
    }
}
