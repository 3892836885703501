//! A rolling restart: each gateway in turn is drained and started again, while its clients go to the others
//! and come back. What a drain promises is audited: all that was stored between a socket's open and the start
//! of its gateway's drain came before its 1012.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::auditor::{Evidence, Stored};
use super::load::{Events, publish};
use super::report::percentiles;
use super::run::stored;
use super::sockets::{Balancer, Client, Connection, End, Policy, Swarm};
use super::world::{GATEWAYS, World};
use crate::support::PATIENCE;
use crate::support::gateway::Builder;

/// How large it is.
struct Scale {
    /// The build that the gateways start as, and those that they are restarted as, one after the other.
    builds: Vec<Option<PathBuf>>,
    workspaces: usize,
    users_each: usize,
    events_per_second: u32,
    quiet: Duration,
    drain: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nobody_and_nothing() {
    roll(&Scale {
        builds: vec![None, None],
        workspaces: 10,
        users_each: 18,
        events_per_second: 50,
        quiet: Duration::from_secs(3),
        drain: Duration::from_secs(3),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "3,000 clients: make faults-more"]
async fn a_rolling_restart_of_three_thousand_clients() {
    roll(&Scale {
        builds: vec![None, None],
        workspaces: 60,
        users_each: 50,
        events_per_second: 60,
        quiet: Duration::from_secs(20),
        drain: Duration::from_secs(10),
    })
    .await;
}

/// From another version to this one, and back. `HERALD_TEST_OTHER_VERSION` names its binary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the binary of another version: scripts/faults.sh upgrade"]
async fn a_rolling_upgrade_and_a_rollback_lose_nobody_and_nothing() {
    let other = std::env::var_os("HERALD_TEST_OTHER_VERSION").map(PathBuf::from);
    let other = other.expect("HERALD_TEST_OTHER_VERSION names a binary");
    roll(&Scale {
        builds: vec![Some(other.clone()), None, Some(other)],
        workspaces: 20,
        users_each: 30,
        events_per_second: 100,
        quiet: Duration::from_secs(3),
        drain: Duration::from_secs(5),
    })
    .await;
}

async fn roll(scale: &Scale) {
    let mut world = World::start(|gateway| drained(gateway, scale, 0)).await;
    let balancer = Balancer::new(&world.gateways);
    let watch = tokio::spawn(Arc::clone(&balancer).watch());
    let swarm = Swarm::open(clients(scale, &balancer), 1).await;
    let events = Events::default();
    let over = CancellationToken::new();
    let cluster = Arc::clone(&world.cluster);
    let load = {
        let (events, over) = (Arc::clone(&events), over.clone());
        let (workspaces, rate) = (scale.workspaces, scale.events_per_second);
        tokio::spawn(async move { publish(&cluster, 1, workspaces, rate, &events, &over).await })
    };
    let quiet = Instant::now();
    sleep(scale.quiet).await;
    let mut restarts = Vec::new();
    for build in 1..scale.builds.len() {
        for gateway in 0..GATEWAYS {
            restarts.push(restart(&mut world, gateway, scale, build).await);
            swarm.is_open(PATIENCE * 2).await;
        }
    }
    over.cancel();
    load.await.expect("the load does not panic");
    let stored = stored(&world.client, "EVENTS").await;
    sleep(Duration::from_secs(2)).await;
    let connections = swarm.end().await;
    watch.abort();
    let events = events.lock().expect("no one panics").clone();
    let drains: Vec<(usize, Instant)> = restarts
        .iter()
        .map(|restart| (restart.gateway, restart.began))
        .collect();
    let verdict = Evidence {
        events: &events,
        stored: &stored,
        faults: &[],
        drains: &drains,
    }
    .judge(&connections);
    tell(&stored, &connections, quiet, &restarts);
    for wrong in [
        &verdict.missing,
        &verdict.twice,
        &verdict.foreign,
        &verdict.disordered,
        &verdict.too_late,
    ] {
        assert!(
            wrong.is_empty(),
            "{} wrong, first {:?}",
            wrong.len(),
            wrong.first()
        );
    }
    let others = connections
        .iter()
        .filter(|connection| !matches!(connection.ended, None | Some((_, End::Closed(1012)))));
    assert_eq!(
        others.count(),
        0,
        "connections that ended otherwise than by 1012"
    );
}

fn drained(gateway: Builder, scale: &Scale, build: usize) -> Builder {
    let gateway = match &scale.builds[build] {
        Some(binary) => gateway.binary(binary),
        None => gateway,
    };
    gateway
        .set("server.drain", format!("{}s", scale.drain.as_secs()))
        // Longer than the balancer takes to look.
        .set("server.drain_delay", "1s")
}

fn clients(scale: &Scale, balancer: &Arc<Balancer>) -> Vec<Client> {
    let all = (0..scale.workspaces)
        .flat_map(|workspace| (0..scale.users_each).map(move |user| (workspace, user)));
    all.map(|(workspace, user)| Client {
        policy: if user % 2 == 0 {
            Policy::Manager
        } else {
            Policy::Jitter
        },
        ..Client::new(workspace, user, balancer)
    })
    .collect()
}

/// One gateway's restart.
struct Restart {
    gateway: usize,
    /// SIGTERM.
    began: Instant,
    /// The process was gone.
    ended: Instant,
    /// It was ready again.
    ready: Instant,
}

async fn restart(world: &mut World, gateway: usize, scale: &Scale, build: usize) -> Restart {
    let old = &mut world.gateways[gateway];
    let began = Instant::now();
    old.terminate();
    assert_eq!(old.ended().await, Some(0), "a drain ends well");
    let ended = Instant::now();
    let limit = Duration::from_secs(1) + scale.drain + Duration::from_secs(16);
    assert!(ended - began < limit, "the drain took {:?}", ended - began);
    let (address, admin) = (old.address.clone(), old.admin.clone());
    let again = drained(world.gateway(gateway), scale, build)
        .set("server.listen", address)
        .set("server.admin_listen", admin);
    world.gateways[gateway] = again.ready().await;
    Restart {
        gateway,
        began,
        ended,
        ready: Instant::now(),
    }
}

/// Shows how the clients came back, and what those saw that were not concerned.
fn tell(stored: &[Stored], connections: &[Connection], quiet: Instant, restarts: &[Restart]) {
    let at: BTreeMap<usize, Instant> = stored
        .iter()
        .map(|event| (event.number, event.at))
        .collect();
    let latencies = |from: Instant, to: Instant, but: Option<usize>| {
        let mut latencies: Vec<Duration> = connections
            .iter()
            .filter(|connection| Some(connection.gateway) != but && connection.opened < from)
            .flat_map(|connection| &connection.arrivals)
            .filter(|arrival| (from..to).contains(&arrival.at))
            .filter_map(|arrival| {
                Some(
                    arrival
                        .at
                        .saturating_duration_since(*at.get(&arrival.number)?),
                )
            })
            .collect();
        latencies.sort_unstable();
        latencies
    };
    let first = restarts.first().expect("some restart").began;
    println!(
        "quiet: latency {}",
        percentiles(&latencies(quiet, first, None))
    );
    for restart in restarts {
        let others = latencies(restart.began, restart.ready, Some(restart.gateway));
        let mut back: BTreeMap<u64, usize> = BTreeMap::new();
        let reconnects = connections.iter().filter(|connection| {
            (restart.began..restart.ready + Duration::from_secs(5)).contains(&connection.opened)
        });
        for connection in reconnects {
            *back
                .entry((connection.opened - restart.began).as_secs())
                .or_default() += 1;
        }
        println!(
            "gateway {}: drained in {:.1?}, ready after {:.1?}; others' latency {}; back in each second: {:?}",
            restart.gateway,
            restart.ended - restart.began,
            restart.ready - restart.began,
            percentiles(&others),
            back.values().collect::<Vec<_>>()
        );
    }
}
