//! `nats.replicas` in a cluster: made with one, raised to three by `herald migrate`, while a gateway serves.

use std::time::Duration;

use serde_json::{Value, json};

use super::load::store;
use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway, run};
use crate::support::nats::cluster::{Cluster, request};

const STREAMS: [&str; 4] = ["EVENTS", "SESSIONS", "DEAD", "KV_HERALD_MIGRATIONS"];

fn builder(cluster: &Cluster, replicas: usize) -> Builder {
    Gateway::without_nats()
        .set("nats.url", cluster.url())
        .set("nats.replicas", replicas)
        .set("nats.migrate", false)
}

async fn replicas(client: &async_nats::Client) -> Vec<u64> {
    let mut found = Vec::new();
    for stream in STREAMS {
        let info = request(client, &format!("$JS.API.STREAM.INFO.{stream}"), "").await;
        let info: Value = info.expect("it answers");
        found.push(
            info["config"]["num_replicas"]
                .as_u64()
                .unwrap_or_else(|| panic!("{stream}: {info}")),
        );
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_raises_the_replicas_while_gateways_serve() {
    let cluster = Cluster::start().await;
    let client = cluster.client(0).await;
    let (code, _, errors) = run(builder(&cluster, 1).command(&["migrate"]));
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(replicas(&client).await, [1; 4]);
    // A gateway that is set to three says that there is one, and serves.
    let gateway = builder(&cluster, 3).ready().await;
    gateway.prints("herald migrate reconciles it").await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let (code, _, errors) = run(builder(&cluster, 3).command(&["migrate"]));
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(replicas(&client).await, [3; 4]);
    for number in 0..20 {
        let title = json!({ "title": number.to_string() });
        store(&client, "ws.acme.custom.a", &number.to_string(), &title).await;
        assert_eq!(ann.notification().await["title"], number.to_string());
    }
    assert!(ann.is_quiet(Duration::from_millis(200)).await);
}
