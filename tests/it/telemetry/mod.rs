//! What an operator sees of an event, a connection and the gateway itself: traces, metrics, logs,
//! exported to real receivers.

mod bad_context;
mod collector;
mod connection;
mod dead_collector;
mod jaeger;
mod logs;
mod metrics;
mod prometheus;
mod sampling;
mod trace;
mod work;

use std::collections::BTreeSet;

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;

/// What most of these tests begin with: a gateway that exports to a collector, with one socket, and a
/// publisher. To be taken apart in this order, so that NATS is the last to go.
struct Scene {
    nats: Nats,
    collector: Collector,
    gateway: Gateway,
    publisher: Publisher,
    /// Ann's in the workspace acme.
    ann: Client,
}

impl Scene {
    /// With the default settings.
    async fn exporting(protocol: &str) -> Self {
        Self::with(protocol, |gateway| gateway).await
    }

    /// With settings of the test's own.
    async fn with(protocol: &str, settings: impl FnOnce(Builder) -> Builder) -> Self {
        let nats = Nats::jetstream().await;
        let collector = Collector::start().await;
        let settings = settings(Gateway::builder(&nats));
        let gateway = collector.exported(settings, protocol).ready().await;
        let ann = Client::join(&gateway, "ann", "acme").await;
        let publisher = Publisher::on(&nats).await;
        Self {
            nats,
            collector,
            gateway,
            publisher,
            ann,
        }
    }
}

/// The metrics of docs/observability.md: the first cells of its tables that are names.
fn documented() -> BTreeSet<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            ["herald_", "process_", "otel_sdk_", "target_info"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect()
}
