//! What passes and what does not, by table: `claims`, `grants` and `forms` for the tokens, `keys`,
//! `jwks` and `issuers` for what verifies them, `properties` for everything else that a client may send.

mod claims;
mod forms;
mod grants;
mod interop;
mod issuers;
mod jwks;
mod keys;
mod properties;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::config::{IssuerConfig, Secret};

/// 2026-01-01T00:00:00Z, when these tests take place.
const NOW: u64 = 1_767_225_600;

const SECRET: &str = "a secret of thirty-two bytes, or more";

impl Verifier {
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
        self.judge(token, now, &Revocations::default())?
            .valid_by(now)
    }

    /// With another time for rereading a key file.
    fn verify_at(
        &self,
        token: &str,
        now: SystemTime,
        instant: Instant,
    ) -> Result<Identity, AuthError> {
        self.judge_at(token, now, instant, &Revocations::default())?
            .valid_by(now)
    }
}

fn now() -> SystemTime {
    at(NOW as f64)
}

fn at(seconds: f64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/keys")
        .join(name)
}

fn pem(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

fn hmac_config() -> AuthConfig {
    AuthConfig::from(IssuerConfig {
        hmac_secret: Some(Secret::from(SECRET)),
        ..IssuerConfig::default()
    })
}

fn public_key_config(name: &str) -> AuthConfig {
    AuthConfig::from(IssuerConfig {
        public_key_file: Some(fixture(name)),
        ..IssuerConfig::default()
    })
}

fn verifier(config: &AuthConfig) -> Verifier {
    Verifier::from_config(config).unwrap()
}

/// Claims that every test's verifier takes, overwritten by `with`; a null removes the claim.
fn claims(with: &Value) -> Value {
    let mut claims = json!({"sub": "ada", "workspaces": "acme", "exp": NOW + 60});
    for (name, value) in with.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

/// A token of the shared secret.
fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    signed(&Header::new(Algorithm::HS256), claims, &key)
}

/// A token signed with HS256 whose header and payload are any text.
fn hs256_raw(header: &str, payload: &str) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn private_key(name: &str) -> EncodingKey {
    let pem = pem(name);
    if name.starts_with("rsa") {
        EncodingKey::from_rsa_pem(&pem)
    } else if name.starts_with("ed") {
        EncodingKey::from_ed_pem(&pem)
    } else {
        EncodingKey::from_ec_pem(&pem)
    }
    .unwrap()
}

/// A token of a key of the fixtures.
fn token_of(name: &str, algorithm: Algorithm) -> String {
    signed(
        &Header::new(algorithm),
        &claims(&json!({})),
        &private_key(name),
    )
}

/// The whole of what an error may say: no part of the token.
fn assert_says_nothing_of(token: &str, error: AuthError) {
    let said = format!("{error} {error:?}");
    for segment in token.split('.').filter(|segment| segment.len() >= 12) {
        assert!(!said.contains(segment), "{said}");
    }
}
