//! Tokens of other makers, and the examples of the standards: what Herald takes for a signature is
//! what they make, and not only what its own library makes.

use serde::Deserialize;

use super::super::jwks::KeySet;
use super::super::jwks::parse;
use super::*;

/// A token made once by `maker` with the key of that name, good until the year 2100.
#[derive(Deserialize)]
struct Made {
    maker: String,
    alg: String,
    /// Of `tests/fixtures/keys`; absent for the shared secret.
    key: Option<String>,
    token: String,
}

#[test]
fn tokens_of_other_libraries_pass() {
    let made = include_str!("../../../tests/fixtures/tokens.json");
    let made: Vec<Made> = serde_json::from_str(made).unwrap();
    assert_eq!(made.len(), 16);
    for Made {
        maker,
        alg,
        key,
        token,
    } in made
    {
        let config = AuthConfig::from(IssuerConfig {
            issuer: Some("https://id.example.com".to_owned()),
            audience: Some("herald".to_owned()),
            ..match key {
                None => hmac_config(),
                Some(key) => public_key_config(&format!("{key}.public.pem")),
            }
            .short_form
        });
        let identity = verifier(&config).verify(&token, now());
        let identity = identity.unwrap_or_else(|error| panic!("{maker} {alg}: {error}"));
        assert_eq!(&*identity.subject, "ada", "{maker} {alg}");
        assert!(
            identity
                .workspaces
                .allow(&WorkspaceSlug::parse("globex").unwrap()),
            "{maker} {alg}"
        );
    }
}

/// RFC 7515 appendix A.1, A.3 and RFC 8037 appendix A.4. Their payloads are no tokens of Herald's,
/// so that only the signatures are looked at.
#[test]
fn the_examples_of_the_standards_verify() {
    let joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let secret = HmacSecret::new(&secret).unwrap().verifying_key();
    let set = |key: Value| {
        parse(json!({"keys": [key]}).to_string().as_bytes())
            .unwrap()
            .0
    };
    for (keys, token) in [
        (
            KeySet::of([secret]),
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{joe}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        ),
        (
            set(json!({
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            })),
            format!("eyJhbGciOiJFUzI1NiJ9.{joe}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"),
        ),
        (
            set(json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            })),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
        ),
    ] {
        let jws = Jws::parse(&token).unwrap();
        assert!(keys.verify(&jws).is_ok(), "{:?}", jws.algorithm);
        let broken = token.replacen(".R", ".Q", 1).replacen(".eyJpc3M", ".eyJpc3N", 1);
        let jws = Jws::parse(&broken).unwrap();
        assert!(keys.verify(&jws).is_err(), "{:?}", jws.algorithm);
    }
}
