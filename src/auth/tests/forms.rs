//! The outer form of a token by table: what is not a JWT of the configured key never passes.

use super::*;

fn refusal(config: &AuthConfig, token: &str) -> AuthError {
    let error = verifier(config).verify(token, now()).unwrap_err();
    assert_says_nothing_of(token, error);
    error
}

fn is_invalid(error: AuthError) -> bool {
    matches!(error, AuthError::Invalid(_) | AuthError::NotJson(..))
}

#[test]
fn no_token_is_missing() {
    assert_eq!(refusal(&hmac_config(), ""), AuthError::Missing);
}

#[test]
fn what_is_not_a_jwt_is_invalid() {
    let good = hs256(&claims(&json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    for token in [
        " ".to_owned(),
        "garbage".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        "\0\0\0".to_owned(),
        "☃.☃.☃".to_owned(),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("Bearer {good}"),
        format!("{good}="),
        format!("{good}."),
        format!(".{good}"),
        // A JWE has five parts, RFC 7516 section 7.1.
        format!("{good}.e.f"),
        message.to_owned(),
        format!("{message}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}=.{payload}.{signature}"),
        // The standard alphabet is not base64url's.
        good.replace(['-', '_'], "+"),
        good.to_uppercase(),
        format!("{payload}.{header}.{signature}"),
    ]
    .iter()
    .filter(|token| **token != good)
    {
        let error = refusal(&hmac_config(), token);
        assert!(is_invalid(error), "{token:?} {error:?}");
    }
}

#[test]
fn a_signed_text_that_is_not_a_token_is_invalid() {
    let payload = claims(&json!({})).to_string();
    let header = r#"{"alg":"HS256"}"#;
    assert!(
        verifier(&hmac_config())
            .verify(&hs256_raw(header, &payload), now())
            .is_ok()
    );
    for (header, payload) in [
        ("", payload.as_str()),
        ("{}", payload.as_str()),
        ("[]", payload.as_str()),
        (r#"["HS256"]"#, payload.as_str()),
        (r#""HS256""#, payload.as_str()),
        (r#"{"alg":null}"#, payload.as_str()),
        (r#"{"alg":["HS256"]}"#, payload.as_str()),
        (r#"{"alg":"hs256"}"#, payload.as_str()),
        // RFC 7515 section 4.1.11, and its use in RFC 7797 to leave the payload unencoded.
        (
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            payload.as_str(),
        ),
        (r#"{"alg":"HS256","crit":[]}"#, payload.as_str()),
        (header, ""),
        (header, "null"),
        (header, "[]"),
        (header, "not json"),
        (header, r#"{"sub":"ada","exp":1e999}"#),
        (header, r#"{"sub":"ada","exp":NaN}"#),
        (header, "{\"sub\":\"ada\",\"exp\":1767225660"),
        (header, &"[".repeat(4000)),
        (header, &r#"{"a":"#.repeat(1000)),
    ] {
        let error = refusal(&hmac_config(), &hs256_raw(header, payload));
        assert!(is_invalid(error), "{header} {payload}");
    }
}

/// To its issuer, who reads the log. Nothing of the token is in it.
#[test]
fn what_is_wrong_with_its_json_is_told_with_its_place() {
    let good = r#"{"alg":"HS256"}"#;
    let deep = "[".repeat(4000);
    for (header, payload, expected) in [
        (
            good,
            "{\n  \"sub\": ada}",
            "its payload is not JSON: a value is expected at line 2 column 10",
        ),
        (
            good,
            "",
            "its payload is not JSON: it is empty at line 1 column 1",
        ),
        (
            good,
            &deep,
            "its payload is nested too deeply: more than 127 objects and lists stand in each other \
             at line 1 column 128",
        ),
        (good, "[]", "its payload is JSON, but not an object"),
        (
            "{]",
            "{}",
            "its header is not JSON: a name in double quotes is expected at line 1 column 2",
        ),
        ("7", "{}", "its header is JSON, but not an object"),
        ("{}", "{}", "its header has no alg, or one that is no text"),
    ] {
        let error = refusal(&hmac_config(), &hs256_raw(header, payload));
        assert_eq!(error.to_string(), format!("invalid token: {expected}"));
    }
    for (token, expected) in [
        ("a+b.e30.", "its header is not base64url without padding"),
        (
            "eyJhbGciOiJIUzI1NiJ9.e30=.",
            "its payload is not base64url without padding",
        ),
    ] {
        assert_eq!(refusal(&hmac_config(), token), AuthError::Invalid(expected));
    }
}

/// A claim that nothing reads, and what a reader of JSON may stumble over.
#[test]
fn a_claim_that_is_not_used_is_not_judged() {
    let verified = |header: &str, claims: &str| {
        let payload = format!("{claims},\"workspaces\":\"acme\",\"exp\":{}}}", NOW + 60);
        verifier(&hmac_config()).verify(&hs256_raw(header, &payload), now())
    };
    let header = r#"{"alg":"HS256"}"#;
    for claim in [
        r#""name":"Ann \ud83d""#,
        r#""\uDE00":"\uDE00""#,
        r#""weight":1e400"#,
        r#""id":1234567890123456789012345678901234567890"#,
    ] {
        let claims = format!("{{\"sub\":\"ada\",{claim}");
        let identity = verified(header, &claims).unwrap();
        assert_eq!(&*identity.subject, "ada", "{claim}");
        let header = format!("{{\"alg\":\"HS256\",{claim}}}");
        assert!(verified(&header, &claims).is_ok(), "{header}");
    }
    let marked = verified("\u{feff}{\"alg\":\"HS256\"}", "\u{feff}{\"sub\":\"ada\"");
    assert!(marked.is_ok());
    // A used one is judged: two names must not become one.
    const USER: &str = "its claim with the user is neither text nor an integer of 64 bits";
    const REPLACED: &str = "its claim with the user has half of a surrogate pair or U+FFFD: \
                            two users could then have the same name";
    const ISSUER: &str = "its iss has half of a surrogate pair or U+FFFD: \
                          two issuers could then have the same name";
    for (claims, expected) in [
        (r#""sub":"ann\ud83d""#, REPLACED),
        (r#""sub":"ann\ud83e""#, REPLACED),
        ("\"sub\":\"\u{fffd}\"", REPLACED),
        (r#""sub":18446744073709551616"#, USER),
        (r#""sub":-9223372036854775809"#, USER),
        (r#""sub":-0"#, USER),
        (r#""sub":1e2"#, USER),
        (r#""sub":1e400"#, USER),
        (r#""sub":"ada","iss":"a\ud83d""#, ISSUER),
    ] {
        let error = verified(header, &format!("{{{claims}")).unwrap_err();
        assert_eq!(error, AuthError::Invalid(expected), "{claims}");
    }
}

/// RFC 7519 section 4: of a claim given twice, the last one counts. What matters is that one does,
/// always the same.
#[test]
fn of_a_claim_given_twice_the_last_counts() {
    let payload = format!(r#"{{"sub":"eve","exp":1,"sub":"ada","exp":{}}}"#, NOW + 60);
    let token = hs256_raw(r#"{"alg":"HS256"}"#, &payload);
    let identity = verifier(&hmac_config()).verify(&token, now()).unwrap();
    assert_eq!(&*identity.subject, "ada");
}

/// RFC 8725 section 3.1: `none` passes in no spelling, signed or not, with any key.
#[test]
fn alg_none_never_passes() {
    let payload = URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
    let signature = hs256(&claims(&json!({})));
    let signature = signature.rsplit_once('.').unwrap().1;
    for config in [
        hmac_config(),
        public_key_config("rsa.public.pem"),
        public_key_config("p256.public.pem"),
        public_key_config("ed25519.public.pem"),
    ] {
        for name in ["none", "None", "NONE", "nOnE", "", "null", " none"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": name}).to_string());
            for signature in ["", signature] {
                let error = refusal(&config, &format!("{header}.{payload}.{signature}"));
                assert_eq!(
                    error,
                    AuthError::Invalid("its algorithm does not fit the key")
                );
            }
        }
    }
}

#[test]
fn a_changed_or_foreign_signature_is_invalid() {
    let good = hs256(&claims(&json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let foreign = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let header = Header::new(Algorithm::HS256);
    let other_payload = hs256(&claims(&json!({"sub": "eve"})));
    let (other_message, _) = other_payload.rsplit_once('.').unwrap();
    for token in [
        signed(&header, &claims(&json!({})), &foreign),
        // Its expiry is not told to who cannot sign.
        signed(&header, &claims(&json!({"exp": 1})), &foreign),
        format!("{other_message}.{signature}"),
        format!("{message}.{}", signature.split_at(signature.len() - 4).0),
        format!("{message}.{signature}AAAA"),
        format!("{message}.{}", "A".repeat(43)),
        format!("{message}."),
    ] {
        let error = refusal(&hmac_config(), &token);
        assert_eq!(
            error,
            AuthError::Invalid("its signature does not match the key"),
            "{token}"
        );
    }
}

/// The issue's token of 8 KiB is judged by what it says; a bound stands well above it.
#[test]
fn a_long_token_is_judged_and_a_too_long_one_refused() {
    let padded = |bytes: usize, exp: u64| {
        let token = |fill: usize| hs256(&claims(&json!({"exp": exp, "fill": "x".repeat(fill)})));
        // Three bytes of fill make four of the token.
        let mut fill = (bytes - token(0).len()) * 3 / 4;
        while token(fill + 1).len() <= bytes {
            fill += 1;
        }
        token(fill)
    };
    let verifier = verifier(&hmac_config());
    let eight = padded(8 * 1024, NOW + 60);
    assert!(eight.len() > 8 * 1024 - 4);
    assert!(verifier.verify(&eight, now()).is_ok());
    let expired = padded(8 * 1024, NOW);
    assert_eq!(
        verifier.verify(&expired, now()).unwrap_err(),
        AuthError::Expired
    );
    assert_eq!(
        refusal(&hmac_config(), &"x".repeat(8 * 1024)),
        AuthError::Invalid("it does not have three parts")
    );
    assert_eq!(
        refusal(
            &hmac_config(),
            &format!("{}AAAA", eight.split_at(eight.len() - 4).0)
        ),
        AuthError::Invalid("its signature does not match the key")
    );
    let longest = padded(TOKEN_BYTES_MAX, NOW + 60);
    assert!(verifier.verify(&longest, now()).is_ok());
    for too_long in [
        padded(TOKEN_BYTES_MAX + 4, NOW + 60),
        "x".repeat(1024 * 1024),
    ] {
        assert_eq!(
            refusal(&hmac_config(), &too_long),
            AuthError::Invalid("it is longer than 16 KiB")
        );
    }
}
