//! The NATS edge: live messages in by interest, repair of what was lost, dead letters out.

pub mod api;
mod coalesce;
mod connect;
mod connect_error;
mod connection;
mod consistent_read;
mod dead_letters;
mod denials;
mod direct_get;
mod inbox;
mod intake;
mod leader;
mod live;
mod login;
mod losses;
mod lost_claims;
pub mod notices;
pub mod permissions;
mod publish;
mod readable;
mod repair;
mod revocations;
mod sessions;
mod stream_end;
mod subscriptions;
mod sweep;
mod unroutable;

pub use self::connect::{SUBSCRIPTION_CAPACITY, check_settings, connect, event_channel};
pub use self::connect_error::ConnectError;
pub use self::connection::Connection;
pub use self::dead_letters::{DeadLetterCounters, DeadLetters, DropReason};
pub use self::denials::Denials;
pub use self::direct_get::{ANSWER_TIMEOUT, BATCH_MAX, Batch, BatchEnd, DirectGet, DirectGetError};
pub use self::intake::Intake;
pub use self::leader::{AtPosition, Leader, LeaderError, StreamEnd, StreamState};
pub use self::live::event as live_event;
pub use self::losses::Losses;
pub use self::lost_claims::{
    CheckedClaim, ClaimCheckHandle, ClaimCheckRequest, ClaimChecker, LastClaim,
};
pub use self::notices::{Notice, Notices};
pub use self::permissions::is_reply_subject;
pub use self::publish::{PubAck, PublishError, publish, stream_of};
pub use self::readable::{Readable, WatchedStream, Way};
pub use self::repair::{Repair, Repaired, RepairedBatch, Repairer};
pub use self::revocations::{LastRead, RevocationReader, RevocationReads};
pub use self::sessions::{ClaimError, ClaimWriter, StoredClaim};
pub use self::stream_end::StreamEndReader;
pub use self::subscriptions::RoomSubscriptions;
pub use self::sweep::{Last, LastKnown, SweepHandle, SweepRequest, Sweeper, Swept};
pub use self::unroutable::{Unroutable, UnroutableCounts};
