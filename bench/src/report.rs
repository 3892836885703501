//! What came of a run: medians with their spread, ratios to the floor in the same run, as JSON, a table and pictures.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::chart::{Chart, Series};
use crate::round::{
    CONNECT_MEASURES, FAULTS, MEASURES, Measure, REQUEST_MEASURES, Round, SHARES, short,
};
use crate::scenario::{Group, Scenario};
use crate::spread::Spread;
use crate::{Error, say};

/// What others are compared with.
const FLOOR: &str = "floor";

/// A target in a scenario.
#[derive(Debug, Default, Serialize)]
pub struct Result {
    pub summary: BTreeMap<String, Spread>,
    /// Each measure divided by the floor's of the same round.
    pub ratio_to_floor: BTreeMap<String, Spread>,
    pub rounds: Vec<Round>,
    pub failures: Vec<String>,
}

/// A scenario.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub name: String,
    pub about: String,
    pub sockets: u32,
    pub rooms: u32,
    pub targets: BTreeMap<String, Result>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: u32,
    pub machine: BTreeMap<String, String>,
    pub rounds: u32,
    pub interrupted: bool,
    /// Targets that are not installed, and why.
    pub missing: BTreeMap<String, String>,
    pub scenarios: Vec<Measured>,
}

impl Report {
    /// An empty one.
    pub fn new(rounds: u32) -> Self {
        Self {
            version: 1,
            machine: machine(),
            rounds,
            interrupted: false,
            missing: BTreeMap::new(),
            scenarios: Vec::new(),
        }
    }

    /// Whether a target is not installed.
    pub fn is_missing(&self, target: &str) -> bool {
        self.missing.contains_key(target)
    }

    fn entry(&mut self, scenario: &Scenario, target: &str) -> Option<&mut Result> {
        if self
            .scenarios
            .last()
            .is_none_or(|last| last.name != scenario.name)
        {
            self.scenarios.push(Measured {
                name: scenario.name.clone(),
                about: scenario.about.clone(),
                sockets: scenario.sockets(),
                rooms: scenario.rooms(),
                targets: BTreeMap::new(),
            });
        }
        let targets = &mut self.scenarios.last_mut()?.targets;
        Some(targets.entry(target.to_owned()).or_default())
    }

    /// Enters a measurement.
    pub fn add(&mut self, scenario: &Scenario, target: &str, round: Round) {
        if let Some(result) = self.entry(scenario, target) {
            result.rounds.push(round);
        }
    }

    /// Enters one that failed.
    pub fn fail(&mut self, scenario: &Scenario, target: &str, why: String) {
        if let Some(result) = self.entry(scenario, target) {
            result.failures.push(why);
        }
    }

    /// Makes medians and ratios of the rounds.
    pub fn summarise(&mut self) {
        for scenario in &mut self.scenarios {
            let floor = scenario
                .targets
                .get(FLOOR)
                .map(|floor| floor.rounds.clone());
            for result in scenario.targets.values_mut() {
                result.summary = spreads(result.rounds.iter().map(|round| round.metrics.clone()));
                let floor_of = |round: &Round| {
                    let mut rounds = floor.iter().flatten();
                    rounds.find(|floor| floor.number == round.number).cloned()
                };
                let rounds = result.rounds.iter();
                let pairs = rounds.filter_map(|round| Some((round, floor_of(round)?)));
                result.ratio_to_floor = spreads(pairs.map(|(round, floor)| {
                    let ratios = round.metrics.iter().filter_map(|(name, value)| {
                        let floor = floor.get(name).filter(|floor| *floor > 0.0)?;
                        let has_ratio = ["cpu_", "latency_", "deliveries_", "memory_"];
                        let has_ratio = has_ratio.iter().any(|prefix| name.starts_with(prefix));
                        has_ratio.then(|| (name.clone(), value / floor))
                    });
                    ratios.collect()
                }));
            }
        }
    }
}

/// The medians of measures of the same name.
fn spreads(rounds: impl Iterator<Item = BTreeMap<String, f64>>) -> BTreeMap<String, Spread> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in rounds.flatten() {
        values.entry(name).or_default().push(value);
    }
    let spreads = values.into_iter();
    spreads
        .filter_map(|(name, values)| Some((name, Spread::of(values)?)))
        .collect()
}

impl Report {
    /// On what it was measured, and the tables, in Markdown.
    pub fn markdown(&self) -> String {
        let machine = self.machine.iter();
        let machine: Vec<_> = machine.map(|(name, is)| format!("{name} {is}")).collect();
        let mut text = format!(
            "Medians of {} rounds, with the least and the greatest; `= 1.20×` is the median of the ratios to the floor of \
             the same round. Machine: {}.\n",
            self.rounds,
            machine.join(", ")
        );
        text.push_str(&self.table(&MEASURES));
        text.push_str(&self.table(&CONNECT_MEASURES));
        text.push_str(&self.table(&REQUEST_MEASURES));
        for (target, why) in &self.missing {
            text.push_str(&format!("\n{target} was left out: {why}\n"));
        }
        text
    }

