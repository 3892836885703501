//! Tokens for tests, made without Herald's code, and the search for their parts in outputs.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The tests' HMAC secret.
pub(crate) const SECRET: &str = "a secret of the tests that is long enough";

/// A token's part that must not show, by length.
const PART: usize = 12;

/// Every token that was made here, to be searched for.
static MADE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Seconds since 1970, `offset` from now.
pub(crate) fn at(offset: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    i64::try_from(now.as_secs()).expect("for a while yet") + offset
}

/// A good token for `user` in `workspace` (`*`: all), for an hour.
pub(crate) fn token(user: &str, workspace: &str) -> String {
    expiring(user, workspace, 3600)
}

/// As [`token`], ending in `seconds`.
pub(crate) fn expiring(user: &str, workspace: &str, seconds: i64) -> String {
    signed(&json!({ "sub": user, "workspaces": workspace, "exp": at(seconds) }))
}

/// The audience of a token for publishing, unless the settings name another.
pub(crate) const PUBLISH_AUDIENCE: &str = "herald-publish";

/// A token with which `user` publishes these categories of events to these workspaces, for an hour.
pub(crate) fn publisher(user: &str, workspaces: &Value, categories: &Value) -> String {
    let grant = json!({ "workspaces": workspaces, "categories": categories });
    signed(&json!({ "sub": user, "aud": PUBLISH_AUDIENCE, "publish": grant, "exp": at(3600) }))
}

/// A token with these claims, signed with [`SECRET`].
pub(crate) fn signed(claims: &Value) -> String {
    with_key(
        claims,
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
}

/// A token with these claims, signed with another key.
pub(crate) fn with_key(claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    remember(encode(&Header::new(algorithm), claims, key).expect("it can be signed"))
}

/// A token whose header and payload are any text, signed with `key` whatever they say.
pub(crate) fn forged(
    header: &str,
    payload: &str,
    algorithm: Algorithm,
    key: &EncodingKey,
) -> String {
    let message = unsigned(header, payload);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm);
    remember(format!(
        "{message}.{}",
        signature.expect("it can be signed")
    ))
}

/// The first two segments of a token: what is signed.
pub(crate) fn unsigned(header: &str, payload: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", encode(header), encode(payload))
}

/// Remembers a token that was made otherwise.
pub(crate) fn remember(token: String) -> String {
    MADE.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(token.clone());
    token
}

/// Panics if `output` holds [`PART`] characters of the payload or signature of any token made.
pub(crate) fn assert_no_part_of_a_token(output: &str) {
    let made = MADE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let parts: HashSet<&[u8]> = made
        .iter()
        .flat_map(|token| token.split('.').skip(1))
        .flat_map(|segment| segment.as_bytes().windows(PART))
        .collect();
    for line in output.lines() {
        let found = line
            .as_bytes()
            .windows(PART)
            .find(|part| parts.contains(part));
        assert!(found.is_none(), "a part of a token was printed: {line}");
    }
}
