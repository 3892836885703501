//! A cluster, gateways that reach its nodes by cables of their own, and the faults that befall them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use tokio::time::{Instant, sleep};

use super::schedule::{Fault, Planned};
use crate::support::cable::{Cable, Condition};
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway, signal};
use crate::support::nats::cluster::{Cluster, NODES};

/// Gateways in a world.
pub(super) const GATEWAYS: usize = 3;

/// What a test runs against.
#[derive(Debug)]
pub(super) struct World {
    pub(super) cluster: Arc<Cluster>,
    /// By gateway, then by node.
    pub(super) cables: Vec<Vec<Cable>>,
    pub(super) gateways: Vec<Gateway>,
    /// For requests that are not the load.
    pub(super) client: Client,
}

/// When a fault was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened {
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

impl World {
    /// Three of each, ready, with replicated streams. `change` sets up each gateway.
    pub(super) async fn start(change: impl Fn(Builder) -> Builder) -> Self {
        Self::on(Cluster::start().await, change).await
    }

    /// The same, but nobody answers a direct get of events. With these a gateway sweeps and repairs, so that what
    /// it did not hear is lost: the counter-proof that the auditor sees that.
    pub(super) async fn blind(change: impl Fn(Builder) -> Builder) -> Self {
        let nowhere = r#"mappings: { "$JS.API.DIRECT.GET.EVENTS": [{ destination: "nowhere", weight: 100% }] }"#;
        // It would let nobody in any more.
        let change = |gateway: Builder| change(gateway).set("server.unready_after", "1h");
        Self::on(Cluster::with(nowhere).await, change).await
    }

    async fn on(cluster: Cluster, change: impl Fn(Builder) -> Builder) -> Self {
        let mut cables = Vec::new();
        let mut gateways = Vec::new();
        for gateway in 0..GATEWAYS {
            let mut own = Vec::new();
            for port in cluster.ports() {
                own.push(Cable::to(*port).await);
            }
            let mut urls: Vec<String> = own.iter().map(Cable::url).collect();
            urls.rotate_left(gateway);
            gateways.push(change(settings(&urls)).ready().await);
            cables.push(own);
        }
        let client = cluster.client(0).await;
        for stream in ["EVENTS", "SESSIONS"] {
            cluster.is_whole(&client, stream).await;
        }
        Self {
            cluster: Arc::new(cluster),
            cables,
            gateways,
            client,
        }
    }

    /// The settings of another gateway beside these, or of one that is started again.
    pub(super) fn gateway(&self, gateway: usize) -> Builder {
        let urls: Vec<String> = self.cables[gateway].iter().map(Cable::url).collect();
        settings(&urls)
    }

    /// Lets `planned` happen, from `start` on.
    pub(super) async fn suffer(&self, planned: Planned, start: Instant) -> Happened {
        tokio::time::sleep_until(start + planned.at).await;
        let began = Instant::now();
        self.befall(planned.fault, planned.lasts).await;
        Happened {
            began,
            ended: Instant::now(),
        }
    }

    async fn befall(&self, fault: Fault, lasts: Duration) {
        match fault {
            Fault::StepDown(stream) => {
                // While a leader is being elected, there is none to step down.
                let stepped = eventually(Duration::from_secs(10), async || {
                    self.cluster.step_down(&self.client, stream).await
                });
                if !stepped.await {
                    println!("no leader of {stream} steps down");
                }
            }
            Fault::Cut { gateway, node } => {
                self.bend(&self.cables[gateway][node..=node], Condition::Cut, lasts)
                    .await;
            }
            Fault::CutOff { gateway } => {
                self.bend(&self.cables[gateway], Condition::Cut, lasts)
                    .await;
            }
            Fault::Delay { gateway, by } => {
                self.bend(&self.cables[gateway], Condition::Delayed(by), lasts)
                    .await;
            }
            Fault::Silence { gateway } => {
                self.bend(&self.cables[gateway], Condition::Silent, lasts)
                    .await;
            }
            Fault::PauseGateway { gateway } => {
                signal(self.gateways[gateway].pid(), "-STOP");
                sleep(lasts).await;
                signal(self.gateways[gateway].pid(), "-CONT");
            }
            Fault::PauseNode { node } => {
                let mut node = self.cluster.node(node).await;
                node.pause().await;
                sleep(lasts).await;
                node.resume().await;
            }
            Fault::StopNode { node } => {
                let mut node = self.cluster.node(node).await;
                node.stop().await;
                sleep(lasts).await;
                node.start_again().await;
            }
            Fault::KillNode { node } => {
                let mut node = self.cluster.node(node).await;
                node.kill().await;
                sleep(lasts).await;
                node.start_again().await;
            }
            Fault::QuorumLoss { survivor } => {
                let others: Vec<usize> = (0..NODES).filter(|node| *node != survivor).collect();
                for node in &others {
                    self.cluster.node(*node).await.kill().await;
                }
                sleep(lasts).await;
                for node in &others {
                    self.cluster.node(*node).await.start_again().await;
                }
            }
        }
    }

    async fn bend(&self, cables: &[Cable], condition: Condition, lasts: Duration) {
        for cable in cables {
            cable.set(condition);
        }
        sleep(lasts).await;
        for cable in cables {
            cable.mend();
        }
    }
}

fn settings(urls: &[String]) -> Builder {
    Gateway::without_nats()
        .set("nats.url", urls.join(","))
        .set("nats.replicas", 3)
        // At the most verbose level the gateways would do little but write.
        .set("log.level", "info")
}
