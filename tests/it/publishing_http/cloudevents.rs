//! CloudEvents over HTTP in their three modes: the examples of the specification and its SDKs. And what a program makes
//! of the OpenAPI document.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::on;
use crate::support::client::Client;
use crate::support::clients::{CLIENTS, node, python, schemathesis};
use crate::support::command::finish;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::token::publisher;

/// The example's envelope with another id.
fn envelope(id: &str) -> Value {
    json!({
        "specversion": "1.0", "type": "com.example.someevent", "time": "2018-04-05T03:56:24Z", "id": id,
        "source": "/mycontext/subcontext", "datacontenttype": "application/json",
        "data": {"title": "From an example"},
    })
}

/// HTTP protocol binding 1.0.2, sections 3.1.4, 3.2.4 and 3.3.4, with data of Herald's.
#[tokio::test]
async fn the_examples_of_the_specification_arrive() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let data = r#"{"title":"From an example"}"#;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-type", "com.example.someevent"),
        ("ce-time", "2018-04-05T03:56:24Z"),
        ("ce-id", "1234-1234-1234"),
        ("ce-source", "/mycontext/subcontext"),
        ("ce-euro", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("Content-Type", "application/json; charset=utf-8"),
    ];
    let structured = [(
        "Content-Type",
        "application/cloudevents+json; charset=utf-8",
    )];
    let batch = [(
        "Content-Type",
        "application/cloudevents-batch+json; charset=utf-8",
    )];
    let answers = [
        sender.post("acme/custom.x", &binary, data).await,
        sender
            .post(
                "acme/custom.x",
                &structured,
                &envelope("1234-1234-1234").to_string(),
            )
            .await,
        sender
            .post(
                "acme/custom.x",
                &batch,
                &json!([envelope("a"), envelope("b")]).to_string(),
            )
            .await,
    ];
    for answer in answers {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let notifications = ann.notifications(4).await;
    let ids: Vec<_> = notifications
        .iter()
        .map(|it| it["metadata"]["eventId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["1234-1234-1234", "1234-1234-1234", "a", "b"]);
    assert!(
        notifications
            .iter()
            .all(|it| it["title"] == "From an example")
    );
}

#[tokio::test]
async fn attributes_are_read_as_the_binding_says() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    // An id in quotes and in percent-encoding, and data that is absent.
    let odd = [
        ("ce-specversion", "1.0"),
        ("ce-type", "t"),
        ("ce-source", "s"),
        ("ce-id", "\"a \\\"%C3%A9\\\"\""),
    ];
    let answer = sender.post("acme/custom.x", &odd, "").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(ann.notification().await["metadata"]["eventId"], "a \"é\"");
    for (headers, problem, status) in [
        (
            &[
                ("ce-specversion", "1.0"),
                ("ce-id", "%ff"),
                ("ce-type", "t"),
                ("ce-source", "s"),
            ][..],
            "malformed",
            400,
        ),
        (
            &[
                ("ce-specversion", "0.3"),
                ("ce-id", "x"),
                ("ce-type", "t"),
                ("ce-source", "s"),
            ],
            "bad-event",
            422,
        ),
        (
            &[("ce-specversion", "1.0"), ("ce-id", "x")],
            "bad-event",
            422,
        ),
    ] {
        sender
            .post("acme/custom.x", headers, "{}")
            .await
            .assert_is(status, problem, "no");
    }
}

async fn sdk(mut command: Command, gateway: &Gateway, count: usize) {
    let mut ann = Client::join(gateway, "ann", "acme").await;
    command.env("HERALD_URL", format!("http://{}", gateway.publish));
    command.env("HERALD_TOKEN", publisher("sdk", &json!("*"), &json!("*")));
    let output = finish(command.into()).await.ok();
    let ids: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(ids.len(), count, "{output:?}");
    for id in ids {
        let notification = ann.notification().await;
        assert_eq!(notification["metadata"]["eventId"], id, "{notification}");
        assert_eq!(notification["title"], "From an SDK", "{notification}");
    }
}

#[tokio::test]
async fn every_way_of_the_sdks_arrives() {
    let nats = Nats::jetstream().await;
    let (gateway, _) = on(&nats).await;
    let mut command = node();
    command.arg(Path::new(CLIENTS).join("sdk-http.mjs"));
    sdk(command, &gateway, 4).await;
    let mut command = python();
    command.arg(Path::new(CLIENTS).join("sdk-http.py"));
    sdk(command, &gateway, 2).await;
}

/// It sends what the document allows and what it does not, and compares each answer with it.
#[tokio::test]
async fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats)
        .set("publish.rate", 0)
        .set("nats.max_bytes", 1 << 30);
    let (gateway, sender) = super::ready(builder).await;
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    let text = crate::support::gateway::get(&gateway.publish, "/openapi.json")
        .await
        .1;
    std::fs::write(&document, text).unwrap();
    let mut command = schemathesis();
    let settings = Path::new(CLIENTS).join("schemathesis.toml");
    command.arg("--config-file").arg(settings);
    command.arg("run").arg(&document).current_dir(folder.path());
    command.args(["--url", &format!("http://{}", gateway.publish)]);
    command.args([
        "--header",
        &format!("Authorization: Bearer {}", sender.token),
    ]);
    command.args(["--checks", "all", "--phases", "examples,coverage,fuzzing"]);
    command.args(["--seed", "19", "--max-examples", "100", "--no-color"]);
    let output = finish(command.into()).await;
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    assert_eq!(
        gateway.metric("herald_publish_requests_total", "5xx").await as u64,
        0
    );
}
