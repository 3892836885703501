//! The judgement: what the stream holds, who it was for, and what came. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::load::Published;
use super::sockets::{Connection, End};
use super::world::Happened;

/// An event that was lost on the live path comes so soon after the end of the fault that lost it.
const LATE_LIMIT: Duration = Duration::from_secs(5);
/// A fault that ended so long before an event was stored has not to do with it; nor has one that
/// began so long after that.
const AFTERMATH: Duration = Duration::from_secs(2);

/// What the stream holds of one event of the load.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) number: usize,
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// When the stream stored it.
    pub(super) at: Instant,
    /// Its `Nats-Msg-Id`.
    pub(super) id: String,
    pub(super) payload: Bytes,
}

/// What is wrong, with an example of each.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) missing: Vec<String>,
    pub(super) twice: Vec<String>,
    pub(super) foreign: Vec<String>,
    pub(super) disordered: Vec<String>,
    pub(super) too_late: Vec<String>,
    /// Events that came after a later one of another subject, once for each gateway.
    pub(super) late: BTreeMap<usize, BTreeSet<usize>>,
    /// Between the store and the arrival of these.
    pub(super) lateness: Vec<Duration>,
    /// Between the store and the arrival of all.
    pub(super) latency: Vec<Duration>,
    /// Between the end of the faults that they met when they were stored and the arrival of these.
    pub(super) recovery: Vec<Duration>,
    /// The longest of these, and which it was.
    pub(super) slowest: (Duration, String),
    pub(super) deliveries: usize,
}

/// What the auditor knows.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) events: &'a [Published],
    pub(super) stored: &'a [Stored],
    pub(super) faults: &'a [Happened],
    /// When each gateway that was drained got its SIGTERM.
    pub(super) drains: &'a [(usize, Instant)],
}