    /// A row for each target in each scenario that has one of `measures`, and a column for each of these that is there.
    fn table(&self, measures: &[Measure]) -> String {
        let scenarios = self.scenarios.iter().flat_map(|scenario| {
            let targets = scenario.targets.iter();
            targets.map(|(target, result)| (scenario.name.as_str(), target, result))
        });
        let has = |result: &Result, (name, ..): &Measure| result.summary.contains_key(*name);
        let is_here = |result: &Result| measures.iter().any(|measure| has(result, measure));
        let all = scenarios.filter(|(.., result)| {
            // One that failed each time is told of in the first table.
            is_here(result) || (result.summary.is_empty() && measures == MEASURES)
        });
        let rows: Vec<_> = all.collect();
        if rows.is_empty() {
            return String::new();
        }
        let used = |measure: &&Measure| rows.iter().any(|(.., result)| has(result, measure));
        let columns: Vec<_> = measures.iter().filter(used).collect();
        let heads: Vec<&str> = columns.iter().map(|(_, head, _)| *head).collect();
        let mut text = format!(
            "\n| scenario | target | {} | |\n|---|---|{}---|\n",
            heads.join(" | "),
            "--:|".repeat(heads.len())
        );
        for (scenario, target, result) in rows {
            let cells = columns.iter().map(|measure| result.cell(measure));
            let cells: Vec<String> = cells.collect();
            text.push_str(&format!(
                "| {scenario} | {target} | {} | {} |\n",
                cells.join(" | "),
                result.remarks()
            ));
        }
        text
    }

    /// Writes the report to `file` as JSON.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, file: &Path) -> std::result::Result<(), Error> {
        let json =
            serde_json::to_vec_pretty(self).map_err(|error| Error::of("the report", error))?;
        std::fs::write(file, json).map_err(|error| Error::of(&file.display().to_string(), error))
    }

    /// Writes the pictures to `folder`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn draw(&self, folder: &Path) -> std::result::Result<(), Error> {
        let failed = |error| Error::of(&folder.display().to_string(), error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut charts: Vec<(String, Chart)> =
            COSTS.iter().filter_map(|cost| self.cost(cost)).collect();
        charts.extend(self.scenarios.iter().filter_map(latencies));
        for (name, chart) in charts {
            let file = folder.join(format!("{name}.svg"));
            std::fs::write(&file, chart.svg()).map_err(failed)?;
            say(&format!("wrote {}", file.display()));
        }
        Ok(())
    }

    /// What a delivery costs, against what differs between some scenarios.
    fn cost(&self, (name, title, axis, place): &Cost) -> Option<(String, Chart)> {
        let mut series: BTreeMap<&str, Vec<(f64, Spread)>> = BTreeMap::new();
        for measured in &self.scenarios {
            let scenario = Scenario::named(&measured.name).pop();
            let plain = scenario.as_ref().and_then(Scenario::plain);
            let Some(at) = plain.and_then(|(group, events)| place(group, events)) else {
                continue;
            };
            for (target, result) in &measured.targets {
                if let Some(cost) = result.summary.get("cpu_server_us") {
                    series.entry(target).or_default().push((at, *cost));
                }
            }
        }
        let series = series.into_iter().map(|(target, mut points)| {
            points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            Series::new((target, points))
        });
        let chart = Chart {
            title: (*title).to_owned(),
            x: (*axis).to_owned(),
            y: "server CPU for each delivery, µs".to_owned(),
            names: Vec::new(),
            series: series.collect(),
        };
        (!chart.series.is_empty()).then(|| ((*name).to_owned(), chart))
    }
}

/// File, title, axis, and where a scenario stands on it.
type Cost = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Group, f64) -> Option<f64>,
);

const COSTS: [Cost; 3] = [
    (
        "cost-sockets",
        "Cost against sockets in one room",
        "sockets",
        |group, _| (group.rooms == 1).then(|| group.sockets.into()),
    ),
    (
        "cost-rooms",
        "Cost against rooms, 10,000 sockets in all",
        "rooms",
        |group, _| (group.rooms * group.sockets == 10_000).then(|| group.rooms.into()),
    ),
    (
        "cost-events",
        "Cost against events a second in one room",
        "events/s",
        |group, events| (group.rooms == 1).then_some(events),
    ),
];

