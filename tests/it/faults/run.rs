//! One run of the harness: world, sockets, load and faults at the same time, then the audit.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull};
use chrono::Utc;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::auditor::{Evidence, Stored, Verdict};
use super::http;
use super::load::{Events, publish};
use super::report::{Report, is_broken};
use super::schedule::{Planned, schedule};
use super::sockets::{Balancer, Client, Connection, Swarm, USERS_EACH};
use super::world::{Happened, World};
use crate::support::{PATIENCE, eventually};

/// What is owed at the end has to be there by then.
const QUIESCENCE: Duration = Duration::from_secs(20);
/// What blind gateways lose does not come: they are not waited for so long.
const QUIESCENCE_BLIND: Duration = Duration::from_secs(2);
/// So long it is watched what comes afterwards.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// A recovery that takes longer is good, and worth a look.
const SLOW: Duration = Duration::from_secs(5);
/// One event in so many comes by HTTP.
const BY_HTTP: u32 = 10;
/// One client in so many comes and goes.
const COMES_AND_GOES: usize = 5;

/// A seed that is a multiple of this has a quorum loss.
const QUORUM_LOSS_EVERY: u64 = 10;

/// What is to be run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) length: Duration,
    pub(super) workspaces: usize,
    pub(super) events_per_second: u32,
}

impl Plan {
    fn schedule(&self) -> Vec<Planned> {
        let quorum_loss = self.seed.is_multiple_of(QUORUM_LOSS_EVERY);
        schedule(self.seed, self.length, quorum_loss)
    }

    /// Says what will be run, and how to run it again.
    fn tell(&self, faults: &[Planned]) {
        println!("seed {}, {:?}:", self.seed, self.length);
        for planned in faults {
            println!("  {planned}");
        }
        println!(
            "  again: make faults SEEDS={} SECONDS={}",
            self.seed,
            self.length.as_secs()
        );
    }
}

/// Runs the plan and judges it.
pub(super) async fn run(plan: &Plan) -> Report {
    let faults = plan.schedule();
    // Said before anything can go wrong, so that whatever does has its seed beside it.
    plan.tell(&faults);
    let folder = tempfile::tempdir().expect("a folder");
    let by_http = |gateway| http::with_http(gateway, folder.path());
    let world = match super::is_blind() {
        true => World::blind(by_http).await,
        false => World::start(by_http).await,
    };
    let swarm = Swarm::open(clients(plan, &world), plan.seed).await;
    let events = Events::default();
    let start = Instant::now();
    let happening = join_all(faults.iter().map(|planned| world.suffer(*planned, start)));
    let over = CancellationToken::new();
    let end = async {
        tokio::time::sleep(plan.length).await;
        over.cancel();
    };
    let rate_of_http = plan.events_per_second / BY_HTTP;
    let load = publish(
        &world.cluster,
        plan.seed,
        plan.workspaces,
        plan.events_per_second - rate_of_http,
        &events,
        &over,
    );
    let by_http = (plan.seed, plan.workspaces, rate_of_http);
    let by_http = http::publish(&world, by_http, &events, &over);
    let (happened, (), by_http, ()) = tokio::join!(happening, load, by_http, end);
    let stored = stored(&world.client, "EVENTS").await;
    quiesce(&swarm.clients, &events, &stored, &happened).await;
    // Who was put off by a fault is back by now; and nothing comes that should not.
    swarm.is_open(PATIENCE).await;
    tokio::time::sleep(AFTERWARDS).await;
    let connections = swarm.end().await;
    let events = events.lock().expect("no one panics").clone();
    let evidence = Evidence {
        events: &events,
        stored: &stored,
        faults: &happened,
        drains: &[],
    };
    assert_eq!(
        evidence.unstored(),
        0,
        "events that NATS acknowledged and lost"
    );
    let verdict = evidence.judge(&connections);
    let uncounted = uncounted(&world, &verdict).await;
    println!("{}", http::summary(&by_http));
    report(
        plan,
        &faults,
        (events.len(), &connections),
        (verdict, http::audit(&by_http, &stored)),
        uncounted,
        &world,
    )
}

fn clients(plan: &Plan, world: &World) -> Vec<Client> {
    let balancer = Balancer::new(&world.gateways);
    let all = (0..plan.workspaces)
        .flat_map(|workspace| (0..USERS_EACH).map(move |user| (workspace, user)));
    all.zip(0usize..)
        .map(|((workspace, user), number)| Client {
            stays: number.is_multiple_of(COMES_AND_GOES).then_some(2000..9000),
            ..Client::new(workspace, user, &balancer)
        })
        .collect()
}

/// The events of the load that `stream` holds, read when the cluster is able to.
pub(super) async fn stored(client: &async_nats::Client, stream: &str) -> Vec<Stored> {
    let mut stored = Err(String::new());
    let is_read = eventually(PATIENCE, async || {
        stored = read(client, stream).await;
        stored.is_ok()
    });
    assert!(is_read.await, "{stream} cannot be read: {stored:?}");
    stored.expect("just looked at")
}