impl Evidence<'_> {
    /// Judges every connection.
    pub(super) fn judge(&self, connections: &[Connection]) -> Verdict {
        let by_number: HashMap<usize, &Stored> = self
            .stored
            .iter()
            .map(|stored| (stored.number, stored))
            .collect();
        let mut by_workspace: BTreeMap<usize, Vec<&Stored>> = BTreeMap::new();
        for stored in self.stored {
            let event = &self.events[stored.number];
            by_workspace
                .entry(event.workspace)
                .or_default()
                .push(stored);
        }
        let mut verdict = Verdict::default();
        let faults = self.effects();
        for connection in connections {
            self.follow(connection, (&by_number, &faults), &mut verdict);
            let stored = by_workspace.get(&connection.workspace);
            self.miss(connection, stored.map_or(&[], Vec::as_slice), &mut verdict);
        }
        verdict
    }

    /// Whether something that `connection` is owed has not come.
    pub(super) fn owes(&self, connection: &Connection) -> bool {
        let arrivals = connection.arrivals.iter();
        let came: HashSet<usize> = arrivals.map(|arrival| arrival.number).collect();
        self.stored
            .iter()
            .any(|stored| !came.contains(&stored.number) && self.is_owed(connection, stored))
    }

    /// Events that were acknowledged and are not in the stream.
    pub(super) fn unstored(&self) -> usize {
        let stored: HashSet<usize> = self.stored.iter().map(|stored| stored.number).collect();
        let acknowledged = self.events.iter().zip(0..);
        acknowledged
            .filter(|(event, number)| event.acknowledged.is_some() && !stored.contains(number))
            .count()
    }

    /// The faults with the time in which they have an effect: up to the first acknowledgement after the end of
    /// each. While nobody leads the stream, nothing can be stored and nothing be read.
    fn effects(&self) -> Vec<Happened> {
        let mut acknowledged: Vec<Instant> = self
            .events
            .iter()
            .filter_map(|event| event.acknowledged)
            .collect();
        acknowledged.sort_unstable();
        let effect = |fault: &Happened| {
            let next = acknowledged.partition_point(|at| *at < fault.ended);
            Happened {
                began: fault.began,
                ended: *acknowledged.get(next).unwrap_or(&fault.ended),
            }
        };
        self.faults.iter().map(effect).collect()
    }

    /// What came, one by one.
    fn follow(
        &self,
        connection: &Connection,
        (by_number, faults): (&HashMap<usize, &Stored>, &[Happened]),
        verdict: &mut Verdict,
    ) {
        let mut seen = BTreeSet::new();
        let mut by_subject: HashMap<&str, u64> = HashMap::new();
        let mut highest = 0;
        for arrival in &connection.arrivals {
            verdict.deliveries += 1;
            let number = arrival.number;
            let told = || format!("{} of {}", number, name(connection));
            let (Some(stored), Some(event)) = (by_number.get(&number), self.events.get(number))
            else {
                verdict
                    .foreign
                    .push(format!("{}: it is not in the stream", told()));
                continue;
            };
            if !is_for(connection, event) {
                verdict.foreign.push(format!("{}: for others", told()));
            }
            if event
                .acknowledged
                .is_some_and(|at| at < connection.attempted)
            {
                verdict
                    .foreign
                    .push(format!("{}: from before the socket", told()));
            }
            if !seen.insert(number) {
                verdict.twice.push(told());
                continue;
            }
            let before = by_subject.insert(&stored.subject, stored.sequence);
            if before.is_some_and(|before| before > stored.sequence) {
                verdict.disordered.push(told());
            }
            let took = arrival.at.saturating_duration_since(stored.at);
            verdict.latency.push(took);
            let acknowledged = event.acknowledged.unwrap_or(stored.at);
            if let Some(recovery) = recovery(faults, (stored.at, acknowledged, arrival.at)) {
                verdict.recovery.push(recovery);
                if recovery > verdict.slowest.0 {
                    let since = |at: Instant| at.saturating_duration_since(self.events[0].sent);
                    let times = [stored.at, acknowledged, arrival.at].map(since);
                    let which = format!("{}: stored, acknowledged, there at {times:.1?}", told());
                    verdict.slowest = (recovery, which);
                }
            }
            if stored.sequence < highest {
                verdict
                    .late
                    .entry(connection.gateway)
                    .or_default()
                    .insert(number);
                verdict.lateness.push(took);
                let due = due(faults, stored.at);
                if arrival.at > due {
                    let by = arrival.at - due;
                    verdict
                        .too_late
                        .push(format!("{}: {by:.1?} after its time", told()));
                }
            }
            highest = highest.max(stored.sequence);
        }
    }

    /// What did not come: of a connection that is open, or that a drain closed, all
    /// it is owed; of any other, what a later event of the same subject has overtaken.
    fn miss(&self, connection: &Connection, stored: &[&Stored], verdict: &mut Verdict) {
        let came: BTreeSet<usize> = connection
            .arrivals
            .iter()
            .map(|arrival| arrival.number)
            .collect();
        let mut last: HashMap<&str, u64> = HashMap::new();
        for stored in stored.iter().filter(|stored| came.contains(&stored.number)) {
            let last = last.entry(&stored.subject).or_default();
            *last = stored.sequence.max(*last);
        }
        for stored in stored {
            if came.contains(&stored.number) {
                continue;
            }
            let event = &self.events[stored.number];
            let overtaken = last
                .get(stored.subject.as_str())
                .is_some_and(|last| *last > stored.sequence);
            let is_owed = self.is_owed(connection, stored)
                || overtaken && is_for(connection, event) && event.sent > connection.opened;
            if is_owed {
                verdict.missing.push(format!(
                    "{} of {}: sequence {} of {}",
                    stored.number,
                    name(connection),
                    stored.sequence,
                    stored.subject
                ));
            }
        }
    }

    fn is_owed(&self, connection: &Connection, stored: &Stored) -> bool {
        let event = &self.events[stored.number];
        let is_in_time = match connection.ended {
            None => true,
            Some((at, End::Closed(1012))) => {
                let mut drains = self.drains.iter().rev();
                drains
                    .find(|(gateway, began)| *gateway == connection.gateway && *began < at)
                    .is_some_and(|(_, began)| stored.at < *began)
            }
            Some(_) => false,
        };
        is_in_time && is_for(connection, event) && event.sent > connection.opened
    }
}

