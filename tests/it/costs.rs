//! What an event, a delivery and a join cost the gateway, counted by callgrind against a committed baseline. A count
//! needs no quiet machine: `make costs` runs it.
//!
//! Each is done alone, between two dumps of the counters, and no thread of the gateway is at work at either. The
//! least of many is what it costs: what happens beside it (a sweep, a timer, a table that grows) only adds, and is in
//! some of them. The second least, since two writes of a join may for once fall together. What windows without
//! any hold is taken off. The processor's features do not matter: to a program, valgrind is a processor of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::support::gateway::{self, Gateway};
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;
use crate::support::raw::RawSocket;
use crate::support::token::publisher;
use crate::support::{PATIENCE, eventually};

/// Windows of each kind.
const WINDOWS: usize = 41;
/// Sockets of the room between which the cost of a delivery is taken: in a small one, and in a large one.
const SOCKETS: [usize; 4] = [50, 250, 300, 500];
/// By how much of the baseline these may differ.
const TOLERANCE: f64 = 0.1;
const INSTRUCTIONS: &str = "instructions";
const CLOCK_READS: &str = "clock_reads";

const ALLOCATORS: [&str; 8] = [
    "_rjem_malloc",
    "_rjem_calloc",
    "_rjem_realloc",
    "_rjem_mallocx",
    "_rjem_rallocx",
    "malloc",
    "calloc",
    "realloc",
];

/// What a span or a log record goes through that is made, whatever becomes of it, by the end of the function's name. A
/// span of `tracing` comes to the subscriber, a log line too, and what is written with `log` to that crate first.
const MADE: [(&str, &str); 3] = [
    ("Subscriber>::new_span", SPANS),
    ("Subscriber>::event", LOG_RECORDS),
    ("log::__private_api::log", LOG_RECORDS),
];
const SPANS: &str = "spans";
const LOG_RECORDS: &str = "log_records";

/// What varies by itself, and is not compared: a timer, too, wakes a thread that waits, and the runtime reads the clock
/// each time that it is about to wait.
const UNSTEADY: [&str; 2] = ["epoll_wait", CLOCK_READS];

/// What each kind is, as the baseline says it.
const KINDS: [(&str, &str); 5] = [
    (
        "event",
        "An event of some 530 bytes, from NATS to the one socket of its room.",
    ),
    (
        "delivery",
        "What one more socket in the room adds to an event.",
    ),
    (
        "delivery_in_a_large_room",
        "The same in a room of 300 to 500.",
    ),
    (
        "join",
        "From the connection to the 101, in a room that others are in.",
    ),
    (
        "publish_by_http",
        "A request with an event of some 530 bytes, to its 201, on a connection and with a JWT that came before.",
    ),
];
const HEAD: &str = "\
# What the gateway costs, as `make costs` counts it: a release build for x86-64 with one worker, under callgrind.
# `make costs UPDATE=1` writes it. Instructions (of the program, not of the kernel) may differ
# by a tenth. The rest is exact: allocations, spans and log records that are made, and system calls by the function of
# the C library that makes them.
";
/// Functions that are listed of each kind.
const MOST: usize = 12;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/costs.toml");
const WHAT_NOW: &str = "this costs more or less than tests/costs.toml says, see the table. More: find out why by the \
    functions above. Less, or worth it: `make costs UPDATE=1`, and say why in the commit";

/// Counts by name: of what a window holds, or of what is compared.
type Counts = BTreeMap<String, f64>;
/// What is compared, by kind.
type Seen = BTreeMap<String, Counts>;

/// A gateway under callgrind.
struct Counted {
    gateway: Gateway,
    folder: TempDir,
    dumps: usize,
}

