//! A JSON Web Key Set. No key of it verifies what its owner did not sign.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use herald::fuzzing::auth::FuzzedKeySet;
use jsonwebtoken::{Algorithm, EncodingKey};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn token(algorithm: &str, signature: &str) -> String {
    let header = format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}");
    let payload = URL_SAFE_NO_PAD.encode("{\"sub\":\"ann\",\"exp\":4102444800}");
    format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header))
}

/// A token signed with `secret` as if that were shared: a public key must not pass for a secret.
fn with_secret(secret: &[u8]) -> String {
    let unsigned = token("HS256", "");
    let message = unsigned.trim_end_matches('.');
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("HMAC cannot fail"))
}

fuzz_target!(|data: &[u8]| {
    let Some(set) = FuzzedKeySet::parse(data) else {
        return;
    };
    let json = Value::from(herald::json::parse(data).expect("it was read"));
    let entries = json["keys"].as_array().expect("a list");
    assert!(set.used() > 0);
    assert_eq!(set.used() + set.skipped, entries.len());
    let none = URL_SAFE_NO_PAD.encode([0; 64]);
    for algorithm in ["none", "HS256", "RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        assert!(
            !set.verifies(&token(algorithm, &none)),
            "{algorithm} without a signature"
        );
    }
    assert!(!set.verifies(&with_secret(data)));
    for text in entries
        .iter()
        .flat_map(|entry| ["n", "x", "k"].map(|name| &entry[name]))
    {
        let text = text.as_str().unwrap_or_default();
        assert!(!set.verifies(&with_secret(text.as_bytes())));
        assert!(!set.verifies(&with_secret(
            &URL_SAFE_NO_PAD.decode(text).unwrap_or_default()
        )));
    }
});
