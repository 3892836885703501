//! The sockets: real clients that stay, and some that come and go, each writing down what it got.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::gateway::{Gateway, get};
use crate::support::token::token;
use crate::support::{PATIENCE, eventually};

/// Users of each workspace, spread over the gateways.
pub(super) const USERS_EACH: usize = 6;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client left.
    Left,
    /// The gateway closed with this code.
    Closed(u16),
    /// The connection was gone.
    Gone,
}

/// One notification as it came: the event's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) number: usize,
    pub(super) at: Instant,
}

/// One connection of one user.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) workspace: usize,
    pub(super) user: usize,
    pub(super) gateway: usize,
    pub(super) attempted: Instant,
    pub(super) opened: Instant,
    pub(super) ended: Option<(Instant, End)>,
    pub(super) arrivals: Vec<Arrival>,
}

/// Connections that one client made, the last one at the end.
pub(super) type Connections = Arc<Mutex<Vec<Connection>>>;

/// One client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) workspace: usize,
    pub(super) user: usize,
    /// How many milliseconds it stays before it leaves and comes back; `None`: until the end.
    pub(super) stays: Option<Range<u64>>,
    pub(super) policy: Policy,
    pub(super) balancer: Arc<Balancer>,
    pub(super) connections: Connections,
}

/// When a client comes back after its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Soon, at a random time.
    Jitter,
    /// As the contract's NotificationManager: after 1, 2, 4, 8 and 16 s, and then not any more; from the
    /// start after each open.
    Manager,
}

/// What stands before the gateways: it sends new connections to those that say they are ready.
#[derive(Debug)]
pub(super) struct Balancer {
    addresses: Vec<String>,
    ready: Vec<AtomicBool>,
}

impl Balancer {
    /// All gateways are ready.
    pub(super) fn new(gateways: &[Gateway]) -> Arc<Self> {
        Arc::new(Self {
            addresses: gateways
                .iter()
                .map(|gateway| gateway.address.clone())
                .collect(),
            ready: gateways.iter().map(|_| AtomicBool::new(true)).collect(),
        })
    }

    /// All new connections go to `gateway`.
    pub(super) fn only(&self, gateway: usize) {
        for (other, ready) in self.ready.iter().enumerate() {
            ready.store(other == gateway, Ordering::Relaxed);
        }
    }

    /// The same gateways behind other addresses.
    pub(super) fn at(addresses: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            ready: addresses.iter().map(|_| AtomicBool::new(true)).collect(),
            addresses,
        })
    }

    /// Looks at `/readyz` from now on, as balancers do, five times a second.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            for (address, ready) in self.addresses.iter().zip(&self.ready) {
                ready.store(get(address, "/readyz").await.0 == 200, Ordering::Relaxed);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// A gateway for a new connection, `wish` if that is ready.
    fn pick(&self, wish: usize) -> usize {
        let gateways = self.addresses.len();
        let next = (wish..wish + gateways).map(|gateway| gateway % gateways);
        let mut ready = next.filter(|gateway| self.ready[*gateway].load(Ordering::Relaxed));
        ready.next().unwrap_or(wish % gateways)
    }
}

impl Policy {
    /// The pause before the next attempt, after so many that failed; `None`: there is none.
    fn pause(self, failed: u32, rng: &mut Rng) -> Option<Duration> {
        match self {
            Self::Jitter => Some(Duration::from_millis(rng.u64(100..800))),
            Self::Manager => (failed < 5).then(|| Duration::from_secs(1 << failed)),
        }
    }
}

pub(super) fn workspace_name(workspace: usize) -> String {
    format!("w{workspace}")
}

pub(super) fn user_name(user: usize) -> String {
    format!("u{user}")
}

impl Client {
    /// A client that stays, and comes back soon if it has to.
    pub(super) fn new(workspace: usize, user: usize, balancer: &Arc<Balancer>) -> Self {
        Self {
            workspace,
            user,
            stays: None,
            policy: Policy::Jitter,
            balancer: Arc::clone(balancer),
            connections: Connections::default(),
        }
    }

