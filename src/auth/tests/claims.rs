//! Claims by table: which tokens of the right key pass, and whose they are then.

use super::*;

fn check(config: &AuthConfig, with: &Value) -> Result<Identity, AuthError> {
    let token = hs256(&claims(with));
    let result = verifier(config).verify(&token, now());
    if let Err(error) = result {
        assert_says_nothing_of(&token, error);
    }
    result
}

fn strict() -> AuthConfig {
    AuthConfig::from(IssuerConfig {
        issuer: Some("https://id.example.com".to_owned()),
        audience: Some("herald".to_owned()),
        ..hmac_config().short_form
    })
}

/// As [`check`] against [`strict`], with the issuer and audience it wants where `with` has none.
fn check_strict(with: &Value) -> Result<Identity, AuthError> {
    let mut all = json!({"iss": "https://id.example.com", "aud": "herald"});
    for (name, value) in with.as_object().unwrap() {
        all[name] = value.clone();
    }
    check(&strict(), &all)
}

#[test]
fn wrong_claims_are_invalid() {
    const NO_DATE: &str = "its exp is not a date, which is a number of seconds since 1970";
    const REPLACED: &str = "its claim with the user has half of a surrogate pair or U+FFFD: \
                            two users could then have the same name";
    const NO_USER: &str = "it has no claim with the user (user_claim, by default sub)";
    const NO_NAME: &str = "its claim with the user is neither text nor an integer of 64 bits";
    const NOT_YET: &str = "it is not yet valid";
    const NO_ISSUER: &str = "it has no iss";
    const ISSUER: &str = "its iss is not a configured issuer: compare `issuer` letter for letter, \
                          also a slash at its end";
    const MILLISECONDS: &str =
        "its exp is beyond the year 9999: it seems to be in milliseconds, dates are in seconds";
    const AUDIENCE: &str = "its aud is not the configured audience";
    assert!(check_strict(&json!({})).is_ok());
    for (with, expected) in [
        (json!({"exp": null}), "it has no exp"),
        (json!({"exp": "2099-01-01"}), NO_DATE),
        (json!({"exp": (NOW + 60).to_string()}), NO_DATE),
        (json!({"exp": [NOW + 60]}), NO_DATE),
        (json!({"exp": true}), NO_DATE),
        (json!({"exp": (NOW + 60) * 1000}), MILLISECONDS),
        (json!({"exp": 253_402_300_800_u64}), MILLISECONDS),
        (json!({"exp": u64::MAX}), MILLISECONDS),
        (json!({"exp": 1e300}), MILLISECONDS),
        (json!({"sub": null}), NO_USER),
        (json!({"sub": ""}), NO_NAME),
        (json!({"sub": true}), NO_NAME),
        (json!({"sub": 1.5}), NO_NAME),
        (json!({"sub": 1.0}), NO_NAME),
        (json!({"sub": 1e30}), NO_NAME),
        (json!({"sub": "a\u{fffd}"}), REPLACED),
        (json!({"sub": ["ada"]}), NO_NAME),
        (json!({"sub": {"id": "ada"}}), NO_NAME),
        (json!({"nbf": NOW + 121}), NOT_YET),
        (json!({"nbf": NOW as f64 + 120.5}), NOT_YET),
        (
            json!({"nbf": "soon"}),
            "its nbf is not a date, which is a number of seconds since 1970",
        ),
        (
            json!({"nbf": NOW * 1000}),
            "its nbf is beyond the year 9999: it seems to be in milliseconds, dates are in seconds",
        ),
        (json!({"iss": null}), NO_ISSUER),
        (json!({"iss": "https://id.example.com/"}), ISSUER),
        (
            json!({"iss": ["https://id.example.com"]}),
            "its iss is not a name",
        ),
        (json!({"aud": null}), AUDIENCE),
        (json!({"aud": "other"}), AUDIENCE),
        (json!({"aud": []}), AUDIENCE),
        (json!({"aud": ["other", 7]}), AUDIENCE),
        (json!({"aud": {"herald": true}}), AUDIENCE),
    ] {
        let error = check_strict(&with).unwrap_err();
        assert_eq!(error, AuthError::Invalid(expected), "{with}");
        // What else is wrong is told before the expiry, since a fresh token would not help.
        let mut expired = with;
        if expired.get("exp").is_none() {
            expired["exp"] = json!(NOW - 1);
            let error = check_strict(&expired).unwrap_err();
            assert_eq!(error, AuthError::Invalid(expected), "{expired}");
        }
    }
}

