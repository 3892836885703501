//! Promise 3 across gateways: of two connections of one user that come at the same time to two gateways one
//! stays, also while the leader of SESSIONS changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::report::percentiles;
use super::world::{GATEWAYS, World};
use crate::support::client::Client;
use crate::support::nats::cluster::request;
use crate::support::publisher::Publisher;
use crate::support::token::token;

/// One of the two is closed by then.
const SETTLES: Duration = Duration::from_secs(5);
const WORKSPACES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_connections_at_the_same_time_one_stays() {
    pairs(400, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "10,000 pairs: make faults-more"]
async fn of_ten_thousand_pairs_of_connections_one_each_stays() {
    pairs(10_000, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_claimed_elsewhere_while_a_gateway_was_cut_off_is_closed_there_afterwards() {
    let world = World::start(|gateway| gateway).await;
    let mut older = Client::join(&world.gateways[0], "ann", "acme").await;
    for cable in &world.cables[0] {
        cable.cut();
    }
    let mut newer = Client::join(&world.gateways[1], "ann", "acme").await;
    // It cannot know yet.
    assert!(older.is_open().await);
    for cable in &world.cables[0] {
        cable.mend();
    }
    is_replaced(&mut older).await;
    assert!(newer.is_open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_republish_was_lost_counts_from_the_next_election_on() {
    let world = World::start(|gateway| gateway).await;
    let mut older = Client::join(&world.gateways[0], "ann", "acme").await;
    let publisher = Publisher::over(world.client.clone());
    let join = async || Box::pin(Client::join(&world.gateways[1], "ann", "acme")).await;
    let mut newer = publisher.unheard("SESSIONS", join).await;
    assert!(world.cluster.step_down(&world.client, "SESSIONS").await);
    is_replaced(&mut older).await;
    assert!(newer.is_open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_checked_while_nobody_leads_events() {
    let world = World::start(|gateway| gateway).await;
    let mut older = Client::join(&world.gateways[0], "ann", "acme").await;
    let deleted = request(&world.client, "$JS.API.STREAM.DELETE.EVENTS", "").await;
    assert_eq!(deleted.expect("it answers")["success"], true);
    let info = "$JS.API.STREAM.INFO.EVENTS";
    let mut looks = world.client.subscribe(info).await.expect("subscribed");
    assert!(world.cluster.step_down(&world.client, "SESSIONS").await);
    // From each gateway, and again: the sweep of the room is under way, and does not end.
    for _ in 0..8 {
        let look = timeout(SETTLES, looks.next()).await;
        look.expect("in time").expect("connected");
    }
    let publisher = Publisher::over(world.client.clone());
    let claim = async || publisher.claim_over_the_last().await;
    publisher.unheard("SESSIONS", claim).await;
    assert!(older.is_open().await);
    assert!(world.cluster.step_down(&world.client, "SESSIONS").await);
    is_replaced(&mut older).await;
}

async fn is_replaced(client: &mut Client) {
    let closed = timeout(SETTLES, client.closed()).await;
    assert_eq!(closed.expect("in time").0, 4009);
}

const CONNECTING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

/// The two connections of a user.
struct Pair {
    user: String,
    workspace: String,
    addresses: [String; 2],
    states: [AtomicU8; 2],
}

impl Pair {
    fn count(&self, state: u8) -> usize {
        let states = self.states.iter();
        states
            .filter(|now| now.load(Ordering::SeqCst) == state)
            .count()
    }
}

async fn pairs(count: usize, batch: usize) {
    let world = World::start(|gateway| gateway).await;
    let mut rng = Rng::with_seed(5);
    let mut settled = Vec::new();
    for first in (0..count).step_by(batch) {
        let stop = CancellationToken::new();
        let pairs: Vec<Arc<Pair>> = (first..first + batch)
            .map(|number| Arc::new(pair(number, &world)))
            .collect();
        let mut tasks = Vec::new();
        for pair in &pairs {
            for side in 0..2 {
                tasks.push(tokio::spawn(connect(Arc::clone(pair), side, stop.clone())));
            }
        }
        let step_downs = async {
            for _ in 0..3 {
                sleep(Duration::from_millis(rng.u64(20..300))).await;
                // Where there is no leader at the moment, nothing steps down.
                let _ = world.cluster.step_down(&world.client, "SESSIONS").await;
            }
        };
        let (times, ()) =
            tokio::join!(join_all(pairs.iter().map(|pair| settles(pair))), step_downs);
        settled.extend(times);
        stop.cancel();
        for task in tasks {
            task.await.expect("no client panics");
        }
    }
    settled.sort_unstable();
    println!(
        "{count} pairs: one each open after {}",
        percentiles(&settled)
    );
}

fn pair(number: usize, world: &World) -> Pair {
    let address = |gateway: usize| world.gateways[gateway % GATEWAYS].address.clone();
    Pair {
        user: format!("p{number}"),
        workspace: format!("w{}", number % WORKSPACES),
        addresses: [address(number), address(number + 1)],
        states: Default::default(),
    }
}

/// Waits until both have been open, and then until one is; says how long that took.
async fn settles(pair: &Pair) -> Duration {
    let patience = Instant::now() + Duration::from_secs(30);
    while pair.count(CONNECTING) > 0 {
        assert!(Instant::now() < patience, "{} does not get in", pair.user);
        sleep(Duration::from_millis(5)).await;
    }
    let both = Instant::now();
    while pair.count(OPEN) != 1 {
        assert!(
            both.elapsed() < SETTLES,
            "{} has {} open",
            pair.user,
            pair.count(OPEN)
        );
        sleep(Duration::from_millis(5)).await;
    }
    let took = both.elapsed();
    // Nothing that is still on its way takes the other one, too.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pair.count(OPEN), 1, "{}", pair.user);
    took
}

/// Connects as soon as it is let in, and reads until the end.
async fn connect(pair: Arc<Pair>, side: usize, stop: CancellationToken) {
    let token = token(&pair.user, &pair.workspace);
    let url = format!(
        "ws://{}/?token={token}&workspaceSlug={}",
        pair.addresses[side], pair.workspace
    );
    let state = &pair.states[side];
    let mut stream = loop {
        let connecting = timeout(
            Duration::from_secs(8),
            tokio_tungstenite::connect_async(&url),
        );
        match connecting.await {
            Ok(Ok((stream, _))) => break stream,
            // Later: a leader is being elected.
            _ if stop.is_cancelled() => return,
            _ => sleep(Duration::from_millis(200)).await,
        }
    };
    state.store(OPEN, Ordering::SeqCst);
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = stream.next() => next,
        };
        match next {
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                assert_eq!(code, 4009, "{} is replaced", pair.user);
                break;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    state.store(CLOSED, Ordering::SeqCst);
}