impl Counted {
    async fn on(nats: &Nats, variables: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let binary = std::env::var("HERALD_TEST_GATEWAY").unwrap_or(gateway::HERALD.into());
        // One thread, so that how work is handed over between threads does not depend on the machine.
        let script = format!(
            "#!/bin/sh\nTOKIO_WORKER_THREADS=1 exec valgrind -q --tool=callgrind --collect-systime=yes \
             --dump-line=no --vgdb-prefix={0}/vgdb --callgrind-out-file={0}/out {binary} \"$@\"\n",
            folder.path().display()
        );
        let wrapper = PathBuf::from(gateway::file(folder.path(), "herald", script));
        std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).expect("it is ours");
        let gateway = Gateway::builder(nats)
            .binary(&wrapper)
            .set("log.level", "info")
            .set("server.publish_listen", "127.0.0.1:0")
            .set("sockets.ping", "1h")
            .set("sockets.inactivity", "1h");
        let gateway = variables.iter().fold(gateway, |gateway, (name, value)| {
            gateway.variable(name, value)
        });
        Self {
            gateway: gateway.ready().await,
            folder,
            dumps: 0,
        }
    }

    /// Waits until no thread has anything to do: on a busy machine one that waits for its turn counts as running.
    async fn quiet(&self) {
        let tasks = format!("/proc/{}/task", self.gateway.pid());
        let sleeps = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_none_or(|(_, state)| state.starts_with('S'))
        };
        let mut looks = 0;
        let quiet = eventually(PATIENCE, async || {
            let tasks = std::fs::read_dir(&tasks).expect("it runs");
            let all_sleep = tasks.flatten().all(sleeps);
            looks = if all_sleep { looks + 1 } else { 0 };
            looks == 2
        });
        assert!(quiet.await, "the gateway does not come to rest");
    }

    /// What was counted since the last time.
    async fn counts(&mut self) -> Counts {
        self.quiet().await;
        let folder = self.folder.path().display();
        let mut vgdb = std::process::Command::new("vgdb");
        vgdb.arg(format!("--vgdb-prefix={folder}/vgdb"))
            .arg(format!("--pid={}", self.gateway.pid()))
            .arg("dump");
        let (status, output, errors) = gateway::run(vgdb);
        assert_eq!(status, Some(0), "{output}{errors}");
        self.dumps += 1;
        let dump = format!("{folder}/out.{}", self.dumps);
        let counts = counts(&std::fs::read_to_string(&dump).expect("it was written"));
        std::fs::remove_file(dump).expect("it is ours");
        counts
    }

    /// What doing something counts at least.
    async fn least(&mut self, mut something: impl AsyncFnMut(&Gateway)) -> Counts {
        self.counts().await;
        let mut windows = Vec::new();
        for _ in 0..WINDOWS {
            something(&self.gateway).await;
            windows.push(self.counts().await);
        }
        let names: BTreeSet<&String> = windows.iter().flat_map(Counts::keys).collect();
        let least = |name: &String| {
            let mut all: Vec<f64> = windows.iter().map(|one| of(one, name)).collect();
            all.sort_by(f64::total_cmp);
            (name.clone(), all[1])
        };
        names.into_iter().map(least).collect()
    }
}

/// Reads a dump: what is compared by its name, and the functions' own instructions by `fn …`.
fn counts(dump: &str) -> Counts {
    let mut counts = Counts::new();
    let mut add = |name: &str, count: u64| {
        *counts.entry(name.to_owned()).or_default() += count as f64;
    };
    // The name of a function stands where it is met first: `fn=(7) main`, and then `fn=(7)`.
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut function, mut callee) = ("", "");
    let mut lines = dump.lines();
    while let Some(line) = lines.next() {
        match line.split_once('=') {
            Some((kind @ ("fn" | "cfn"), text)) => {
                let (id, name) = text.split_once(' ').unwrap_or((text, ""));
                let known = names.entry(id).or_insert(name);
                *(if kind == "fn" {
                    &mut function
                } else {
                    &mut callee
                }) = known;
            }
            Some(("calls", text)) => {
                let count = text.split(' ').next().and_then(|count| count.parse().ok());
                let count = count.expect("a count");
                if ALLOCATORS.contains(&callee) {
                    add("allocations", count);
                }
                let made = MADE.iter().find(|(part, _)| callee.ends_with(part));
                // Once for each layer that it comes through: none is none.
                if let Some((_, name)) = made {
                    add(name, count);
                }
                // What the callee cost.
                lines.next();
            }
            None if line
                .starts_with(|first: char| "+-*".contains(first) || first.is_ascii_digit()) =>
            {
                let mut costs = line
                    .split(' ')
                    .skip(1)
                    .map(|cost| cost.parse().expect("a count"));
                let instructions = costs.next().unwrap_or(0);
                add(INSTRUCTIONS, instructions);
                add(&format!("fn {function}"), instructions);
                // The vDSO, which reads the clock without a system call, is not seen by a program under callgrind.
                // `clock_gettime@@GLIBC_2.17`, and `'2` where it stands in itself.
                let call = match function.split(['@', '\'']).next() {
                    Some("clock_gettime") => CLOCK_READS,
                    name => name.unwrap_or_default(),
                };
                add(call, costs.next().unwrap_or(0));
            }
            _ => {}
        }
    }
    counts.retain(|_, count| *count > 0.0);
    counts
}

fn of(counts: &Counts, name: &str) -> f64 {
    counts.get(name).copied().unwrap_or(0.0)
}

