//! Several issuers, each with keys and claims of its own: what a client sees of them, and what an
//! operator.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::PATIENCE;
use crate::support::client::{Client, Refused};
use crate::support::command::herald;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::{SECRET, at, signed, with_key};

const ISSUER: &str = "https://id.example.com/realms/one";
const OTHER: &str = "https://other.example.com/";

/// A secret for the old tokens, a key set for those of an identity provider with claims of its own, a
/// PEM key for another's.
const CONFIG: &str = r#"
[auth]
leeway = "0s"

[[auth.issuers]]
hmac_secret_file = "$/secret"

[[auth.issuers]]
issuer = "https://id.example.com/realms/one"
jwks_file = "$/jwks.json"
algorithms = ["EdDSA"]
audiences = ["herald", "notifications"]
user_claim = ["sub", "user_id"]
workspaces_claim = "resource_access.herald.roles"
workspaces_prefix = "/workspaces/"

[[auth.issuers]]
issuer = "https://other.example.com/"
public_key_file = "$/p256.pem"
"#;

fn private(name: &str) -> EncodingKey {
    let pem = fixture(&format!("{name}.private.pem"));
    match name {
        "ed25519" => EncodingKey::from_ed_pem(&pem),
        _ => EncodingKey::from_ec_pem(&pem),
    }
    .expect("a key")
}

fn fixture(name: &str) -> Vec<u8> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    std::fs::read(keys.join(name)).expect("a fixture")
}

