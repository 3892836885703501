//! `auth.cookie` and patterns of `server.allowed_origins`: a page of one's own joins with its visitor's cookie, and
//! nobody else's does.

use serde_json::json;

use super::attempt;
use crate::support::attempt::{connect, local, send};
use crate::support::gateway::{Gateway, run};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::handshake_with;
use crate::support::token::{expiring, token};

const OURS: (&str, &str) = ("origin", "https://pr-7.example.app");

async fn gateway(nats: &Nats) -> Gateway {
    Gateway::builder(nats)
        .set(
            "server.allowed_origins",
            "https://*.example.app, http://localhost:3000",
        )
        .set("auth.cookie", "__Host-token")
        .ready()
        .await
}

#[tokio::test]
async fn a_star_lets_in_the_pages_just_below_a_domain() {
    let nats = Nats::jetstream().await;
    let gateway = gateway(&nats).await;
    let query = format!("token={}&workspaceSlug=acme", token("ann", "acme"));
    for (origin, is_let_in) in [
        ("https://pr-7.example.app", true),
        ("https://PR-7.Example.app", true),
        ("http://localhost:3000", true),
        ("https://example.app", false),
        ("https://a.b.example.app", false),
        ("https://evil-example.app", false),
        ("https://x.example.app.evil", false),
        ("https://x.example.app:8443", false),
        ("http://x.example.app", false),
        ("https://evil.com/.example.app", false),
        ("https://*.example.app", false),
        ("null", false),
        ("", false),
    ] {
        match attempt(&gateway, &query, &[("origin", origin)]).await {
            Ok(mut client) => assert!(is_let_in && client.is_open().await, "{origin}"),
            Err(refused) => assert!(!is_let_in && refused.status == 403, "{origin}: {refused:?}"),
        }
    }
    // Of two, none hides the other.
    let two = [OURS, ("origin", "https://evil.com")];
    let refused = attempt(&gateway, &query, &two).await.expect_err("refused");
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn a_cookie_is_the_token_of_a_page_that_gives_no_other() {
    let nats = Nats::jetstream().await;
    let gateway = gateway(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let (ann, bob) = (token("ann", "acme"), token("bob", "acme"));
    let cookie = |token: &str| format!("theme=dark; __Host-token={token}; lang=caf\u{e9}");
    let bearer = format!("Bearer {ann}");
    for (query, headers) in [
        ("", vec![OURS, ("cookie", &*cookie(&ann))]),
        (
            "token=&",
            vec![OURS, ("cookie", &*cookie(&format!("\"{ann}\"")))],
        ),
        (
            "",
            vec![OURS, ("cookie", "theme=dark"), ("cookie", &*cookie(&ann))],
        ),
        (
            "",
            vec![OURS, ("cookie", &*cookie(&ann)), ("cookie", &*cookie(&ann))],
        ),
        // Another one wins, and then the cookie is of no account, nor needs it an origin.
        (
            &*format!("token={ann}&"),
            vec![OURS, ("cookie", &*cookie(&bob))],
        ),
        (&*format!("token={ann}&"), vec![("cookie", &*cookie(&bob))]),
        (
            "",
            vec![
                ("authorization", &*bearer),
                ("cookie", "__Host-token=x; __Host-token=y"),
            ],
        ),
    ] {
        let query = format!("{query}workspaceSlug=acme");
        let mut client = attempt(&gateway, &query, &headers).await.expect("a socket");
        assert!(client.is_open().await, "{headers:?}");
        let event = json!({ "title": "for ann", "message": "-", "recipients": ["ann"] });
        publisher.event("acme.custom.hello", &event).await;
        assert_eq!(client.notification().await["title"], "for ann");
    }
}

#[tokio::test]
async fn a_cookie_without_an_origin_is_refused_and_a_wrong_one_closed() {
    let nats = Nats::jetstream().await;
    let gateway = gateway(&nats).await;
    let good = format!("__Host-token={}", token("ann", "acme"));
    let two = format!("{good}; __Host-token={}", token("bob", "acme"));
    for cookie in [&*good, &*two, "__Host-token=x"] {
        let headers = [("cookie", cookie)];
        let refused = attempt(&gateway, "workspaceSlug=acme", &headers).await;
        let refused = refused.expect_err("refused");
        let is_told = refused.status == 403 && refused.body.contains("needs an Origin");
        assert!(is_told && refused.retry_after.is_none(), "{refused:?}");
    }
    let refusals = "herald_connections_refused_total";
    assert_eq!(gateway.metric(refusals, "no_origin").await, 3.0);
    // Nothing of these was looked at.
    assert_eq!(
        gateway.metric("herald_token_checks_total", "join").await,
        0.0
    );
    let foreign = [("origin", "https://evil.com"), ("cookie", &*good)];
    let refused = attempt(&gateway, "workspaceSlug=acme", &foreign).await;
    assert_eq!(refused.expect_err("refused").status, 403);
    for headers in [
        vec![OURS],
        vec![],
        vec![OURS, ("cookie", &*two)],
        vec![OURS, ("cookie", "__Host-token=x")],
        vec![OURS, ("cookie", "__Host-token=")],
        vec![
            OURS,
            ("cookie", &*good.replace("__Host-token", "__host-token")),
        ],
        vec![OURS, ("cookie", &*good.replace("__Host-token", "token"))],
    ] {
        let client = attempt(&gateway, "workspaceSlug=acme", &headers).await;
        let closed = client.expect("upgraded").closed().await;
        assert_eq!(closed.0, 4001, "{headers:?}");
    }
    // Without the setting a cookie is nothing.
    let plain = Gateway::on(&nats).await;
    let headers = [OURS, ("cookie", &*good)];
    let client = attempt(&plain, "workspaceSlug=acme", &headers).await;
    assert_eq!(client.expect("upgraded").closed().await.0, 4001);
}

#[tokio::test]
async fn an_expired_token_in_a_cookie_is_told_to_come_later_as_any_other() {
    let nats = Nats::jetstream().await;
    let gateway = gateway(&nats).await;
    let request = handshake_with("", "acme");
    let cookie = format!("__Host-token={}", expiring("ann", "acme", -60));
    let headers = [("Origin", OURS.1), ("Cookie", &*cookie)];
    for _ in 0..3 {
        let attempt = send(connect(&gateway, local(1)).await, &request, &headers).await;
        assert_eq!(attempt.status, 101);
    }
    let refused = send(connect(&gateway, local(1)).await, &request, &headers).await;
    assert!(refused.is_later(429, "token is expired"), "{refused:?}");
}

#[test]
fn a_cookie_that_any_page_could_use_is_a_configuration_error() {
    let cookie = Gateway::without_nats().set("auth.cookie", "token");
    for (builder, told) in [
        (cookie.clone(), "auth.cookie needs server.allowed_origins"),
        (
            cookie
                .clone()
                .set("server.allowed_origins", "https://a.example, null"),
            "auth.cookie cannot be used with `null`",
        ),
        (
            cookie
                .clone()
                .set("auth.cookie", "a=b")
                .set("server.allowed_origins", "https://a.example"),
            "auth.cookie is the name of a cookie alone",
        ),
        (
            cookie.set("server.allowed_origins", "https://*.com"),
            "server.allowed_origins: `https://*.com` has a `*` before what is no domain",
        ),
    ] {
        let (code, _, said) = run(builder.command(&["serve"]));
        assert!(code == Some(2) && said.contains(told), "{said}");
    }
}
