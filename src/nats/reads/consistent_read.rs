//! Reads of last messages that are as good as the leader's: by a replica that says it knows as much.

use std::time::Duration;

use super::direct_get::{DirectGet, DirectGetError};
use super::leader::{Leader, LeaderError, StreamEnd, Witness};
use crate::event::StoredMessage;

/// How often a lagging replica is read again.
const LAG_RETRIES: usize = 5;

/// Why a stream was not read.
#[derive(Debug, thiserror::Error)]
pub(in crate::nats) enum StreamReadError {
    #[error(transparent)]
    Direct(#[from] DirectGetError),
    #[error(transparent)]
    Leader(#[from] LeaderError),
    #[error("the replica that answered lags")]
    Lagging,
}

/// The last messages of `subjects`, from a replica that says it knows everything up to `end`, which is of
/// the stream of `direct` and `leader`.
///
/// A 404 ("none of them has a message") carries no such word. So the subject of a message that the stream
/// holds is requested too, where one is known: there is always an answer then, and always the word at its
/// end. The answer may hold that message beyond what was requested. Else the leader is read.
///
/// # Errors
/// [`StreamReadError`]; [`DirectGetError::TooManyResults`] also where the server cut the answer off.
pub(in crate::nats) async fn lasts(
    direct: &DirectGet,
    leader: &Leader,
    subjects: &[String],
    end: &StreamEnd,
) -> Result<Vec<StoredMessage>, StreamReadError> {
    let mut wanted = subjects.to_vec();
    let has_witness = match &end.witness {
        // The leader's own word that the stream holds nothing.
        Witness::Nothing => return Ok(Vec::new()),
        Witness::Subject(witness) => {
            if !wanted.contains(witness) {
                wanted.push(witness.clone());
            }
            true
        }
        Witness::Unnamed => false,
    };
    let mut is_empty = false;
    for attempt in 0..LAG_RETRIES {
        let (found, batch_end) = direct.multi_last(&wanted).await?;
        // The server ends an answer that grows too large, and then says so at its end: the newest are missing.
        if batch_end.pending > 0 {
            return Err(DirectGetError::TooManyResults.into());
        }
        if batch_end
            .up_to_sequence
            .is_some_and(|upto| upto >= end.position.sequence)
        {
            return Ok(found);
        }
        is_empty = batch_end.not_found;
        if is_empty && !has_witness {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
    }
    if is_empty && !has_any(leader, subjects).await? {
        return Ok(Vec::new());
    }
    Err(StreamReadError::Lagging)
}

/// Whether the leader has a message of one of `subjects`.
async fn has_any(leader: &Leader, subjects: &[String]) -> Result<bool, LeaderError> {
    for subject in subjects {
        if leader.has(subject).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
