//! Reads the revocations: the entries of REVOKED, in their order, up to what its leader has.
//!
//! What comes on `live.revoked.` and of elections only says that there may be something to read. The entries always come
//! from the stream: nobody can make one up, and none that the live path loses is missing for long. No consumer is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use super::connection::Connection;
use super::live;
use super::reads::{BATCH_MAX, DirectGet, Leader, StreamReadError, StreamState};
use crate::auth::{RevocationEntry, Revocations, RevokedSet};
use crate::config::{Names, names};
use crate::event::{Position, StoredMessage};

/// A read begins at least this often.
const EVERY: Duration = Duration::from_secs(15);
/// The pause after a read that failed.
const RETRY: Duration = Duration::from_millis(500);
/// At least so long from the begin of a read to the next one: nobody can make a gateway read all the time.
const APART: Duration = Duration::from_millis(50);
/// So long after an election it is read again, and once more so long after that: a message that was stored just before
/// it may not be republished.
const AFTER_ELECTION: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Bytes of one answer, about.
const BATCH_BYTES: usize = 1024 * 1024;
/// How often a replica that lags is read again.
const LAG_RETRIES: u32 = 5;
/// Half of the pause before the first of these. It doubles each time.
const LAG_PAUSE: Duration = Duration::from_millis(10);
/// A leader that knows less than was read may not know yet that it is none any more. After this time it is believed.
const DOUBT: Duration = Duration::from_secs(25);

/// What is known of the reads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RevocationReads(Arc<ReadState>);

#[derive(Debug)]
struct ReadState {
    /// There may be something to read.
    wanted: Notify,
    last: watch::Sender<LastRead>,
    /// Messages that are no entries.
    ignored: AtomicU64,
}

/// How the last read ended, and the last one that reached the end of the stream.
#[derive(Debug, Clone, Default)]
pub struct LastRead {
    /// When it began.
    pub whole: Option<Instant>,
    /// The last sequence that was read.
    pub sequence: u64,
    /// Why the last one failed, if it did.
    pub failure: Option<String>,
}

/// Reads the stream.
#[derive(Debug)]
pub struct RevocationReader {
    pub connection: Connection,
    pub names: Names,
    pub leader: Leader,
    pub direct: DirectGet,
    /// Where the entries go.
    pub revocations: Revocations,
}

/// How far the stream was read.
#[derive(Debug, Default)]
struct ReadProgress {
    /// When the stream was made.
    created: Option<DateTime<Utc>>,
    /// The last message that was read.
    position: Option<Position>,
    /// Since when its leader knows less than that.
    doubted: Option<Instant>,
    /// The first sequence that the stream has.
    first: u64,
    /// What is revoked once all of another incarnation is read.
    aside: Option<RevokedSet>,
}

/// The stream at its leader, beside what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incarnation {
    Same,
    Other,
    /// Its leader knows less than was read, for now.
    Doubtful,
}

impl RevocationReads {
    /// There may be something to read.
    pub fn poke(&self) {
        self.0.wanted.notify_one();
    }

    /// Waits until the whole stream was read once. `fails` learns why not, each time a read fails.
    pub async fn wait_whole(&self, fails: impl Fn(&str)) {
        let mut last = self.0.last.subscribe();
        loop {
            {
                let last = last.borrow_and_update();
                if last.whole.is_some() {
                    return;
                }
                if let Some(failure) = &last.failure {
                    fails(failure);
                }
            }
            // The other end is here.
            let _ = last.changed().await;
        }
    }

    pub fn last(&self) -> LastRead {
        self.0.last.borrow().clone()
    }

    /// Messages that are no entries, as far as they were read.
    pub fn ignored(&self) -> u64 {
        self.0.ignored.load(Ordering::Relaxed)
    }
}

