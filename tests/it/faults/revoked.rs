//! A user is revoked while the node that leads the revocations dies: all sockets of the user end, those of nobody else,
//! and the user does not come back, over restarts of all gateways.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::auditor::Evidence;
use super::load::Events;
use super::run::stored;
use super::sockets::{Balancer, Client, Connection, End, Swarm};
use super::storm::{Load, must_be_whole};
use super::world::{GATEWAYS, Happened, World};
use crate::support::command::finish;
use crate::support::{PATIENCE, eventually};

/// How large it is.
struct Scale {
    workspaces: usize,
    users: usize,
    events_per_second: u32,
    /// How soon after the store, or after its gateway's reconnect, a socket must have ended.
    within: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_revoked_while_a_node_dies_is_out_everywhere_and_for_good() {
    revoke(&Scale {
        workspaces: 20,
        users: 15,
        events_per_second: 40,
        // The gateways are debug builds, and other tests run.
        within: Duration::from_secs(3),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "10,000 sockets: make faults-more"]
async fn of_ten_thousand_sockets_those_of_a_revoked_user_end_within_a_second() {
    revoke(&Scale {
        workspaces: 100,
        users: 100,
        events_per_second: 30,
        within: Duration::from_secs(1),
    })
    .await;
}

async fn revoke(scale: &Scale) {
    let mut world = World::start(|gateway| gateway.set("server.drain", "1s")).await;
    let balancer = Balancer::new(&world.gateways);
    let client = |workspace, user| Client::new(workspace, user, &balancer);
    let all = (0..scale.workspaces)
        .flat_map(|workspace| (0..scale.users).map(move |user| (workspace, user)));
    let (theirs, others): (Vec<_>, Vec<_>) = all
        .map(|(workspace, user)| client(workspace, user))
        .partition(|client| client.user == 0);
    let theirs = Swarm::open(theirs, 1).await;
    let others = Swarm::open(others, 2).await;
    let load = Load::start(&world, scale.workspaces, scale.events_per_second);
    sleep(Duration::from_secs(2)).await;

    world.cluster.is_whole(&world.client, "REVOKED").await;
    let killed = Instant::now();
    let leader = world.cluster.leader(&world.client, "REVOKED").await;
    let leader = leader.expect("somebody leads it");
    world.cluster.node(leader).await.kill().await;
    let revoke = world
        .gateway(0)
        .command(&["revoke", "--user", "u0", "--no-issuer", "--no-wait"]);
    finish(tokio::process::Command::from(revoke)).await.ok();
    let revoked = Instant::now();
    let out = eventually(PATIENCE, async || {
        let connections = theirs
            .clients
            .iter()
            .map(|client| client.connections.lock());
        let mut connections = connections.map(|all| all.expect("no one panics").clone());
        connections.all(|all| all.first().is_some_and(|first| first.ended.is_some()))
    });
    assert!(out.await, "sockets of the user stay open");
    sleep(Duration::from_secs(3)).await;
    let events = load.end().await;
    let fault = Happened {
        began: killed,
        ended: Instant::now(),
    };
    world.cluster.node(leader).await.start_again().await;
    nobody_else_is_touched(&world, &events, &others.end().await, fault).await;

    // Meanwhile the user tries again and again.
    let watch = tokio::spawn(std::sync::Arc::clone(&balancer).watch());
    for gateway in 0..GATEWAYS {
        let since = reconnected_at(&world, gateway).max(revoked);
        must_end_soon(&theirs, gateway, since, scale.within);
        restart(&mut world, gateway).await;
    }
    watch.abort();
    println!("revoked {:?} after the kill", revoked - killed);
    nobody_got_in(&theirs.end().await, revoked + scale.within, scale);
}

/// Each connection that was made after `since` was closed at once, and got nothing.
fn nobody_got_in(connections: &[Connection], since: Instant, scale: &Scale) {
    let mut attempts = 0;
    for connection in connections.iter().filter(|one| one.opened > since) {
        attempts += 1;
        assert_eq!(connection.arrivals.len(), 0, "{connection:?}");
        // At the end of the test one may be on its way.
        if let Some((ended, end)) = connection.ended {
            let is_refused = matches!(end, End::Closed(4001) | End::Gone);
            assert!(is_refused, "{connection:?}");
            let open_for = ended - connection.opened;
            assert!(open_for < scale.within, "open for {open_for:?}");
        }
    }
    println!("{attempts} further attempts, none of which got in");
    assert!(attempts >= scale.workspaces, "only {attempts} attempts");
}

/// Each socket of the user that was open at `gateway` was closed with 4001 soon after `since`.
fn must_end_soon(theirs: &Swarm, gateway: usize, since: Instant, within: Duration) {
    let mut latest = Duration::ZERO;
    let mut sockets = 0;
    for client in &theirs.clients {
        let connections = client.connections.lock().expect("no one panics");
        let first = connections.first().expect("it was open");
        if first.gateway != gateway {
            continue;
        }
        let (ended, end) = first.ended.expect("it has ended");
        assert_eq!(end, End::Closed(4001), "{first:?}");
        latest = latest.max(ended.saturating_duration_since(since));
        sockets += 1;
    }
    println!(
        "gateway {gateway}: the last of {sockets} sockets of the user ended {latest:?} after the store or the reconnect"
    );
    assert!(sockets > 0, "none of theirs was at gateway {gateway}");
    assert!(latest < within, "{latest:?}");
}

async fn restart(world: &mut World, gateway: usize) {
    let old = &mut world.gateways[gateway];
    old.terminate();
    assert_eq!(old.ended().await, Some(0), "a drain ends well");
    let (address, admin) = (old.address.clone(), old.admin.clone());
    let again = world
        .gateway(gateway)
        .set("server.drain", "1s")
        .set("server.listen", address)
        .set("server.admin_listen", admin);
    world.gateways[gateway] = again.ready().await;
    sleep(Duration::from_secs(1)).await;
}

/// When `gateway` had a connection to NATS again, if it lost it.
fn reconnected_at(world: &World, gateway: usize) -> Instant {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let line = world.gateways[gateway].log_line("reconnected to nats");
    let at = line.and_then(|line| {
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str()?).ok()
    });
    let ago = at.map(|at| wall.duration_since(at.into()).unwrap_or_default());
    now - ago.unwrap_or(Duration::from_secs(60))
}

/// None of these sockets has ended, and all that was stored for them came.
async fn nobody_else_is_touched(
    world: &World,
    events: &Events,
    connections: &[Connection],
    fault: Happened,
) {
    let ended = connections.iter().filter(|one| one.ended.is_some());
    assert_eq!(ended.count(), 0, "sockets of others ended");
    let joined = connections.len();
    println!("{joined} sockets of others stay open");
    let stored = stored(&world.client, "EVENTS").await;
    let events = events.lock().expect("no one panics").clone();
    let evidence = Evidence {
        events: &events,
        stored: &stored,
        faults: &[fault],
        drains: &[],
    };
    let verdict = must_be_whole(&evidence, connections);
    assert!(verdict.deliveries > 0, "nothing was delivered");
}
