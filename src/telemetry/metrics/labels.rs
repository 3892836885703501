//! The words that are labels, each from an enum or a fixed list, so that the number of series is
//! bounded.

/// Why a live message was dropped before its room looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveDrop {
    /// Without the server's valid Nats-Stream, Nats-Subject, Nats-Sequence.
    Forged,
    /// A claim that is not one.
    BadClaim,
}

impl LiveDrop {
    pub(super) const ALL: [Self; 2] = [Self::Forged, Self::BadClaim];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::BadClaim => "bad_claim",
        }
    }
}

/// The stages on the way of an event, each with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// From the store to the room.
    Receive,
    Decode,
    Project,
    /// To all sockets: what the kernel takes at once is written in it.
    FanOut,
}

impl Stage {
    pub(super) const ALL: [Self; 4] = [Self::Receive, Self::Decode, Self::Project, Self::FanOut];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Decode => "decode",
            Self::Project => "project",
            Self::FanOut => "fan_out",
        }
    }
}

/// What a look at a token can find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenCheck {
    Ok,
    Missing,
    Invalid,
    Revoked,
    Expired,
    NoAccess,
    OtherUser,
    NotYet,
}

impl TokenCheck {
    pub(super) const ALL: [Self; 8] = [
        Self::Ok,
        Self::Missing,
        Self::Invalid,
        Self::Revoked,
        Self::Expired,
        Self::NoAccess,
        Self::OtherUser,
        Self::NotYet,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NoAccess => "no_access",
            Self::OtherUser => "other_user",
            Self::NotYet => "not_yet",
        }
    }
}