/// What `more` has beyond `less`, for each of `count`.
fn slope(less: &Counts, more: &Counts, count: usize) -> Counts {
    let names: BTreeSet<&String> = less.keys().chain(more.keys()).collect();
    let each = |name| (of(more, name) - of(less, name)) / count as f64;
    let rounded = |name| (each(name) * 10.0).round() / 10.0;
    names
        .into_iter()
        .map(|name| (name.clone(), rounded(name)))
        .filter(|(_, count)| *count != 0.0)
        .collect()
}

/// The functions that take most of a kind's instructions.
fn most(kind: &str, counts: &Counts) -> String {
    let mut functions: Vec<_> = counts
        .iter()
        .filter_map(|(name, count)| Some((name.strip_prefix("fn ")?, *count)))
        .collect();
    functions.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let mut text = format!("\n{kind}, the instructions by function:\n");
    for (name, count) in functions.iter().take(MOST) {
        writeln!(text, "{count:>10.1} {name}").expect("a text");
    }
    text
}

/// The baseline's file.
fn written(seen: &Seen) -> String {
    let mut text = HEAD.to_owned();
    for (kind, what) in KINDS {
        writeln!(text, "\n# {what}\n[{kind}]").expect("a text");
        for (name, count) in &seen[kind] {
            writeln!(text, "{name:?} = {count}").expect("a text");
        }
    }
    text
}

/// Both side by side, and whether `seen` is what the baseline says.
fn table(baseline: &Seen, seen: &Seen) -> (String, bool) {
    let mut text = format!("{:<26}{:<14}{:>12}{:>12}\n", "", "", "baseline", "seen");
    let mut is_as_ever = true;
    let none = Counts::new();
    for (kind, _) in KINDS {
        let (baseline, seen) = (baseline.get(kind).unwrap_or(&none), &seen[kind]);
        let names: BTreeSet<&String> = baseline.keys().chain(seen.keys()).collect();
        for name in names {
            let (expected, seen) = (of(baseline, name), of(seen, name));
            let tolerance = match name.as_str() {
                INSTRUCTIONS => TOLERANCE * expected,
                _ => 0.0,
            };
            let is_off = (seen - expected).abs() > tolerance;
            is_as_ever &= !is_off;
            let mark = if is_off { "  <-" } else { "" };
            writeln!(text, "{kind:<26}{name:<14}{expected:>12}{seen:>12}{mark}").expect("a text");
        }
    }
    (text, is_as_ever)
}

async fn join(gateway: &Gateway, sockets: &mut Vec<RawSocket>) {
    let user = format!("user{}", sockets.len());
    sockets.push(RawSocket::join(gateway, &user, "acme").await);
}

async fn deliver(publisher: &Publisher, sockets: &mut [RawSocket]) {
    let payload = json!({ "title": "A title", "message": "x".repeat(490) });
    publisher.event("acme.custom.x", &payload).await;
    for socket in sockets {
        socket.next().await.expect("a notification");
    }
}

/// To a workspace without sockets.
fn publish_request(gateway: &Gateway) -> reqwest::RequestBuilder {
    let url = format!(
        "http://{}/v1/workspaces/globex/events/custom.x",
        gateway.publish
    );
    let event = json!({ "title": "A title", "message": "x".repeat(490) });
    let request =
        reqwest::Client::new()
            .post(url)
            .bearer_auth(publisher("ci", &json!("*"), &json!("*")));
    request
        .header("content-type", "application/json")
        .body(event.to_string())
}

#[tokio::test]
#[ignore = "for `make costs`: takes valgrind and a release build"]
async fn an_event_a_delivery_and_a_join_cost_what_the_baseline_says() {
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let mut counted = Counted::on(&nats, &[]).await;
    let mut sockets = Vec::new();
    join(&counted.gateway, &mut sockets).await;
    for _ in 0..5 {
        deliver(&publisher, &mut sockets).await;
    }
    let nothing = counted.least(async |_| {}).await;
    let event = counted
        .least(async |_| deliver(&publisher, &mut sockets).await)
        .await;
    let joined = counted
        .least(async |gateway| join(gateway, &mut sockets).await)
        .await;
    let request = publish_request(&counted.gateway);
    let published = counted
        .least(async |_| {
            let answer = request.try_clone().expect("a text").send().await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status(), 201);
            answer.bytes().await.expect("all of it");
        })
        .await;
    let mut in_rooms = Vec::new();
    for count in SOCKETS {
        while sockets.len() < count {
            join(&counted.gateway, &mut sockets).await;
        }
        in_rooms.push(
            counted
                .least(async |_| deliver(&publisher, &mut sockets).await)
                .await,
        );
    }
    let mut seen: Seen = KINDS
        .map(|(kind, _)| kind.to_owned())
        .into_iter()
        .zip([
            slope(&nothing, &event, 1),
            slope(&in_rooms[0], &in_rooms[1], SOCKETS[1] - SOCKETS[0]),
            slope(&in_rooms[2], &in_rooms[3], SOCKETS[3] - SOCKETS[2]),
            slope(&nothing, &joined, 1),
            slope(&nothing, &published, 1),
        ])
        .collect();
    for (kind, counts) in &mut seen {
        println!("{}", most(kind, counts));
        for name in ["allocations", SPANS, LOG_RECORDS] {
            counts.entry(name.to_owned()).or_default();
        }
        counts.retain(|name, _| !name.starts_with("fn ") && !UNSTEADY.contains(&name.as_str()));
    }
    if std::env::var_os("HERALD_COSTS_UPDATE").is_some() {
        std::fs::write(BASELINE, written(&seen)).expect("it is ours");
    }
    let baseline = std::fs::read_to_string(BASELINE).expect("it is committed");
    let baseline = toml::from_str(&baseline).expect("TOML");
    let (table, is_as_ever) = table(&baseline, &seen);
    // Before the logs of both would be told.
    drop((counted, nats));
    assert!(is_as_ever, "{table}\n{WHAT_NOW}");
    println!("{table}");
}

