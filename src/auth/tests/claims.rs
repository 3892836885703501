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
    AuthConfig {
        issuer: Some("https://id.example.com".to_owned()),
        audience: Some("herald".to_owned()),
        ..hmac_config()
    }
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
    const NO_DATE: &str = "its exp is not a date";
    const NO_NAME: &str = "its sub is not a name";
    const NOT_YET: &str = "it is not yet valid";
    const ISSUER: &str = "its iss is not the configured issuer";
    const AUDIENCE: &str = "its aud is not the configured audience";
    assert!(check_strict(&json!({})).is_ok());
    for (with, expected) in [
        (json!({"exp": null}), "it has no exp"),
        (json!({"exp": "2099-01-01"}), NO_DATE),
        (json!({"exp": (NOW + 60).to_string()}), NO_DATE),
        (json!({"exp": [NOW + 60]}), NO_DATE),
        (json!({"exp": true}), NO_DATE),
        (json!({"sub": null}), "it has no sub"),
        (json!({"sub": ""}), NO_NAME),
        (json!({"sub": 7}), NO_NAME),
        (json!({"sub": ["ada"]}), NO_NAME),
        (json!({"nbf": NOW + 1}), NOT_YET),
        (json!({"nbf": NOW as f64 + 0.5}), NOT_YET),
        (json!({"nbf": "soon"}), "its nbf is not a date"),
        (json!({"iss": null}), ISSUER),
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
    let config = AuthConfig {
        audience: Some("herald".to_owned()),
        ..hmac_config()
    };
    for aud in [
        json!("herald"),
        json!(["herald"]),
        json!([7, "x", "herald"]),
    ] {
        assert!(check(&config, &json!({"aud": aud})).is_ok(), "{aud}");
    }
}

/// RFC 7519 sections 4.1.4 and 4.1.5: before `exp`, not before `nbf`, to the fraction of a second.
#[test]
fn validity_begins_at_nbf_and_ends_before_exp() {
    let config = hmac_config();
    let leeway = AuthConfig {
        leeway: Duration::from_secs(30),
        ..hmac_config()
    };
    let token = hs256(&claims(&json!({"nbf": NOW + 10, "exp": NOW as f64 + 20.5})));
    let not_yet = AuthError::Invalid("it is not yet valid");
    for (config, offset, expected) in [
        (&config, 9.999, Err(not_yet)),
        (&config, 10.0, Ok(())),
        (&config, 20.499, Ok(())),
        (&config, 20.5, Err(AuthError::Expired)),
        (&config, 21.0, Err(AuthError::Expired)),
        (&leeway, -20.001, Err(not_yet)),
        (&leeway, -20.0, Ok(())),
        (&leeway, 50.499, Ok(())),
        (&leeway, 50.5, Err(AuthError::Expired)),
    ] {
        let result = verifier(config).verify(&token, at(NOW as f64 + offset));
        assert_eq!(result.map(drop), expected, "{offset} {:?}", config.leeway);
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
        assert_eq!(identity.expires_at, at(expected));
        assert_eq!(
            verifier(&config)
                .verify(&token, identity.expires_at)
                .unwrap_err(),
            AuthError::Expired
        );
    }
}

#[test]
fn dates_far_away_are_dates() {
    for (exp, expected) in [
        (json!(u64::MAX), Ok(())),
        (json!(1e300), Ok(())),
        (json!(253_402_300_800_u64), Ok(())),
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

#[test]
fn an_identity_is_what_the_claims_say() {
    let with = json!({"iss": "https://id.example.com", "sub": "auth0|Ada Lovelace ☃"});
    let identity = check(&hmac_config(), &with).unwrap();
    assert_eq!(&*identity.subject, "auth0|Ada Lovelace ☃");
    assert_eq!(
        identity.user,
        UserKey::new(Some("https://id.example.com"), "auth0|Ada Lovelace ☃")
    );
    let without = check(&hmac_config(), &json!({})).unwrap();
    assert_eq!(without.user, UserKey::new(None, "ada"));
}

#[test]
fn workspaces_come_from_a_slug_a_list_or_a_star() {
    let some = |slugs: &[&str]| {
        Workspaces::Some(
            slugs
                .iter()
                .map(|slug| WorkspaceSlug::parse(slug).unwrap())
                .collect(),
        )
    };
    for (claim, expected) in [
        (json!("acme"), some(&["acme"])),
        (json!(["acme", "globex"]), some(&["acme", "globex"])),
        (json!("*"), Workspaces::All),
        (json!(["*"]), Workspaces::All),
        (json!(["acme", "*"]), Workspaces::All),
        // What is no slug grants nothing and harms nothing beside it.
        (
            json!(["acme", "Not A Slug", ">", "a.b", 7, null, ["globex"]]),
            some(&["acme"]),
        ),
        (json!("acme globex"), some(&[])),
        (json!("acme,globex"), some(&[])),
        (json!("**"), some(&[])),
        (json!(""), some(&[])),
        (json!([]), some(&[])),
        (json!([["*"]]), some(&[])),
        (json!({"acme": true}), some(&[])),
        (json!(true), some(&[])),
        (json!(null), some(&[])),
    ] {
        let identity = check(&hmac_config(), &json!({"workspaces": claim})).unwrap();
        assert_eq!(identity.workspaces, expected, "{claim}");
    }
}

#[test]
fn the_workspaces_claim_has_the_configured_name() {
    let config = AuthConfig {
        workspaces_claim: "https://example.com/tenants".to_owned(),
        ..hmac_config()
    };
    let acme = WorkspaceSlug::parse("acme").unwrap();
    let identity = check(&config, &json!({"https://example.com/tenants": ["acme"]})).unwrap();
    assert!(identity.workspaces.allow(&acme));
    let identity = check(&config, &json!({"workspaces": "*"})).unwrap();
    assert!(!identity.workspaces.allow(&acme));
}

#[test]
fn a_token_of_ours_passes_and_says_what_was_asked() {
    let config = AuthConfig {
        issuer: Some("herald-dev".to_owned()),
        audience: Some("herald".to_owned()),
        workspaces_claim: "tenants".to_owned(),
        ..hmac_config()
    };
    let secret = signing_secret(&config).unwrap();
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
            Duration::from_secs(u64::MAX),
            253_402_300_799,
        ),
    ] {
        let token = sign(
            &secret,
            &NewToken {
                subject: "ada",
                workspaces: &workspaces,
                workspaces_claim: &config.workspaces_claim,
                issuer: config.issuer.as_deref(),
                audience: config.audience.as_deref(),
                issued_at: now(),
                expires_in,
            },
        )
        .unwrap();
        let identity = verifier(&config).verify(&token, now()).unwrap();
        assert_eq!(identity.workspaces, workspaces);
        assert_eq!(identity.user, UserKey::new(Some("herald-dev"), "ada"));
        assert_eq!(identity.expires_at, at(expected_expiry as f64));
    }
}