/// How long an event took to arrive after the last end of the faults that it met when it was stored, and after its
/// acknowledgement. A fault that comes later, and holds it up again, counts as part of that. `None` if there was
/// no fault.
fn recovery(
    faults: &[Happened],
    (stored, acknowledged, arrived): (Instant, Instant, Instant),
) -> Option<Duration> {
    let ends = faults
        .iter()
        .filter(|fault| fault.began <= stored + AFTERMATH)
        .map(|fault| fault.ended)
        .filter(|ended| (stored..=arrived).contains(ended));
    let end = ends.max()?.max(acknowledged);
    Some(arrived.saturating_duration_since(end))
}

/// When an event that was lost on the way has to be there.
fn due(faults: &[Happened], stored: Instant) -> Instant {
    let faults = faults
        .iter()
        .filter(|fault| fault.began <= stored + AFTERMATH && fault.ended + AFTERMATH >= stored)
        .map(|fault| fault.ended);
    faults.fold(stored, Instant::max) + LATE_LIMIT
}

fn is_for(connection: &Connection, event: &Published) -> bool {
    event.workspace == connection.workspace
        && event
            .recipients
            .as_ref()
            .is_none_or(|users| users.contains(&connection.user))
}

fn name(connection: &Connection) -> String {
    format!(
        "u{} in w{} at gateway {}",
        connection.user, connection.workspace, connection.gateway
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::sockets::Arrival;

    /// Ten events of one workspace over two subjects, one a second, the last for user 1 only; a connection
    /// of user 0 that was open before.
    struct Case {
        start: Instant,
        events: Vec<Published>,
        stored: Vec<Stored>,
        connection: Connection,
    }

    impl Case {
        fn new() -> Self {
            let start = Instant::now() + Duration::from_secs(100);
            let at = |number: usize| start + Duration::from_secs(number as u64);
            let events = (0..10).map(|number| Published {
                workspace: 0,
                recipients: (number == 9).then(|| vec![1]),
                sent: at(number),
                acknowledged: Some(at(number)),
            });
            let stored = (0..10).map(|number| Stored {
                number,
                subject: format!("s{}", number % 2),
                sequence: number as u64 + 1,
                at: at(number),
                id: String::new(),
                payload: Bytes::new(),
            });
            let arrivals = (0..9).map(|number| Arrival {
                number,
                at: at(number),
            });
            Self {
                start,
                events: events.collect(),
                stored: stored.collect(),
                connection: Connection {
                    workspace: 0,
                    user: 0,
                    gateway: 0,
                    attempted: start - Duration::from_secs(2),
                    opened: start - Duration::from_secs(1),
                    ended: None,
                    arrivals: arrivals.collect(),
                },
            }
        }

        fn judge(&self, faults: &[Happened]) -> Verdict {
            let drain = self.start + Duration::from_millis(8500);
            let evidence = Evidence {
                events: &self.events,
                stored: &self.stored,
                faults,
                drains: &[(0, drain)],
            };
            evidence.judge(std::slice::from_ref(&self.connection))
        }

        /// Missing, twice, foreign, out of order, late, too late.
        fn counts(&self, faults: &[Happened]) -> [usize; 6] {
            let verdict = self.judge(faults);
            [
                verdict.missing.len(),
                verdict.twice.len(),
                verdict.foreign.len(),
                verdict.disordered.len(),
                verdict.lateness.len(),
                verdict.too_late.len(),
            ]
        }
    }

    #[test]
    fn a_good_run_is_good() {
        assert_eq!(Case::new().counts(&[]), [0; 6]);
    }

    #[test]
    fn each_kind_of_wrong_is_seen() {
        let mut case = Case::new();
        case.connection.arrivals.remove(4);
        assert_eq!(case.counts(&[]), [1, 0, 0, 0, 0, 0]);

        let mut case = Case::new();
        let again = case.connection.arrivals[3];
        case.connection.arrivals.push(again);
        assert_eq!(case.counts(&[]), [0, 1, 0, 0, 0, 0]);

        let mut case = Case::new();
        let at = case.start;
        case.connection.arrivals.push(Arrival { number: 9, at });
        assert_eq!(case.counts(&[]), [0, 0, 1, 0, 0, 0]);

        let mut case = Case::new();
        case.connection.attempted = case.start + Duration::from_millis(500);
        case.connection.opened = case.start + Duration::from_millis(600);
        assert_eq!(case.counts(&[]), [0, 0, 1, 0, 0, 0]);

        let mut case = Case::new();
        case.connection.arrivals.swap(4, 6);
        let [missing, .., late, _] = case.counts(&[]);
        assert_eq!((missing, late), (0, 2));
        assert_eq!(case.judge(&[]).disordered.len(), 1);
    }

    #[test]
    fn what_comes_late_has_five_seconds_after_the_end_of_its_fault() {
        let mut case = Case::new();
        let mut late = case.connection.arrivals.remove(2);
        late.at = case.start + Duration::from_secs(9);
        case.connection.arrivals.insert(3, late);
        assert_eq!(case.counts(&[]), [0, 0, 0, 0, 1, 1]);
        let fault = Happened {
            began: case.start + Duration::from_secs(2),
            ended: case.start + Duration::from_secs(5),
        };
        assert_eq!(case.counts(&[fault]), [0, 0, 0, 0, 1, 0]);
        assert_eq!(case.judge(&[fault]).late[&0], BTreeSet::from([2]));
        // It lasts until the stream takes events again.
        case.connection.arrivals[3].at = case.start + Duration::from_secs(14);
        assert_eq!(case.counts(&[fault]), [0, 0, 0, 0, 1, 1]);
        for event in &mut case.events[5..] {
            event.acknowledged = Some(case.start + Duration::from_secs(10));
        }
        assert_eq!(case.counts(&[fault]), [0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_recovery_is_from_the_end_of_the_fault_or_the_acknowledgement() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let fault = |began, ended| Happened {
            began: at(began),
            ended: at(ended),
        };
        let faults = [fault(10, 20), fault(18, 22), fault(30, 40)];
        let recovered = |stored, acknowledged, arrived| {
            let recovery = recovery(&faults, (at(stored), at(acknowledged), at(arrived)));
            recovery.map(|recovery| recovery.as_secs())
        };
        assert_eq!(recovered(15, 15, 21), Some(1));
        assert_eq!(recovered(19, 19, 25), Some(3));
        assert_eq!(recovered(19, 24, 25), Some(1));
        assert_eq!(recovered(9, 9, 21), Some(1));
        assert_eq!(recovered(25, 25, 26), None);
        assert_eq!(recovered(35, 35, 36), None);
    }

    #[test]
    fn who_left_is_owed_no_end_but_no_hole_either() {
        let mut case = Case::new();
        case.connection.ended = Some((case.start + Duration::from_secs(30), End::Left));
        case.connection.arrivals.truncate(7);
        assert_eq!(case.counts(&[]), [0; 6]);
        case.connection.arrivals.remove(2);
        assert_eq!(case.counts(&[]), [1, 0, 0, 0, 0, 0]);
        let mut case = Case::new();
        case.connection.ended = Some((case.start + Duration::from_secs(30), End::Closed(1012)));
        case.connection.arrivals.truncate(7);
        assert_eq!(case.counts(&[]), [2, 0, 0, 0, 0, 0]);
    }
}
