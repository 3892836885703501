//! What faults bring in numbers: a storm of reconnects after a gateway's death, a leader change with
//! thousands of rooms, a repair behind thin lines, and memory under churn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::auditor::{Evidence, Verdict};
use super::load::{Events, publish};
use super::report::percentiles;
use super::run::stored;
use super::sockets::{Balancer, Client, Connection, End, Policy, Swarm};
use super::world::{Happened, World};
use crate::support::PATIENCE;
use crate::support::cable::{Cable, Condition};
use crate::support::gateway::signal;

/// A load that goes on until it is told to end.
pub(super) struct Load {
    events: Events,
    over: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    pub(super) fn start(world: &World, workspaces: usize, per_second: u32) -> Self {
        Self::go_on(world, workspaces, per_second, Events::default())
    }

    /// As [`Load::start`], after these events.
    fn go_on(world: &World, workspaces: usize, per_second: u32, events: Events) -> Self {
        let over = CancellationToken::new();
        let task = {
            let (cluster, events, over) = (
                Arc::clone(&world.cluster),
                Arc::clone(&events),
                over.clone(),
            );
            tokio::spawn(async move {
                publish(&cluster, 1, workspaces, per_second, &events, &over).await;
            })
        };
        Self { events, over, task }
    }

    pub(super) async fn end(self) -> Events {
        self.over.cancel();
        self.task.await.expect("the load does not panic");
        self.events
    }
}

