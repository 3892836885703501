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

/// The close codes that come without a fault of the network's or of ours; others begin with their
/// first.
pub(super) const CLOSES: &[&str] = &[
    "1000",
    "1001",
    "1005",
    "1006",
    "1009",
    "1011",
    "1012",
    "4001",
    "4002",
    "4003",
    "4008",
    "4009",
    "4010",
    "4029",
    "dead_peer",
];
/// Why a join is refused with an HTTP error, or a connection closed before its request.
pub(super) const REFUSALS: &[&str] = &[
    "path",
    "origin",
    "no_origin",
    "subprotocol",
    "draining",
    "rate",
    "address_rate",
    "busy",
    "token_expired",
    "token_not_yet",
    "address_connections",
    "capacity",
    "nats",
    "flapping",
    "silent",
    "proxy_protocol",
];
/// What becomes of settings that are read again.
pub(super) const RELOADS: &[&str] = &["applied", "refused"];
/// What a look at a token can find.
pub(super) const CHECKS: &[&str] = &[
    "ok",
    "missing",
    "invalid",
    "expired",
    "no_access",
    "other_user",
    "not_yet",
];
