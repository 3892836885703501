//! Finds what is stored under a subject that no room can take, and that nobody else would ever see.
//!
//! A room subscribes to its own workspace, and JetStream has no pattern for "no slug". So each gateway reads the list of
//! the stream's subjects from time to time. The list delays what the server stores meanwhile (measured, nats-server
//! 2.15.1: 1 ms of 1,000 subjects, 82 ms of 92,000). So a gateway rests a thousand times as long as the list took. A list has 100,000 subjects at most; the next one goes on there.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use serde::Deserialize;
use serde_json::json;
use tracing::{debug, warn};

use super::api::{self, ApiFailure, pattern};
use super::connection::Connection;
use super::dead_letters::DeadLetters;
use super::reads::{DirectGet, Leader};
use crate::config::{Names, names};
use crate::event::{BadEvent, Reason, StoredMessage, WorkspaceSlug, unroutable};

/// A look rests so many times as long as its list took, and no less than [`REST_LEAST`].
const RESTS: u32 = 1000;
const REST_LEAST: Duration = Duration::from_secs(5);
/// The longest rest after a list that did not come.
const REST_FAILED: Duration = Duration::from_secs(600);
/// How long a list may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Subjects that one look reports at most. The next ones do the others.
const LETTERS: usize = 100;
/// Subjects that are remembered as reported, 8 bytes each. Beyond them events are counted and no more.
const REPORTED: usize = 10_000;
/// A room reports a bad event at once. What is younger is left to the room until the next list.
const YOUNG: chrono::Duration = chrono::Duration::seconds(2);
/// Characters of a subject that a log line shows.
const SHOWN: usize = 128;

/// What a subject can be wrong in; metric labels.
const REASONS: [Reason; 4] = [
    Reason::Workspace,
    Reason::Subject,
    Reason::UnknownCategory,
    Reason::UnknownName,
];

/// How many events the stream holds under such subjects, by [`REASONS`].
#[derive(Debug, Default)]
pub struct UnroutableCounts([AtomicU64; REASONS.len()]);

impl UnroutableCounts {
    /// Each reason, and how many events it keeps from every room.
    pub fn all(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        REASONS.into_iter().zip(counts)
    }

    fn set(&self, counts: [u64; REASONS.len()]) {
        for (known, now) in self.0.iter().zip(counts) {
            known.store(now, Ordering::Relaxed);
        }
    }
}

/// What the looks read from, and where they report.
#[derive(Debug)]
pub struct Unroutable {
    pub connection: Connection,
    pub names: Names,
    pub events: Leader,
    pub direct: DirectGet,
    pub letters: DeadLetters,
}

/// What is known between two lists. Pure.
#[derive(Debug, Default)]
struct Scan {
    /// Where the next list begins.
    offset: usize,
    /// Events counted since the scan began, by [`REASONS`].
    events: [u64; REASONS.len()],
    /// Subjects that are reported, hashed, since a publisher may have made them long.
    reported: HashSet<u64>,
    /// Of these, those that this scan has met.
    still: HashSet<u64>,
}

/// A subject that is to be reported.
#[derive(Debug)]
struct Stray {
    subject: String,
    hash: u64,
    whose: WorkspaceSlug,
    bad: BadEvent,
}

/// What one list had.
#[derive(Debug)]
struct Page {
    strays: Vec<Stray>,
    /// It was the last one, and these are all events.
    whole: Option<[u64; REASONS.len()]>,
}

/// The answer to `STREAM.INFO` with a filter.
#[derive(Deserialize)]
struct SubjectList<'a> {
    #[serde(default)]
    total: usize,
    #[serde(borrow)]
    state: Option<ListedSubjects<'a>>,
}

#[derive(Deserialize)]
struct ListedSubjects<'a> {
    #[serde(borrow)]
    subjects: Option<HashMap<Name<'a>, u64>>,
}

/// Borrowed where it can be: there are many.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The list of subjects did not come, or cannot be read.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Api(#[from] ApiFailure),
    #[error("the gateway ends")]
    Ends(#[from] tokio::task::JoinError),
}

impl Unroutable {
    /// What it counts, and the task that has to be run for it.
    pub fn start(self) -> (Arc<UnroutableCounts>, impl Future<Output = ()> + Send) {
        let counts = Arc::<UnroutableCounts>::default();
        (Arc::clone(&counts), self.run(counts))
    }