async fn read(client: &async_nats::Client, stream: &str) -> Result<Vec<Stored>, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let context = jetstream::new(client.clone());
    let mut stream = context
        .get_stream(stream)
        .await
        .map_err(|error| told(&error))?;
    let last = stream.info().await.map_err(|error| told(&error))?;
    let last = last.state.last_sequence;
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| told(&error))?;
    let mut messages = consumer.messages().await.map_err(|error| told(&error))?;
    let reference = (Instant::now(), Utc::now());
    let mut stored: Vec<Stored> = Vec::new();
    while stored.last().is_none_or(|event| event.sequence < last) && last > 0 {
        let message = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = message
            .map_err(|error| told(&error))?
            .ok_or("the messages end")?
            .map_err(|error| told(&error))?;
        let body: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let info = message.info().expect("its place");
        let age = reference.1 - info.published;
        stored.push(Stored {
            number: body["title"]
                .as_str()
                .and_then(|title| title.parse().ok())
                .expect("a number"),
            subject: message.subject.to_string(),
            sequence: info.stream_sequence,
            // The servers' clock is this machine's.
            at: reference.0 - age.to_std().unwrap_or_default(),
            id: message
                .headers
                .as_ref()
                .and_then(|headers| headers.get("Nats-Msg-Id"))
                .map(ToString::to_string)
                .unwrap_or_default(),
            payload: message.payload.clone(),
        });
    }
    Ok(stored)
}

/// Waits until every open connection has as much as it is owed, for a while.
async fn quiesce(clients: &[Client], events: &Events, stored: &[Stored], faults: &[Happened]) {
    let events = events.lock().expect("no one panics").clone();
    let evidence = Evidence {
        events: &events,
        stored,
        faults,
        drains: &[],
    };
    let patience = if super::is_blind() {
        QUIESCENCE_BLIND
    } else {
        QUIESCENCE
    };
    // What is still owed then, the audit names.
    let _is_whole = eventually(patience, async || {
        clients.iter().all(|client| {
            let connections = client.connections.lock().expect("no one panics");
            connections
                .last()
                .is_none_or(|connection| connection.ended.is_some() || !evidence.owes(connection))
        })
    })
    .await;
}

/// By how many the events seen late exceed those that each gateway counted as late.
async fn uncounted(world: &World, verdict: &Verdict) -> usize {
    let mut uncounted = 0;
    for (gateway, late) in &verdict.late {
        let counted = world.gateways[*gateway]
            .metric("herald_events_late_total", "")
            .await;
        uncounted += (late.len() as f64 - counted).max(0.0) as usize;
    }
    uncounted
}

fn report(
    plan: &Plan,
    faults: &[Planned],
    (events, connections): (usize, &[Connection]),
    (mut verdict, misstored): (Verdict, Vec<String>),
    uncounted: usize,
    world: &World,
) -> Report {
    verdict.lateness.sort_unstable();
    verdict.latency.sort_unstable();
    verdict.recovery.sort_unstable();
    let kinds = [
        ("missing", &verdict.missing),
        ("twice", &verdict.twice),
        ("foreign", &verdict.foreign),
        ("out of order", &verdict.disordered),
        ("too late", &verdict.too_late),
        ("by HTTP", &misstored),
    ];
    let examples = kinds.iter().flat_map(|(kind, found)| {
        found
            .iter()
            .take(5)
            .map(move |text| format!("{kind}: {text}"))
    });
    let broken: Vec<&Connection> = connections.iter().filter(|one| is_broken(one)).collect();
    let ends = broken
        .iter()
        .take(5)
        .map(|one| format!("broken: {:?}", one.ended));
    let report = Report {
        seed: plan.seed,
        faults: faults.len(),
        events,
        connections: connections.len(),
        deliveries: verdict.deliveries,
        missing: verdict.missing.len(),
        twice: verdict.twice.len(),
        foreign: verdict.foreign.len(),
        disordered: verdict.disordered.len(),
        too_late: verdict.too_late.len(),
        late: verdict
            .late
            .values()
            .map(std::collections::BTreeSet::len)
            .sum(),
        uncounted,
        broken: broken.len(),
        misstored: misstored.len(),
        examples: examples.chain(ends).collect(),
        lateness: verdict.lateness,
        latency: verdict.latency,
        recovery: verdict.recovery,
    };
    let (longest, which) = verdict.slowest;
    if longest > SLOW {
        println!("slowest recovery: {longest:.1?}: {which}");
    }
    if longest > SLOW || !report.is_good() {
        keep_logs(plan.seed, world);
    }
    report
}

/// Writes down what the gateways of a bad run printed.
fn keep_logs(seed: u64, world: &World) {
    for (number, gateway) in world.gateways.iter().enumerate() {
        let path = std::env::temp_dir().join(format!("herald-faults-{seed}-{number}.log"));
        match std::fs::write(&path, gateway.output()) {
            Ok(()) => println!("log of gateway {number}: {}", path.display()),
            Err(error) => println!("no log of gateway {number}: {error}"),
        }
    }
}
