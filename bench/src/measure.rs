//! One phase: publish a plan, drive the sockets until all has come or nothing comes any more, and put together what was seen.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::marker::Mark;
use crate::process::{Cpu, own_thread};
use crate::publish::{Planned, Published, Publisher};
use crate::sockets::Sockets;
use crate::stored::Stored;
use crate::tally::{Counts, Receipt};
use crate::{Error, say};

/// Nothing more comes if nothing came for so long.
const QUIET: Duration = Duration::from_secs(10);
/// The same, after an interrupt.
const LAST: Duration = Duration::from_secs(1);
/// How long one step may take.
const STEP: Duration = Duration::from_millis(20);
const SAY_EVERY: Duration = Duration::from_secs(2);

/// The processes whose time is counted apart.
#[derive(Debug, Clone, Default)]
pub struct Processes {
    pub server: Vec<u32>,
    pub bridge: Vec<u32>,
    pub nats: Vec<u32>,
}

/// Time on a CPU at one moment.
#[derive(Debug)]
pub struct Clock {
    at: Instant,
    parts: Vec<(&'static str, Cpu)>,
    thread: Option<(u64, u64)>,
}

impl Clock {
    /// Reads it.
    pub fn read(processes: &Processes) -> Self {
        let own = [std::process::id()];
        let cpu = |name, processes: &[u32]| (name, Cpu::of(processes));
        Self {
            parts: vec![
                cpu("server", &processes.server),
                cpu("bridge", &processes.bridge),
                cpu("nats", &processes.nats),
                cpu("client", &own),
            ],
            thread: own_thread(),
            at: Instant::now(),
        }
    }

    /// Nanoseconds since `earlier`, by part.
    pub fn since(&self, earlier: &Self) -> BTreeMap<&'static str, u64> {
        let parts = self.parts.iter().zip(&earlier.parts);
        let used =
            parts.filter_map(|((name, now), (_, earlier))| Some((*name, now.since(earlier)?)));
        used.collect()
    }
}

/// What was seen in one phase.
#[derive(Debug)]
pub struct Phase {
    /// Deliveries to measured sockets that were to come, if all was stored.
    pub expected: u64,
    pub counts: Counts,
    pub beside: Counts,
    pub took: Duration,
    /// Nanoseconds on a CPU, by part.
    pub cpu_ns: BTreeMap<&'static str, u64>,
    /// The shares of the time in which the thread with the sockets was on a CPU, and waited for one.
    pub busy: Option<(f64, f64)>,
    pub published: Published,
    receipts: Vec<Receipt>,
    /// For each measured event, in the order of the plan.
    measured: Vec<Planned>,
}

