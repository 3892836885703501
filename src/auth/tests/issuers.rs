//! Several issuers: a token is checked by the entry that its `iss` names, and by no other.

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use proptest::prelude::*;

use super::super::jwks_file::READ_INTERVAL;
use super::*;

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";

/// An entry with the secret of this letter.
fn entry(issuer: Option<&str>, letter: &str) -> IssuerConfig {
    IssuerConfig {
        issuer: issuer.map(str::to_owned),
        hmac_secret: Some(Secret::from(letter.repeat(32))),
        ..IssuerConfig::default()
    }
}

fn entries(issuers: Vec<IssuerConfig>) -> AuthConfig {
    AuthConfig {
        issuers,
        ..AuthConfig::default()
    }
}

/// A token of the secret of this letter.
fn token(letter: &str, with: &Value) -> String {
    let key = EncodingKey::from_secret(letter.repeat(32).as_bytes());
    signed(&Header::new(Algorithm::HS256), &claims(with), &key)
}

fn refused(config: &AuthConfig, token: &str) -> &'static str {
    match verifier(config).verify(token, now()) {
        Err(AuthError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_is_checked_by_the_entry_that_its_iss_names() {
    const SIGNATURE: &str = "its signature does not match the key";
    let closed = entries(vec![entry(Some(A), "a"), entry(Some(B), "b")]);
    let open = entries(vec![
        entry(Some(A), "a"),
        entry(None, "o"),
        entry(Some(B), "b"),
    ]);
    for config in [&closed, &open] {
        for (letter, iss) in [("a", A), ("b", B)] {
            let identity = verifier(config).verify(&token(letter, &json!({"iss": iss})), now());
            assert_eq!(
                identity.unwrap().credential.user,
                UserKey::new(Some(iss), "ada")
            );
        }
        for (letter, iss) in [("b", A), ("a", B), ("o", A), ("o", B)] {
            let token = token(letter, &json!({"iss": iss}));
            assert_eq!(refused(config, &token), SIGNATURE, "{letter} {iss}");
        }
        assert_eq!(
            refused(config, &token("a", &json!({"iss": 7}))),
            "its iss is not a name"
        );
        assert_eq!(
            refused(config, &token("a", &json!({"iss": [A]}))),
            "its iss is not a name"
        );
    }
    assert_eq!(refused(&closed, &token("a", &json!({}))), "it has no iss");
    for near in ["", "https://a.example.com/", "HTTPS://A.example.com", "*"] {
        let by_a = token("a", &json!({"iss": near}));
        assert_eq!(
            refused(&closed, &by_a),
            "its iss is not a configured issuer: compare `issuer` letter for letter, also a slash at its end",
            "{near}"
        );
        assert_eq!(refused(&open, &by_a), SIGNATURE, "{near}");
    }
    // As with the flat keys: whatever no entry names, and its `iss` is part of the user.
    for iss in [
        None,
        Some(""),
        Some("https://old.example.com"),
        Some("https://a.example.com/"),
    ] {
        let identity = verifier(&open)
            .verify(&token("o", &json!({"iss": iss})), now())
            .unwrap();
        assert_eq!(identity.credential.user, UserKey::new(iss, "ada"));
        let flat = AuthConfig::from(IssuerConfig {
            hmac_secret: Some(Secret::from("o".repeat(32))),
            ..IssuerConfig::default()
        });
        let before = verifier(&flat)
            .verify(&token("o", &json!({"iss": iss})), now())
            .unwrap();
        assert_eq!(identity.credential.user, before.credential.user, "{iss:?}");
    }
}

/// The second `iss` of a token counts, both for whose key is asked and for whose user it is.
#[test]
fn of_an_iss_given_twice_the_same_one_counts_everywhere() {
    let config = entries(vec![entry(Some(A), "a"), entry(Some(B), "b")]);
    let payload = format!(
        r#"{{"iss":"{A}","sub":"ada","exp":{},"iss":"{B}"}}"#,
        NOW + 60
    );
    let forged = |letter: &str| {
        let message = [r#"{"alg":"HS256"}"#, &payload]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let key = EncodingKey::from_secret(letter.repeat(32).as_bytes());
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let identity = verifier(&config).verify(&forged("b"), now()).unwrap();
    assert_eq!(identity.credential.user, UserKey::new(Some(B), "ada"));
    assert!(verifier(&config).verify(&forged("a"), now()).is_err());
}

/// Each entry has claims, audiences and algorithms of its own; the leeway is everybody's.
#[test]
fn an_entry_has_rules_of_its_own() {
    let mut config = entries(vec![
        IssuerConfig {
            audience: Some("one".to_owned()),
            audiences: Some(vec!["two".to_owned(), "three".to_owned()]),
            workspaces_claim: "tenants".to_owned(),
            algorithms: Some(vec!["HS256".to_owned()]),
            ..entry(Some(A), "a")
        },
        IssuerConfig {
            user_claim: vec!["user_id".to_owned()],
            algorithms: Some(vec!["HS384".to_owned(), "HS512".to_owned()]),
            ..entry(Some(B), "b")
        },
    ]);
    config.leeway = Duration::from_secs(90);
    let a = |with: Value| {
        let mut all = json!({"iss": A, "aud": "one", "tenants": "globex"});
        all.as_object_mut()
            .unwrap()
            .extend(with.as_object().unwrap().clone());
        token("a", &all)
    };
    for aud in [json!("one"), json!("two"), json!(["x", "three"])] {
        let identity = verifier(&config)
            .verify(&a(json!({"aud": aud})), now())
            .unwrap();
        let globex = WorkspaceSlug::parse("globex").unwrap();
        assert_eq!(identity.workspaces, Workspaces::Some(vec![globex]), "{aud}");
    }
    for aud in [json!("four"), json!([]), json!(["One"]), json!({"one": 1})] {
        assert_eq!(
            refused(&config, &a(json!({"aud": aud}))),
            "its aud is not the configured audience"
        );
    }
    assert!(
        verifier(&config)
            .verify(&a(json!({"exp": NOW - 80})), now())
            .is_ok()
    );
    let by_b = |algorithm| {
        let key = EncodingKey::from_secret("b".repeat(32).as_bytes());
        signed(
            &Header::new(algorithm),
            &claims(&json!({"iss": B, "user_id": 7})),
            &key,
        )
    };
    assert_eq!(
        refused(&config, &by_b(Algorithm::HS256)),
        "its algorithm does not fit the key"
    );
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let identity = verifier(&config).verify(&by_b(algorithm), now()).unwrap();
        assert_eq!(&*identity.subject, "7");
    }
}

/// From a secret to a key set: the old tokens have no issuer, the new ones do.
#[test]
fn a_secret_and_a_public_key_stand_beside_each_other() {
    let key = |issuer, name: &str| IssuerConfig {
        issuer: Some(String::from(issuer)),
        public_key_file: Some(fixture(name)),
        ..IssuerConfig::default()
    };
    let config = entries(vec![
        IssuerConfig {
            hmac_secret: hmac_config().short_form.hmac_secret,
            ..IssuerConfig::default()
        },
        key(A, "rsa.public.pem"),
        key(B, "ed25519.public.pem"),
    ]);
    let of = |name: &str, algorithm, iss: Option<&str>| {
        signed(
            &Header::new(algorithm),
            &claims(&json!({"iss": iss})),
            &private_key(name),
        )
    };
    for token in [
        hs256(&claims(&json!({}))),
        of("rsa.private.pem", Algorithm::RS256, Some(A)),
        of("ed25519.private.pem", Algorithm::EdDSA, Some(B)),
    ] {
        assert!(verifier(&config).verify(&token, now()).is_ok());
    }
    let pem = EncodingKey::from_secret(&pem("rsa.public.pem"));
    for token in [
        hs256(&claims(&json!({"iss": A}))),
        signed(
            &Header::new(Algorithm::HS256),
            &claims(&json!({"iss": A})),
            &pem,
        ),
        signed(&Header::new(Algorithm::HS256), &claims(&json!({})), &pem),
        of("rsa.private.pem", Algorithm::RS256, None),
        of("rsa.private.pem", Algorithm::RS256, Some(B)),
        of("ed25519.private.pem", Algorithm::EdDSA, Some(A)),
    ] {
        refused(&config, &token);
    }
    let told = verifier(&config).to_string();
    assert_eq!(
        told,
        format!(
            "all others by auth.issuers[0].hmac_secret; those of {A} by \
             auth.issuers[1].public_key_file; those of {B} by auth.issuers[2].public_key_file"
        )
    );
}

#[test]
fn algorithms_are_those_that_the_key_can_have() {
    let set = tempfile::NamedTempFile::new().unwrap();
    let key = DecodingKey::from_ed_pem(&pem("ed25519.public.pem")).unwrap();
    let key = json!(Jwk::from_decoding_key(&key, None).unwrap());
    fs::write(set.path(), json!({"keys": [key]}).to_string()).unwrap();
    let with = |source: IssuerConfig, names: &[&str]| {
        let algorithms = Some(names.iter().map(|name| (*name).to_owned()).collect());
        Verifier::from_config(&entries(vec![
            entry(Some(A), "a"),
            IssuerConfig {
                algorithms,
                ..source
            },
        ]))
        .map_err(|error| error.to_string())
    };
    let secret = || entry(None, "o");
    let public = |name| IssuerConfig {
        public_key_file: Some(fixture(name)),
        ..IssuerConfig::default()
    };
    let jwks = || IssuerConfig {
        jwks_file: Some(set.path().to_owned()),
        ..IssuerConfig::default()
    };
    for (source, names) in [
        (secret(), &["HS512"][..]),
        (public("rsa.public.pem"), &["PS256", "RS512"]),
        (public("ed25519.public.pem"), &["EdDSA"]),
        (jwks(), &["Ed25519", "RS256"]),
    ] {
        assert!(with(source, names).is_ok(), "{names:?}");
    }
    for (source, names, part) in [
        (
            secret(),
            &["RS256"][..],
            "RS256 does not fit auth.issuers[1].hmac_secret, whose key takes [HS256, HS384, HS512]",
        ),
        (
            public("rsa.public.pem"),
            &["RS256", "HS256"],
            "HS256 does not fit",
        ),
        (public("p256.public.pem"), &["ES384"], "ES384 does not fit"),
        (
            jwks(),
            &["EdDSA", "HS256"],
            "HS256 does not fit auth.issuers[1].jwks_file",
        ),
        (
            jwks(),
            &["RS256"],
            "holds no key for any of the algorithms [RS256]",
        ),
        (secret(), &["none"], "`none` is not supported"),
        (secret(), &["hs256"], "`hs256` is not supported"),
    ] {
        let error = with(source, names).unwrap_err();
        assert!(error.starts_with("auth.issuers[1]."), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_key_set_that_loses_the_algorithms_stays_what_it_was() {
    let set = tempfile::NamedTempFile::new().unwrap();
    let write = |key: DecodingKey| {
        let key = json!(Jwk::from_decoding_key(&key, None).unwrap());
        fs::write(set.path(), json!({"keys": [key]}).to_string()).unwrap();
    };
    write(DecodingKey::from_ed_pem(&pem("ed25519.public.pem")).unwrap());
    let verifier = verifier(&AuthConfig::from(IssuerConfig {
        jwks_file: Some(set.path().to_owned()),
        algorithms: Some(vec!["EdDSA".to_owned()]),
        ..IssuerConfig::default()
    }));
    write(DecodingKey::from_rsa_pem(&pem("rsa.public.pem")).unwrap());
    let later = Instant::now() + READ_INTERVAL;
    for (name, algorithm, passes) in [
        ("rsa.private.pem", Algorithm::RS256, false),
        ("ed25519.private.pem", Algorithm::EdDSA, true),
    ] {
        let result = verifier.verify_at(&token_of(name, algorithm), now(), later);
        assert_eq!(result.is_ok(), passes, "{name}");
    }
}

#[test]
fn all_that_is_wrong_with_the_entries_is_told_at_once() {
    let config = entries(vec![
        IssuerConfig::default(),
        IssuerConfig {
            jwks_file: Some("/absent".into()),
            ..entry(Some(A), "a")
        },
        IssuerConfig {
            jwks_file: Some("/absent".into()),
            ..IssuerConfig::default()
        },
    ]);
    let error = Verifier::from_config(&config).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    for (line, part) in lines.iter().zip([
        "set one of auth.issuers[0].hmac_secret, auth.issuers[0].hmac_secret_file",
        "only one key source may be set, not auth.issuers[1].hmac_secret and auth.issuers[1].jwks_file",
        "auth.issuers[2].jwks_file /absent cannot be read",
    ]) {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(lines.len(), 3, "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the entries, a token passes by the one that its `iss` names, else by the one that
    /// has none, and by no other.
    #[test]
    fn a_token_passes_only_with_the_key_of_its_own_issuer(
        names in proptest::collection::btree_set(proptest::option::of("[a-c]{0,2}"), 1..5),
        iss in proptest::option::of("[a-c]{0,2}"),
        signer in any::<prop::sample::Index>(),
    ) {
        let names: Vec<Option<String>> = names.into_iter().collect();
        let letter = |index: usize| char::from(b'p' + u8::try_from(index).unwrap()).to_string();
        let listed = names.iter().enumerate();
        let config = entries(listed.map(|(index, name)| entry(name.as_deref(), &letter(index))).collect());
        let own = names.iter().position(|name| name.is_some() && *name == iss);
        let own = own.or(names.iter().position(Option::is_none));
        let signer = signer.index(names.len());
        let token = token(&letter(signer), &json!({"iss": iss}));
        let result = verifier(&config).verify(&token, now());
        prop_assert_eq!(result.is_ok(), own == Some(signer), "{:?} {:?}", names, iss);
        if let Ok(identity) = result {
            prop_assert_eq!(identity.credential.user, UserKey::new(iss.as_deref(), "ada"));
        }
    }
}
