//! What a run came to, as a line of a table.

use std::fmt;
use std::time::Duration;

use super::sockets::{Connection, End};

/// One run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) faults: usize,
    pub(super) events: usize,
    pub(super) connections: usize,
    pub(super) deliveries: usize,
    pub(super) missing: usize,
    pub(super) twice: usize,
    pub(super) foreign: usize,
    pub(super) disordered: usize,
    pub(super) too_late: usize,
    pub(super) late: usize,
    /// What the gateways count as late is less than what was seen.
    pub(super) uncounted: usize,
    /// Connections that were ended by neither their client nor a drain.
    pub(super) broken: usize,
    /// What is wrong with events that came by HTTP.
    pub(super) misstored: usize,
    pub(super) lateness: Vec<Duration>,
    pub(super) latency: Vec<Duration>,
    pub(super) recovery: Vec<Duration>,
    /// The first few of each kind of wrong.
    pub(super) examples: Vec<String>,
}

impl Report {
    pub(super) const HEAD: &str = "| seed | faults | events | connections | deliveries | missing | twice | foreign | out of order | late | too late | lateness p50 / p99 / max | latency p50 / p99 / max | recovery p50 / p99 / max |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    pub(super) fn is_good(&self) -> bool {
        let wrong = [
            self.missing,
            self.twice,
            self.foreign,
            self.disordered,
            self.too_late,
            self.uncounted,
            self.broken,
            self.misstored,
        ];
        wrong.iter().all(|count| *count == 0)
    }

    /// Says what is wrong.
    pub(super) fn tell(&self) {
        println!(
            "seed {} is bad: {} uncounted, {} broken, {} wrong by HTTP",
            self.seed, self.uncounted, self.broken, self.misstored
        );
        for example in &self.examples {
            println!("  {example}");
        }
    }

    /// The line of all runs together.
    pub(super) fn total(reports: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> usize| reports.iter().map(of).sum();
        let all = |of: fn(&Self) -> &Vec<Duration>| {
            let mut all: Vec<Duration> = reports.iter().flat_map(of).copied().collect();
            all.sort_unstable();
            all
        };
        Self {
            seed: 0,
            faults: sum(|report| report.faults),
            events: sum(|report| report.events),
            connections: sum(|report| report.connections),
            deliveries: sum(|report| report.deliveries),
            missing: sum(|report| report.missing),
            twice: sum(|report| report.twice),
            foreign: sum(|report| report.foreign),
            disordered: sum(|report| report.disordered),
            too_late: sum(|report| report.too_late),
            late: sum(|report| report.late),
            uncounted: sum(|report| report.uncounted),
            broken: sum(|report| report.broken),
            misstored: sum(|report| report.misstored),
            lateness: all(|report| &report.lateness),
            latency: all(|report| &report.latency),
            recovery: all(|report| &report.recovery),
            examples: Vec::new(),
        }
    }
}

/// Whether the connection was ended by neither its client nor a close that a reconnect is to follow.
pub(super) fn is_broken(connection: &Connection) -> bool {
    !matches!(
        connection.ended,
        None | Some((_, End::Left | End::Closed(1012)))
    )
}

/// `p50 / p99 / max` of sorted times in milliseconds.
pub(super) fn percentiles(times: &[Duration]) -> String {
    let at = |part: usize| {
        let index = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0, Duration::as_millis)
    };
    format!("{} / {} / {} ms", at(50), at(99), at(100))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = match self.seed {
            0 => "all".to_owned(),
            seed => seed.to_string(),
        };
        write!(
            f,
            "| {seed} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.faults,
            self.events,
            self.connections,
            self.deliveries,
            self.missing,
            self.twice,
            self.foreign,
            self.disordered,
            self.late,
            self.too_late,
            percentiles(&self.lateness),
            percentiles(&self.latency),
            percentiles(&self.recovery),
        )
    }
}
