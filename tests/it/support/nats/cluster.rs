//! Three real nats-servers with JetStream, in one cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard, SemaphorePermit};

use super::container::Network;
use super::{Choice, Nats, Settings, choice, free_port, server_name};
use crate::support::{PATIENCE, eventually, heavy_turn};

/// Servers in a cluster: any one of them may be away.
pub(crate) const NODES: usize = 3;

/// The port for routes in a container.
const ROUTE_PORT: u16 = 6222;

/// A cluster that belongs to one test. Each node may be taken down and up by another task.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Mutex<Nats>>,
    ports: Vec<u16>,
    /// Dropped after the nodes in it.
    _network: Option<Network>,
    _turn: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts the servers and waits until JetStream takes requests.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// The same, with a line more in each one's configuration.
    pub(crate) async fn with(line: &str) -> Self {
        let turn = heavy_turn().await;
        let (network, hosts) = match choice() {
            Choice::Docker => {
                let hosts = (0..NODES).map(|node| (format!("node{node}"), ROUTE_PORT));
                (Some(Network::create().await), hosts.collect::<Vec<_>>())
            }
            Choice::Binary(_) => {
                let hosts = (0..NODES).map(|_| ("127.0.0.1".to_owned(), free_port()));
                (None, hosts.collect())
            }
        };
        let mut nodes = Vec::new();
        for (node, host) in hosts.iter().enumerate() {
            let settings = Settings {
                config: config(host, &hosts, network.is_some()) + line,
                env: Vec::new(),
                network: network
                    .as_ref()
                    .map(|network| (network.name().to_owned(), format!("node{node}"))),
            };
            nodes.push(super::Builder(settings).start().await);
        }
        let cluster = Self {
            ports: nodes.iter().map(Nats::port).collect(),
            nodes: nodes.into_iter().map(Mutex::new).collect(),
            _network: network,
            _turn: turn,
        };
        let client = cluster.client(0).await;
        let takes = eventually(PATIENCE, async || {
            request(&client, "$JS.API.STREAM.NAMES", "").await.is_some()
        });
        assert!(takes.await, "the cluster elects no leader");
        cluster
    }

    /// The client port of each node.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// All nodes, for `nats.url`.
    pub(crate) fn url(&self) -> String {
        let url = |port: &u16| format!("nats://127.0.0.1:{port}");
        self.ports.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// One node, for whoever takes it down.
    pub(crate) async fn node(&self, node: usize) -> MutexGuard<'_, Nats> {
        self.nodes[node].lock().await
    }

    /// A client that prefers `node` and goes to another when that is away.
    pub(crate) async fn client(&self, node: usize) -> Client {
        let mut servers: Vec<async_nats::ServerAddr> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}").parse().expect("an address"))
            .collect();
        servers.rotate_left(node);
        let connecting = ConnectOptions::new()
            .retain_servers_order()
            .ping_interval(Duration::from_secs(2))
            .connection_timeout(Duration::from_secs(2))
            .reconnect_delay_callback(|_| Duration::from_millis(100))
            .retry_on_initial_connect()
            .connect(servers);
        connecting.await.expect("a client")
    }

    /// The node that leads `stream`, if one does.
    pub(crate) async fn leader(&self, client: &Client, stream: &str) -> Option<usize> {
        let info = request(client, &format!("$JS.API.STREAM.INFO.{stream}"), "").await?;
        let leader = info["cluster"]["leader"].as_str()?;
        let names: BTreeMap<String, usize> = self
            .ports
            .iter()
            .map(|port| server_name(*port))
            .zip(0..)
            .collect();
        names.get(leader).copied()
    }

    /// Has the leader of `stream` step down. `false` if none answered.
    pub(crate) async fn step_down(&self, client: &Client, stream: &str) -> bool {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
        let answer = request(client, &subject, "").await;
        answer.is_some_and(|answer| answer["success"] == true)
    }

    /// Waits until `stream` has a leader and all its replicas are current.
    pub(crate) async fn is_whole(&self, client: &Client, stream: &str) {
        let whole = eventually(PATIENCE, async || {
            let subject = format!("$JS.API.STREAM.INFO.{stream}");
            let Some(info) = request(client, &subject, "").await else {
                return false;
            };
            let replicas = info["cluster"]["replicas"].as_array();
            info["cluster"]["leader"].is_string()
                && replicas.is_some_and(|replicas| {
                    replicas.iter().all(|replica| replica["current"] == true)
                })
        });
        assert!(whole.await, "{stream} does not come back whole");
    }
}

/// The answer to a request of JetStream's API.
pub(crate) async fn request(client: &Client, subject: &str, body: &str) -> Option<Value> {
    let asked = client.request(subject.to_owned(), body.to_owned().into());
    let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
    serde_json::from_slice(&answer.ok()?.ok()?.payload).ok()
}

fn config((host, port): &(String, u16), all: &[(String, u16)], in_container: bool) -> String {
    let listen = if in_container { "0.0.0.0" } else { host };
    let routes: Vec<String> = all
        .iter()
        .map(|(host, port)| format!("nats://{host}:{port}"))
        .collect();
    // Nobody is told of the other servers' addresses: the way to each is the test's to cut.
    format!(
        "jetstream: enabled\ncluster {{ name: herald-test, listen: \"{listen}:{port}\", no_advertise: true, routes: [{}] }}\n",
        routes.join(", ")
    )
}
