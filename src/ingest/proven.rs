//! Last messages from a replica that is proven to know as much as the leader did.

use std::time::Duration;

use super::direct_get::{DirectGet, DirectGetError, LastOf};
use super::leader::Tail;

/// How often a lagging replica is asked again.
const LAG_RETRIES: usize = 5;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProofError {
    #[error(transparent)]
    Direct(#[from] DirectGetError),
    #[error("the replica that answered lags")]
    Lagging,
}

/// The last messages of `subjects`, from a replica that says it knows everything up to `tail`.
///
/// A 404 ("none of them has a message") carries no such word. So the subject of the stream's last
/// message is asked for too: there is always an answer then, and always the word at its end. The
/// answer may hold that message beyond what was asked.
///
/// # Errors
/// [`ProofError`]; [`DirectGetError::TooManyResults`] also where the server cut the answer off.
pub(super) async fn lasts(
    direct: &DirectGet,
    subjects: &[String],
    tail: &Tail,
) -> Result<Vec<LastOf>, ProofError> {
    let Some(witness) = &tail.subject else {
        // The leader's own word that the stream holds nothing.
        return Ok(Vec::new());
    };
    let mut asked = subjects.to_vec();
    if !asked.contains(witness) {
        asked.push(witness.clone());
    }
    for attempt in 0..LAG_RETRIES {
        let (found, end) = direct.multi_last(&asked).await?;
        // The server ends an answer that grows too large, and then says so at its end: the newest are missing.
        if end.pending > 0 {
            return Err(DirectGetError::TooManyResults.into());
        }
        if end
            .up_to_sequence
            .is_some_and(|upto| upto >= tail.mark.sequence)
        {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
    }
    Err(ProofError::Lagging)
}