/// Asserts that nothing is missing, twice, foreign or out of order, and returns the rest.
pub(super) fn must_be_whole(evidence: &Evidence<'_>, connections: &[Connection]) -> Verdict {
    let verdict = evidence.judge(connections);
    for wrong in [
        &verdict.missing,
        &verdict.twice,
        &verdict.foreign,
        &verdict.disordered,
    ] {
        assert!(
            wrong.is_empty(),
            "{} wrong, first {:?}",
            wrong.len(),
            wrong.first()
        );
    }
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_gateway_that_dies_are_taken_in_by_another() {
    storm(500, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "9,000 reconnects: make faults-more"]
async fn a_storm_of_nine_thousand_reconnects() {
    // A process has 20,000 files here, and this one has each client's.
    storm(9_000, Duration::from_secs(15)).await;
}

async fn storm(count: usize, quiet: Duration) {
    const WORKSPACES: usize = 50;
    let world = World::start(|gateway| gateway).await;
    let dying = Balancer::new(&world.gateways);
    dying.only(0);
    let stay = Balancer::new(&world.gateways);
    stay.only(1);
    let stayed = (0..200).map(|number| Client::new(number % WORKSPACES, 100_000 + number, &stay));
    let stayed = Swarm::open(stayed.collect(), 1).await;
    let concerned = (0..count).map(|number| Client {
        policy: Policy::Manager,
        ..Client::new(number % WORKSPACES, number, &dying)
    });
    let concerned = Swarm::open(concerned.collect(), 2).await;
    let load = Load::start(&world, WORKSPACES, 20);
    let began = Instant::now();
    sleep(quiet).await;
    dying.only(1);
    let died = Instant::now();
    signal(world.gateways[0].pid(), "-KILL");
    // The first try of each comes a second after the end.
    sleep(Duration::from_millis(500)).await;
    concerned.is_open(PATIENCE * 4).await;
    let back = Instant::now();
    let events = load.end().await;
    let stored = stored(&world.client, "EVENTS").await;
    sleep(Duration::from_secs(1)).await;
    let returned = concerned.end().await;
    let connections = stayed.end().await;
    let events = events.lock().expect("no one panics").clone();
    let evidence = Evidence {
        events: &events,
        stored: &stored,
        faults: &[],
        drains: &[],
    };
    must_be_whole(&evidence, &connections);
    must_be_whole(&evidence, &returned);
    let at: BTreeMap<usize, Instant> = stored
        .iter()
        .map(|event| (event.number, event.at))
        .collect();
    let latencies = |from: Instant, to: Instant| {
        let arrivals = connections
            .iter()
            .flat_map(|connection| &connection.arrivals);
        let mut latencies: Vec<Duration> = arrivals
            .filter(|arrival| (from..to).contains(&arrival.at))
            .map(|arrival| arrival.at.saturating_duration_since(at[&arrival.number]))
            .collect();
        latencies.sort_unstable();
        percentiles(&latencies)
    };
    println!(
        "{count} reconnects after a gateway's death: all back after {:.1?}; latency of 200 others {} before, {} meanwhile",
        back - died,
        latencies(began, died),
        latencies(died, back),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_changes_with_hundreds_of_rooms_lose_nothing() {
    rooms(300, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "9,000 rooms: make faults-more"]
async fn leader_changes_with_nine_thousand_rooms_lose_nothing() {
    rooms(9_000, 1000).await;
}

async fn rooms(count: usize, per_second: u32) {
    let world = World::start(|gateway| gateway).await;
    let balancer = Balancer::new(&world.gateways);
    balancer.only(0);
    let clients = (0..count).map(|workspace| Client::new(workspace, 0, &balancer));
    let swarm = Swarm::open(clients.collect(), 1).await;
    let load = Load::start(&world, count, per_second);
    let mut faults = Vec::new();
    for _ in 0..4 {
        sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        // Where there is no leader at the moment, nothing steps down.
        let _ = world.cluster.step_down(&world.client, "EVENTS").await;
        faults.push(Happened {
            began,
            ended: Instant::now(),
        });
    }
    sleep(Duration::from_secs(4)).await;
    let events = load.end().await;
    let stored = stored(&world.client, "EVENTS").await;
    let events = events.lock().expect("no one panics").clone();
    let evidence = Evidence {
        events: &events,
        stored: &stored,
        faults: &faults,
        drains: &[],
    };
    sleep(Duration::from_secs(6)).await;
    let mut verdict = must_be_whole(&evidence, &swarm.end().await);
    assert!(
        verdict.too_late.is_empty(),
        "{:?}",
        verdict.too_late.first()
    );
    verdict.latency.sort_unstable();
    verdict.lateness.sort_unstable();
    println!(
        "{} leader changes with {count} rooms: {} of {} deliveries late, {}; all {}",
        faults.len(),
        verdict.lateness.len(),
        verdict.deliveries,
        percentiles(&verdict.lateness),
        percentiles(&verdict.latency),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_closes_nobody_behind_a_thin_line() {
    thin(Duration::from_secs(6), 900).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "five minutes: make faults-more"]
async fn a_repair_after_five_minutes_closes_nobody_behind_a_thin_line() {
    thin(Duration::from_secs(300), 60).await;
}

/// A gateway is cut off while `per_second` events come for two workspaces; its clients have 1 Mbit/s each.
async fn thin(away: Duration, per_second: u32) {
    const LINE: Condition = Condition::Thin(125_000);
    // Its clients hear nothing meanwhile, and say nothing.
    let world = World::start(|gateway| gateway.set("sockets.inactivity", "15m")).await;
    let gateway = world.gateways[0].port();
    let mut lines = Vec::new();
    let mut clients = Vec::new();
    for number in 0..10 {
        let line = Cable::to(gateway).await;
        line.set(LINE);
        let balancer = Balancer::at(vec![line.address().to_string()]);
        clients.push(Client::new(number % 2, number / 2, &balancer));
        lines.push(line);
    }
    let swarm = Swarm::open(clients, 1).await;
    for cable in &world.cables[0] {
        cable.cut();
    }
    let load = Load::start(&world, 2, per_second);
    sleep(away).await;
    let events = load.end().await;
    let began = Instant::now();
    for cable in &world.cables[0] {
        cable.mend();
    }
    // The line is still busy when there are new ones.
    let load = Load::go_on(&world, 2, 5, Arc::clone(&events));
    sleep(Duration::from_secs(3)).await;
    load.end().await;
    let stored = stored(&world.client, "EVENTS").await;
    let expected = events.lock().expect("no one panics").clone();
    let owed = expected
        .iter()
        .filter(|event| event.workspace == 0 && event.recipients.is_none())
        .count();
    let whole = crate::support::eventually(Duration::from_secs(180), async || {
        swarm
            .clients
            .iter()
            .filter(|client| client.workspace == 0)
            .all(|client| {
                let connections = client.connections.lock().expect("no one panics");
                connections
                    .last()
                    .is_some_and(|last| last.arrivals.len() >= owed)
            })
    });
    assert!(whole.await, "the repair does not end");
    let took = began.elapsed();
    let connections = swarm.end().await;
    let ended: Vec<(Instant, End)> = connections
        .iter()
        .filter_map(|connection| connection.ended)
        .collect();
    assert!(ended.is_empty(), "closed: {ended:?}");
    println!(
        "a gateway cut off for {away:?}, {} events, 10 sockets with 1 Mbit/s each: all there after {took:.1?}, none closed",
        stored.len()
    );
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.expect("a number of KiB")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "twelve minutes: make faults-more"]
async fn memory_stays_under_churn_and_falls_when_all_have_left() {
    const CLIENTS: usize = 2_000;
    const WORKSPACES: usize = 200;
    let world = World::start(|gateway| gateway).await;
    let balancer = Balancer::new(&world.gateways);
    balancer.only(0);
    let pid = world.gateways[0].pid();
    let start = resident(pid);
    // Each stays 20 s on average: 100 leave and come in a second.
    let clients = (0..CLIENTS).map(|number| Client {
        stays: Some(10_000..29_000),
        ..Client::new(number % WORKSPACES, number, &balancer)
    });
    let stop = CancellationToken::new();
    let tasks: Vec<_> = clients
        .zip(0..)
        .map(|(client, seed)| tokio::spawn(client.run(seed, stop.clone())))
        .collect();
    let load = Load::start(&world, WORKSPACES, 100);
    let mut minutes = Vec::new();
    for _ in 0..10 {
        sleep(Duration::from_secs(60)).await;
        minutes.push(resident(pid));
    }
    stop.cancel();
    for task in tasks {
        task.await.expect("no client panics");
    }
    drop(load.end().await);
    // Rooms linger for a minute.
    sleep(Duration::from_secs(90)).await;
    let left = resident(pid);
    println!("KiB at the start {start}, after each minute {minutes:?}, after all have left {left}");
    let (second, last) = (minutes[1], minutes[9]);
    assert!(
        last * 100 <= second * 105,
        "{second} KiB after two minutes, {last} after ten"
    );
}