/// How late deliveries are, by share of them.
fn latencies(scenario: &Measured) -> Option<(String, Chart)> {
    let series = scenario.targets.iter().filter_map(|(target, result)| {
        let points = SHARES.iter().enumerate().filter_map(|(at, (name, _))| {
            let spread = result.summary.get(&format!("latency_{name}_ms"))?;
            Some((at as f64, *spread))
        });
        let points: Vec<_> = points.collect();
        (!points.is_empty()).then(|| Series::new((target, points)))
    });
    let series: Vec<_> = series.collect();
    let chart = Chart {
        title: format!("{}: {}", scenario.name, scenario.about),
        x: "share of all deliveries".to_owned(),
        y: "from store to receipt, ms".to_owned(),
        names: ["p50", "p99", "p99.9", "max"].map(str::to_owned).to_vec(),
        series,
    };
    (!chart.series.is_empty()).then(|| (format!("latency-{}", scenario.name), chart))
}

impl Result {
    /// A measure, as far as it is known.
    fn cell(&self, (name, _, has_ratio): &Measure) -> String {
        let Some(spread) = self.summary.get(*name) else {
            return "–".to_owned();
        };
        let mut cell = short(spread.median);
        if self.rounds.len() > 1 {
            cell.push_str(&format!(" ({}–{})", short(spread.min), short(spread.max)));
        }
        // That of the floor to itself says nothing.
        let ratio = self.ratio_to_floor.get(*name).filter(|_| *has_ratio);
        match ratio.filter(|ratio| (ratio.min, ratio.max) != (1.0, 1.0)) {
            Some(ratio) => format!("{cell} = {:.2}×", ratio.median),
            None => cell,
        }
    }

    /// What should not be, and why a round failed.
    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        for name in FAULTS {
            if let Some(spread) = self.summary.get(name).filter(|spread| spread.max > 0.0) {
                remarks.push(format!(
                    "{} {}",
                    short(spread.median),
                    name.replace('_', " ")
                ));
            }
        }
        if let Some(ratio) = self.summary.get("latency_p99_ratio") {
            remarks.push(format!("p99 {:.2}× of that without", ratio.median));
        }
        if self.rounds.iter().any(Round::is_client_busy) {
            remarks.push("the client was at its limit".to_owned());
        }
        if let Some(failure) = self.failures.first() {
            remarks.push(format!("{} failed: {failure}", self.failures.len()));
        }
        remarks.join("; ")
    }
}

/// On what it was measured.
fn machine() -> BTreeMap<String, String> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    [
        ("cores", cores.to_string()),
        ("processor", line(&read("/proc/cpuinfo"), "model name")),
        ("memory", line(&read("/proc/meminfo"), "MemTotal")),
        (
            "kernel",
            read("/proc/sys/kernel/osrelease").trim().to_owned(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(number: u32, cost: f64) -> Round {
        let mut round = Round {
            number,
            ..Round::default()
        };
        round.put("cpu_server_us", cost);
        round
    }

    #[test]
    fn medians_and_the_ratio_of_each_round_to_the_floor_of_the_same() {
        let scenario = Scenario::named("paced-10").pop().unwrap();
        let scenario = &scenario;
        let mut report = Report::new(3);
        for (number, floor, herald) in [(1, 5.0, 6.0), (2, 10.0, 11.0), (3, 4.0, 8.0)] {
            report.add(scenario, "floor", round(number, floor));
            report.add(scenario, "herald", round(number, herald));
        }
        // Without a floor in its round it counts in no ratio.
        report.add(scenario, "herald", round(4, 8.0));
        report.fail(scenario, "node", "it fell".to_owned());
        report
            .missing
            .insert("nchan".to_owned(), "no nginx".to_owned());
        report.summarise();
        let json = serde_json::to_value(&report).unwrap();
        let herald = &json["scenarios"][0]["targets"]["herald"];
        assert_eq!(herald["summary"]["cpu_server_us"]["median"], 8.0);
        assert_eq!(herald["summary"]["cpu_server_us"]["max"], 11.0);
        let ratio = &herald["ratio_to_floor"]["cpu_server_us"];
        assert_eq!(
            (&ratio["median"], &ratio["max"]),
            (&1.2.into(), &2.0.into())
        );
        let table = report.markdown();
        for part in [
            "| paced-10 | herald | 8 (6–11) = 1.20× |",
            "| paced-10 | floor | 5 (4–10) |",
            "Medians of 3 rounds",
            "1 failed: it fell",
            "nchan was left out: no nginx",
        ] {
            assert!(table.contains(part), "{part} in {table}");
        }
    }

    #[test]
    fn pictures_are_drawn_of_what_was_measured() {
        let mut report = Report::new(1);
        for (name, cost) in [("paced-10", 8.0), ("paced-100x100", 6.0)] {
            report.add(
                &Scenario::named(name).pop().unwrap(),
                "herald",
                round(1, cost),
            );
        }
        report.summarise();
        let folder = tempfile::tempdir().unwrap();
        report.draw(folder.path()).unwrap();
        let files = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["cost-events.svg", "cost-sockets.svg"]);
    }
}
