//! A permission that is taken away while a gateway serves, by a reload of the server's configuration: it is
//! noticed and said, nobody joins, and the gateway goes on by itself when it is given back.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Refused};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::production::Production;
use crate::support::publisher::Publisher;
use crate::support::token::token;

/// As [`crate::support::PATIENCE`]; some things are noticed when a read has got no answer for 2 s, three times.
const PATIENCE: Duration = Duration::from_secs(60);

async fn join(gateway: &Gateway, user: &str) -> Result<Client, Refused> {
    let query = format!("token={}&workspaceSlug=acme", token(user, "acme"));
    Client::attempt(gateway, &query).await
}

struct Case {
    /// What is taken away.
    permission: &'static str,
    /// What the log, `/readyz` and whom it refuses say of it.
    named: &'static str,
    /// The stream that cannot be read, and how.
    unread: Option<(&'static str, &'static str)>,
}

const fn case(permission: &'static str, named: &'static str) -> Case {
    Case {
        permission,
        named,
        unread: None,
    }
}

const fn read(stream: &'static str, way: &'static str, permission: &'static str) -> Case {
    Case {
        permission,
        named: permission,
        unread: Some((stream, way)),
    }
}

async fn is_noticed(gateway: &Gateway, case: &Case) {
    let Case { named, unread, .. } = case;
    let refused = eventually(PATIENCE, async || {
        // A claim is denied when one is made.
        matches!(join(gateway, "bob").await,
            Err(refused) if refused.status == 503 && refused.body.contains(named))
    });
    assert!(refused.await, "{named}: {}", gateway.output());
    let (status, why) = gateway.get("/readyz").await;
    assert!(status == 503 && why.contains(named), "{named}: {why}");
    gateway
        .prints_line(&["\"WARN\"", "nats permission missing", named])
        .await;
    assert!(gateway.metric("herald_nats_denied", "").await > 0.5);
    if let Some((stream, way)) = unread {
        let label = format!("read=\"{way}\",stream=\"{stream}\"");
        gateway
            .metric_becomes("herald_stream_readable", &label, 0.0)
            .await;
        let told = eventually(PATIENCE, async || {
            let (_, why) = gateway.get("/readyz").await;
            why.contains(&format!("stream {stream} cannot be read")) && why.contains(named)
        });
        assert!(told.await, "{:?}", gateway.get("/readyz").await);
    }
}

/// Takes away and gives back in turn, while ann has a socket.
async fn each_is_noticed(cases: &[Case]) {
    let production = Production::migrated().await;
    let runtime = Publisher::over(production.user("runtime").await.client);
    let gateway = production
        .gateway("gateway")
        .set("server.unready_after", "500ms")
        .ready()
        .await;
    let mut ann = join(&gateway, "ann").await.expect("a socket");
    for case in cases {
        production.deny("gateway", case.permission).await;
        is_noticed(&gateway, case).await;
        let event = async |title: &str| {
            let title = format!("{} {title}", case.permission);
            runtime
                .event("acme.custom.x", &json!({ "title": title }))
                .await;
            title
        };
        let meanwhile = event("denied").await;
        production.allow().await;
        let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
        assert!(ready.await, "{}: {}", case.permission, gateway.output());
        assert_eq!(ann.notification().await["title"], meanwhile);
        let after = event("allowed").await;
        assert_eq!(ann.notification().await["title"], after);
        let joined = eventually(PATIENCE, async || join(&gateway, "cyd").await.is_ok());
        assert!(joined.await, "{}", case.permission);
        assert!(gateway.metric("herald_nats_denied", "").await < 0.5);
    }
    assert!(ann.is_open().await);
}

#[tokio::test]
async fn a_read_that_is_denied_while_serving_is_noticed() {
    each_is_noticed(&[
        read("EVENTS", "direct", "$JS.API.DIRECT.GET.EVENTS"),
        read("SESSIONS", "direct", "$JS.API.DIRECT.GET.SESSIONS"),
        read("EVENTS", "leader", "$JS.API.STREAM.MSG.GET.EVENTS"),
        read("SESSIONS", "leader", "$JS.API.STREAM.MSG.GET.SESSIONS"),
    ])
    .await;
}

#[tokio::test]
async fn a_subscription_or_a_claim_that_is_denied_while_serving_is_noticed() {
    each_is_noticed(&[
        case("live.ws.*.>", "live.ws."),
        case("live.session.*.*", "live.session."),
        case("_INBOX_gateway.>", "nats.inbox_prefix"),
        case(
            "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.EVENTS",
            "LEADER_ELECTED.EVENTS",
        ),
        case("session.*.*", "publish to session."),
    ])
    .await;
}

#[tokio::test]
async fn dead_letters_that_are_denied_are_told_and_keep_nobody_out() {
    let production = Production::migrated().await;
    let runtime = Publisher::over(production.user("runtime").await.client);
    let gateway = production
        .gateway("gateway")
        .set("server.unready_after", "500ms")
        .ready()
        .await;
    let ann = join(&gateway, "ann").await;
    production.deny("gateway", "dead.*.*").await;
    let denied = eventually(PATIENCE, async || {
        runtime
            .event("acme.none.such", &json!({ "title": "bad" }))
            .await;
        gateway.metric("herald_nats_denied", "").await > 0.5
    });
    assert!(denied.await, "{}", gateway.output());
    let line = gateway.logged("nats permission missing").await;
    assert!(line.contains("publish to dead."), "{line}");
    assert_eq!(gateway.get("/readyz").await.0, 200);
    assert!(join(&gateway, "bob").await.is_ok());
    production.allow().await;
    gateway.metric_becomes("herald_nats_denied", "", 0.0).await;
    drop(ann);
}
