//! Promises 1 to 3 and 5 on a cluster: three nats-servers, three gateways, load, a seeded schedule of
//! faults, and an auditor outside the gateway that afterwards compares what the stream holds with what
//! each socket got. A tenth of the load comes by HTTP: the stream has each of those once, and what each 2xx said is true.
//!
//! `make faults` runs the long form, `make test` a short one. A seed that fails is printed with its schedule
//! and the command that plays it again.

mod auditor;
mod beside;
mod claims;
mod forged;
mod full;
mod http;
mod listing;
mod load;
mod made_anew;
mod replicas;
mod report;
mod revoked;
mod rolling;
mod run;
mod schedule;
mod sockets;
mod storm;
mod world;

use std::time::Duration;

use self::report::Report;
use self::run::Plan;

/// What the long form asks for, from the environment: `HERALD_FAULTS_SEEDS` (`7` or `1..20`),
/// `HERALD_FAULTS_SECONDS`.
fn asked() -> (Vec<u64>, Duration) {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let seeds = variable("HERALD_FAULTS_SEEDS", "1..20");
    let number = |text: &str| -> u64 { text.trim().parse().expect("a seed is a number") };
    let seeds = match seeds.split_once("..") {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => seeds.split(',').map(number).collect(),
    };
    let seconds = number(&variable("HERALD_FAULTS_SECONDS", "60"));
    (seeds, Duration::from_secs(seconds))
}

/// Whether the gateways are to be blind: see [`world::World::blind`].
fn is_blind() -> bool {
    std::env::var_os("HERALD_FAULTS_BLIND").is_some()
}

/// Plays the seeds and judges them together. Blind gateways have to lose something, or the auditor sees
/// nothing.
async fn play(plans: Vec<Plan>) {
    let mut reports: Vec<Report> = Vec::new();
    println!("{}", Report::HEAD);
    for plan in plans {
        let report = run::run(&plan).await;
        println!("{report}");
        if !report.is_good() && !is_blind() {
            report.tell();
        }
        reports.push(report);
    }
    println!("{}", Report::total(&reports));
    if is_blind() {
        let lost: usize = reports.iter().map(|report| report.missing).sum();
        assert!(
            lost > 0,
            "nothing is missed without repair and sweep: the auditor is blind"
        );
        println!("without repair and sweep {lost} notifications are missing");
    } else {
        let bad = reports.iter().filter(|report| !report.is_good()).count();
        assert_eq!(bad, 0, "seeds with losses or worse, see above");
    }
}

/// Three seeds of 20 s; one has a quorum loss. Half the load: the gateways are debug builds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_twice_under_faults_in_short() {
    let plan = |seed| Plan {
        seed,
        length: Duration::from_secs(20),
        workspaces: 20,
        events_per_second: 400,
    };
    play(vec![plan(1), plan(3), plan(10)]).await;
}

/// The long form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half an hour: make faults"]
async fn nothing_is_lost_or_twice_under_faults() {
    let (seeds, length) = asked();
    let plan = |seed| Plan {
        seed,
        length,
        workspaces: 50,
        events_per_second: 1000,
    };
    play(seeds.into_iter().map(plan).collect()).await;
}
