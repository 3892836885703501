//! Dates of a token: one that is valid in a moment is no bad one, and one in milliseconds is told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::token::{at, signed};
use crate::support::{PATIENCE, eventually};

/// A good token but for `with`.
fn token(with: &Value) -> String {
    let mut claims = json!({ "sub": "ann", "workspaces": "acme", "exp": at(3600) });
    let more = with.as_object().expect("claims").clone();
    claims.as_object_mut().expect("claims").extend(more);
    signed(&claims)
}

#[tokio::test]
async fn a_token_that_is_valid_soon_is_told_when_to_come() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let attempt = async |nbf: i64| {
        let query = format!(
            "token={}&workspaceSlug=acme",
            token(&json!({ "nbf": at(nbf) }))
        );
        Client::attempt(&gateway, &query).await
    };
    let mut ann = attempt(0).await.expect("open");
    // Clocks that differ by a few seconds are nothing.
    ann = {
        let mut newer = attempt(8).await.expect("open");
        assert!(newer.is_open().await);
        assert_eq!(ann.closed().await.0, 4009);
        newer
    };
    for (nbf, least, most) in [(12, 1, 2), (60, 45, 50), (118, 100, 108)] {
        let refused = attempt(nbf).await.expect_err("later");
        assert_eq!(refused.status, 503, "{nbf}");
        let retry_after = refused.retry_after.expect("a time");
        assert!(
            (least..=most).contains(&retry_after),
            "{nbf}: {retry_after}"
        );
        assert!(refused.body.contains("not valid yet"), "{}", refused.body);
    }
    // No claim was made.
    assert!(ann.is_open().await);
    for nbf in [125, 3600] {
        assert_eq!(
            attempt(nbf).await.expect("upgraded").closed().await.0,
            4001,
            "{nbf}"
        );
    }
    gateway
        .metric_becomes("herald_token_checks_total", "result=\"not_yet\"", 3.0)
        .await;
    gateway
        .metric_becomes(
            "herald_connections_refused_total",
            "reason=\"token_not_yet\"",
            3.0,
        )
        .await;
    let refused = attempt(11).await.expect_err("later");
    let wait = Duration::from_secs(refused.retry_after.expect("a time"));
    tokio::time::sleep(wait).await;
    // Not before the time that it was told, and then at once.
    assert!(attempt(10).await.is_ok());
}

#[tokio::test]
async fn a_fresh_token_that_is_valid_soon_does_not_end_the_socket() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let join = async |user: &str, seconds: i64| {
        let token = token(&json!({ "sub": user, "exp": at(seconds) }));
        Client::connect(&gateway, &format!("token={token}&workspaceSlug=acme")).await
    };
    let fresh = |user: &str, nbf: i64| {
        let token = token(&json!({ "sub": user, "nbf": at(nbf), "exp": at(3600) }));
        json!({ "type": "token", "token": token }).to_string()
    };
    // Its own token is good until the new one is: no moment lies between them.
    let mut ann = join("ann", 5).await;
    ann.send(&fresh("ann", 13)).await;
    // Nothing of this one's counts: the socket ends with the old token, and not with 4001.
    let mut bob = join("bob", 5).await;
    bob.send(&fresh("bob", 60)).await;
    // Whose token it is matters now as then.
    let mut eve = join("eve", 60).await;
    eve.send(&fresh("ann", 30)).await;
    assert_eq!(eve.closed().await.0, 4001);
    assert_eq!(bob.closed().await.0, 4003);
    assert!(ann.is_open().await);
    // Much later is never.
    let mut kim = join("kim", 60).await;
    kim.send(&fresh("kim", 600)).await;
    assert_eq!(kim.closed().await.0, 4001);
}

/// "Later" promises that the token will do: what needs no clock is judged before.
#[tokio::test]
async fn a_token_that_will_not_do_is_not_told_to_come_later() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    for (with, slug, expected) in [
        (json!({}), "", (4002, "missing workspaceSlug")),
        (
            json!({}),
            "&workspaceSlug=a.b",
            (4002, "malformed workspaceSlug"),
        ),
        (
            json!({}),
            "&workspaceSlug=globex",
            (4001, "no access to this workspace"),
        ),
        (
            json!({ "exp": at(60) }),
            "&workspaceSlug=acme",
            (4001, "invalid token"),
        ),
        (
            json!({ "exp": at(-1) }),
            "&workspaceSlug=acme",
            (4003, "token expired"),
        ),
    ] {
        let mut claims = json!({ "nbf": at(60) });
        claims
            .as_object_mut()
            .expect("claims")
            .extend(with.as_object().expect("claims").clone());
        let mut client =
            Client::connect(&gateway, &format!("token={}{slug}", token(&claims))).await;
        let (code, reason) = client.closed().await;
        assert_eq!((code, &*reason), expected, "{with} {slug}");
    }
    // The client is not told why it has no access; who runs the gateway is.
    let reason = "it does not grant the workspace asked for";
    let told = eventually(PATIENCE, async || {
        let line = gateway.log_line("token refused");
        line.is_some_and(|line| line.contains(reason) && line.contains("\"auth\""))
    });
    assert!(told.await, "{}", gateway.output());
    // The same over an open socket.
    let token_of = |user: &str, with: &Value| {
        let mut claims = json!({ "sub": user });
        claims
            .as_object_mut()
            .expect("claims")
            .extend(with.as_object().expect("claims").clone());
        token(&claims)
    };
    for (user, with) in [
        ("kim", json!({ "nbf": at(60), "workspaces": "globex" })),
        ("joe", json!({ "nbf": at(60), "exp": at(60) })),
    ] {
        let query = format!("token={}&workspaceSlug=acme", token_of(user, &json!({})));
        let mut client = Client::connect(&gateway, &query).await;
        let fresh = json!({ "type": "token", "token": token_of(user, &with) });
        client.send(&fresh.to_string()).await;
        assert_eq!(client.closed().await.0, 4001, "{user}");
    }
}

#[tokio::test]
async fn milliseconds_are_told_in_the_log() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("log.level", "info")
        .ready()
        .await;
    let token = token(&json!({ "exp": at(3600) * 1000 }));
    let mut client = Client::connect(&gateway, &format!("token={token}&workspaceSlug=acme")).await;
    assert_eq!(client.closed().await, (4001, "invalid token".to_owned()));
    let line = gateway.logged("token refused").await;
    assert!(
        line.contains("milliseconds") && line.contains("\"auth\""),
        "{line}"
    );
}
