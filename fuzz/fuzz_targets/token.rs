//! A token. As it is, it was not signed with the key and never passes. With `sign:` before it, what follows is
//! a header, a line break and claims, which are signed: then the claims decide.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use herald::auth::{AuthError, Identity, Revocations, Verifier, Workspaces};
use herald::config::{AuthConfig, IssuerConfig};
use jsonwebtoken::{Algorithm, EncodingKey};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SECRET: &str = "the key of this target, which no input holds";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let config = AuthConfig::from(IssuerConfig {
        hmac_secret: Some(SECRET.into()),
        ..IssuerConfig::default()
    });
    Verifier::from_config(&config).expect("a secret")
});

fn verify(token: &str) -> Result<Identity, AuthError> {
    VERIFIER
        .judge(token, now(), &Revocations::default())?
        .valid_by(now())
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000)
}

fn signed(header: &str, claims: &str, algorithm: Algorithm) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm);
    format!("{message}.{}", signature.expect("HMAC cannot fail"))
}

fn check_signed(header: &str, claims: &str) {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = signed(header, claims, algorithm);
        let identity = match verify(&token) {
            Ok(identity) => identity,
            Err(error) => {
                assert_ne!(error, AuthError::Missing);
                continue;
            }
        };
        let read =
            |text: &str| Value::from(herald::json::parse(text.as_bytes()).expect("it was read"));
        let (header, claims) = (read(header), read(claims));
        assert_eq!(
            header["alg"],
            format!("{algorithm:?}"),
            "the token chose its algorithm"
        );
        assert!(header.get("crit").is_none());
        assert!(identity.credential.expires_at > now());
        assert!(
            claims["exp"]
                .as_f64()
                .is_some_and(|end| end > 1_764_000_000.0)
        );
        let user = claims["sub"].as_str().map(str::to_owned);
        let user = user.unwrap_or_else(|| claims["sub"].to_string());
        assert_eq!(user, *identity.subject);
        assert!(!identity.subject.is_empty());
        if let Workspaces::Some(slugs) = &identity.workspaces {
            for slug in slugs {
                let slug = slug.as_str().as_bytes();
                assert!((1..=64).contains(&slug.len()) && slug[0].is_ascii_alphanumeric());
                assert!(
                    slug.iter()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
                );
            }
        } else {
            let said = &claims["workspaces"];
            assert!(
                said == "*"
                    || said
                        .as_array()
                        .is_some_and(|list| list.contains(&"*".into())),
                "every workspace, and nobody said so"
            );
        }
        // Another signature, whatever is changed.
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{message}.{other}{}", &signature[1..]);
        assert!(verify(&forged).is_err());
    }
}

fuzz_target!(|data: &str| {
    match data.strip_prefix("sign:") {
        Some(signed) => {
            let (header, claims) = signed.split_once('\n').unwrap_or((signed, ""));
            check_signed(header, claims);
        }
        None => {
            let error = verify(data).expect_err("it was not signed");
            assert_ne!(error, AuthError::Expired, "its signature comes first");
            let told = format!("{error} {error:?}");
            let is_word = |part: &str| part.is_ascii() && !part.contains(char::is_whitespace);
            let shows = |part: &str| part.len() >= 12 && is_word(part) && told.contains(part);
            assert!(!data.split('.').any(shows), "a part of the token is shown");
        }
    }
});