/// Runs `plan`. `sockets_of` says how many measured sockets a room has.
///
/// # Errors
/// Where a part fails.
pub fn phase(
    sockets: &mut Sockets,
    publisher: &Publisher,
    processes: &Processes,
    plan: Vec<Planned>,
    sockets_of: impl Fn(u32) -> u64,
    name: &str,
) -> Result<Phase, Error> {
    // What was counted until now is not of this phase.
    sockets.counted();
    let expected_of =
        |plan: &[Planned]| -> u64 { plan.iter().map(|event| sockets_of(event.mark.room)).sum() };
    let expected = expected_of(&plan);
    let mut measured = plan.clone();
    let before = Clock::read(processes);
    let publishing = publisher.start(plan);
    let mut newest = (0, Instant::now());
    let mut said = Instant::now();
    loop {
        sockets.step(Instant::now() + STEP)?;
        let is_over = publishing.is_finished();
        if is_over && sockets.counts.delivered >= expected {
            break;
        }
        let quiet = if publisher.stop.load(Ordering::Relaxed) {
            LAST
        } else {
            QUIET
        };
        let all = sockets.counts.delivered + sockets.beside.delivered;
        if all != newest.0 || !is_over {
            newest = (all, Instant::now());
        } else if newest.1.elapsed() > quiet {
            break;
        }
        if expected > 0 && said.elapsed() > SAY_EVERY {
            said = Instant::now();
            say(&format!(
                "{name}: {} of {expected} deliveries",
                sockets.counts.delivered
            ));
        }
    }
    let after = Clock::read(processes);
    let published = publishing
        .join()
        .map_err(|_| Error::Failed("the publisher failed".to_owned()))??;
    // An interrupt leaves some out.
    measured.truncate(published.count);
    let expected = expected_of(&measured);
    // The end waited for what did not come: that is no time of work.
    let took = if sockets.counts.delivered >= expected {
        after.at
    } else {
        newest.1
    };
    let wall = after.at.duration_since(before.at);
    let (counts, beside, receipts) = sockets.counted();
    Ok(Phase {
        expected,
        took: took.duration_since(before.at),
        cpu_ns: after.since(&before),
        busy: after.thread.zip(before.thread).map(|(after, before)| {
            let share = |after: u64, before: u64| {
                after.saturating_sub(before) as f64 / wall.as_nanos().max(1) as f64
            };
            (share(after.0, before.0), share(after.1, before.1))
        }),
        counts,
        beside,
        receipts,
        published,
        measured,
    })
}

/// How late deliveries were, in microseconds, sorted.
#[derive(Debug, Default)]
pub struct Latencies(Vec<i64>);

impl Latencies {
    /// Of these, in any order.
    pub fn new(mut latencies: Vec<i64>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// The least latency that so many of all (of 1) do not exceed, in milliseconds.
    pub fn at(&self, share: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        let us = self.0.get(rank.max(1) - 1)?;
        Some(*us as f64 / 1000.0)
    }
}

impl Phase {
    /// From the times in `at` to the receipts.
    pub fn latencies(&self, at: &Stored) -> Latencies {
        let mut latencies = Vec::new();
        for receipt in &self.receipts {
            let Mark { room, sequence } = receipt.first;
            for sequence in sequence..sequence + receipt.count {
                if let Some(at) = at.get(&Mark { room, sequence }) {
                    latencies.push(receipt.at_us as i64 - *at as i64);
                }
            }
        }
        Latencies::new(latencies)
    }

    /// When each event was due to be published: one clock, and the publisher's own lateness in what is counted from it.
    pub fn due(&self) -> Stored {
        let events = self.measured.iter().map(|event| event.mark);
        events.zip(self.published.due_us.iter().copied()).collect()
    }

    /// Events that were published and are not in the stream, of rooms with measured sockets.
    pub fn not_stored(&self, stored: &Stored, sockets_of: impl Fn(u32) -> u64) -> (u64, u64) {
        let marks = self.measured.iter().map(|event| event.mark);
        let lost = marks.filter(|mark| sockets_of(mark.room) > 0 && !stored.contains_key(mark));
        lost.fold((0, 0), |(events, deliveries), mark| {
            (events + 1, deliveries + sockets_of(mark.room))
        })
    }

    /// From the first store of an event to the last delivery.
    pub fn span(&self, stored: &Stored) -> Option<Duration> {
        let marks = self.measured.iter().map(|event| event.mark);
        let first = marks.filter_map(|mark| stored.get(&mark)).min()?;
        let last = self.receipts.iter().map(|receipt| receipt.at_us).max()?;
        Some(Duration::from_micros(last.saturating_sub(*first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_least_that_so_many_do_not_exceed() {
        let latencies = Latencies::new((1..=1000).rev().map(|ms| ms * 1000).collect());
        for (share, expected) in [
            (0.5, 500.0),
            (0.99, 990.0),
            (0.999, 999.0),
            (1.0, 1000.0),
            (0.0, 1.0),
        ] {
            assert_eq!(latencies.at(share), Some(expected), "{share}");
        }
        assert_eq!(Latencies::default().at(0.5), None);
    }
}