/// What an event and a delivery cost a gateway whose traces these variables are for.
async fn traced(variables: &[(&str, String)]) -> [Counts; 2] {
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let mut counted = Counted::on(&nats, variables).await;
    let mut sockets = Vec::new();
    join(&counted.gateway, &mut sockets).await;
    for _ in 0..5 {
        deliver(&publisher, &mut sockets).await;
    }
    let mut at = vec![counted.least(async |_| {}).await];
    for count in [1, SOCKETS[0], SOCKETS[1]] {
        while sockets.len() < count {
            join(&counted.gateway, &mut sockets).await;
        }
        at.push(
            counted
                .least(async |_| deliver(&publisher, &mut sockets).await)
                .await,
        );
    }
    [
        slope(&at[0], &at[1], 1),
        slope(&at[2], &at[3], SOCKETS[1] - SOCKETS[0]),
    ]
}

/// The instructions of what traces can add to. How often the runtime parks and looks at its timers is chance, and
/// more than 1 % of a delivery.
fn of_traces(counts: &Counts) -> f64 {
    let is_of_them = |name: &str| {
        [
            "herald::",
            "log::",
            "opentelemetry",
            "_rjem",
            "sharded_slab",
            "tracing",
        ]
        .iter()
        .any(|part| name.contains(part))
    };
    let own = counts
        .iter()
        .filter(|(name, _)| name.starts_with("fn ") && is_of_them(name));
    own.map(|(_, count)| count).sum()
}

/// With a sampler of 1 %, each event is one that is recorded or one that is not.
#[tokio::test]
#[ignore = "for `make costs`: takes valgrind and a release build"]
async fn traces_of_one_percent_add_at_most_one_percent_to_a_delivery() {
    // An event of a room of one has its spans for one delivery alone.
    let limits = [("event", 0.03), ("delivery", 0.01)];
    let collector = Collector::start().await;
    let endpoint = format!("{}/v1/traces", collector.http());
    let sampled_by = |sampler: &str| {
        [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.clone()),
            ("OTEL_TRACES_SAMPLER", sampler.to_owned()),
            // Only a full batch is exported, so seldom that it is in none of the least windows.
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned()),
        ]
    };
    let without = traced(&[]).await;
    let not_recorded = traced(&sampled_by("always_off")).await;
    let recorded = traced(&sampled_by("always_on")).await;
    for (index, (what, limit)) in limits.into_iter().enumerate() {
        let all = [&without, &not_recorded, &recorded].map(|seen| &seen[index]);
        println!("{}", most(what, &slope(all[0], all[2], 1)));
        for name in [INSTRUCTIONS, "allocations", CLOCK_READS, SPANS, LOG_RECORDS] {
            let [without, not_recorded, recorded] = all.map(|seen| of(seen, name));
            println!(
                "{what} {name}: {without} without traces, {not_recorded} not recorded, {recorded} recorded"
            );
        }
        let [none, not_made, made] = all.map(|seen| of(seen, SPANS));
        assert!(none == 0.0 && not_made == 0.0, "{what}");
        // They are seen where there are some: those of an event, which one more socket adds none to.
        assert!(made > 0.0 || what == "delivery", "{what}");
        let [without, not_recorded, recorded] = all.map(of_traces);
        let more = 0.99 * not_recorded + 0.01 * recorded - without;
        println!("{what}: {more:.1} instructions more where 1 % is recorded");
        assert!(more <= limit * of(all[0], INSTRUCTIONS), "{what}");
    }
}