    /// Whether it has an open connection.
    pub(super) fn is_open(&self) -> bool {
        let connections = self.connections.lock().expect("no one panics");
        connections.last().is_some_and(|last| last.ended.is_none())
    }

    /// Keeps a connection until `stop`.
    pub(super) async fn run(self, seed: u64, stop: CancellationToken) {
        let mut rng = Rng::with_seed(seed);
        let mut wish = self.workspace + self.user;
        let mut failed = 0;
        let token = token(&user_name(self.user), &workspace_name(self.workspace));
        while !stop.is_cancelled() {
            let attempted = Instant::now();
            let gateway = self.balancer.pick(wish);
            let url = format!(
                "ws://{}/?token={token}&workspaceSlug={}",
                self.balancer.addresses[gateway],
                workspace_name(self.workspace)
            );
            let connecting = timeout(
                Duration::from_secs(8),
                tokio_tungstenite::connect_async(url),
            );
            if let Ok(Ok((stream, _))) = connecting.await {
                failed = 0;
                let connection = Connection {
                    workspace: self.workspace,
                    user: self.user,
                    gateway,
                    attempted,
                    opened: Instant::now(),
                    ended: None,
                    arrivals: Vec::new(),
                };
                self.connections
                    .lock()
                    .expect("no one panics")
                    .push(connection);
                let stays = self.stays.clone().map_or(3_600_000, |stays| rng.u64(stays));
                let stays = Duration::from_millis(stays);
                let Some(end) = self.read(stream, stays, &stop).await else {
                    return;
                };
                let mut connections = self.connections.lock().expect("no one panics");
                let last = connections.last_mut().expect("just pushed");
                last.ended = Some((Instant::now(), end));
            }
            let Some(pause) = self.policy.pause(failed, &mut rng) else {
                return;
            };
            failed += 1;
            sleep(pause).await;
            wish = rng.usize(..100);
        }
    }

    /// Reads until the connection ends; `None` at the end of the run, with the connection still open.
    async fn read<S>(
        &self,
        mut stream: tokio_tungstenite::WebSocketStream<S>,
        stays: Duration,
        stop: &CancellationToken,
    ) -> Option<End>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let leaves = sleep(stays);
        tokio::pin!(leaves);
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = &mut leaves => {
                    // Whether the gateway answers does not matter to who leaves.
                    let _ = timeout(Duration::from_secs(1), stream.close(None)).await;
                    return Some(End::Left);
                }
                next = stream.next() => next,
            };
            match next {
                Some(Ok(Message::Text(text))) => {
                    let at = Instant::now();
                    let value: Value = serde_json::from_str(&text).expect("a notification is JSON");
                    let title = value["title"].as_str().expect("a title");
                    let number = title.parse().expect("a number");
                    let mut connections = self.connections.lock().expect("no one panics");
                    let last = connections.last_mut().expect("it is open");
                    last.arrivals.push(Arrival { number, at });
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    return Some(End::Closed(code));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Some(End::Gone),
            }
        }
    }
}

/// All clients of a test, each in a task of its own.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) clients: Vec<Client>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Swarm {
    /// Has all connect, and waits until they are open.
    pub(super) async fn open(clients: Vec<Client>, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let tasks = clients.iter().zip(0..).map(|(client, number)| {
            let seed = seed ^ (number << 32);
            tokio::spawn(client.clone().run(seed, stop.clone()))
        });
        let tasks = tasks.collect();
        let swarm = Self {
            clients,
            tasks,
            stop,
        };
        swarm.is_open(PATIENCE * 2).await;
        swarm
    }

    /// Waits until all that stay are open at the same time.
    pub(super) async fn is_open(&self, patience: Duration) {
        let away = || {
            let stay = self.clients.iter().filter(|client| client.stays.is_none());
            stay.filter(|client| !client.is_open()).count()
        };
        let open = eventually(patience, async || away() == 0);
        assert!(open.await, "{} clients are not open", away());
    }

    /// Ends all, and returns every connection there was.
    pub(super) async fn end(self) -> Vec<Connection> {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("no client panics");
        }
        let connections = self
            .clients
            .iter()
            .map(|client| std::mem::take(&mut *client.connections.lock().expect("no one panics")));
        connections.flatten().collect()
    }
}