#[test]
fn a_token_that_is_right_but_for_its_time_is_expired() {
    for exp in [NOW, NOW - 1, 1] {
        let error = check_strict(&json!({"exp": exp})).unwrap_err();
        assert_eq!(error, AuthError::Expired);
    }
}

#[test]
fn an_unset_issuer_or_audience_is_not_looked_at() {
    for with in [
        json!({}),
        json!({"iss": "anyone", "aud": "anything"}),
        json!({"aud": ["several", "of", "them"]}),
        json!({"aud": 7}),
    ] {
        assert!(check(&hmac_config(), &with).is_ok(), "{with}");
    }
}

#[test]
fn an_audience_may_stand_in_a_list() {
    let config = AuthConfig::from(IssuerConfig {
        audience: Some("herald".to_owned()),
        ..hmac_config().short_form
    });
    for aud in [
        json!("herald"),
        json!(["herald"]),
        json!([7, "x", "herald"]),
    ] {
        assert!(check(&config, &json!({"aud": aud})).is_ok(), "{aud}");
    }
}

/// RFC 7519 sections 4.1.4 and 4.1.5: before `exp`, not before `nbf`, to the fraction of a second. An
/// `nbf` is forgiven 10 s at least, and what is a little farther ahead will pass.
#[test]
fn validity_begins_at_nbf_and_ends_before_exp() {
    let with = |leeway| AuthConfig {
        leeway: Duration::from_secs(leeway),
        ..hmac_config()
    };
    let later = |seconds| Err(AuthError::NotYet(Duration::from_secs_f64(seconds)));
    let never = Err(AuthError::Invalid("it is not yet valid"));
    let expired = Err(AuthError::Expired);
    // Seconds of leeway and after `nbf`.
    for (leeway, offset, expected) in [
        (0, 0.0, Ok(())),
        (0, -10.0, Ok(())),
        (0, -10.5, later(0.5)),
        (0, -60.0, later(50.0)),
        (0, -120.0, later(110.0)),
        (0, -120.5, never),
        (0, -100_000.0, never),
        (5, -10.0, Ok(())),
        (5, -10.5, later(0.5)),
        (30, -30.0, Ok(())),
        (30, -30.5, later(0.5)),
        (30, -140.0, later(110.0)),
        (30, -140.5, never),
        (0, 299.5, Ok(())),
        (0, 300.0, expired),
        (0, 301.0, expired),
        (30, 329.5, Ok(())),
        (30, 330.0, expired),
    ] {
        let token = hs256(&claims(&json!({"nbf": NOW, "exp": NOW + 300})));
        let result = verifier(&with(leeway)).verify(&token, at(NOW as f64 + offset));
        assert_eq!(result.map(drop), expected, "{leeway} {offset}");
    }
    // What is never valid, or is not any more, is not worth waiting for.
    let never = Err(AuthError::Invalid(
        "its exp is not after its nbf: it is never valid",
    ));
    for (leeway, exp, expected) in [
        (0, NOW, expired),
        (0, NOW + 30, never),
        (30, NOW + 60, never),
        (0, NOW + 60, never),
        (0, NOW + 61, later(50.0)),
    ] {
        let token = hs256(&claims(&json!({"nbf": NOW + 60, "exp": exp})));
        let result = verifier(&with(leeway)).verify(&token, now());
        assert_eq!(result.map(drop), expected, "{leeway} {exp}");
    }
}

