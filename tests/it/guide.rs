//! The examples in the guides do what the guides say: they run as they are written, with the
//! permissions of production, and what they publish arrives.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::clients::folder_with_packages;
use crate::support::command::Output;
use crate::support::example::{Example, examples};
use crate::support::gateway::Builder;
use crate::support::stage::Stage;
use crate::support::token::{SECRET, remember, token};

const PUBLISHING: &str = include_str!("../../docs/publishing.md");
const TOKENS: &str = include_str!("../../docs/tokens.md");

/// A private key as `openssl genpkey -algorithm ED25519` makes it.
const PRIVATE_KEY: &str = include_str!("../fixtures/keys/ed25519.private.pem");

#[test]
fn every_example_is_run() {
    let names =
        |guide| -> Vec<&str> { examples(guide).iter().map(|example| example.name).collect() };
    assert_eq!(
        names(PUBLISHING),
        [
            "publish.mjs",
            "publish.py",
            "tracing.mjs",
            "cloudevents.mjs",
            "cloudevents.py",
            "maintenance.mjs",
            "maintenance.py",
            // These by the tests of HTTP publishing.
            "curl.sh",
            "lambda.mjs",
            "github-rules.toml",
            "github.mjs",
            "publish.php"
        ]
    );
    assert_eq!(
        names(TOKENS),
        [
            // These by the tests of the recipes.
            "fetch-keys",
            "auth0.toml",
            "keycloak.toml",
            "cognito.toml",
            "entra.toml",
            "firebase.toml",
            "supabase.toml",
            "clerk.toml",
            "jose.mjs",
            "jose-key.mjs",
            "jsonwebtoken.mjs",
            "pyjwt.py",
            "pyjwt-key.py"
        ]
    );
}

/// Runs an example of the publisher's guide as `user`.
async fn publish(stage: &Stage, example: &str, user: &str) -> Output {
    let folder = folder_with_packages();
    let environment = stage.production.publisher(user);
    Example::named(PUBLISHING, example)
        .run(folder.path(), &environment)
        .await
}

/// Publishes a last event to `workspace` and asserts that it is the next that comes.
async fn assert_nothing_but_the_end(stage: &Stage, workspace: &str, client: &mut Client) {
    stage
        .publish(&json!([[format!("{workspace}.custom.end"), {}]]))
        .await;
    assert_eq!(
        client.notification().await["metadata"]["event"],
        "custom.end"
    );
}

/// What a reader is told, and the event.
fn words(notification: &Value) -> [&str; 4] {
    [
        notification["metadata"]["event"].as_str(),
        notification["type"].as_str(),
        notification["title"].as_str(),
        notification["message"].as_str(),
    ]
    .map(Option::unwrap_or_default)
}

#[tokio::test]
async fn publish_mjs_tells_everyone_and_then_one_user() {
    // The same for a runtime that is trusted with every workspace and for one in an account of its own.
    for user in ["runtime", "acme"] {
        let stage = Stage::new().await;
        let mut addressee = Client::join(&stage.gateway, "user-1", "acme").await;
        let mut other = Client::join(&stage.gateway, "ann", "acme").await;
        let output = publish(&stage, "publish.mjs", user).await;
        assert_eq!(output.stdout, "stored in EVENTS as 1\n");
        let created = [
            "record.created",
            "info",
            "Record created",
            "Record r1 was created in orders.",
        ];
        let shipped = [
            "custom.order_shipped",
            "success",
            "Order shipped",
            "Order #12345 is on its way.",
        ];
        assert_eq!(words(&addressee.notification().await), created);
        assert_eq!(words(&other.notification().await), created);
        let private = addressee.notification().await;
        assert_eq!(words(&private), shipped);
        assert_eq!(private["metadata"]["orderId"], "12345");
        // The first event has an id, so that it is not stored a second time.
        let again = publish(&stage, "publish.mjs", user).await;
        assert_eq!(again.stdout, "stored in EVENTS as 1 (already there)\n");
        assert_eq!(words(&addressee.notification().await), shipped);
        assert_nothing_but_the_end(&stage, "acme", &mut other).await;
    }
}

