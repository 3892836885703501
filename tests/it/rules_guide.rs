//! The rules in docs/rules.md make of its payloads what it says, and its receiver of Stripe's webhooks
//! works with the permissions of production.

use std::collections::BTreeSet;

use herald::config::ProjectionConfig;
use herald::event::{Recipients, StoredMessage};
use herald::projection::Projector;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::clients::folder_with_packages;
use crate::support::example::{Example, examples};
use crate::support::gateway::file;
use crate::support::stage::Stage;

const RULES: &str = include_str!("../../docs/rules.md");

/// What stands before the extension of a group of examples.
const GROUPS: [&str; 5] = ["order_placed", "stripe", "slack", "keycloak", "github"];

fn text(name: &str) -> &'static str {
    Example::named(RULES, name).text
}

fn json(name: &str) -> Value {
    serde_json::from_str(text(name)).expect("JSON")
}

#[test]
fn every_rule_makes_what_the_guide_says() {
    let names: BTreeSet<&str> = examples(RULES).iter().map(|example| example.name).collect();
    let parts = ["toml", "json", "notification.json"];
    let grouped = GROUPS
        .iter()
        .flat_map(|group| parts.map(|part| format!("{group}.{part}")));
    let tried: BTreeSet<String> = grouped.chain(["stripe.mjs".to_owned()]).collect();
    assert!(names.into_iter().eq(tried.iter().map(String::as_str)));

    let folder = tempfile::tempdir().unwrap();
    // All in one file, as an operator would have them.
    let rules = GROUPS
        .map(|group| text(&format!("{group}.toml")))
        .join("\n");
    let rules = file(folder.path(), "rules.toml", &rules);
    let config = ProjectionConfig {
        rules: Some(rules.into()),
        ..ProjectionConfig::default()
    };
    let projector = Projector::from_config(&config, "EVENTS").unwrap();
    for group in GROUPS {
        let rule: toml::Table = text(&format!("{group}.toml")).parse().unwrap();
        let event = rule["rule"][0]["match"].as_str().unwrap();
        let message = StoredMessage {
            subject: format!("ws.acme.{event}").into(),
            sequence: 1,
            time: chrono::DateTime::UNIX_EPOCH,
            last_sequence: None,
            headers: None,
            payload: text(&format!("{group}.json")).into(),
        };
        let notification = projector.project(&message).unwrap();
        let mut got: Value = serde_json::from_str(&notification.encoded).unwrap();
        let fields = got.as_object_mut().unwrap();
        for own in ["id", "read", "timestamp"] {
            fields.remove(own);
        }
        assert_eq!(got, json(&format!("{group}.notification.json")), "{group}");
        let one = Recipients::Users(["ec5a41cd".to_owned()].into());
        let all = Recipients::Everyone;
        let whose = if group == "keycloak" { one } else { all };
        assert_eq!(notification.recipients, whose, "{group}");
    }
}

/// What Stripe does: a signed request, twice, and one with a signature of somebody else.
const STRIPE: &str = r#"
server.on("listening", async () => {
  const { readFileSync } = await import("node:fs");
  const body = readFileSync(process.env.STRIPE_EVENT);
  const send = async (secret, path) => {
    const time = Math.floor(Date.now() / 1000);
    const signature = createHmac("sha256", secret).update(`${time}.`).update(body).digest("hex");
    const headers = { "stripe-signature": `t=${time},v1=${signature}` };
    const url = `http://127.0.0.1:${server.address().port}${path}`;
    console.log((await fetch(url, { method: "POST", headers, body })).status);
  };
  await send("forged", "/stripe/Shop_2NNEqL2");
  await send(process.env.STRIPE_SECRET, "/stripe/a.b");
  await send(process.env.STRIPE_SECRET, "/stripe/Shop_2NNEqL2");
  await send(process.env.STRIPE_SECRET, "/stripe/Shop_2NNEqL2");
  server.close();
  server.closeAllConnections();
  await nc.close();
});
"#;

#[tokio::test]
async fn a_webhook_of_stripes_becomes_one_notification() {
    let folder = folder_with_packages();
    let rules = file(folder.path(), "rules.toml", text("stripe.toml"));
    let event = file(folder.path(), "event.json", text("stripe.json"));
    let stage = Stage::with(|builder| builder.set("projection.rules", &rules)).await;
    let mut ann = Client::join(&stage.gateway, "ann", "Shop_2NNEqL2").await;
    let mut environment = stage.production.publisher("runtime").to_vec();
    environment.extend([
        ("STRIPE_SECRET", "whsec_test".to_owned()),
        ("STRIPE_EVENT", event),
        ("PORT", "0".to_owned()),
    ]);
    let output = Example::named(RULES, "stripe.mjs")
        .run_within("", STRIPE, folder.path(), &environment)
        .await;
    assert_eq!(output.stdout, "400\n400\n200\n200\n", "{output:?}");
    let got = ann.notification().await;
    let want = json("stripe.notification.json");
    for field in ["title", "message", "type", "metadata"] {
        assert_eq!(got[field], want[field], "{field}");
    }
    let dead = stage
        .gateway
        .metric("herald_dead_letters_total", "outcome")
        .await;
    assert!(dead < 0.5, "{dead}");
}
