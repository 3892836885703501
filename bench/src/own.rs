//! A user's own gateway under load, which is not started here and may be far away: what its clients see of it.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::{Phase, Processes, phase};
use crate::publish::{Pace, Publisher, plan};
use crate::round::{FAULTS, Round, SHARES, short};
use crate::slot::SocketPlan;
use crate::sockets::Sockets;
use crate::stored::{self, Stream};
use crate::{Error, say};

/// New sockets a second.
const JOINS_PER_S: f64 = 500.0;
/// All are to be open so long after the last began.
const CONNECTING: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_millis(300);
const WARM_UP: Duration = Duration::from_secs(1);

/// What to do.
pub struct Load {
    pub plans: Vec<SocketPlan>,
    pub rooms: u32,
    pub publisher: Publisher,
    pub pace: Pace,
    pub time: Duration,
    pub stream: Stream,
    /// Of the markers.
    pub run: String,
}

/// What came of it.
pub struct Outcome {
    round: Round,
    refused: Vec<(String, u64)>,
    sockets: usize,
    interrupted: bool,
    warnings: Vec<String>,
}

impl Load {
    /// Opens the sockets, publishes, and closes them. An interrupt ends it early, with what there is by then.
    ///
    /// # Errors
    /// Where nothing could be measured.
    pub fn measure(mut self) -> Result<Outcome, Error> {
        let mut sockets = Sockets::new(&self.run)?;
        let mut outcome = Outcome {
            round: Round::default(),
            refused: Vec::new(),
            sockets: self.plans.len(),
            interrupted: false,
            warnings: Vec::new(),
        };
        let mut members = vec![0_u64; self.rooms as usize];
        for plan in &self.plans {
            if let Some(members) = members.get_mut(plan.room as usize) {
                *members += 1;
            }
        }
        let took = self.open(&mut sockets)?;
        outcome.round.opened(&sockets, took);
        let refused = sockets.counts.refused.iter();
        outcome.refused = refused.map(|(why, count)| (why.clone(), *count)).collect();
        outcome.round.closed = sockets.counts.closed.clone();
        if sockets.open() < outcome.sockets && !self.is_stopped() {
            let open = sockets.open();
            sockets.end();
            return Err(Error::Failed(format!(
                "{open} of {} sockets are open ({}){}",
                outcome.sockets,
                outcome.reasons(),
                outcome.hint()
            )));
        }
        if !self.is_stopped() {
            let phase = self.phases(&mut sockets, &members)?;
            sockets.end();
            self.enter(&mut outcome, &phase, &members);
        }
        outcome.interrupted = self.is_stopped();
        Ok(outcome)
    }

    fn is_stopped(&self) -> bool {
        self.publisher.stop.load(Ordering::Relaxed)
    }

    /// How long it took until all were open.
    fn open(&mut self, sockets: &mut Sockets) -> Result<Duration, Error> {
        let (start, all) = (Instant::now(), self.plans.len() as u64);
        let last = sockets.add(std::mem::take(&mut self.plans), JOINS_PER_S);
        let mut said = start;
        let is_over = |sockets: &Sockets| {
            let refused: u64 = sockets.counts.refused.values().sum();
            sockets.counts.opened + refused >= all
        };
        while !is_over(sockets) && !self.is_stopped() && Instant::now() < last + CONNECTING {
            sockets.step(Instant::now() + Duration::from_millis(20))?;
            if said.elapsed() > Duration::from_secs(2) {
                said = Instant::now();
                say(&format!("{} of {all} sockets are open", sockets.open()));
            }
        }
        let took = start.elapsed();
        // A refusal that the contract names comes as a close after the open.
        sockets.run_until(Instant::now() + SETTLE)?;
        say(&format!("{} of {all} sockets are open", sockets.open()));
        Ok(took)
    }

    fn phases(&self, sockets: &mut Sockets, members: &[u64]) -> Result<Phase, Error> {
        let mut next = vec![0; self.rooms as usize];
        let rooms: Range<u32> = 0..self.rooms;
        let members = |room: u32| members.get(room as usize).copied().unwrap_or_default();
        let (publisher, nobody) = (&self.publisher, Processes::default());
        let calm = match self.pace {
            Pace::AtOnce(_) => Pace::PerSecond(f64::from(self.rooms)),
            pace => pace,
        };
        let warm_up = plan(calm, rooms.clone(), WARM_UP, &mut next);
        phase(sockets, publisher, &nobody, warm_up, members, "warm-up")?;
        let plan = plan(self.pace, rooms, self.time, &mut next);
        phase(sockets, publisher, &nobody, plan, members, "bench")
    }

