//! Promise 6 and the contract's 4001 and 4003: every bad token through a real gateway, for a shared
//! secret, for public keys and for a key set, beside good ones that open. (That no part of a token is
//! printed is looked at when a gateway ends.)

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway, file};
use crate::support::nats::Nats;
use crate::support::token::{SECRET, at, forged, remember, unsigned, with_key};

const KIB: usize = 1024;
const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "herald";

const MISSING: (u16, &str) = (4001, "missing token");
const INVALID: (u16, &str) = (4001, "invalid token");
const NO_ACCESS: (u16, &str) = (4001, "no access to this workspace");
const EXPIRED: (u16, &str) = (4003, "token expired");

/// A token and how its socket is closed; `None`: it opens.
type Case = (&'static str, String, Option<(u16, &'static str)>);

/// Claims that every gateway here takes, overwritten by `with`; a null removes the claim.
fn claims(with: &Value) -> Value {
    let mut claims = json!({
        "sub": "ann", "workspaces": "acme", "exp": at(3600), "iss": ISSUER, "aud": AUDIENCE,
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

/// What signs: the algorithm and the key.
#[derive(Clone)]
struct Signer(Algorithm, EncodingKey);

impl Signer {
    fn hmac(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self(algorithm, EncodingKey::from_secret(secret))
    }

    /// The private key of the fixtures, by the first part of its file's name.
    fn private(algorithm: Algorithm, name: &str) -> Self {
        let pem = std::fs::read(fixture(&format!("{name}.private.pem"))).expect("a fixture");
        let key = match name.split('-').next() {
            Some("rsa") => EncodingKey::from_rsa_pem(&pem),
            Some("ed25519") => EncodingKey::from_ed_pem(&pem),
            _ => EncodingKey::from_ec_pem(&pem),
        };
        Self(algorithm, key.expect("a key"))
    }

    fn sign(&self, with: &Value) -> String {
        with_key(&claims(with), self.0, &self.1)
    }

    /// A good token of at least `length` bytes.
    fn long(&self, length: usize) -> String {
        self.sign(&json!({ "padding": "long".repeat(length * 3 / 16) }))
    }

    /// A good token with this key id.
    fn with_id(&self, id: &str) -> String {
        let mut header = Header::new(self.0);
        header.kid = Some(id.to_owned());
        let token = jsonwebtoken::encode(&header, &claims(&json!({})), &self.1);
        remember(token.expect("it can be signed"))
    }

    /// A token whose header names any algorithm.
    fn naming(&self, algorithm: &str) -> String {
        let header = json!({ "alg": algorithm, "typ": "JWT" }).to_string();
        forged(&header, &claims(&json!({})).to_string(), self.0, &self.1)
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/keys")
        .join(name)
}

/// `token` with another first character in its signature. (Of the last one some bits may mean
/// nothing.)
fn broken(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').expect("a signature");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let rest = signature.chars().skip(1);
    let signature: String = std::iter::once(first).chain(rest).collect();
    remember(format!("{message}.{signature}"))
}

/// Tokens of which the form, the header or the signature is not right. `own` is a good signer.
fn malformed(own: &Signer) -> Vec<(&'static str, String)> {
    let good = own.sign(&json!({}));
    let payload = claims(&json!({})).to_string();
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let none = |name: &str, signature: &str| {
        let message = unsigned(&json!({ "alg": name, "typ": "JWT" }).to_string(), &payload);
        remember(format!("{message}.{signature}"))
    };
    let forged = |header: Value, payload: &str| forged(&header.to_string(), payload, own.0, &own.1);
    let name = format!("{:?}", own.0);
    let long = own.long(8 * KIB);
    vec![
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("three words", "one.two.three".to_owned()),
        ("many dots", ".".repeat(999)),
        ("not UTF-8", "%FF%FE".to_owned()),
        ("a NUL", "%00".to_owned()),
        ("a good one and more", format!("{good}.{signature}")),
        ("a good one in blanks", format!("%20{good}%0A")),
        ("no signature", format!("{message}.")),
        ("two segments", message.to_owned()),
        ("a changed signature", broken(&good)),
        ("alg none", none("none", "")),
        ("alg none with a signature", none("none", signature)),
        ("alg None", none("None", "")),
        ("alg NONE", none("NONE", "")),
        ("no alg", forged(json!({ "typ": "JWT" }), &payload)),
        ("an algorithm that does not exist", own.naming("HS257")),
        ("an empty algorithm", own.naming("")),
        ("a list of claims", forged(json!({ "alg": name }), "[]")),
        (
            "an extension that must be understood",
            forged(
                json!({ "alg": name, "crit": ["b64"], "b64": true }),
                &payload,
            ),
        ),
        ("8 KiB of garbage", "g".repeat(8 * KIB)),
        ("8 KiB and a changed signature", broken(&long)),
        (
            "8 KiB and unsigned",
            format!("{}.", long.rsplit_once('.').expect("a signature").0),
        ),
        ("more than 16 KiB", own.long(16 * KIB)),
    ]
}

/// Signed tokens of which a claim is not right.
fn misclaiming(own: &Signer) -> Vec<(&'static str, String)> {
    let changed = |with: Value| own.sign(&with);
    vec![
        ("no exp", changed(json!({ "exp": null }))),
        ("exp as text", changed(json!({ "exp": "4102444800" }))),
        ("no sub", changed(json!({ "sub": null }))),
        ("an empty sub", changed(json!({ "sub": "" }))),
        ("half a number as sub", changed(json!({ "sub": 7.5 }))),
        (
            "exp in milliseconds",
            changed(json!({ "exp": at(3600) * 1000 })),
        ),
        ("no iss", changed(json!({ "iss": null }))),
        (
            "a wrong iss",
            changed(json!({ "iss": format!("{ISSUER}/") })),
        ),
        ("a list as iss", changed(json!({ "iss": [ISSUER] }))),
        ("no aud", changed(json!({ "aud": null }))),
        ("a wrong aud", changed(json!({ "aud": "Herald" }))),
        ("wrong auds", changed(json!({ "aud": ["other", ""] }))),
        ("not yet valid", changed(json!({ "nbf": at(600) }))),
        ("nbf as text", changed(json!({ "nbf": "0" }))),
        (
            "a wrong iss and expired",
            changed(json!({ "iss": "other", "exp": at(-60) })),
        ),
    ]
}

/// What must never pass, whatever the key is, and what always does.
fn cases_of_any_key(own: &Signer) -> Vec<Case> {
    let changed = |with: Value| own.sign(&with);
    let expired = vec![
        ("expired", changed(json!({ "exp": at(-1) }))),
        ("expired long ago", changed(json!({ "exp": 0 }))),
        ("expired before 1970", changed(json!({ "exp": -1.5 }))),
    ];
    let no_access = vec![
        ("no workspaces", changed(json!({ "workspaces": null }))),
        ("an empty list", changed(json!({ "workspaces": [] }))),
        (
            "others",
            changed(json!({ "workspaces": ["globex", "acme2"] })),
        ),
        (
            "no slug",
            changed(json!({ "workspaces": ["Acme", "acme.*", ">"] })),
        ),
        (
            "an object",
            changed(json!({ "workspaces": { "acme": false, "*": true } })),
        ),
        (
            "a star among words",
            changed(json!({ "workspaces": "acme *" })),
        ),
    ];
    let good = changed(json!({}));
    let long = own.long(8 * KIB);
    assert!((8 * KIB..12 * KIB).contains(&long.len()), "{}", long.len());
    let opens = vec![
        ("percent-encoded", good.replace('.', "%2E")),
        ("a good one", good),
        ("8 KiB", long),
        (
            "lists and dates",
            changed(json!({
                "aud": ["other", AUDIENCE],
                "workspaces": ["globex", "acme"],
                "nbf": at(-60),
                "exp": 4_102_444_800.5,
            })),
        ),
        ("every workspace", changed(json!({ "workspaces": "*" }))),
        ("words", changed(json!({ "workspaces": "globex acme" }))),
        ("keys", changed(json!({ "workspaces": { "acme": {} } }))),
        ("a number as sub", changed(json!({ "sub": 7 }))),
        ("valid in a moment", changed(json!({ "nbf": at(8) }))),
    ];
    [
        (malformed(own), Some(INVALID)),
        (misclaiming(own), Some(INVALID)),
        (expired, Some(EXPIRED)),
        (no_access, Some(NO_ACCESS)),
        (opens, None),
    ]
    .into_iter()
    .flat_map(|(list, close)| {
        list.into_iter()
            .map(move |(name, token)| (name, token, close))
    })
    .collect()
}

/// Tokens of signers that the gateway's key is none of.
fn foreign(signers: &[(&'static str, Signer)]) -> Vec<Case> {
    signers
        .iter()
        .map(|(name, signer)| (*name, signer.sign(&json!({})), Some(INVALID)))
        .collect()
}

/// Tokens of which each algorithm of the gateway's key is one.
fn good(signers: &[Signer]) -> Vec<Case> {
    signers
        .iter()
        .map(|signer| {
            (
                "another algorithm of the key",
                signer.sign(&json!({})),
                None,
            )
        })
        .collect()
}

/// Presents each token as a query parameter, and counts what the gateway counted.
async fn check(gateway: &Gateway, cases: &[Case]) {
    let mut opened = 0.0;
    for (name, token, close) in cases {
        let query = format!("token={token}&workspaceSlug=acme");
        let mut client = Client::connect(gateway, &query).await;
        match close {
            Some((code, reason)) => {
                assert_eq!(
                    client.closed().await,
                    (*code, (*reason).to_owned()),
                    "{name}"
                );
            }
            None => {
                assert!(client.is_open().await, "{name}");
                opened += 1.0;
                // Gone before the next one comes, which would replace it and count as flapping.
                drop(client);
                gateway.metric_becomes("herald_connections", "", 0.0).await;
            }
        }
    }
    gateway
        .metric_becomes("herald_connections_opened_total", "", opened)
        .await;
    for code in ["4001", "4003"] {
        let refused = cases
            .iter()
            .filter(|case| case.2.is_some_and(|close| close.0.to_string() == code));
        gateway
            .metric_becomes(
                "herald_connections_closed_total",
                code,
                refused.count() as f64,
            )
            .await;
    }
}

/// A gateway that wants an issuer and an audience, without a key.
fn keyless(nats: &Nats) -> Builder {
    Gateway::builder(nats)
        .set("auth.issuer", ISSUER)
        .set("auth.audience", AUDIENCE)
        .unset("auth.hmac_secret")
}

#[tokio::test]
async fn bad_tokens_of_a_shared_secret_are_refused_and_good_ones_open() {
    let nats = Nats::jetstream().await;
    let gateway = keyless(&nats).set("auth.hmac_secret", SECRET).ready().await;
    let own = Signer::hmac(Algorithm::HS256, SECRET.as_bytes());
    let hmac = |algorithm| Signer::hmac(algorithm, SECRET.as_bytes());
    let mut cases = cases_of_any_key(&own);
    cases.push(("an empty one", String::new(), Some(MISSING)));
    cases.extend(good(&[hmac(Algorithm::HS384), hmac(Algorithm::HS512)]));
    cases.extend(foreign(&[
        (
            "another secret",
            Signer::hmac(Algorithm::HS256, SECRET.to_uppercase().as_bytes()),
        ),
        ("no secret", Signer::hmac(Algorithm::HS256, b"")),
        ("an RSA key", Signer::private(Algorithm::RS256, "rsa")),
        ("an EC key", Signer::private(Algorithm::ES256, "p256")),
        (
            "an Ed25519 key",
            Signer::private(Algorithm::EdDSA, "ed25519"),
        ),
    ]));
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA", "HS512", "hs256"] {
        let token = own.naming(algorithm);
        cases.push(("another algorithm's name", token, Some(INVALID)));
    }
    check(&gateway, &cases).await;

    // Without a token anywhere, with a long one in a header, and with two that differ.
    let mut nothing = Client::connect(&gateway, "workspaceSlug=acme").await;
    assert_eq!(nothing.closed().await.0, 4001);
    let url = format!("ws://{}/?workspaceSlug=acme", gateway.address);
    for (url, token, open) in [
        (url.clone(), own.long(8 * KIB), true),
        (url.clone(), broken(&own.long(8 * KIB)), false),
        (
            format!("{url}&token={}", own.sign(&json!({}))),
            own.sign(&json!({ "sub": "eve" })),
            false,
        ),
    ] {
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let mut client = Client::attempt_with(request).await.unwrap();
        assert_eq!(client.is_open().await, open);
    }
}

/// The secrets that a careless verifier would take for an HMAC: what a public key's file holds.
fn public_key_as_secret(name: &str) -> Vec<(&'static str, Signer)> {
    let pem = std::fs::read_to_string(fixture(&format!("{name}.public.pem"))).expect("a fixture");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&body).expect("base64");
    let mut signers = Vec::new();
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for secret in [
            pem.as_bytes(),
            pem.trim_end().as_bytes(),
            body.as_bytes(),
            &der,
        ] {
            let signer = Signer::hmac(algorithm, secret);
            signers.push(("the public key as a secret", signer));
        }
    }
    signers
}

/// The keys of the fixtures with an algorithm each.
const KEYS: [(Algorithm, &str); 6] = [
    (Algorithm::RS256, "rsa"),
    (Algorithm::RS256, "rsa-other"),
    (Algorithm::ES256, "p256"),
    (Algorithm::ES256, "p256-other"),
    (Algorithm::ES384, "p384"),
    (Algorithm::EdDSA, "ed25519"),
];

async fn check_public_key(nats: &Nats, name: &str, own: &[Algorithm]) {
    let public = fixture(&format!("{name}.public.pem"));
    let gateway = keyless(nats)
        .set("auth.public_key_file", public.display())
        .ready()
        .await;
    let signers: Vec<Signer> = own
        .iter()
        .map(|algorithm| Signer::private(*algorithm, name))
        .collect();
    let mut cases = cases_of_any_key(&signers[0]);
    cases.extend(good(&signers[1..]));
    for (algorithm, other) in KEYS.into_iter().filter(|(_, other)| *other != name) {
        cases.extend(foreign(&[(other, Signer::private(algorithm, other))]));
    }
    let secret = Signer::hmac(Algorithm::HS256, SECRET.as_bytes());
    cases.extend(foreign(&[("some secret", secret)]));
    cases.extend(foreign(&public_key_as_secret(name)));
    // The key's own signature under an HMAC's name, and an HMAC of the public key under its name.
    cases.push(("its name HS256", signers[0].naming("HS256"), Some(INVALID)));
    for (_, signer) in public_key_as_secret(name) {
        let token = signer.naming(&format!("{:?}", own[0]));
        cases.push(("a secret by the key's name", token, Some(INVALID)));
    }
    check(&gateway, &cases).await;
}

#[tokio::test]
async fn bad_tokens_of_a_public_key_are_refused_and_good_ones_open() {
    let nats = Nats::jetstream().await;
    let rsa = [
        Algorithm::RS256,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
    ];
    // One after the other, for all their good tokens are one user's.
    check_public_key(&nats, "rsa", &rsa).await;
    check_public_key(&nats, "p256", &[Algorithm::ES256]).await;
    check_public_key(&nats, "ed25519", &[Algorithm::EdDSA]).await;
}

/// The public half of a key of the fixtures as a JWK, with `id`.
fn jwk(name: &str, id: Option<&str>) -> Value {
    let pem = std::fs::read(fixture(&format!("{name}.public.pem"))).expect("a fixture");
    let key = match name {
        "rsa" => DecodingKey::from_rsa_pem(&pem),
        "ed25519" => DecodingKey::from_ed_pem(&pem),
        _ => DecodingKey::from_ec_pem(&pem),
    };
    let jwk = Jwk::from_decoding_key(&key.expect("a key"), None).expect("a JWK");
    let mut jwk = json!(jwk);
    if let Some(id) = id {
        jwk["kid"] = json!(id);
    }
    jwk
}

#[tokio::test]
async fn bad_tokens_of_a_key_set_are_refused_and_good_ones_open() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = STANDARD.encode(SECRET).replace('=', "");
    let set = json!({ "keys": [
        jwk("rsa", Some("r")),
        jwk("p256", Some("e")),
        { "kty": "oct", "kid": "s", "alg": "HS256", "k": secret },
        jwk("ed25519", None),
    ] });
    let set_file = file(folder.path(), "jwks.json", set.to_string());
    let gateway = keyless(&nats).set("auth.jwks_file", set_file).ready().await;
    let rsa = Signer::private(Algorithm::RS256, "rsa");
    let p256 = Signer::private(Algorithm::ES256, "p256");
    let ed25519 = Signer::private(Algorithm::EdDSA, "ed25519");
    let stranger = Signer::private(Algorithm::ES256, "p256-other");
    let hmac = |secret: &str| Signer::hmac(Algorithm::HS256, secret.as_bytes());
    let refused = |name, token| (name, token, Some(INVALID));
    let mut cases = cases_of_any_key(&ed25519);
    cases.extend(good(&[rsa.clone(), p256.clone()]));
    cases.extend([
        ("its own id", rsa.with_id("r"), None),
        ("its own id", p256.with_id("e"), None),
        // The key has no id, so that a token's says nothing about it.
        ("any id", ed25519.with_id("r"), None),
        refused("another key's id", p256.with_id("r")),
        refused("an unknown id", rsa.with_id("unknown")),
        refused("a path as an id", rsa.with_id("../../dev/null")),
        refused("a stranger by the key's id", stranger.with_id("e")),
        refused("the set's secret", hmac(SECRET).with_id("s")),
        refused("the file as a secret", hmac(&set.to_string()).with_id("r")),
    ]);
    let modulus = set["keys"][0]["n"].as_str().unwrap();
    cases.push(refused("a modulus as a secret", hmac(modulus).with_id("r")));
    // A token that brings its own key, or says where one is.
    let claims = claims(&json!({})).to_string();
    for (name, value) in [
        ("jwk", jwk("p256-other", Some("e"))),
        ("jku", json!("http://127.0.0.1:1/jwks.json")),
        ("x5u", json!("http://127.0.0.1:1/certificate.pem")),
    ] {
        let mut header = Map::from_iter([("alg".to_owned(), json!("ES256"))]);
        header.insert(name.to_owned(), value);
        let header = Value::from(header).to_string();
        let token = forged(&header, &claims, stranger.0, &stranger.1);
        cases.push(refused("a key of its own", token));
    }
    check(&gateway, &cases).await;
}