impl RevocationReader {
    /// What is known of the reads, and the task that has to be run for them. After each read that revoked something, and
    /// before the next one, `revoked` is run.
    pub fn start<F: Future<Output = ()> + Send>(
        self,
        revoked: impl Fn() -> F + Send + Sync,
    ) -> (RevocationReads, impl Future<Output = ()> + Send) {
        let reads = RevocationReads(Arc::new(ReadState {
            wanted: Notify::new(),
            last: watch::Sender::default(),
            ignored: AtomicU64::new(0),
        }));
        (reads.clone(), self.run(reads, revoked))
    }

    async fn run<F: Future<Output = ()> + Send>(
        self,
        reads: RevocationReads,
        revoked: impl Fn() -> F + Send + Sync,
    ) {
        let client = self.connection.client();
        let live = names::live(names::ALL_REVOCATIONS);
        let live = client.subscribe(self.names.subject(&live)).await;
        let elections = client.subscribe(self.names.elected(self.leader.stream()));
        let (Ok(live), Ok(elections)) = (live, elections.await) else {
            error!("revocations not subscribed to");
            return;
        };
        tokio::select! {
            () = self.watch_live(live, &reads) => {}
            () = self.watch_elections(elections, &reads) => {}
            () = self.read_all(&reads, revoked) => {}
        }
    }

    async fn watch_live(&self, mut live: Subscriber, reads: &RevocationReads) {
        // A message that the client drops because too many wait is no loss: it is read because of one that waits.
        while let Some(message) = live.next().await {
            if live::republished(message, &self.names, self.names.revoked()).is_some() {
                reads.poke();
            }
        }
    }

    async fn watch_elections(&self, mut elections: Subscriber, reads: &RevocationReads) {
        let subject = self.names.elected(self.leader.stream());
        let mut pauses: &[Duration] = &[];
        loop {
            let advisory = match pauses.split_first() {
                None => elections.next().await,
                Some((pause, later)) => match timeout(*pause, elections.next()).await {
                    Ok(advisory) => advisory,
                    Err(_) => {
                        pauses = later;
                        reads.poke();
                        continue;
                    }
                },
            };
            let Some(advisory) = advisory else { return };
            if advisory.subject.as_str() == subject {
                info!(stream = self.leader.stream(), "leader elected");
                self.leader.elected();
                reads.poke();
                pauses = &AFTER_ELECTION;
            }
        }
    }

    /// Reads for ever.
    async fn read_all<F: Future<Output = ()> + Send>(
        &self,
        reads: &RevocationReads,
        revoked: impl Fn() -> F + Send + Sync,
    ) {
        let mut progress = ReadProgress::default();
        loop {
            let began = Instant::now();
            let mut has_revoked = false;
            let read = self.read(&mut progress, reads, &mut has_revoked).await;
            // First of all: what was read is in force.
            if has_revoked {
                revoked().await;
            }
            let is_whole = read.is_ok();
            self.report(reads, &progress, began, read.err());
            sleep_until((began + APART).into()).await;
            tokio::select! {
                () = reads.0.wanted.notified() => {}
                () = sleep(if is_whole { EVERY } else { RETRY }) => {}
            }
        }
    }

    fn report(
        &self,
        reads: &RevocationReads,
        progress: &ReadProgress,
        began: Instant,
        failure: Option<StreamReadError>,
    ) {
        let before = reads.last();
        let sequence = match (&progress.aside, progress.position) {
            // It is not in force yet.
            (Some(_), _) => before.sequence,
            (None, position) => position.map_or(0, |position| position.sequence),
        };
        let failure = failure.map(|failure| failure.to_string());
        match &failure {
            Some(cause) if before.failure.is_none() => {
                let age_s = before.whole.map(|whole| whole.elapsed().as_secs());
                warn!(cause, age_s, "revocations not read");
            }
            None if before.whole.is_none()
                || before.failure.is_some()
                || before.sequence != sequence =>
            {
                let entries = self.revocations.look(RevokedSet::len);
                info!(sequence, entries, "revocations read");
            }
            Some(_) | None => {}
        }
        let whole = failure.is_none().then_some(began).or(before.whole);
        reads.0.last.send_replace(LastRead {
            whole,
            sequence,
            failure,
        });
    }