/// A socket is closed when its token is no longer taken, not a leeway earlier.
#[test]
fn the_expiry_of_an_identity_is_the_moment_verify_refuses_it() {
    for (leeway, exp, expected) in [
        (0, json!(NOW + 60), (NOW + 60) as f64),
        (30, json!(NOW + 60), (NOW + 90) as f64),
        (0, json!(NOW as f64 + 0.25), NOW as f64 + 0.25),
    ] {
        let config = AuthConfig {
            leeway: Duration::from_secs(leeway),
            ..hmac_config()
        };
        let token = hs256(&claims(&json!({"exp": exp})));
        let identity = verifier(&config).verify(&token, now()).unwrap();
        assert_eq!(identity.credential.expires_at, at(expected));
        assert_eq!(
            verifier(&config)
                .verify(&token, identity.credential.expires_at)
                .unwrap_err(),
            AuthError::Expired
        );
    }
}

#[test]
fn dates_far_away_are_dates() {
    for (exp, expected) in [
        (json!(253_402_300_799_u64), Ok(())),
        (json!(253_402_300_798.5), Ok(())),
        (json!(1.8e9), Ok(())),
        (json!(0), Err(AuthError::Expired)),
        (json!(-1), Err(AuthError::Expired)),
        (json!(i64::MIN), Err(AuthError::Expired)),
        (json!(-1e300), Err(AuthError::Expired)),
    ] {
        let result = check(&hmac_config(), &json!({"exp": exp}));
        assert_eq!(result.map(drop), expected, "{exp}");
    }
    assert!(check(&hmac_config(), &json!({"nbf": i64::MIN})).is_ok());
    let endless = AuthConfig {
        leeway: Duration::MAX,
        ..hmac_config()
    };
    assert!(check(&endless, &json!({})).is_ok());
}

