//! Whether the streams can be read, checked again and again. Without reads nothing can be repaired and nobody can join.
//! Nothing else may show it: live messages come without a read, and a denied request gets no answer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tracing::{info, warn};

use super::direct_get::DirectGet;
use super::leader::Leader;
use crate::nats::connection::Denials;
use crate::word_enum::word_enum;

/// So many checks fit into the time after which a failure makes the gateway unready.
const LOOKS: u32 = 10;
/// The pause between two checks, at least and at most. A check costs two requests for each stream, and two more for
/// one that is empty.
const PAUSE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// How long the answer to a direct get may take.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A workspace that nothing is stored for: any answer will do.
const WORKSPACE: &str = "herald-check";

/// What is known of the reads of all streams, and of what is denied. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readable {
    reads: Arc<[Reads]>,
    denials: Denials,
}

word_enum! {
    /// A way to read a stream. The words are a metric's labels.
    pub enum Way {
        /// Reads that only the stream's leader answers.
        Leader = "leader",
        /// Direct gets, which any replica answers.
        Direct = "direct",
    }
}

/// One way to read one stream.
#[derive(Debug)]
struct Reads {
    stream: String,
    way: Way,
    /// `None` while it works. A lock for a moment.
    failing: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    /// When the first read that failed was begun.
    since: Instant,
    cause: String,
}

/// A stream that is checked, and how it is read.
#[derive(Debug)]
pub struct WatchedStream {
    pub leader: Leader,
    pub direct: DirectGet,
}

impl Readable {
    /// What is known of `streams`, and the task that has to be run to keep it so; `unready_after` is
    /// how long a failure may last, at the time, before it matters.
    pub fn start(
        streams: Vec<WatchedStream>,
        denials: Denials,
        unready_after: impl Fn() -> Duration + Send + Sync,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let reads = streams.iter().flat_map(|stream| {
            Way::ALL.map(|way| Reads {
                stream: stream.leader.stream().to_owned(),
                way,
                failing: Mutex::default(),
            })
        });
        let this = Self {
            reads: reads.collect(),
            denials,
        };
        (this.clone(), this.run(streams, unready_after))
    }

    /// What has failed for longer than `time`: one sentence for the first stream, and one for the first permission
    /// that is missing.
    pub fn trouble(&self, time: Duration) -> Option<String> {
        let unread = self.reads.iter().find_map(|reads| {
            let failing = reads.lock();
            let failing = failing.as_ref()?;
            let is_long = failing.since.elapsed() >= time;
            is_long.then(|| format!("{reads}: {}", failing.cause))
        });
        let denied = self.denials.trouble(time);
        let said: Vec<String> = unread.into_iter().chain(denied).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// How many things are denied.
    pub fn denied(&self) -> usize {
        self.denials.count()
    }

    /// Every stream and way, and whether it works.
    pub fn all(&self) -> impl Iterator<Item = (&str, Way, bool)> {
        self.reads
            .iter()
            .map(|reads| (reads.stream.as_str(), reads.way, reads.lock().is_none()))
    }

    async fn run(
        self,
        streams: Vec<WatchedStream>,
        unready_after: impl Fn() -> Duration + Send + Sync,
    ) {
        let [least, most] = PAUSE;
        loop {
            // Side by side, so that one that gets no answer does not keep the others waiting.
            let looks = streams.iter().zip(self.reads.chunks_exact(2)).map(look);
            join_all(looks).await;
            tokio::time::sleep((unready_after() / LOOKS).clamp(least, most)).await;
        }
    }
}

/// Reads a stream once, in both ways.
async fn look((stream, reads): (&WatchedStream, &[Reads])) {
    let [leader, direct] = reads else { return };
    let began = Instant::now();
    let (led, got) = tokio::join!(stream.leader.end(), stream.direct.any(WORKSPACE));
    let got = got.err().map(|error| match &led {
        // Where both fail, direct gets are not the cause.
        Err(cause) => cause.cause().to_owned(),
        Ok(_) => error.to_string(),
    });
    leader.note(began, led.err().map(|error| error.cause().to_owned()));
    direct.note(began, got);
}

impl WatchedStream {
    /// A stream that is read at its leader, and by direct gets.
    pub fn new(leader: &Leader, direct: &DirectGet) -> Self {
        Self {
            leader: leader.clone().for_many(),
            direct: direct.clone().with_timeout(DIRECT_TIMEOUT),
        }
    }
}

impl Reads {
    /// A read that was begun at `began` failed for this cause, or did not.
    fn note(&self, began: Instant, cause: Option<String>) {
        let mut failing = self.lock();
        let known = failing.as_ref().map(|failing| &failing.cause);
        let (stream, read) = (&self.stream, self.way.as_str());
        match &cause {
            Some(cause) if known != Some(cause) => {
                warn!(stream, read, cause, "stream cannot be read");
            }
            None if known.is_some() => info!(stream, read, "stream can be read again"),
            Some(_) | None => {}
        }
        let since = failing.as_ref().map_or(began, |failing| failing.since);
        *failing = cause.map(|cause| Failing { since, cause });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        // No code that holds the lock can panic half-way through a change.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::Leader => write!(f, "stream {} cannot be read", self.stream),
            Way::Direct => write!(f, "stream {} cannot be read by direct get", self.stream),
        }
    }
}
