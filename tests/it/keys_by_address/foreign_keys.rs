//! No token is verified by the key of another issuer, by a key of another kind, or by one that it brings itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{Joined, claims, fixture, join, signed};
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::token::remember;

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";

/// Serves a key set, and counts how often.
async fn serve(key_set: Value) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/jwks", listener.local_addr().expect("an address"));
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let answer = async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        key_set.to_string()
    };
    let routes = axum::Router::new().route("/jwks", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, fetches)
}

/// The public key of a fixture, as a provider calls it.
fn public(name: &str, kid: &str) -> Value {
    let pem = fixture(&format!("{name}.private.pem"));
    let key = EncodingKey::from_rsa_pem(&pem).expect("a key");
    let mut key = json!(Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a JWK"));
    key["kid"] = kid.into();
    key
}

struct Scene {
    _nats: Nats,
    _folder: TempDir,
    gateway: Gateway,
    /// Of the keys of the issuer A.
    fetches: Arc<AtomicUsize>,
}

/// A gateway with two issuers, which call their key the same.
async fn scene() -> Scene {
    let nats = Nats::jetstream().await;
    let (url_a, fetches) = serve(json!({ "keys": [public("rsa", "1")] })).await;
    let (url_b, _) = serve(json!({ "keys": [public("rsa-other", "1")] })).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = [(A, url_a), (B, url_b)].map(|(issuer, url)| {
        format!(
            "[[auth.issuers]]\nissuer = \"{issuer}\"\njwks_url = \"{url}\"\naudience = \"herald\"\n"
        )
    });
    let path = file(folder.path(), "herald.toml", text.concat());
    let builder = Gateway::builder(&nats).unset("auth.hmac_secret");
    let gateway = builder.file(path.as_ref()).ready().await;
    Scene {
        _nats: nats,
        _folder: folder,
        gateway,
        fetches,
    }
}

#[tokio::test]
async fn a_key_of_one_issuer_verifies_no_token_of_another() {
    let scene = scene().await;
    for (issuer, key, is_good) in [
        (A, "rsa", true),
        (B, "rsa-other", true),
        (A, "rsa-other", false),
        (B, "rsa", false),
        ("https://c.example.com", "rsa", false),
    ] {
        for kid in [Some("1"), None] {
            let outcome = join(&scene.gateway, &signed(key, kid, &claims(issuer))).await;
            let is_right = match &outcome {
                Joined::Open(_) => is_good,
                Joined::Closed(4001) => !is_good,
                _ => false,
            };
            assert!(is_right, "{issuer} {key} {kid:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_key_of_another_kind_and_one_that_a_token_brings_verify_nothing_and_have_nothing_fetched()
{
    let scene = scene().await;
    let (url, fetched_for_token) = serve(json!({ "keys": [public("rsa-other", "1")] })).await;
    let before = scene.fetches.load(Ordering::Relaxed);
    let header = |algorithm| Header {
        kid: Some("1".to_owned()),
        ..Header::new(algorithm)
    };
    let token = |header: &Header, key: &EncodingKey| {
        remember(encode(header, &claims(A), key).expect("a token"))
    };
    let hmac = |secret: &[u8]| token(&header(Algorithm::HS256), &EncodingKey::from_secret(secret));
    let own = EncodingKey::from_rsa_pem(&fixture("rsa-other.private.pem")).expect("a key");
    let brought = Header {
        jku: Some(url),
        jwk: Some(serde_json::from_value(public("rsa-other", "1")).expect("a JWK")),
        ..header(Algorithm::RS256)
    };
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!(
        "{}.{}.",
        part(json!({"alg": "none", "kid": "1"})),
        part(claims(A))
    );
    for token in [
        hmac(&fixture("rsa.public.pem")),
        hmac(public("rsa", "1").to_string().as_bytes()),
        token(&brought, &own),
        remember(unsigned),
    ] {
        let outcome = join(&scene.gateway, &token).await;
        assert!(matches!(outcome, Joined::Closed(4001)), "{outcome:?}");
    }
    // None of them may be of a new key.
    assert_eq!(scene.fetches.load(Ordering::Relaxed), before);
    assert_eq!(fetched_for_token.load(Ordering::Relaxed), 0);
}
