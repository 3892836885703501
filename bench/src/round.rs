//! The figures of one measurement, by name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{Clock, Latencies, Phase, Processes};
use crate::sockets::Sockets;
use crate::stored::Stored;

/// The thread with the sockets ran, or waited for a core, for so much of the time: then the client may be what was measured.
const BUSY: f64 = 0.9;
/// Shares of all deliveries, as they are named.
pub(crate) const SHARES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

/// What should be none, as it is named.
pub(crate) const FAULTS: [&str; 6] = [
    "missing",
    "duplicate",
    "out_of_order",
    "foreign",
    "not_stored",
    "closed",
];

/// A measure, its head in a table, and whether the ratio to the floor stands beside it.
pub(crate) type Measure = (&'static str, &'static str, bool);

pub(crate) const MEASURES: [Measure; 11] = [
    ("cpu_server_us", "server µs", true),
    ("cpu_bridge_us", "bridge µs", false),
    ("cpu_nats_us", "nats µs", false),
    ("deliveries_per_s", "deliveries/s", false),
    ("latency_p50_ms", "p50 ms", false),
    ("latency_p99_ms", "p99 ms", true),
    ("without_latency_p99_ms", "p99 ms without", false),
    ("latency_p999_ms", "p99.9 ms", false),
    ("latency_max_ms", "max ms", false),
    ("memory_user_kib_per_socket", "KiB user", false),
    ("memory_kernel_kib_per_socket", "KiB kernel", false),
];
pub(crate) const CONNECT_MEASURES: [Measure; 6] = [
    ("connects_per_s", "connects/s", false),
    ("cpu_server_us_per_connect", "server µs", false),
    ("cpu_nats_us_per_connect", "nats µs", false),
    ("connect_p50_ms", "p50 ms", false),
    ("connect_p99_ms", "p99 ms", false),
    ("connect_max_ms", "max ms", false),
];
pub(crate) const REQUEST_MEASURES: [Measure; 6] = [
    ("cpu_server_us_per_request", "server µs", false),
    ("cpu_nats_us_per_request", "nats µs", false),
    ("requests_per_s", "requests/s", false),
    ("answer_p50_ms", "p50 ms", false),
    ("answer_p99_ms", "p99 ms", false),
    ("answer_max_ms", "max ms", false),
];

/// One measurement.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Round {
    pub number: u32,
    pub metrics: BTreeMap<String, f64>,
    /// How measured sockets ended.
    pub closed: BTreeMap<String, u64>,
    /// How those beside them did.
    pub beside_closed: BTreeMap<String, u64>,
}

