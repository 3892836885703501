//! How long a token may live, and which claims it must have: `auth.max_token_age` and `auth.required_claims`.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::command::herald;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::token::{SECRET, at, remember, signed};
use crate::support::{PATIENCE, eventually};

const LIMITS: &str = "[auth]\nmax_token_age = \"1h\"\nrequired_claims = [\"jti\", \"tenant.id\"]\n";

/// A token of ann that passes, but for these claims; a null removes one.
fn token(with: &Value) -> String {
    let mut claims = json!({
        "sub": "ann", "workspaces": "acme", "iat": at(-60), "exp": at(3000), "jti": "a", "tenant.id": 7,
    });
    for (name, value) in with.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    signed(&claims)
}

/// Whether a token opens a socket. If not, it gets 4001.
async fn opens(gateway: &Gateway, token: &str) -> bool {
    let query = format!("token={token}&workspaceSlug=acme");
    let mut client = Client::connect(gateway, &query).await;
    client.stream.send(Message::Ping("".into())).await.ok();
    // A refusal closes first; an open socket answers.
    match timeout(PATIENCE, client.stream.next()).await {
        Ok(Some(Ok(Message::Close(Some(frame))))) => {
            assert_eq!(
                (u16::from(frame.code), &*frame.reason),
                (4001, "invalid token")
            );
            false
        }
        Ok(Some(Ok(_))) => true,
        other => panic!("{other:?}"),
    }
}

async fn says(gateway: &Gateway, reason: &str) {
    let line = eventually(PATIENCE, async || gateway.output().contains(reason));
    assert!(line.await, "{reason}: {}", gateway.output());
}

#[tokio::test]
async fn a_token_that_lives_too_long_or_lacks_a_claim_opens_nothing_and_extends_nothing() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = file(folder.path(), "herald.toml", "");
    let builder = Gateway::builder(&nats).file(config.as_ref());
    let gateway = builder.ready().await;
    let long = token(&json!({ "exp": at(10 * 365 * 86_400) }));
    let query = format!("token={long}&workspaceSlug=acme");
    let mut bare = Client::connect(&gateway, &query).await;
    assert!(bare.is_open().await);
    file(folder.path(), "herald.toml", LIMITS);
    gateway.signal("HUP");
    says(
        &gateway,
        "\"changed\":\"auth.required_claims, auth.max_token_age\"",
    )
    .await;
    // It was good when it came.
    assert!(bare.is_open().await);
    bare.send(&json!({ "type": "token", "token": long }).to_string())
        .await;
    assert_eq!(bare.closed().await, (4001, "invalid token".to_owned()));
    assert!(opens(&gateway, &token(&json!({}))).await);
    for (with, reason) in [
        (
            json!({ "exp": at(3602) }),
            "it lives longer than auth.max_token_age",
        ),
        (
            json!({ "iat": at(9000), "exp": at(9060) }),
            "it lives longer than auth.max_token_age",
        ),
        (
            json!({ "iat": null }),
            "it has no iat, which auth.max_token_age needs",
        ),
        (
            json!({ "tenant.id": null }),
            "it lacks a claim of required_claims",
        ),
    ] {
        assert!(!opens(&gateway, &token(&with)).await, "{with}");
        says(&gateway, reason).await;
    }
    assert!(!opens(&gateway, &token(&json!({ "iat": "2026-01-01" }))).await);
}

#[tokio::test]
async fn the_token_command_makes_what_the_gateway_takes() {
    let nats = Nats::jetstream().await;
    let settings = [
        ("HERALD_AUTH__HMAC_SECRET", SECRET),
        ("HERALD_AUTH__MAX_TOKEN_AGE", "1h"),
        ("HERALD_AUTH__REQUIRED_CLAIMS", "jti, iat"),
    ];
    let gateway = Gateway::builder(&nats)
        .set("auth.max_token_age", "1h")
        .set("auth.required_claims", "jti, iat")
        .ready()
        .await;
    let plain = ["token", "--user", "ann", "--workspace", "acme"];
    let made = herald(&nats, &settings, &plain).await.ok();
    assert!(opens(&gateway, &remember(made.stdout.trim().to_owned())).await);
    let long = [&plain[..], &["--expires", "61m"]].concat();
    let refused = herald(&nats, &settings, &long).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let reason = "--expires is longer than auth.max_token_age, 1h";
    assert!(refused.stderr.contains(reason), "{refused:?}");
    let zero = [("HERALD_AUTH__MAX_TOKEN_AGE", "0s")];
    let refused = herald(&nats, &zero, &["check"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let reason = "auth.max_token_age must not be 0: leave it out for no limit";
    assert!(refused.stderr.contains(reason), "{refused:?}");
}