    /// Reads up to what the leader has. Sets `has_revoked` if something is revoked since, also where it fails then.
    async fn read(
        &self,
        progress: &mut ReadProgress,
        reads: &RevocationReads,
        has_revoked: &mut bool,
    ) -> Result<(), StreamReadError> {
        let state = self.leader.state().await?;
        match progress.compare(state, Instant::now()) {
            Incarnation::Same => {}
            Incarnation::Doubtful => return Err(StreamReadError::Lagging),
            Incarnation::Other => self.start_over(progress, reads),
        }
        progress.created = Some(state.created);
        if state.first_sequence > progress.first {
            progress.first = state.first_sequence;
            let first = state.first_sequence;
            self.revocations.change(|set| set.forget_below(first));
        }
        let mut lags = 0;
        while let Some(from) = progress.next(state) {
            let batch = self.batch(from).await?;
            let known = progress.position;
            // The last known message is read again, to see that it is the same.
            let is_other = |message: &StoredMessage| {
                let here = message.position();
                known
                    .is_some_and(|known| known.sequence == here.sequence && known.time != here.time)
            };
            if batch.first().is_some_and(is_other) {
                self.start_over(progress, reads);
                progress.created = Some(state.created);
                continue;
            }
            let last = batch.last().map(StoredMessage::position);
            if last.is_none() || last == known {
                lags += 1;
                if lags > LAG_RETRIES {
                    return Err(StreamReadError::Lagging);
                }
                sleep(LAG_PAUSE * 2_u32.pow(lags)).await;
                continue;
            }
            let is_new = |message: &&StoredMessage| {
                known.is_none_or(|known| message.sequence > known.sequence)
            };
            let new = batch.iter().filter(is_new);
            let entries: Vec<_> = new.filter_map(|message| entry(message, reads)).collect();
            let take = |set: &mut RevokedSet| {
                let revoke = entries
                    .iter()
                    .map(|(sequence, entry)| set.take(*sequence, entry));
                revoke.fold(false, |any, revokes| any | revokes)
            };
            match &mut progress.aside {
                Some(set) => drop(take(set)),
                None => *has_revoked |= self.revocations.change(take),
            }
            progress.position = last;
        }
        if let Some(set) = progress.aside.take() {
            self.revocations.change(|revoked| *revoked = set);
            *has_revoked = true;
        }
        Ok(())
    }

    /// The stream is another one, or was restored. What is revoked stays so until the new one lifts it. The entries of the
    /// new one are in force once all of them are read, since a later one may lift an earlier one.
    fn start_over(&self, progress: &mut ReadProgress, reads: &RevocationReads) {
        warn!("the stream of revocations is another one: what was revoked stays revoked");
        let mut set = self.revocations.look(RevokedSet::clone);
        set.keep_all();
        reads.0.ignored.store(0, Ordering::Relaxed);
        *progress = ReadProgress {
            aside: Some(set),
            ..ReadProgress::default()
        };
    }

    async fn batch(&self, from: u64) -> Result<Vec<StoredMessage>, StreamReadError> {
        let mut batch = self.direct.next(from, BATCH_MAX, BATCH_BYTES).await?;
        let mut messages = Vec::new();
        while let Some(message) = batch.next().await? {
            messages.push(message);
        }
        Ok(messages)
    }
}

/// The entry that a message is.
fn entry(message: &StoredMessage, reads: &RevocationReads) -> Option<(u64, RevocationEntry)> {
    let sequence = message.sequence;
    let entry = RevocationEntry::parse(&message.payload);
    // Whoever can have the server write there can do so a million times.
    if entry.is_none() && reads.0.ignored.fetch_add(1, Ordering::Relaxed) == 0 {
        warn!(sequence, "an entry of REVOKED is not ours");
    }
    Some((sequence, entry?))
}