#[tokio::test]
async fn publish_py_tells_of_a_function_from_its_start_to_its_end() {
    let stage = Stage::new().await;
    let mut ann = Client::join(&stage.gateway, "ann", "acme").await;
    let output = publish(&stage, "publish.py", "runtime").await;
    assert_eq!(output.stdout, "stored in EVENTS as 2\n");
    let started = ann.notification().await;
    assert_eq!(
        words(&started),
        [
            "function.started",
            "info",
            "Function started",
            "sync-orders started."
        ]
    );
    let completed = ann.notification().await;
    let [event, kind, title, message] = words(&completed);
    assert_eq!(
        [event, kind, title],
        ["function.completed", "success", "Function completed"]
    );
    let took = completed["metadata"]["durationMs"]
        .as_u64()
        .expect("a number");
    assert!((100..10_000).contains(&took), "{completed}");
    assert_eq!(message, format!("sync-orders completed in {took} ms."));
    assert_eq!(
        started["metadata"]["executionId"],
        completed["metadata"]["executionId"]
    );
}

#[tokio::test]
async fn the_tracing_example_hands_the_current_span_over() {
    let stage = Stage::with(|gateway| gateway.set("projection.traceparent", true)).await;
    let mut ann = Client::join(&stage.gateway, "ann", "acme").await;
    // Around it, what a program that traces has anyway: a current span, and the W3C propagator.
    let before = r#"
        import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
        import { W3CTraceContextPropagator } from "@opentelemetry/core";
        import { connect, headers } from "@nats-io/transport-node";
        import { jetstream } from "@nats-io/jetstream";
        const span = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", traceFlags: 1 };
        const current = trace.setSpanContext(ROOT_CONTEXT, span);
        context.setGlobalContextManager({ active: () => current });
        propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    "#;
    let after = r#"
        const nc = await connect({
            servers: process.env.NATS_URL, user: process.env.NATS_USER, pass: process.env.NATS_PASSWORD,
            inboxPrefix: process.env.NATS_INBOX_PREFIX,
        });
        await jetstream(nc).publish("ws.acme.custom.traced", "{}", { headers: h });
        await nc.close();
    "#;
    let folder = folder_with_packages();
    Example::named(PUBLISHING, "tracing.mjs")
        .run_within(
            before,
            after,
            folder.path(),
            &stage.production.publisher("runtime"),
        )
        .await;
    let notification = ann.notification().await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(
        notification["metadata"]["traceparent"], traceparent,
        "{notification}"
    );
}

#[tokio::test]
async fn the_cloudevents_examples_arrive_in_both_modes() {
    let stage = Stage::new().await;
    let mut ann = Client::join(&stage.gateway, "ann", "acme").await;
    publish(&stage, "cloudevents.mjs", "runtime").await;
    let [binary, structured] = [ann.notification().await, ann.notification().await];
    for notification in [&binary, &structured] {
        assert_eq!(
            words(notification),
            [
                "custom.order_placed",
                "info",
                "New order",
                "Order #12345 has been placed"
            ]
        );
        assert_eq!(notification["metadata"]["orderId"], "12345");
    }
    let id = |notification: &Value| {
        let id = notification["metadata"]["eventId"].as_str();
        id.unwrap_or_else(|| panic!("no id: {notification}"))
            .to_owned()
    };
    assert!(id(&binary).starts_with("évènement "), "{binary}");
    assert!(!id(&structured).contains(' '), "{structured}");

    publish(&stage, "cloudevents.py", "runtime").await;
    let [binary, structured] = [ann.notification().await, ann.notification().await];
    for notification in [&binary, &structured] {
        assert_eq!(
            words(notification),
            [
                "record.created",
                "info",
                "Record created",
                "Record r1 was created in orders."
            ]
        );
    }
    assert_ne!(id(&binary), id(&structured));
}