/// Serialisers write null for what is absent.
#[test]
fn null_is_absent() {
    for (header, nulls, ok) in [
        (
            r#"{"alg":"HS256","kid":null}"#,
            r#""nbf":null,"iss":null"#,
            true,
        ),
        // A single key has no id.
        (r#"{"alg":"HS256","kid":1}"#, r#""nbf":0"#, true),
        (r#"{"alg":"HS256"}"#, r#""nbf":false"#, false),
        (r#"{"alg":"HS256"}"#, r#""iss":false"#, false),
    ] {
        let payload = format!(r#"{{"sub":"ada","exp":{},{nulls}}}"#, NOW + 60);
        let identity = verifier(&hmac_config()).verify(&hs256_raw(header, &payload), now());
        assert_eq!(identity.is_ok(), ok, "{header} {nulls}");
        if let Ok(identity) = identity {
            assert_eq!(identity.credential.user, UserKey::new(None, "ada"));
        }
    }
    let payload = format!(r#"{{"sub":"ada","exp":{},"iss":null}}"#, NOW + 60);
    let refused = verifier(&strict()).verify(&hs256_raw(r#"{"alg":"HS256"}"#, &payload), now());
    assert_eq!(refused.unwrap_err(), AuthError::Invalid("it has no iss"));
}

/// What else is wrong comes before the moment from which it is valid, and nothing else may say "later".
#[test]
fn a_token_that_is_valid_soon_is_judged_before() {
    let acme = WorkspaceSlug::parse("acme").unwrap();
    let globex = WorkspaceSlug::parse("globex").unwrap();
    let verifier = verifier(&hmac_config());
    for (ahead, pause) in [(0, None), (10, None), (40, Some(30))] {
        let token = hs256(&claims(&json!({"nbf": NOW + ahead, "exp": NOW + 300})));
        let judged = verifier
            .judge(&token, now(), &Revocations::default())
            .unwrap();
        assert_eq!(&*judged.identity().subject, "ada");
        assert!(judged.allows(&acme) && !judged.allows(&globex));
        let refused = judged.valid_by(now()).err();
        let pause = pause.map(Duration::from_secs);
        assert_eq!(refused, pause.map(AuthError::NotYet), "{ahead}");
        let judged = verifier
            .judge(&token, now(), &Revocations::default())
            .unwrap();
        assert!(judged.valid_by(at(NOW as f64 + 30.0)).is_ok());
    }
}

/// What the log says of a token that is valid and does not open a workspace.
#[test]
fn why_a_workspace_is_not_granted_is_told() {
    const NONE: &str =
        "it has no claim with the workspaces (workspaces_claim, by default workspaces)";
    const UNUSABLE: &str =
        "its claim with the workspaces grants nothing that can be used (see workspaces_prefix)";
    const OTHER: &str = "it does not grant the workspace asked for";
    let config = |claim: &str, prefix: Option<&str>| {
        AuthConfig::from(IssuerConfig {
            workspaces_claim: claim.to_owned(),
            workspaces_prefix: prefix.map(str::to_owned),
            ..hmac_config().short_form
        })
    };
    for (claim, prefix, with, expected) in [
        ("workspaces", None, json!({"workspaces": "globex"}), OTHER),
        ("workspaces", None, json!({"workspaces": null}), NONE),
        ("o.slg", None, json!({"o": {"slug": "acme"}}), NONE),
        ("o.slg", None, json!({"o": {"slg": null}}), NONE),
        ("workspaces", None, json!({"workspaces": []}), UNUSABLE),
        ("workspaces", None, json!({"workspaces": 7}), UNUSABLE),
        (
            "workspaces",
            None,
            json!({"workspaces": "acme *"}),
            UNUSABLE,
        ),
        ("workspaces", Some("/w/"), json!({}), UNUSABLE),
    ] {
        let verifier = verifier(&config(claim, prefix));
        let token = hs256(&claims(&with));
        let judged = verifier
            .judge(&token, now(), &Revocations::default())
            .unwrap();
        assert_eq!(judged.no_access, expected, "{claim} {with}");
        assert!(!judged.allows(&WorkspaceSlug::parse("acme").unwrap()));
    }
}

#[test]
fn an_identity_is_what_the_claims_say() {
    let with = json!({"iss": "https://id.example.com", "sub": "auth0|Ada Lovelace ☃"});
    let identity = check(&hmac_config(), &with).unwrap();
    assert_eq!(&*identity.subject, "auth0|Ada Lovelace ☃");
    assert_eq!(
        identity.credential.user,
        UserKey::new(Some("https://id.example.com"), "auth0|Ada Lovelace ☃")
    );
    let without = check(&hmac_config(), &json!({})).unwrap();
    assert_eq!(without.credential.user, UserKey::new(None, "ada"));
}

#[test]
fn a_credential_is_what_tells_the_token_from_others() {
    let key = HmacSecret::new(SECRET.as_bytes()).unwrap().verifying_key();
    let issuer = Some("https://id.example.com");
    let token = |jti| Some(TokenId::new(issuer, jti));
    for (with, issued_at, token) in [
        (
            json!({"iat": NOW, "jti": "c0ffee"}),
            Some(at(NOW as f64)),
            token("c0ffee"),
        ),
        (
            json!({"iat": NOW as f64 + 0.5, "jti": 42}),
            Some(at(NOW as f64 + 0.5)),
            token("42"),
        ),
        (json!({"jti": {"a": 1}}), None, None),
        (json!({}), None, None),
    ] {
        let credential = check_strict(&with).unwrap().credential;
        assert_eq!(credential.issuer.as_deref(), issuer, "{with}");
        assert_eq!(credential.issued_at, issued_at, "{with}");
        assert_eq!(credential.token, token, "{with}");
        assert_eq!(credential.key, key.id(), "{with}");
    }
    let payload = format!(
        r#"{{"sub":"ada","exp":{},"iat":null,"jti":null}}"#,
        NOW + 60
    );
    let nulls = verifier(&hmac_config()).verify(&hs256_raw(r#"{"alg":"HS256"}"#, &payload), now());
    let credential = nulls.unwrap().credential;
    assert_eq!(
        (credential.issued_at, credential.token, credential.issuer),
        (None, None, None)
    );
}

/// Also where no age is asked for: by its `iat` a token may be revoked.
#[test]
fn an_iat_that_is_no_date_is_refused() {
    const NO_DATE: &str = "its iat is not a date, which is a number of seconds since 1970";
    const MILLISECONDS: &str =
        "its iat is beyond the year 9999: it seems to be in milliseconds, dates are in seconds";
    for (iat, expected) in [
        (json!("2026-01-01"), NO_DATE),
        (json!(true), NO_DATE),
        (json!(NOW * 1000), MILLISECONDS),
    ] {
        let refused = check(&hmac_config(), &json!({ "iat": iat })).unwrap_err();
        assert_eq!(refused, AuthError::Invalid(expected), "{iat}");
    }
}

#[test]
fn a_token_may_live_as_long_as_max_token_age_and_no_longer() {
    const NO_IAT: AuthError = AuthError::Invalid("it has no iat, which auth.max_token_age needs");
    const LONG: AuthError = AuthError::Invalid("it lives longer than auth.max_token_age");
    for (leeway, with, expected) in [
        (0, json!({"iat": NOW, "exp": NOW + 3600}), Ok(())),
        (0, json!({"iat": NOW, "exp": NOW + 3601}), Err(LONG)),
        (5, json!({"iat": NOW, "exp": NOW + 3605}), Ok(())),
        (5, json!({"iat": NOW, "exp": NOW + 3606}), Err(LONG)),
        // Half of its life is over.
        (0, json!({"iat": NOW - 1800, "exp": NOW + 1800}), Ok(())),
        (0, json!({"iat": NOW - 1801, "exp": NOW + 1800}), Err(LONG)),
        (0, json!({"exp": NOW + 60}), Err(NO_IAT)),
        // The issuer's clock is a little ahead, or its `iat` is a lie.
        (0, json!({"iat": NOW + 10, "exp": NOW + 3610}), Ok(())),
        (0, json!({"iat": NOW + 11, "exp": NOW + 3611}), Err(LONG)),
        (
            0,
            json!({"iat": NOW + 99_999, "exp": NOW + 99_999 + 60}),
            Err(LONG),
        ),
        // Whether it is expired comes last: a newer one of this kind would not do either.
        (0, json!({"iat": NOW - 9000, "exp": NOW - 60}), Err(LONG)),
        (
            0,
            json!({"iat": NOW - 3600, "exp": NOW}),
            Err(AuthError::Expired),
        ),
    ] {
        let config = AuthConfig {
            leeway: Duration::from_secs(leeway),
            max_token_age: Some(Duration::from_secs(3600)),
            ..hmac_config()
        };
        assert_eq!(check(&config, &with).map(drop), expected, "{leeway} {with}");
    }
    let long = json!({"exp": NOW + 10 * 365 * 86_400});
    assert!(check(&hmac_config(), &long).is_ok());
}

#[test]
fn required_claims_are_there_whatever_they_hold() {
    const LACKS: AuthError = AuthError::Invalid("it lacks a claim of required_claims");
    let config = AuthConfig::from(IssuerConfig {
        required_claims: vec!["jti".to_owned(), "https://example.com/tenant.id".to_owned()],
        ..hmac_config().short_form
    });
    for (payload, expected) in [
        (r#""jti":"a","https://example.com/tenant.id":false"#, Ok(())),
        (r#""jti":"a""#, Err(LACKS)),
        (
            r#""jti":null,"https://example.com/tenant.id":1"#,
            Err(LACKS),
        ),
        // A name is no path.
        (
            r#""jti":"a","https://example":{"com/tenant":{"id":1}}"#,
            Err(LACKS),
        ),
    ] {
        let payload = format!(r#"{{"sub":"ada","exp":{},{payload}}}"#, NOW + 60);
        let token = hs256_raw(r#"{"alg":"HS256"}"#, &payload);
        let result = verifier(&config).verify(&token, now());
        assert_eq!(result.map(drop), expected, "{payload}");
    }
}

/// Keycloak leaves `sub` out, Django writes `user_id` and a number, Azure an `oid`.
#[test]
fn the_user_is_the_first_claim_of_those_named() {
    let named = |names: &[&str]| {
        AuthConfig::from(IssuerConfig {
            user_claim: names.iter().map(|name| (*name).to_owned()).collect(),
            ..hmac_config().short_form
        })
    };
    for (names, with, expected) in [
        (["sub", "oid"], json!({"oid": "o"}), Some("ada")),
        (["oid", "sub"], json!({"oid": "o"}), Some("o")),
        (["sub", "oid"], json!({"sub": null, "oid": "o"}), Some("o")),
        (["user_id", "sub"], json!({"user_id": 42}), Some("42")),
        (["user_id", "sub"], json!({"user_id": -7}), Some("-7")),
        (
            ["user_id", "sub"],
            json!({"user_id": u64::MAX}),
            Some("18446744073709551615"),
        ),
        (["x", "y"], json!({}), None),
        // The next one may be another's.
        (["oid", "sub"], json!({"oid": ""}), None),
        (["oid", "sub"], json!({"oid": false}), None),
        (["oid", "sub"], json!({"oid": 1.5}), None),
        (["oid", "sub"], json!({"oid": ["o"]}), None),
        // A name, and no path.
        (["o.id", "x"], json!({"o": {"id": "o"}}), None),
        (["o.id", "x"], json!({"o.id": "o"}), Some("o")),
    ] {
        let identity = check(&named(&names), &with).ok();
        let subject = identity.as_ref().map(|identity| &*identity.subject);
        assert_eq!(subject, expected, "{names:?} {with}");
        if let Some(subject) = expected {
            assert_eq!(
                identity.unwrap().credential.user,
                UserKey::new(None, subject)
            );
        }
    }
    // An explicit null is no claim either.
    let payload = format!(r#"{{"sub":null,"oid":"o","exp":{}}}"#, NOW + 60);
    let token = hs256_raw(r#"{"alg":"HS256"}"#, &payload);
    let identity = verifier(&named(&["sub", "oid"])).verify(&token, now());
    assert_eq!(&*identity.unwrap().subject, "o");
}

#[test]
fn a_token_of_ours_passes_and_says_what_was_asked() {
    let config = AuthConfig::from(IssuerConfig {
        issuer: Some("herald-dev".to_owned()),
        audience: Some("herald".to_owned()),
        user_claim: vec!["user_id".to_owned(), "sub".to_owned()],
        workspaces_claim: "tenants.of.mine".to_owned(),
        workspaces_prefix: Some("/workspaces/".to_owned()),
        algorithms: Some(vec!["HS512".to_owned()]),
        ..hmac_config().short_form
    });
    let settings = config.short_form.clone();
    let secret = signing_secret("auth", &settings).unwrap();
    let acme = WorkspaceSlug::parse("acme").unwrap();
    for (workspaces, expires_in, expected_expiry) in [
        (Workspaces::All, Duration::from_secs(60), NOW + 60),
        (
            Workspaces::Some(vec![acme]),
            Duration::from_millis(1500),
            NOW + 2,
        ),
        (
            Workspaces::Some(vec![]),
            Duration::from_secs(36_500 * 86_400),
            NOW + 36_500 * 86_400,
        ),
    ] {
        let token = sign(
            &secret,
            &NewToken {
                settings: &settings,
                subject: "ada",
                workspaces: &workspaces,
                publish: None,
                issuer: None,
                audience: None,
                issued_at: now(),
                expires_in,
            },
        )
        .unwrap();
        let identity = verifier(&config).verify(&token, now()).unwrap();
        assert_eq!(identity.workspaces, workspaces);
        assert_eq!(
            identity.credential.user,
            UserKey::new(Some("herald-dev"), "ada")
        );
        assert_eq!(identity.credential.expires_at, at(expected_expiry as f64));
    }
}