impl ReadProgress {
    /// What the stream at its leader is, beside what was read.
    fn compare(&mut self, state: StreamState, now: Instant) -> Incarnation {
        if self.created.is_some_and(|created| created != state.created) {
            return Incarnation::Other;
        }
        let Some(position) = self.position else {
            return Incarnation::Same;
        };
        if state.last_sequence < position.sequence {
            let since = *self.doubted.get_or_insert(now);
            let is_believed = !state.is_replicated || now >= since + DOUBT;
            return if is_believed {
                Incarnation::Other
            } else {
                Incarnation::Doubtful
            };
        }
        self.doubted = None;
        // The clock of whoever made it may be ahead of that of its leader.
        let last_time = position.time.max(state.created);
        let is_changed = state.contains(position)
            && state.last_sequence == position.sequence
            && state.last_time != last_time;
        if is_changed {
            Incarnation::Other
        } else {
            Incarnation::Same
        }
    }

    /// Where to read on, if there is something that was not read.
    fn next(&self, state: StreamState) -> Option<u64> {
        let known = self.position.map_or(0, |position| position.sequence);
        let has_more = state.last_sequence > known && state.first_sequence <= state.last_sequence;
        has_more.then(|| known.max(state.first_sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_886_866 + second, 0).unwrap()
    }

    fn state(created: i64, last_sequence: u64, last_time: i64) -> StreamState {
        StreamState {
            created: time(created),
            first_sequence: 1,
            last_sequence,
            last_time: time(last_time),
            is_replicated: true,
        }
    }

    #[test]
    fn another_incarnation_is_noticed_and_a_leader_that_was_cut_off_is_none() {
        let now = Instant::now();
        let read = |sequence, second| ReadProgress {
            created: Some(time(0)),
            position: Some(Position {
                sequence,
                time: time(second),
            }),
            ..ReadProgress::default()
        };
        use Incarnation::{Doubtful, Other, Same};
        for (mut progress, state, wanted) in [
            (ReadProgress::default(), state(0, 7, 70), Same),
            (read(7, 70), state(0, 7, 70), Same),
            (read(7, 70), state(0, 8, 80), Same),
            // Restored, and something else stored.
            (read(7, 70), state(0, 7, 71), Other),
            (read(7, 70), state(1, 7, 70), Other),
            (read(7, 70), state(0, 6, 60), Doubtful),
            // Its maker's clock is ahead of its leader's.
            (read(7, -5), state(0, 7, 0), Same),
        ] {
            let got = progress.compare(state, now);
            assert_eq!(got, wanted, "{progress:?} {state:?}");
            let later = progress.compare(state, now + DOUBT);
            assert_eq!(later, if wanted == Doubtful { Other } else { wanted });
        }
        let alone = StreamState {
            is_replicated: false,
            ..state(0, 6, 60)
        };
        assert_eq!(read(7, 70).compare(alone, now), Other);
    }

    #[test]
    fn what_was_not_read_and_is_still_there_is_read() {
        let with_first = |first_sequence, last_sequence| StreamState {
            first_sequence,
            ..state(0, last_sequence, 0)
        };
        let read = |sequence| ReadProgress {
            position: Some(Position {
                sequence,
                time: time(0),
            }),
            ..ReadProgress::default()
        };
        for (progress, state, wanted) in [
            (ReadProgress::default(), with_first(0, 0), None),
            (ReadProgress::default(), with_first(1, 3), Some(1)),
            (read(3), with_first(1, 3), None),
            (read(3), with_first(1, 5), Some(3)),
            (read(3), with_first(5, 9), Some(5)),
            // All have ended.
            (read(3), with_first(10, 9), None),
        ] {
            assert_eq!(progress.next(state), wanted, "{progress:?} {state:?}");
        }
    }
}
