//! The words that are labels, each from an enum or a fixed list, so that the number of series is
//! bounded.

use crate::word_enum::word_enum;

word_enum! {
    /// Why a live message was dropped before its room looked at it.
    pub enum LiveDrop {
        /// Without the server's valid Nats-Stream, Nats-Subject, Nats-Sequence.
        Forged = "forged",
        /// A claim that is not one.
        BadClaim = "bad_claim",
    }
}

word_enum! {
    /// The stages on the way of an event, each with its time.
    pub(crate) enum Stage {
        /// From the store to the room.
        Receive = "receive",
        Decode = "decode",
        Project = "project",
        /// To all sockets: what the kernel takes at once is written in it.
        FanOut = "fan_out",
    }
}

word_enum! {
    /// What a look at a token can find.
    pub(crate) enum TokenCheck {
        Ok = "ok",
        Missing = "missing",
        Invalid = "invalid",
        Revoked = "revoked",
        Expired = "expired",
        NoAccess = "no_access",
        OtherUser = "other_user",
        NotYet = "not_yet",
    }
}