    fn enter(&self, outcome: &mut Outcome, phase: &Phase, members: &[u64]) {
        let members = |room: u32| members.get(room as usize).copied().unwrap_or_default();
        let (publisher, filters) = (&self.publisher, self.publisher.subjects.as_slice());
        let read = stored::read(&publisher.client, &self.stream, filters, &publisher.markers);
        let stored = publisher.handle.block_on(read);
        if let Err(error) = &stored {
            outcome.warnings.push(format!(
                "{error}: there is no latency from the store, only from the time at which an event was due"
            ));
        }
        outcome
            .round
            .phase("", phase, stored.as_ref().ok(), members);
        let from_due = phase.latencies(&phase.due());
        outcome.round.latencies("latency_from_due", &from_due);
        if phase
            .latencies(&stored.unwrap_or_default())
            .at(0.0)
            .is_some_and(|least| least < 0.0)
        {
            outcome.warnings.push(
                "an event came before it was stored: the clock of this machine is not that of the NATS server, and \
                 latencies from the store are wrong by their difference"
                    .to_owned(),
            );
        }
        if outcome.round.is_client_busy() {
            outcome.warnings.push(
                "this client was at the limit of its core, or had to wait for one: the gateway may be faster. Take fewer sockets or events, or \
                 run it on several machines"
                    .to_owned(),
            );
        }
        if phase.published.late > Duration::from_millis(100) {
            let late = phase.published.late.as_millis();
            outcome
                .warnings
                .push(format!("the publisher was up to {late} ms behind its plan"));
        }
    }
}

impl Outcome {
    fn reasons(&self) -> String {
        let reasons = self
            .refused
            .iter()
            .map(|(why, count)| format!("{count}: {why}"));
        let reasons: Vec<_> = reasons
            .chain(
                self.round
                    .closed
                    .iter()
                    .map(|(code, count)| format!("{count}: closed with {code}")),
            )
            .collect();
        if reasons.is_empty() {
            return "no answer".to_owned();
        }
        reasons.join(", ")
    }

    /// The way out of the refusal that is there.
    fn hint(&self) -> &'static str {
        let is = |what: &str| self.refused.iter().any(|(why, _)| why == what);
        let closed = |code: &str| self.round.closed.contains_key(code);
        match () {
            () if closed("4001") || closed("4003") => {
                ". The gateway takes no such token: see docs/tokens.md"
            }
            () if closed("4009") => {
                ". A user has one socket in a workspace: each token must be of another, HERALD_BENCH_USER"
            }
            () if is("HTTP 429") => {
                ". The gateway limits new sockets: see docs/configuration.md#limits-and-proxies"
            }
            () if is("HTTP 503") => {
                ". The gateway is full, draining, or without NATS: ask its /readyz"
            }
            () if is("HTTP 404") => ". The path is not the gateway's server.path",
            () if is("connection refused") => ". Nothing listens at this address",
            () => "",
        }
    }

    /// As one value.
    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "sockets": self.sockets,
            "metrics": self.round.metrics,
            "closed": self.round.closed,
            "interrupted": self.interrupted,
            "warnings": self.warnings,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let get = |name: &str| self.round.metrics.get(name).copied();
        let count = |name: &str| get(name).unwrap_or_default();
        let latencies = |name: &str| {
            let all = SHARES
                .iter()
                .filter_map(|(share, _)| get(&format!("{name}_{share}_ms")).map(|ms| (share, ms)));
            let all: Vec<_> = all
                .map(|(share, ms)| format!("{share} {}", short(ms)))
                .collect();
            (!all.is_empty()).then(|| all.join("  ").replace("p999", "p99.9"))
        };
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            writeln!(text, "{name:24} {value}").unwrap_or_default();
        };
        if let Some(opened) = latencies("connect") {
            line("to open, ms", &opened);
        }
        if get("delivered").is_some() {
            line(
                "delivered",
                &format!("{} of {}", count("delivered"), count("expected")),
            );
            for fault in FAULTS {
                // Those that were closed are told by their codes.
                if fault != "closed" && count(fault) > 0.0 {
                    line(&fault.replace('_', " "), &count(fault).to_string());
                }
            }
            if let Some(rate) = get("deliveries_per_s") {
                line("deliveries a second", &short(rate));
            }
        }
        for (code, sockets) in &self.round.closed {
            line(&format!("closed, {code}"), &sockets.to_string());
        }
        for (name, metric) in [
            ("from store, ms", "latency"),
            ("from due to publish, ms", "latency_from_due"),
        ] {
            if let Some(all) = latencies(metric) {
                line(name, &all);
            }
        }
        if let Some(busy) = get("client_busy") {
            let (busy, waiting) = (busy * 100.0, count("client_waiting") * 100.0);
            let text = format!("{busy:.0} % of a core, {waiting:.0} % waiting for one");
            line("this client", &text);
        }
        if self.interrupted {
            line("interrupted", "these are the figures until then");
        }
        text
    }

    /// What one should know to read the figures.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
