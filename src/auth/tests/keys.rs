//! Keys by table: each algorithm passes with its own key and with no other, and each file that is
//! no key is refused with what is wrong with it.

use super::super::key::public_key_from_pem;
use super::*;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

fn hmac_token(algorithm: Algorithm, secret: &[u8]) -> String {
    let key = EncodingKey::from_secret(secret);
    signed(&Header::new(algorithm), &claims(&json!({})), &key)
}

/// One token of each algorithm, with the key source that takes it.
fn every_kind() -> Vec<(AuthConfig, String)> {
    let mut all = Vec::new();
    for algorithm in HMAC {
        all.push((hmac_config(), hmac_token(algorithm, SECRET.as_bytes())));
    }
    for algorithm in RSA {
        all.push((
            public_key_config("rsa.public.pem"),
            token_of("rsa.private.pem", algorithm),
        ));
    }
    for (name, algorithm) in [
        ("p256", Algorithm::ES256),
        ("p384", Algorithm::ES384),
        ("ed25519", Algorithm::EdDSA),
    ] {
        all.push((
            public_key_config(&format!("{name}.public.pem")),
            token_of(&format!("{name}.private.pem"), algorithm),
        ));
    }
    all
}

/// As other software computes them, from a PEM file as from a key set.
#[test]
fn a_public_key_is_known_by_its_thumbprint() {
    use jsonwebtoken::DecodingKey;
    use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
    for name in ["rsa", "p256", "p384", "ed25519"] {
        let pem = pem(&format!("{name}.public.pem"));
        let key = match name {
            "rsa" => DecodingKey::from_rsa_pem(&pem),
            "ed25519" => DecodingKey::from_ed_pem(&pem),
            _ => DecodingKey::from_ec_pem(&pem),
        };
        let jwk = Jwk::from_decoding_key(&key.unwrap(), None).unwrap();
        let id = KeyId::of_thumbprint(&jwk.thumbprint(ThumbprintHash::SHA256).unwrap());
        let set = json!({ "keys": [jwk] }).to_string();
        let set = super::super::jwks::parse(set.as_bytes()).unwrap().0;
        assert_eq!(set.ids().next(), id, "{name}");
        assert_eq!(
            public_key_from_pem(&pem).ok().map(|key| key.id()),
            id,
            "{name}"
        );
    }
}

#[test]
fn each_algorithm_passes_with_its_own_key_and_no_other() {
    let all = every_kind();
    assert_eq!(all.len(), 12);
    for (config, token) in &all {
        let own = config.short_form.public_key_file.as_deref();
        assert!(verifier(config).verify(token, now()).is_ok(), "{own:?}");
        for (other, _) in all
            .iter()
            .filter(|(other, _)| other.short_form.public_key_file.as_deref() != own)
        {
            let error = verifier(other).verify(token, now()).unwrap_err();
            let other = &other.short_form.public_key_file;
            assert!(matches!(error, AuthError::Invalid(_)), "{own:?} {other:?}");
        }
    }
}

