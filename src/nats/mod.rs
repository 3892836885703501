//! The NATS edge: live messages in by interest, repair of what was lost, dead letters out.

pub mod api;
mod connection;
mod dead_letters;
mod inbox;
mod intake;
mod live;
mod lost_claims;
pub mod notices;
mod publish;
mod reads;
mod repair;
mod revocations;
mod sessions;
mod subscriptions;
mod sweep;
mod unroutable;

pub use self::connection::permissions::{self, is_reply_subject};
pub use self::connection::{
    ConnectError, Connection, Denials, Losses, SUBSCRIPTION_CAPACITY, check_settings, connect,
    event_channel,
};
pub(crate) use self::dead_letters::DeadLetterReport;
pub use self::dead_letters::{DeadLetterCounters, DeadLetters, DropReason};
pub use self::intake::Intake;
pub use self::live::event as live_event;
pub use self::lost_claims::{CheckedClaim, ClaimCheckRequest, ClaimChecker, LastClaim};
pub use self::notices::{Notice, Notices};
pub use self::publish::{PubAck, PublishError, duplicate_window, publish, publish_once, stream_of};
pub use self::reads::{
    ANSWER_TIMEOUT, AtPosition, BATCH_MAX, Batch, BatchEnd, DirectGet, DirectGetError, Leader,
    LeaderError, Readable, RequestSender, StreamEnd, StreamEndReader, StreamState, WatchedStream,
    Way,
};
pub use self::repair::{Repair, Repaired, RepairedBatch, Repairer};
pub use self::revocations::{LastRead, RevocationReader, RevocationReads};
pub use self::sessions::{ClaimError, ClaimWriter, StoredClaim};
pub use self::subscriptions::RoomSubscriptions;
pub use self::sweep::{Last, LastKnown, SweepRequest, Sweeper, Swept};
pub use self::unroutable::{Unroutable, UnroutableCounts};