    async fn run(self, counts: Arc<UnroutableCounts>) {
        let mut round = Scan::default();
        let mut failing = false;
        let mut rest = REST_LEAST / 5;
        loop {
            // Gateways that start together do not look together.
            tokio::time::sleep(jittered(rest)).await;
            self.connection.connected().await;
            let began = Instant::now();
            let list = self.list(round.offset).await;
            rest = (began.elapsed() * RESTS).max(REST_LEAST);
            let read = match list {
                // Long work of the CPU, which would hold up sockets.
                Ok(list) => {
                    let names = self.names.clone();
                    let reading = tokio::task::spawn_blocking(move || {
                        let page = round.read(&list, &names);
                        (round, page)
                    });
                    reading.await.map_err(LookError::from)
                }
                Err(error) => Ok((round, Err(error))),
            };
            let Ok((kept, page)) = read else { return };
            round = kept;
            match page {
                Ok(page) => {
                    failing = false;
                    self.report(page.strays, &mut round).await;
                    if let Some(events) = page.whole {
                        counts.set(events);
                    }
                }
                Err(error) => {
                    rest = rest.min(REST_FAILED);
                    if std::mem::replace(&mut failing, true) {
                        debug!(%error, "subjects not listed");
                    } else {
                        let stream = self.events.stream();
                        warn!(stream, %error, "subjects not listed, events that no room can take are not found");
                    }
                }
            }
        }
    }

    /// The stream's subjects from the one at `offset` on.
    async fn list(&self, offset: usize) -> Result<Bytes, LookError> {
        let filter = self.names.subject(names::ALL_EVENTS);
        let body = json!({ "subjects_filter": filter, "offset": offset }).to_string();
        let subject = self.names.api("STREAM.INFO", self.events.stream());
        let client = self.connection.client();
        Ok(api::send(client, subject, None, body.into(), TIMEOUT).await?)
    }

    /// Makes a dead letter of the first event of each, the same one on every gateway, and one line for all.
    async fn report(&self, strays: Vec<Stray>, round: &mut Scan) {
        let mut subjects = 0;
        let mut example = None;
        for stray in strays {
            let message = self.first(&stray).await;
            let is_young = |message: &StoredMessage| (Utc::now() - message.time).abs() < YOUNG;
            match message.filter(|message| !is_young(message)) {
                Some(message) => {
                    self.letters
                        .report_found(&stray.whose, &message, &stray.bad);
                    subjects += 1;
                    example.get_or_insert(stray);
                }
                // Gone, or for the next look.
                None => {
                    round.reported.remove(&stray.hash);
                }
            }
        }
        if let Some(stray) = example {
            warn!(
                subjects,
                example = shown(&stray.subject),
                reason = stray.bad.reason.as_str(),
                detail = stray.bad.detail,
                "events are stored under subjects that no room can take"
            );
        }
    }

    /// The first event of a subject; the last one where no request can name it.
    async fn first(&self, stray: &Stray) -> Option<StoredMessage> {
        let subject = stray.subject.as_str();
        match self.events.next(1, subject).await {
            Ok(Some(raw)) if raw.subject.as_str() == subject => {
                return Some(raw);
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "event not read"),
        }
        let lasts = self.direct.multi_last(&[pattern(subject)]).await;
        let (lasts, _) = lasts
            .inspect_err(|error| debug!(%error, "event not read"))
            .ok()?;
        lasts
            .into_iter()
            .find(|last| last.subject.as_str() == subject)
    }
}

impl Scan {
    /// Reads a list, from [`Scan::offset`] on.
    fn read(&mut self, list: &[u8], names: &Names) -> Result<Page, LookError> {
        let answer: SubjectList<'_> = api::decode(list)?;
        let subjects = answer.state.and_then(|state| state.subjects);
        let subjects = subjects.unwrap_or_default();
        self.offset += subjects.len();
        let is_last = subjects.is_empty() || self.offset >= answer.total;
        let mut strays = Vec::new();
        for (Name(subject), events) in subjects {
            // The filter is for no other deployment's.
            if let Some(plain) = names.plain(&subject) {
                self.judge(plain, events, &mut strays);
            }
        }
        let whole = is_last.then(|| self.end());
        Ok(Page { strays, whole })
    }

    fn judge(&mut self, subject: &str, events: u64, strays: &mut Vec<Stray>) {
        let Some((whose, bad)) = unroutable(subject) else {
            return;
        };
        let reasons = REASONS.into_iter().zip(&mut self.events);
        for (_, count) in reasons.filter(|(reason, _)| *reason == bad.reason) {
            *count += events;
        }
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let hash = hasher.finish();
        let is_new = !self.reported.contains(&hash);
        if is_new && strays.len() < LETTERS && self.reported.len() < REPORTED {
            self.reported.insert(hash);
            strays.push(Stray {
                subject: subject.to_owned(),
                hash,
                whose,
                bad,
            });
        }
        if self.reported.contains(&hash) {
            self.still.insert(hash);
        }
    }