fn jwks(names: &[&str]) -> String {
    let keys = names.iter().map(|name| {
        let pem = fixture(&format!("{name}.public.pem"));
        let key = match *name {
            "ed25519" => DecodingKey::from_ed_pem(&pem),
            _ => DecodingKey::from_ec_pem(&pem),
        };
        json!(Jwk::from_decoding_key(&key.expect("a key"), None).expect("a JWK"))
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

struct Scene {
    nats: Nats,
    folder: TempDir,
    gateway: Gateway,
}

impl Scene {
    async fn new() -> Self {
        let nats = Nats::jetstream().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        file(folder.path(), "secret", SECRET);
        file(folder.path(), "jwks.json", jwks(&["ed25519", "p256"]));
        file(folder.path(), "p256.pem", fixture("p256.public.pem"));
        let config = write(&folder, CONFIG);
        let builder = Gateway::builder(&nats).unset("auth.hmac_secret");
        let gateway = builder.file(Path::new(&config)).ready().await;
        Self {
            nats,
            folder,
            gateway,
        }
    }

    /// Joins `workspace`; the HTTP status or the close code where that is refused.
    async fn join(&self, token: &str, workspace: &str) -> Result<Client, u16> {
        let query = format!("token={token}&workspaceSlug={workspace}");
        let attempt = Client::attempt(&self.gateway, &query).await;
        let mut client = attempt.map_err(|Refused { status, .. }| status)?;
        // A refusal closes first; an open socket answers.
        client.stream.send(Message::Ping("".into())).await.ok();
        let first = timeout(PATIENCE, client.stream.next()).await;
        match first.expect("something comes in time") {
            Some(Ok(Message::Close(Some(frame)))) => Err(frame.code.into()),
            Some(Ok(_)) => Ok(client),
            Some(Err(_)) | None => Err(1006),
        }
    }

    async fn reload(&self, config: &str, message: &str) -> Value {
        write(&self.folder, config);
        self.gateway.hang_up(message).await
    }
}

/// `$` stands for the folder.
fn write(folder: &TempDir, config: &str) -> String {
    let config = config.replace('$', &folder.path().display().to_string());
    file(folder.path(), "herald.toml", config)
}

/// Claims of the identity provider, overwritten by `with`; a null removes the claim.
fn provider(with: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "ann", "aud": ["account", "notifications"], "exp": at(3600),
        "resource_access": {
            "herald": { "roles": ["/workspaces/acme", "admin", "/workspaces/*"] },
            "other": { "roles": ["/workspaces/globex", "*"] },
        },
        "workspaces": "*",
    });
    for (name, value) in with.as_object().expect("claims") {
        if value.is_null() {
            claims.as_object_mut().expect("claims").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn by_provider(with: &Value) -> String {
    with_key(&provider(with), Algorithm::EdDSA, &private("ed25519"))
}

fn old(with: &Value) -> String {
    let mut claims = json!({ "sub": "ann", "workspaces": "acme", "exp": at(3600) });
    let more = with.as_object().expect("claims").clone();
    claims.as_object_mut().expect("claims").extend(more);
    signed(&claims)
}

/// A token by the key of the third entry, with the provider's claims.
fn p256(iss: &str) -> String {
    let claims = provider(&json!({ "iss": iss, "workspaces": "acme" }));
    with_key(&claims, Algorithm::ES256, &private("p256"))
}

#[tokio::test]
async fn each_issuer_has_users_and_claims_of_its_own() {
    let scene = Scene::new().await;
    // Three issuers' `ann` are three users: none replaces another.
    let mut open = Vec::new();
    for token in [old(&json!({})), by_provider(&json!({})), p256(OTHER)] {
        open.push(scene.join(&token, "acme").await.expect("open"));
    }
    for client in &mut open {
        assert!(client.is_open().await);
    }
    // A number is a user, too, by its text.
    let token = by_provider(&json!({ "sub": null, "user_id": 42 }));
    let mut numbered = scene.join(&token, "acme").await.expect("open");
    let publisher = Publisher::on(&scene.nats).await;
    let event = json!({ "title": "for 42", "message": "m", "type": "info", "recipients": ["42"] });
    publisher.event("acme.custom.x", &event).await;
    assert_eq!(numbered.notification().await["title"], "for 42");
}

#[tokio::test]
async fn a_token_passes_by_the_entry_of_its_issuer_or_not_at_all_and_the_log_says_why() {
    let scene = Scene::new().await;
    let alg = "its algorithm does not fit the key";
    let of = |with: Value| by_provider(&with);
    // The entry that refuses it, by its index, and what the log says.
    for (token, workspace, told) in [
        (old(&json!({ "iss": ISSUER })), "acme", Some((1, alg))),
        (old(&json!({ "iss": OTHER })), "acme", Some((2, alg))),
        (of(json!({ "iss": OTHER })), "acme", Some((2, alg))),
        (of(json!({ "iss": null })), "acme", Some((0, alg))),
        (of(json!({ "iss": "https://x" })), "acme", Some((0, alg))),
        // Its set has the key, and the entry does not list the algorithm.
        (p256(ISSUER), "acme", Some((1, alg))),
        (
            of(json!({ "aud": "account" })),
            "acme",
            Some((1, "its aud is not the configured audience")),
        ),
        (
            of(json!({ "sub": null })),
            "acme",
            Some((1, "it has no claim with the user")),
        ),
        // Another client's roles, and a claim that is not the configured one.
        (of(json!({})), "globex", None),
        (of(json!({ "resource_access": null })), "acme", None),
    ] {
        let refused = scene.join(&token, workspace).await.err();
        assert_eq!(refused, Some(4001), "{told:?}");
        let Some((index, reason)) = told else {
            continue;
        };
        let issuer = format!("\"issuer\":\"auth.issuers[{index}]\"");
        scene.gateway.prints_line(&[&issuer, reason]).await;
    }
}

#[tokio::test]
async fn issuers_come_and_go_with_a_reload_all_or_none() {
    let scene = Scene::new().await;
    let secret_only = "[[auth.issuers]]\nhmac_secret_file = \"$/secret\"\n";
    let mut ann = scene
        .join(&by_provider(&json!({})), "acme")
        .await
        .expect("open");
    // One bad entry keeps the others as they were.
    let bad = CONFIG
        .replace("p256.pem", "absent.pem")
        .replace("[\"EdDSA\"]", "[\"ES256\"]");
    let told = scene
        .reload(
            &bad,
            "configuration not reloaded, the old one stays in force",
        )
        .await;
    let problems = told["problems"].as_str().expect("text");
    assert!(
        problems.contains("auth.issuers[2].public_key_file"),
        "{problems}"
    );
    assert!(
        scene
            .join(&by_provider(&json!({ "sub": "bob" })), "acme")
            .await
            .is_ok()
    );
    // The content of one entry's file.
    file(
        scene.folder.path(),
        "p256.pem",
        fixture("p256-other.public.pem"),
    );
    let told = scene.reload(CONFIG, "configuration reloaded").await;
    assert_eq!(
        [&told["changed"], &told["files"]],
        ["none", "auth.issuers[2].public_key_file"]
    );
    let told = scene.reload(secret_only, "configuration reloaded").await;
    assert_eq!([&told["changed"], &told["files"]], ["auth.issuers", "none"]);
    assert_eq!(
        scene
            .join(&by_provider(&json!({ "sub": "bob" })), "acme")
            .await
            .err(),
        Some(4001)
    );
    assert!(
        scene
            .join(&old(&json!({ "sub": "bob" })), "acme")
            .await
            .is_ok()
    );
    // Her issuer is gone.
    assert_eq!(ann.closed().await, (4003, "token expired".to_owned()));
    scene.reload(CONFIG, "configuration reloaded").await;
    assert!(
        scene
            .join(&by_provider(&json!({ "sub": "eve" })), "acme")
            .await
            .is_ok()
    );
    // The key set is followed without a signal.
    file(scene.folder.path(), "jwks.json", jwks(&["p256"]));
    assert!(
        scene
            .join(&old(&json!({ "sub": "kim" })), "acme")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_commands_know_the_entries() {
    let nats = Nats::start("").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    file(folder.path(), "secret", SECRET);
    file(folder.path(), "jwks.json", jwks(&["ed25519"]));
    file(folder.path(), "p256.pem", fixture("p256.public.pem"));
    let config = write(&folder, CONFIG);
    let checked = herald(&nats, &[], &["check", "--config", &config])
        .await
        .ok();
    for part in [
        "all others by auth.issuers[0].hmac_secret_file",
        "those of https://id.example.com/realms/one by auth.issuers[1].jwks_file",
    ] {
        assert!(checked.stdout.contains(part), "{checked:?}");
    }
    let token = [
        "token",
        "--config",
        &config,
        "--user",
        "ann",
        "--workspace",
        "acme",
    ];
    assert_eq!(
        herald(&nats, &[], &token)
            .await
            .ok()
            .stdout
            .split('.')
            .count(),
        3
    );
    let of_provider = [&token[..], &["--issuer", ISSUER]].concat();
    let refused = herald(&nats, &[], &of_provider).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("auth.issuers[1].jwks_file holds public keys"),
        "{refused:?}"
    );
    let mixed = [("HERALD_AUTH__HMAC_SECRET", SECRET)];
    let refused = herald(&nats, &mixed, &["check", "--config", &config]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("auth.hmac_secret stands beside auth.issuers"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains(SECRET));
    let list = format!(
        "[{{ issuer = \"{OTHER}\", public_key_file = \"{}/p256.pem\" }}]",
        folder.path().display()
    );
    let listed = herald(&nats, &[("HERALD_AUTH__ISSUERS", &list)], &["check"])
        .await
        .ok();
    assert!(
        listed
            .stdout
            .contains("those of https://other.example.com/ by"),
        "{listed:?}"
    );
}
