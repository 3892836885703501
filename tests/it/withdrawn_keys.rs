//! A key that is taken away closes the sockets that are open by its tokens, and no others.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::cable::{Cable, Condition};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::{at, with_key};
use crate::support::{PATIENCE, eventually, soon};

const EXPIRED: u16 = 4003;
const RELOADED: &str = "configuration reloaded";
const WITHDRAWN: &str = "keys withdrawn, their sockets are closed within a minute";
/// Two reads that are 30 s apart, and the looks before them.
const TWO_READS: Duration = Duration::from_secs(90);

fn fixture(name: &str) -> Vec<u8> {
    let keys = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    std::fs::read(keys.join(name)).expect("a fixture")
}

/// A token that the key of this name signed.
fn token(key: &str, user: &str) -> String {
    let private = EncodingKey::from_ec_pem(&fixture(&format!("{key}.private.pem")));
    let claims = json!({ "sub": user, "workspaces": "acme", "exp": at(3600) });
    with_key(&claims, Algorithm::ES256, &private.expect("a key"))
}

fn key_set(names: &[&str]) -> String {
    let keys = names.iter().map(|name| {
        let pem = fixture(&format!("{name}.public.pem"));
        let key = jsonwebtoken::DecodingKey::from_ec_pem(&pem).expect("a key");
        json!(jsonwebtoken::jwk::Jwk::from_decoding_key(&key, None).expect("a JWK"))
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

struct Scene {
    nats: Nats,
    folder: TempDir,
    gateway: Gateway,
}

impl Scene {
    /// A gateway with a key set of two keys.
    async fn new() -> Self {
        let nats = Nats::jetstream().await;
        let url = nats.url();
        Self::on(nats, &url).await
    }

    /// The same, which reaches `nats` by this URL.
    async fn on(nats: Nats, url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let set = file(folder.path(), "jwks.json", key_set(&["p256", "p256-other"]));
        let builder = Gateway::builder(&nats).unset("auth.hmac_secret");
        let gateway = builder
            .set("nats.url", url)
            .set("auth.jwks_file", set)
            .ready()
            .await;
        Self {
            nats,
            folder,
            gateway,
        }
    }

    /// Replaces the key set in one step.
    fn publish(&self, names: &[&str]) {
        let new = file(self.folder.path(), "jwks.json.new", key_set(names));
        let renamed = std::fs::rename(new, self.folder.path().join("jwks.json"));
        renamed.expect("it can be renamed");
    }

    /// Joins by a token of this key; the session's id, too.
    async fn join(&self, key: &str, user: &str) -> (String, Client) {
        let url = format!("{}/?workspaceSlug=acme", self.gateway.url());
        let mut request = url.into_client_request().expect("a URL");
        let offer = format!("herald.v2, bearer.{}", token(key, user));
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", offer.parse().expect("a header"));
        let mut client = Client::attempt_with(request).await.expect("open");
        let hello = client.notification().await;
        let session = hello["session"].as_str().expect("an id").to_owned();
        (session, client)
    }

    async fn is_refused(&self, key: &str) -> bool {
        let query = format!("token={}&workspaceSlug=acme", token(key, "eve"));
        !Client::connect(&self.gateway, &query).await.is_open().await
    }
}

async fn closes(client: &mut Client) -> bool {
    client.closed().await == (EXPIRED, "token expired".to_owned())
}

/// Sockets are closed in the order of their sessions, one after the other over a minute.
#[tokio::test]
async fn a_reload_without_a_key_closes_its_sockets_over_a_minute_but_not_who_has_another_by_then() {
    let scene = Scene::new().await;
    let (_, mut other) = scene.join("p256-other", "eve").await;
    let mut ours = Vec::new();
    for user in ["ann", "bob", "cid"] {
        let (session, client) = scene.join("p256", user).await;
        ours.push((session, user, client));
    }
    ours.sort_by(|(left, ..), (right, ..)| left.cmp(right));
    let publisher = Publisher::on(&scene.nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    scene.publish(&["p256-other"]);
    let start = Instant::now();
    scene.gateway.signal("HUP");
    let [(_, _, first), (_, user, second), (_, _, third)] = ours.as_mut_slice() else {
        panic!("three sockets");
    };
    // It was stored before.
    first.notification().await;
    assert!(closes(first).await);
    let fresh = json!({ "type": "token", "token": token("p256-other", user) });
    second.send(&fresh.to_string()).await;
    second.notification().await;
    assert_eq!(second.notification().await["herald"], "token");
    third.notification().await;
    // 40 s after the first.
    assert!(closes(third).await);
    let took = start.elapsed();
    assert!((35..=60).contains(&took.as_secs()), "{took:?}");
    // The second's turn is over, too.
    publisher.event("acme.custom.x", &json!({})).await;
    second.notification().await;
    for _ in 0..2 {
        other.notification().await;
    }
    assert!(scene.is_refused("p256").await);
    let line = scene.gateway.logged(WITHDRAWN).await;
    assert!(line.contains("\"sockets\":3"), "{line}");
    scene
        .gateway
        .metric_becomes("herald_connections_closed_total", "4003", 2.0)
        .await;
}

/// Nobody sends a signal, or comes with a token.
#[tokio::test]
async fn a_key_that_two_reads_of_a_key_set_lack_closes_its_sockets() {
    let scene = Scene::new().await;
    let (_, mut ann) = scene.join("p256", "ann").await;
    let (_, mut eve) = scene.join("p256-other", "eve").await;
    scene.publish(&["p256-other"]);
    let reread = "key set reloaded";
    let first = eventually(TWO_READS, async || scene.gateway.log_lines(reread) == 1).await;
    assert!(first, "{}", scene.gateway.output());
    let start = Instant::now();
    // New tokens of the key are refused already.
    assert!(scene.is_refused("p256").await && ann.is_open().await);
    let withdrawn = eventually(TWO_READS, async || scene.gateway.log_lines(WITHDRAWN) == 1).await;
    assert!(withdrawn, "{}", scene.gateway.output());
    assert!(start.elapsed() > Duration::from_secs(25));
    assert!(closes(&mut ann).await);
    assert!(eve.is_open().await);
}

/// The key goes between the check of the token and the 101, while the join waits for NATS.
#[tokio::test]
async fn a_join_that_is_under_way_when_its_key_goes_is_closed_too() {
    let nats = Nats::jetstream().await;
    let cable = Cable::to(nats.port()).await;
    let scene = Scene::on(nats, &cable.url()).await;
    let (_, mut eve) = scene.join("p256-other", "eve").await;
    let reload = async |names: &[&str]| {
        scene.publish(names);
        let before = scene.gateway.log_lines(RELOADED);
        scene.gateway.signal("HUP");
        let reloads = async || scene.gateway.log_lines(RELOADED) > before;
        assert!(eventually(PATIENCE, reloads).await);
    };
    // A join waits for 3 s at most, which may be too short on a busy machine.
    for _ in 0..5 {
        reload(&["p256", "p256-other"]).await;
        let checks = scene
            .gateway
            .metric("herald_token_checks_total", "ok")
            .await;
        cable.set(Condition::Silent);
        let query = format!("token={}&workspaceSlug=acme", token("p256", "ann"));
        let withdraws = async {
            let checked = async || {
                let now = scene.gateway.metric("herald_token_checks_total", "ok");
                now.await > checks
            };
            assert!(eventually(PATIENCE, checked).await);
            reload(&["p256-other"]).await;
            cable.mend();
        };
        let (joined, ()) = tokio::join!(Client::attempt(&scene.gateway, &query), withdraws);
        if let Ok(mut ann) = joined {
            assert!(soon(closes(&mut ann)).await);
            // She was no socket yet when the sockets of the key were looked for.
            assert_eq!(scene.gateway.log_lines(WITHDRAWN), 0);
            assert!(eve.is_open().await);
            return;
        }
    }
    panic!("each join was refused: {}", scene.gateway.output());
}