    /// Ends the round: what it has not come across is gone, and would be new.
    fn end(&mut self) -> [u64; REASONS.len()] {
        self.offset = 0;
        self.reported = std::mem::take(&mut self.still);
        std::mem::take(&mut self.events)
    }
}

/// Half as long to one and a half times as long.
fn jittered(rest: Duration) -> Duration {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    let share = u16::try_from(random >> 48).unwrap_or_default();
    rest / 2 + rest / u32::from(u16::MAX) * u32::from(share)
}

/// A subject for a log line: no longer than that, and nothing that steers a terminal.
fn shown(subject: &str) -> String {
    let chars = subject.chars().take(SHOWN);
    chars
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NatsConfig;

    fn names() -> Names {
        NatsConfig::default().names()
    }

    fn list(subjects: &[(String, u64)], total: usize) -> Vec<u8> {
        let subjects: serde_json::Map<_, _> = subjects
            .iter()
            .map(|(subject, events)| (subject.clone(), json!(events)))
            .collect();
        json!({ "total": total, "state": { "messages": 9, "subjects": subjects } })
            .to_string()
            .into_bytes()
    }

    fn subject(text: &str) -> (String, u64) {
        (text.to_owned(), 2)
    }

    #[test]
    fn a_round_counts_all_and_reports_each_subject_once_until_it_is_gone() {
        let mut round = Scan::default();
        let good = [
            subject("ws.acme.custom.x"),
            subject("ws.Acme.record.created"),
        ];
        let bad = [subject("ws.café.custom.x"), subject("ws.my.shop.custom.x")];
        for (look, (wanted_new, wanted)) in [(2, [2, 2, 0, 0]), (0, [2, 2, 0, 0])]
            .into_iter()
            .enumerate()
        {
            // In two lists.
            let first = round
                .read(&list(&[good[0].clone(), bad[0].clone()], 4), &names())
                .unwrap();
            assert_eq!((first.whole, round.offset), (None, 2));
            let second = round
                .read(&list(&[good[1].clone(), bad[1].clone()], 4), &names())
                .unwrap();
            assert_eq!(second.whole, Some(wanted));
            assert_eq!(round.offset, 0);
            assert_eq!(
                first.strays.len() + second.strays.len(),
                wanted_new,
                "{look}"
            );
        }
        let none = round.read(&list(&good, 2), &names()).unwrap();
        assert_eq!(none.whole, Some([0; 4]));
        let again = round.read(&list(&bad, 2), &names()).unwrap();
        assert_eq!(again.strays.len(), 2);
    }

    #[test]
    fn with_a_prefix_subjects_are_judged_without_it() {
        let config = NatsConfig {
            prefix: Some("blue".to_owned()),
            ..NatsConfig::default()
        };
        let subjects = [
            subject("blue.ws.acme.custom.x"),
            subject("blue.ws.é.custom.x"),
        ];
        let page = Scan::default().read(&list(&subjects, 2), &config.names());
        let page = page.unwrap();
        assert_eq!(page.whole, Some([2, 0, 0, 0]));
        assert_eq!(page.strays[0].subject, "ws.é.custom.x");
    }

    #[test]
    fn what_is_reported_and_remembered_is_bounded() {
        let mut round = Scan::default();
        let bad: Vec<_> = (0..REPORTED + 500)
            .map(|number| subject(&format!("ws.é{number}.custom.x")))
            .collect();
        let all = list(&bad, bad.len());
        let mut reported = 0;
        for _ in 0..REPORTED / LETTERS + 3 {
            let page = round.read(&all, &names()).unwrap();
            assert!(page.strays.len() <= LETTERS);
            reported += page.strays.len();
            assert_eq!(page.whole.unwrap()[0], 2 * bad.len() as u64);
        }
        assert_eq!((reported, round.reported.len()), (REPORTED, REPORTED));
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_and_an_empty_stream_is_not() {
        let mut round = Scan::default();
        for bad in [&b""[..], b"[]", br#"{"error":{"code":404}}"#] {
            assert!(round.read(bad, &names()).is_err());
        }
        let empty = br#"{"total":0,"state":{"messages":0}}"#;
        assert_eq!(round.read(empty, &names()).unwrap().whole, Some([0; 4]));
    }

    #[test]
    fn a_subject_is_shown_short_and_harmless() {
        assert_eq!(shown("ws.a\u{1b}[31m.x"), "ws.a\u{fffd}[31m.x");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), SHOWN);
    }
}
