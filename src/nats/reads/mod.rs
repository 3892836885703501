//! Reads of streams. What a leader says is final. What any replica says counts as far as it had read.

mod coalesce;
mod consistent_read;
mod direct_get;
mod leader;
mod readable;
mod stream_end;

pub use self::coalesce::RequestSender;
pub(super) use self::coalesce::{Pending, RETRY, coalesce};
pub(super) use self::consistent_read::{StreamReadError, lasts};
pub use self::direct_get::{ANSWER_TIMEOUT, BATCH_MAX, Batch, BatchEnd, DirectGet, DirectGetError};
pub use self::leader::{AtPosition, Leader, LeaderError, StreamEnd, StreamState};
pub use self::readable::{Readable, WatchedStream, Way};
pub use self::stream_end::StreamEndReader;
