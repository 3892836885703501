//! Verifies that a workspace's slug may be of any case, and that what is stored under a subject that no
//! room can take is visible: as a metric, in the log, and as a dead letter, once for all gateways.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::command::herald;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::publisher::Publisher;
use crate::support::raw_nats::RawNats;
use crate::support::{PATIENCE, eventually};

const METRIC: &str = "herald_events_unroutable";

/// What `herald dead-letters --json` prints.
async fn listed(nats: &Nats, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["dead-letters", "--json"], arguments].concat();
    let output = herald(nats, &[], &arguments).await.ok();
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn slugs_of_any_case_are_workspaces_of_their_own() {
    let nats = Nats::jetstream().await;
    let gateways = [Gateway::on(&nats).await, Gateway::on(&nats).await];
    let publisher = Publisher::on(&nats).await;
    let longest = format!("A{}", "b".repeat(63));
    let slugs = [
        "acme",
        "Acme",
        "ACME",
        "user_2NNEqL2nrIRdJ194ndJqAHwEfxC",
        "V1StGXR8_Z5jdHi6B-myT",
        "6F9619FF-8B86-D011-B42D-00C04FC964FF",
        &longest,
    ];
    let mut clients = Vec::new();
    for (index, slug) in slugs.iter().enumerate() {
        // The same user: one connection per workspace, and these are several.
        clients.push(Client::join(&gateways[index % 2], "ann", slug).await);
    }
    for slug in slugs {
        let subject = format!("{slug}.record.created");
        publisher.event(&subject, &json!({ "title": slug })).await;
    }
    for (client, slug) in clients.iter_mut().zip(slugs) {
        assert_eq!(client.notification().await["title"], slug);
    }
    for (client, slug) in clients.iter_mut().zip(slugs) {
        let subject = format!("{slug}.custom.end");
        publisher.event(&subject, &json!({ "title": "end" })).await;
        assert_eq!(client.notification().await["title"], "end", "{slug}");
    }
}

/// Subject, workspace in the list, and reason.
const BAD: &[(&str, &str, &str)] = &[
    ("ws.café.record.created", "_unroutable", "workspace"),
    ("ws._acme.record.created", "_unroutable", "workspace"),
    ("ws.my.shop.record.created", "my", "subject"),
    ("ws.acme", "acme", "subject"),
    ("ws.acme.orders.created", "acme", "unknown_category"),
    ("ws.acme.record.create", "acme", "unknown_name"),
    ("ws.bad\u{85}slug.custom.x", "_unroutable", "workspace"),
    ("ws.*.custom.x", "_unroutable", "workspace"),
];

#[tokio::test]
async fn what_no_room_can_take_is_counted_logged_and_listed_once() {
    let nats = Nats::jetstream().await;
    let gateways = [Gateway::on(&nats).await, Gateway::on(&nats).await];
    let publisher = Publisher::on(&nats).await;
    let mut raw = RawNats::on(&nats).await;
    for (subject, _, _) in BAD {
        raw.publish(subject.as_bytes(), b"{\"a\":1}").await;
        raw.publish(subject.as_bytes(), b"{\"a\":2}").await;
    }
    let long = format!("ws.{}.custom.x", "l".repeat(65));
    raw.publish(long.as_bytes(), b"{}").await;
    raw.flush().await;
    // A good one that merely nobody listens to, and a bad payload, which only a room judges.
    publisher.event("nobody.custom.x", &json!({})).await;

    for gateway in &gateways {
        gateway.metric_becomes(METRIC, "workspace", 9.0).await;
        gateway.metric_becomes(METRIC, "\"subject\"", 4.0).await;
        gateway
            .metric_becomes(METRIC, "unknown_category", 2.0)
            .await;
        gateway.metric_becomes(METRIC, "unknown_name", 2.0).await;
        let line = "events are stored under subjects that no room can take";
        gateway.logged(line).await;
        assert!(!gateway.output().contains("bad\u{85}slug"));
    }
    let complete = eventually(PATIENCE, async || {
        listed(&nats, &[]).await.len() > BAD.len()
    });
    assert!(complete.await, "{:#?}", listed(&nats, &[]).await);
    let rows = listed(&nats, &[]).await;
    assert_eq!(rows.len(), BAD.len() + 1, "{rows:#?}");
    for (subject, workspace, reason) in BAD {
        let found = rows.iter().find(|row| row["subject"] == *subject);
        let row = found.unwrap_or_else(|| panic!("{subject}: {rows:#?}"));
        assert_eq!(
            (&row["workspace"], &row["reason"]),
            (&json!(workspace), &json!(reason))
        );
    }
    assert_eq!(
        listed(&nats, &["--workspace", "_unroutable"]).await.len(),
        5
    );

    // They are told of no second time, and one that comes new is.
    raw.publish(b"ws.n\xc3\xa9w.custom.x", b"{}").await;
    raw.flush().await;
    gateways[0].metric_becomes(METRIC, "workspace", 10.0).await;
    let more = eventually(PATIENCE, async || {
        listed(&nats, &[]).await.len() == BAD.len() + 2
    });
    assert!(more.await, "{:#?}", listed(&nats, &[]).await);

    // Gone is gone.
    publisher
        .context
        .get_stream("EVENTS")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    gateways[0].metric_becomes(METRIC, "reason", 0.0).await;
}

#[tokio::test]
async fn the_permissions_of_production_are_enough_for_it() {
    let production = Production::migrated().await;
    let config = production.config("gateway");
    let gateway = Gateway::without_nats()
        .set("nats.url", config.url.expose())
        .set("nats.inbox_prefix", &config.inbox_prefix)
        .set("nats.migrate", false)
        .ready()
        .await;
    let runtime = production.user("runtime").await;
    let context = async_nats::jetstream::new(runtime.client.clone());
    let ack = context
        .publish("ws.café.custom.x", "{}".into())
        .await
        .unwrap();
    ack.await.unwrap();
    gateway.metric_becomes(METRIC, "workspace", 1.0).await;
    let outcome = "outcome=\"published\"";
    gateway
        .metric_becomes("herald_dead_letters_total", outcome, 1.0)
        .await;
}
