//! Laws: whatever a client sends, the verifier answers, and only what the key signed passes.

use proptest::prelude::*;

use super::super::jwks::parse;
use super::super::key::public_key_from_pem;
use super::*;

fn any_algorithm() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("HS256"),
        Just("HS384"),
        Just("HS512"),
        Just("RS256"),
        Just("PS256"),
        Just("ES256"),
        Just("ES384"),
        Just("EdDSA"),
        Just("none"),
        Just("RSA-OAEP"),
    ]
}

/// JSON of any shape, as a claim's value.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_refused_without_a_panic(text in ".*") {
        prop_assert!(verifier(&hmac_config()).verify(&text, now()).is_err());
    }

    #[test]
    fn any_three_parts_are_refused_without_a_panic(
        header in proptest::collection::vec(any::<u8>(), 0..64),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        signature in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let [header, payload, signature] =
            [header, payload, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        let token = format!("{header}.{payload}.{signature}");
        prop_assert!(verifier(&hmac_config()).verify(&token, now()).is_err());
    }

    /// With the right header, so that the signature's own code is met with any bytes.
    #[test]
    fn any_signature_is_refused_by_every_kind_of_key(
        algorithm in any_algorithm(),
        signature in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm}).to_string());
        let payload = URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
        let token = format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode(signature));
        for config in [
            hmac_config(),
            public_key_config("rsa.public.pem"),
            public_key_config("p256.public.pem"),
            public_key_config("p384.public.pem"),
            public_key_config("ed25519.public.pem"),
        ] {
            prop_assert!(verifier(&config).verify(&token, now()).is_err());
        }
    }

    /// No byte of a token can be changed, left out or put in without the signature failing. The
    /// last character of a segment counts too: base64's unused bits must be zero.
    #[test]
    fn no_mutation_of_a_token_passes(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        kind in 0..3,
    ) {
        let good = hs256(&claims(&json!({})));
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        match kind {
            0 => bytes[place] = byte,
            1 => { bytes.remove(place); }
            _ => bytes.insert(place, byte),
        }
        let mutated = String::from_utf8_lossy(&bytes);
        prop_assume!(mutated != good);
        prop_assert!(verifier(&hmac_config()).verify(&mutated, now()).is_err());
    }

    /// Signed claims of any shape: an answer, and an identity only of the right types.
    #[test]
    fn any_signed_claims_are_judged(
        sub in any_json(), exp in any_json(), nbf in any_json(), iss in any_json(),
        aud in any_json(), workspaces in any_json(),
    ) {
        let claims = json!({
            "sub": sub, "exp": exp, "nbf": nbf, "iss": iss, "aud": aud, "workspaces": workspaces,
        });
        if let Ok(identity) = verifier(&hmac_config()).verify(&hs256(&claims), now()) {
            let user = sub.as_str().map_or_else(|| sub.to_string(), str::to_owned);
            prop_assert!(sub.is_string() || sub.is_i64() || sub.is_u64());
            prop_assert_eq!(&*identity.subject, user);
            prop_assert!(!identity.subject.is_empty());
            prop_assert!(exp.is_number() && nbf.is_number() && iss.is_string());
            prop_assert!(identity.credential.expires_at > now());
            if identity.workspaces == Workspaces::All {
                let listed = workspaces.as_array().is_some_and(|list| list.contains(&json!("*")));
                prop_assert!(workspaces == json!("*") || listed);
            }
        }
    }

    /// `verify` and `expires_at` agree: it passes until then and not from then on.
    #[test]
    fn a_token_passes_exactly_until_it_expires(
        exp in 0.0..4e9_f64, leeway in 0..600_u64, at_seconds in 0.0..4e9_f64,
    ) {
        let config = AuthConfig { leeway: Duration::from_secs(leeway), ..hmac_config() };
        let verifier = verifier(&config);
        let token = hs256(&claims(&json!({"exp": exp})));
        if let Ok(identity) = verifier.verify(&token, at(at_seconds)) {
            let last = identity.credential.expires_at - Duration::from_nanos(1);
            prop_assert!(verifier.verify(&token, last).is_ok());
            let after = verifier.verify(&token, identity.credential.expires_at);
            prop_assert_eq!(after.map(drop), Err(AuthError::Expired));
        }
    }

    #[test]
    fn any_bytes_as_a_key_file_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes);
        let _ = public_key_from_pem(&bytes);
        let mut pem = b"-----BEGIN PUBLIC KEY-----\n".to_vec();
        pem.extend(base64::engine::general_purpose::STANDARD.encode(&bytes).bytes());
        pem.extend(b"\n-----END PUBLIC KEY-----\n");
        let _ = public_key_from_pem(&pem);
    }

    #[test]
    fn any_json_as_a_key_set_is_answered(entry in any_json(), kty in "(RSA|EC|OKP|oct)", x in any_json()) {
        let _ = parse(entry.to_string().as_bytes());
        let _ = parse(json!({"keys": [entry, {"kty": kty, "crv": "P-256", "x": x, "y": x, "n": x, "e": x}]}).to_string().as_bytes());
    }
}