#[test]
fn both_pem_forms_of_an_rsa_key_are_taken() {
    let verifier = verifier(&public_key_config("rsa.pkcs1.public.pem"));
    for algorithm in RSA {
        let token = token_of("rsa.private.pem", algorithm);
        assert!(verifier.verify(&token, now()).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn another_key_of_the_same_kind_does_not_verify() {
    let expected = AuthError::Invalid("its signature does not match the key");
    for (public, private, algorithm) in [
        ("rsa.public.pem", "rsa-other.private.pem", Algorithm::RS256),
        ("rsa.public.pem", "rsa-other.private.pem", Algorithm::PS512),
        (
            "p256.public.pem",
            "p256-other.private.pem",
            Algorithm::ES256,
        ),
    ] {
        let error = verifier(&public_key_config(public))
            .verify(&token_of(private, algorithm), now())
            .unwrap_err();
        assert_eq!(error, expected, "{private}");
    }
}

/// RFC 8725 section 2.1: whoever has the public key, which is everyone, signs with it as a secret.
#[test]
fn a_public_key_used_as_an_hmac_secret_never_passes() {
    for name in ["rsa", "rsa.pkcs1", "p256", "p384", "ed25519"] {
        let config = public_key_config(&format!("{name}.public.pem"));
        let file = pem(&format!("{name}.public.pem"));
        let base64: String = String::from_utf8_lossy(&file)
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(base64)
            .unwrap();
        for secret in [
            file.as_slice(),
            file.trim_ascii_end(),
            der.as_slice(),
            &der[der.len() - 32..],
        ] {
            for algorithm in HMAC {
                let error = verifier(&config)
                    .verify(&hmac_token(algorithm, secret), now())
                    .unwrap_err();
                assert_eq!(
                    error,
                    AuthError::Invalid("its algorithm does not fit the key")
                );
            }
        }
    }
}

/// The other way round: a public-key token never reaches the secret's check, and a PEM file is no
/// secret to begin with.
#[test]
fn a_public_key_token_never_passes_an_hmac_setup() {
    for (config, token) in every_kind()
        .iter()
        .filter(|(config, _)| config.short_form.hmac_secret.is_none())
    {
        let error = verifier(&hmac_config()).verify(token, now()).unwrap_err();
        let file = &config.short_form.public_key_file;
        assert_eq!(
            error,
            AuthError::Invalid("its algorithm does not fit the key"),
            "{file:?}"
        );
    }
    for name in ["rsa.public.pem", "p256.public.pem", "rsa.private.pem"] {
        let config = AuthConfig::from(IssuerConfig {
            hmac_secret_file: Some(fixture(name)),
            ..IssuerConfig::default()
        });
        let error = Verifier::from_config(&config).unwrap_err().to_string();
        assert!(error.contains("holds a PEM key"), "{error}");
    }
}

#[test]
fn exactly_one_key_source_is_wanted() {
    let check = |config: &AuthConfig, words: &[&str]| {
        let error = Verifier::from_config(config).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    };
    check(
        &AuthConfig::default(),
        &[
            "auth.hmac_secret",
            "auth.hmac_secret_file",
            "auth.public_key_file",
            "auth.jwks_file",
        ],
    );
    let both = AuthConfig::from(IssuerConfig {
        public_key_file: Some(fixture("rsa.public.pem")),
        ..hmac_config().short_form
    });
    check(&both, &["auth.hmac_secret and auth.public_key_file"]);
    let two_secrets = AuthConfig::from(IssuerConfig {
        hmac_secret_file: Some(fixture("README.md")),
        ..hmac_config().short_form
    });
    check(
        &two_secrets,
        &["auth.hmac_secret and auth.hmac_secret_file"],
    );
}

#[test]
fn a_secret_has_32_bytes_and_its_last_newline_is_not_part_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let from_file = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Verifier::from_config(&AuthConfig::from(IssuerConfig {
            hmac_secret_file: Some(path.clone()),
            ..IssuerConfig::default()
        }))
    };
    let token = hs256(&claims(&json!({})));
    for ending in ["", "\n", "\r\n"] {
        let verifier = from_file(format!("{SECRET}{ending}").as_bytes()).unwrap();
        assert!(verifier.verify(&token, now()).is_ok(), "{ending:?}");
    }
    let verifier = from_file(format!("{SECRET}\n\n").as_bytes()).unwrap();
    assert!(
        verifier.verify(&token, now()).is_err(),
        "only one newline is trimmed"
    );
    // As an editor saves it, that writes a byte order mark.
    let verifier = from_file(format!("\u{feff}{SECRET}\r\n").as_bytes()).unwrap();
    assert!(verifier.verify(&token, now()).is_ok());
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let text = format!("\u{feff}{SECRET}");
        let text: Vec<u8> = text.encode_utf16().flat_map(bytes).collect();
        let error = from_file(&text).unwrap_err().to_string();
        assert!(error.contains("is text in UTF-16"), "{error}");
    }
    // Any bytes are a secret, not only text.
    assert!(from_file(&[0xff; 32]).is_ok());
    assert!(from_file(&[b"\xff\xfe".as_slice(), &[7; 30]].concat()).is_ok());
    let short = "x".repeat(31);
    for bytes in [
        "",
        "\n",
        &short,
        &format!("{short}\n"),
        &format!("{short}\r\n"),
    ] {
        let error = from_file(bytes.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("auth.hmac_secret_file"), "{error}");
        assert!(error.contains("is shorter than 32 bytes"), "{error}");
    }
    for (value, ok) in [(short.as_str(), false), (SECRET, true)] {
        let config = AuthConfig::from(IssuerConfig {
            hmac_secret: Some(Secret::from(value)),
            ..IssuerConfig::default()
        });
        let result = Verifier::from_config(&config);
        assert_eq!(result.is_ok(), ok);
        if let Err(error) = result {
            assert!(
                error.to_string().starts_with("auth.hmac_secret is shorter"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_byte_order_mark_before_a_public_key_is_skipped() {
    for name in ["rsa", "rsa.pkcs1", "p256", "ed25519"] {
        let file = [b"\xef\xbb\xbf", &*pem(&format!("{name}.public.pem"))].concat();
        assert!(public_key_from_pem(&file).is_ok(), "{name}");
        assert_eq!(
            HmacSecret::new(&file).unwrap_err(),
            HmacSecretError::Pem,
            "{name}"
        );
    }
}

#[test]
fn a_file_that_is_no_public_key_is_refused_with_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut two = pem("p256.public.pem");
    two.extend(pem("rsa.public.pem"));
    let damaged = String::from_utf8(pem("p256.public.pem"))
        .unwrap()
        .replace("MFk", "!!!");
    let short = String::from_utf8(pem("rsa.public.pem")).unwrap();
    let short: Vec<&str> = short
        .lines()
        .enumerate()
        .filter_map(|(number, line)| (number != 3).then_some(line))
        .collect();
    for (path, expected) in [
        (fixture("rsa.private.pem"), "holds a private key"),
        (fixture("p256.sec1.private.pem"), "holds a private key"),
        (fixture("ed25519.private.pem"), "holds a private key"),
        (fixture("p256.certificate.pem"), "holds a certificate"),
        (
            fixture("rsa-1024.public.pem"),
            "holds an RSA key of 1024 bits",
        ),
        (fixture("rsa-pss.public.pem"), "kind that is not supported"),
        (fixture("p521.public.pem"), "kind that is not supported"),
        (
            fixture("secp256k1.public.pem"),
            "kind that is not supported",
        ),
        (fixture("ed448.public.pem"), "kind that is not supported"),
        (
            fixture("p256-compressed.public.pem"),
            "kind that is not supported",
        ),
        (fixture("README.md"), "holds no PEM public key"),
        (fixture("absent.pem"), "cannot be read"),
        (directory.path().to_owned(), "cannot be read"),
        (write("empty", b""), "holds no PEM public key"),
        (
            write("binary", &[0, 159, 146, 150]),
            "holds no PEM public key",
        ),
        (write("jwks", br#" {"keys":[]}"#), "set jwks_file instead"),
        (write("two", &two), "holds 2 PEM blocks"),
        (write("damaged", damaged.as_bytes()), "is damaged"),
        (write("short", short.join("\n").as_bytes()), "is damaged"),
        (write("cut", &pem("rsa.public.pem")[..200]), "is damaged"),
        (
            write("csr", b"-----BEGIN CERTIFICATE REQUEST-----\n"),
            "another kind",
        ),
        (
            write("long", &vec![b'x'; 1024 * 1024 + 1]),
            "is longer than 1048576 bytes",
        ),
    ] {
        let config = AuthConfig::from(IssuerConfig {
            public_key_file: Some(path.clone()),
            ..IssuerConfig::default()
        });
        let error = Verifier::from_config(&config).unwrap_err().to_string();
        assert!(error.starts_with("auth.public_key_file "), "{error}");
        assert!(error.contains(expected), "{}: {error}", path.display());
    }
}

#[test]
fn only_a_shared_secret_can_sign() {
    assert!(signing_secret("auth", &hmac_config().short_form).is_ok());
    let error =
        signing_secret("auth", &public_key_config("rsa.public.pem").short_form).unwrap_err();
    assert!(
        error.to_string().contains("auth.public_key_file"),
        "{error}"
    );
    assert!(signing_secret("auth", &IssuerConfig::default()).is_err());
}

#[test]
fn a_verifier_is_shared_between_threads_and_prints_no_secret() {
    fn shared<T: Send + Sync + std::fmt::Debug>(value: &T) -> String {
        format!("{value:?}")
    }
    let config = hmac_config();
    for printed in [
        shared(&verifier(&config)),
        shared(&signing_secret("auth", &config.short_form).unwrap()),
        format!("{config:?}"),
    ] {
        assert!(!printed.contains("thirty-two"), "{printed}");
        assert!(!printed.contains("97, 32, 115"), "{printed}");
    }
}
