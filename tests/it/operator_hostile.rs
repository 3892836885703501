//! What others send to the operator service, or have the server send there, and what is sent wrongly: none of it changes
//! anything, keeps anybody out or delays an event.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::operator::{answers, gateways, named, one, refusal};
use crate::support::client::Client as Socket;
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::publisher::Publisher;
use crate::support::token::token;
use crate::support::{PATIENCE, eventually, soon};

/// What the service takes requests on.
const SUBJECTS: [&str; 5] = [
    "herald.query.gateways",
    "herald.query.sessions",
    "herald.command.disconnect",
    "herald.command.drain",
    "herald.command.log-level",
];

/// From one who may request, with an inbox for the answer.
#[tokio::test]
async fn a_body_that_is_no_request_is_refused_and_changes_nothing() {
    let nats = Nats::jetstream().await;
    let [mut gateway] = gateways(&nats, ["gw-1"]).await;
    let mut ann = Socket::join(&gateway, "ann", "acme").await;
    let client = nats.connect().await;
    let huge = format!(r#"{{"gateway":"gw-1","user":"{}"}}"#, "x".repeat(900_000));
    let deep = format!(r#"{{"gateway":{}"#, "[".repeat(30_000));
    for subject in SUBJECTS {
        for body in [
            "",
            "null",
            "7",
            "\"gw-1\"",
            "[]",
            r#"["gw-1"]"#,
            r#"["gw-1",null]"#,
            "{",
            r#"{"stream":"EVENTS","seq":2}"#,
            r#"{"stream":"EVENTS","seq":2,"duplicate":true}"#,
            r#"{"error":{"code":400,"err_code":10070,"description":"wrong last msg ID: gw-1"},"stream":"EVENTS","seq":0}"#,
            r#"{"gateway":"gw-1","user":"ann","level":"off","seq":2}"#,
            r#" {"gateway":"gw-1"}"#,
            &deep,
            &huge,
        ] {
            let answers = answers(&client, subject, body, 1).await;
            let (code, text) = refusal(&answers[0]);
            assert_eq!(code, "400", "{subject} {text}");
            assert!(text.len() < 300, "{subject} {text}");
        }
    }
    // What names nobody changes nothing, and what has no reply subject does not either.
    for (subject, body) in [
        ("herald.command.disconnect", r#"{"user":"ann"}"#),
        ("herald.command.drain", r#"{"gateway":"gw-1"}"#),
        (
            "herald.command.log-level",
            r#"{"gateway":"gw-1","level":"off"}"#,
        ),
    ] {
        let answers = answers(&client, subject, "{}", 1).await;
        assert_eq!(refusal(&answers[0]).0, "400", "{subject}");
        client.publish(subject, body.into()).await.unwrap();
    }
    for body in ["", "null", "[]", r#"{"stream":"EVENTS","seq":2}"#, &huge] {
        let body = body.to_owned();
        client
            .publish("herald.gateways", body.into())
            .await
            .unwrap();
    }
    let answer = one(&client, "herald.query.gateways", json!({})).await;
    assert_eq!(
        (&answer["sockets"], &answer["draining"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(
        (&answer["log_level"], &answer["peers"]),
        (&json!("trace"), &Value::Null)
    );
    assert!(ann.is_open().await && gateway.alive());
}

/// What the server itself sends where a publisher has it sent: an acknowledgement, one of a failure, a trace.
#[tokio::test]
async fn nothing_that_a_runtime_can_have_sent_is_obeyed_or_answered() {
    let production = Production::migrated().await;
    let mut gateway = named(production.gateway("gateway"), "gw-1").ready().await;
    let mut ann = Socket::join(&gateway, "ann", "acme").await;
    let runtime = production.user("runtime").await;
    let others = [
        "herald.gateways",
        "$SRV.PING",
        "$SRV.INFO.herald",
        "$SRV.STATS.herald",
    ];
    let header = |name: &str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        headers
    };
    for subject in SUBJECTS.into_iter().chain(others) {
        // An acknowledgement, that of a duplicate, and failures, whose text the publisher chooses in part.
        for headers in [
            HeaderMap::new(),
            header("Nats-Msg-Id", subject),
            header("Nats-Msg-Id", subject),
            header("Nats-Expected-Last-Msg-Id", "\",\"gateway\":\"gw-1"),
            header("Nats-Expected-Stream", "{\"gateway\":\"gw-1\"}"),
        ] {
            let body = r#"{"gateway":"gw-1","user":"ann","level":"off"}"#;
            let (event, reply) = ("ws.globex.custom.x", subject.to_owned());
            let sent =
                runtime
                    .client
                    .publish_with_reply_and_headers(event, reply, headers, body.into());
            sent.await.unwrap();
        }
        for only in ["", "true"] {
            let mut headers = header("Nats-Trace-Dest", subject);
            if !only.is_empty() {
                headers.insert("Nats-Trace-Only", only);
            }
            let sent =
                runtime
                    .client
                    .publish_with_headers("ws.globex.custom.x", headers, "{}".into());
            sent.await.unwrap();
        }
        runtime.client.publish(subject, "{}".into()).await.unwrap();
    }
    runtime.client.flush().await.unwrap();
    // Queries, commands and discovery, five times each; a presence that is none is ignored.
    gateway
        .metric_becomes("herald_operator_requests_total", "refused", 40.0)
        .await;
    assert!(gateway.metric("herald_operator_requests_total", "ok").await < 0.5);
    let operator = production.user("operator").await;
    let answer = one(&operator.client, "herald.query.gateways", json!({})).await;
    assert_eq!(
        (&answer["log_level"], &answer["draining"]),
        (&json!("trace"), &json!(false))
    );
    assert_eq!(answer["peers"], Value::Null);
    assert!(ann.is_open().await && gateway.alive());
    assert_eq!(gateway.metric("herald_nats_denied", "").await as u64, 0);
}

/// A request whose answer may not be sent is its sender's fault.
#[tokio::test]
async fn regression_an_operator_without_an_inbox_prefix_makes_no_gateway_unready() {
    let production = Production::migrated().await;
    let gateway = named(production.gateway("gateway"), "gw-1");
    let gateway = gateway.set("server.unready_after", "500ms").ready().await;
    let operator = production.user("operator").await;
    for subject in [
        "$SRV.PING",
        "herald.query.gateways",
        "herald.query.sessions",
    ] {
        for reply in ["_INBOX.forgotten.1", "_INBOX_other.1"] {
            let (subject, reply) = (subject.to_owned(), reply.to_owned());
            let sent = operator
                .client
                .publish_with_reply(subject, reply, "{}".into());
            sent.await.unwrap();
        }
    }
    gateway
        .metric_becomes("herald_operator_requests_total", "not_sent", 6.0)
        .await;
    // Several times as long as a denial would need to make it unready.
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(gateway.get("/readyz").await.0, 200, "{}", gateway.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(gateway.metric("herald_nats_denied", "").await < 0.5);
    let query = format!("token={}&workspaceSlug=acme", token("ann", "acme"));
    assert!(Socket::attempt(&gateway, &query).await.is_ok());
    let answer = one(&operator.client, "herald.query.gateways", json!({})).await;
    assert_eq!(answer["ready"], true);
}

/// What sockets do not need keeps none of them out.
#[tokio::test]
async fn operator_subjects_that_are_denied_while_serving_keep_nobody_out() {
    let production = Production::migrated().await;
    let gateway = named(production.gateway("gateway"), "gw-1");
    let gateway = gateway.set("server.unready_after", "500ms").ready().await;
    for permission in [
        "herald.query.*",
        "herald.command.*",
        "herald.gateways",
        "$SRV.>",
    ] {
        production.deny("gateway", permission).await;
        let denied = eventually(PATIENCE, async || {
            gateway.metric("herald_nats_denied", "").await > 0.5
        });
        if permission != "herald.gateways" {
            // Denied as soon as the server has read its settings; a presence is sent each 10 s.
            assert!(denied.await, "{permission}: {}", gateway.output());
            gateway.logged("nats permission missing").await;
        }
        assert_eq!(gateway.get("/readyz").await.0, 200, "{permission}");
        production.allow().await;
        gateway.metric_becomes("herald_nats_denied", "", 0.0).await;
        let operator = production.user("operator").await;
        let back = eventually(PATIENCE, async || {
            let request = operator
                .client
                .request("herald.query.gateways", "{}".into());
            request.await.is_ok()
        });
        assert!(back.await, "{permission}");
    }
}

/// However many come, the gateway answers as many as it can, and says so to the others.
#[tokio::test]
async fn a_flood_of_requests_delays_no_event() {
    let nats = Nats::jetstream().await;
    let [gateway] = gateways(&nats, ["gw-1"]).await;
    let mut ann = Socket::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    let client = nats.connect().await;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    for _ in 0..3000 {
        let sent = client.publish_with_reply("herald.query.sessions", inbox.clone(), "{}".into());
        sent.await.unwrap();
    }
    publisher
        .event("acme.custom.x", &json!({"title": "x"}))
        .await;
    assert_eq!(ann.notification().await["title"], "x");
    let mut counted = BTreeMap::<String, usize>::new();
    soon(async {
        // What was refused beyond all bounds is counted there only.
        while counted.values().sum::<usize>() == 0 {
            let answer = answers.next().await.unwrap();
            let is_refused = answer.headers.is_some();
            *counted.entry(is_refused.to_string()).or_default() += 1;
        }
    })
    .await;
    let all = eventually(PATIENCE, async || {
        let ok = gateway.metric("herald_operator_requests_total", "ok").await;
        let busy = gateway
            .metric("herald_operator_requests_total", "busy")
            .await;
        ok >= 1.0 && (ok + busy - 3000.0).abs() < 0.5
    });
    assert!(all.await, "{}", gateway.metrics("text/plain").await);
    assert!(ann.is_open().await);
}