impl Round {
    /// Enters a measure.
    pub fn put(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// Enters a phase, its measures' names beginning with `prefix`.
    /// `stored` is not there where the stream cannot be read.
    pub fn phase(
        &mut self,
        prefix: &str,
        phase: &Phase,
        stored: Option<&Stored>,
        sockets_of: impl Fn(u32) -> u64,
    ) {
        let counts = &phase.counts;
        let lost = stored.map(|stored| phase.not_stored(stored, sockets_of));
        let (not_stored, not_expected) = lost.unwrap_or_default();
        let expected = phase.expected - not_expected;
        let mut put = |name: &str, value: f64| self.put(&format!("{prefix}{name}"), value);
        for (name, count) in [
            ("expected", expected),
            ("delivered", counts.delivered),
            ("missing", expected.saturating_sub(counts.delivered)),
            ("duplicate", counts.duplicate),
            ("out_of_order", counts.out_of_order),
            ("foreign", counts.foreign),
            ("not_stored", not_stored),
            ("closed", counts.closed.values().sum()),
            (
                "publisher_late_ms",
                u64::try_from(phase.published.late.as_millis()).unwrap_or(0),
            ),
        ] {
            put(name, count as f64);
        }
        let delivered = counts.delivered + phase.beside.delivered;
        if delivered > 0 {
            for (part, ns) in &phase.cpu_ns {
                put(
                    &format!("cpu_{part}_us"),
                    *ns as f64 / 1000.0 / delivered as f64,
                );
            }
        }
        let span = stored.and_then(|stored| phase.span(stored));
        let span = span.unwrap_or(phase.took).as_secs_f64().max(1e-6);
        put("deliveries_per_s", counts.delivered as f64 / span);
        if let Some((busy, waiting)) = phase.busy {
            put("client_busy", busy);
            put("client_waiting", waiting);
        }
        if let Some(stored) = stored {
            self.latencies(&format!("{prefix}latency"), &phase.latencies(stored));
        }
        for (to, from) in [
            (&mut self.closed, &counts.closed),
            (&mut self.beside_closed, &phase.beside.closed),
        ] {
            for (code, count) in from {
                *to.entry(code.clone()).or_default() += count;
            }
        }
    }

    /// Enters shares of latencies.
    pub fn latencies(&mut self, name: &str, latencies: &Latencies) {
        for (share_name, share) in SHARES {
            if let Some(ms) = latencies.at(share) {
                self.put(&format!("{name}_{share_name}_ms"), ms);
            }
        }
    }

    /// Enters how long sockets took to open.
    pub fn opened(&mut self, sockets: &Sockets, took: Duration) {
        let opened = sockets.counts.opened as f64;
        self.put("connects_per_s", opened / took.as_secs_f64());
        let each = sockets.opened_us.iter().map(|us| i64::from(*us));
        self.latencies("connect", &Latencies::new(each.collect()));
    }

    /// Enters the connects of a scenario of connects.
    pub fn connects(
        &mut self,
        sockets: &Sockets,
        took: Duration,
        before: &Clock,
        processes: &Processes,
    ) {
        self.opened(sockets, took);
        let opened = sockets.counts.opened as f64;
        for (part, ns) in Clock::read(processes).since(before) {
            let us = ns as f64 / 1000.0;
            self.put(&format!("cpu_{part}_us_per_connect"), us / opened);
        }
    }

    /// Enters the answers of a scenario of HTTP publishing.
    pub fn requests(&mut self, phase: &Phase, stored: &Stored) {
        let answers = &phase.published.answers;
        let requests = answers.len() as f64;
        for (part, ns) in &phase.cpu_ns {
            let us = *ns as f64 / 1000.0;
            self.put(&format!("cpu_{part}_us_per_request"), us / requests);
        }
        self.put("requests_per_s", requests / phase.took.as_secs_f64());
        let (not_stored, _) = phase.not_stored(stored, |_| 1);
        self.put("not_stored", not_stored as f64);
        let us = |answer: &Duration| i64::try_from(answer.as_micros()).unwrap_or(i64::MAX);
        self.latencies("answer", &Latencies::new(answers.iter().map(us).collect()));
    }

    /// What others beside changed.
    pub fn compare(&mut self) {
        for (name, _) in SHARES {
            let with = self.get(&format!("latency_{name}_ms"));
            let without = self.get(&format!("without_latency_{name}_ms"));
            if let (Some(with), Some(without)) = (with, without)
                && without > 0.0
            {
                self.put(&format!("latency_{name}_ratio"), with / without);
            }
        }
    }

    /// All that a table has, in a line.
    pub fn line(&self) -> String {
        let mut words = Vec::new();
        let measures = MEASURES.iter().chain(&CONNECT_MEASURES);
        for (name, head, _) in measures.chain(&REQUEST_MEASURES) {
            if let Some(value) = self.get(name) {
                words.push(format!("{head} {}", short(value)));
            }
        }
        for name in FAULTS {
            if let Some(count) = self.get(name).filter(|count| *count > 0.0) {
                words.push(format!("{count} {name}"));
            }
        }
        if self.is_client_busy() {
            words.push("THE CLIENT WAS AT ITS LIMIT".to_owned());
        }
        words.join(", ")
    }

    /// Whether the client may be what was measured.
    pub fn is_client_busy(&self) -> bool {
        let get = |name| self.get(name).unwrap_or_default();
        get("client_busy") + get("client_waiting") >= BUSY
    }
}

/// Three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