#[tokio::test]
async fn the_maintenance_examples_tell_each_workspace_once() {
    let workspaces = ["acme", "globex", "initech"];
    let stage = Stage::new().await;
    let mut clients = Vec::new();
    for workspace in workspaces {
        clients.push(Client::join(&stage.gateway, "ann", workspace).await);
    }
    for (example, message) in [
        (
            "maintenance.mjs",
            "On 1 March from 22:00 to 23:00 UTC, records are read-only.",
        ),
        (
            "maintenance.py",
            "On 1 April from 22:00 to 23:00 UTC, records are read-only.",
        ),
    ] {
        for told in [3, 0] {
            let output = publish(&stage, example, "runtime").await;
            let expected = format!("told {told} of 3 workspaces; the others knew\n");
            assert_eq!(output.stdout, expected);
        }
        for (workspace, client) in workspaces.iter().zip(&mut clients) {
            assert_eq!(
                words(&client.notification().await),
                [
                    "system.maintenance",
                    "alert",
                    "Scheduled maintenance",
                    message
                ]
            );
            assert_nothing_but_the_end(&stage, workspace, client).await;
        }
    }
}

/// The token that an example makes in `folder`.
async fn made(example: &str, folder: &Path) -> String {
    let environment = [("HERALD_AUTH__HMAC_SECRET", SECRET.to_owned())];
    let output = Example::named(TOKENS, example)
        .run(folder, &environment)
        .await;
    remember(output.stdout.trim().to_owned())
}

/// Asserts that a gateway with these settings takes each token for `ada` in `workspaces`, and
/// refuses a token of another key.
async fn assert_taken(
    settings: impl FnOnce(Builder) -> Builder,
    tokens: &[(String, &[&str])],
    other: &str,
) {
    let stage = Stage::with(settings).await;
    for (token, workspaces) in tokens {
        for workspace in *workspaces {
            let query = format!("token={token}&workspaceSlug={workspace}");
            let mut ada = Client::connect(&stage.gateway, &query).await;
            let event = format!("{workspace}.custom.hello");
            stage
                .publish(&json!([[event, { "recipients": ["ada"] }]]))
                .await;
            assert_eq!(ada.notification().await["title"], "Hello");
        }
    }
    let query = format!("token={other}&workspaceSlug=acme");
    let mut refused = Client::connect(&stage.gateway, &query).await;
    assert_eq!(refused.closed().await, (4001, "invalid token".to_owned()));
}

#[tokio::test]
async fn tokens_made_with_the_shared_secret_are_taken() {
    let folder = folder_with_packages();
    let mut tokens: Vec<(String, &[&str])> = Vec::new();
    for example in ["jose.mjs", "jsonwebtoken.mjs", "pyjwt.py"] {
        tokens.push((made(example, folder.path()).await, &["acme"]));
    }
    assert_taken(|gateway| gateway, &tokens, &format!("{}x", tokens[0].0)).await;
}

#[tokio::test]
async fn tokens_made_with_a_private_key_are_taken() {
    let folder = folder_with_packages();
    std::fs::write(folder.path().join("private.pem"), PRIVATE_KEY).expect("a file");
    let tokens: [(String, &[&str]); 2] = [
        (
            made("jose-key.mjs", folder.path()).await,
            &["acme", "globex"],
        ),
        (
            made("pyjwt-key.py", folder.path()).await,
            &["acme", "any-workspace"],
        ),
    ];
    // The first example has written the key set.
    let keys = folder.path().join("jwks.json");
    let settings = |gateway: Builder| {
        gateway
            .unset("auth.hmac_secret")
            .set("auth.jwks_file", keys.display())
            .set("auth.issuer", "https://id.example.com")
            .set("auth.audience", "herald")
    };
    assert_taken(settings, &tokens, &token("ada", "acme")).await;
}
