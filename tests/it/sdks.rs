//! CloudEvents as the official SDKs write them: each way of each SDK arrives.

use std::path::Path;

use crate::support::client::Client;
use crate::support::clients::{CLIENTS, node, python, sdk_go};
use crate::support::command::finish;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;

const SUBJECT: &str = "ws.acme.custom.order_placed";

/// Runs a publisher, which prints the id of each event; asserts that each becomes a notification.
async fn assert_all_arrive(publisher: std::process::Command, nats: &Nats, count: usize) {
    let gateway = Gateway::builder(nats).ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let output = finish(publisher.into()).await.ok();
    let ids: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(ids.len(), count, "{output:?}");
    for id in ids {
        let notification = ann.notification().await;
        assert_eq!(notification["metadata"]["eventId"], id, "{notification}");
        // Without data a rule says what there is to say.
        let has_data = id.ends_with("object") || id.ends_with("bytes");
        let title = if has_data {
            "From an SDK"
        } else {
            "Order placed"
        };
        assert_eq!(notification["title"], title, "{notification}");
        assert_eq!(notification["metadata"]["n"].is_u64(), has_data);
    }
}

#[tokio::test]
async fn every_send_of_the_go_sdk_arrives() {
    let nats = Nats::jetstream().await;
    let mut publisher = sdk_go();
    publisher.args([&nats.url(), SUBJECT]);
    assert_all_arrive(publisher, &nats, 18).await;
}

#[tokio::test]
async fn every_send_of_the_javascript_sdk_arrives() {
    let nats = Nats::jetstream().await;
    let mut publisher = node();
    publisher.arg(Path::new(CLIENTS).join("sdk.mjs"));
    publisher.arg(SUBJECT).env("NATS_URL", nats.url());
    assert_all_arrive(publisher, &nats, 12).await;
}

#[tokio::test]
async fn every_send_of_the_python_sdk_arrives() {
    let nats = Nats::jetstream().await;
    let mut publisher = python();
    publisher.arg(Path::new(CLIENTS).join("sdk.py"));
    publisher.args([&nats.url(), SUBJECT]);
    assert_all_arrive(publisher, &nats, 15).await;
}
