//! Key sets: which keys of a file count, and how the file's changes come into force.

use std::os::unix::fs::symlink;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;

use super::super::jwks::{JwksError, parse};
use super::super::jwks_file::{LOOK_INTERVAL, READ_INTERVAL};
use super::*;

/// The public JWK of a private key of the fixtures, overwritten by `with`.
fn jwk(name: &str, with: &Value) -> Value {
    let pem = pem(&format!("{name}.public.pem"));
    let key = match name {
        "rsa" => DecodingKey::from_rsa_pem(&pem),
        "ed25519" => DecodingKey::from_ed_pem(&pem),
        _ => DecodingKey::from_ec_pem(&pem),
    };
    let mut jwk = json!(Jwk::from_decoding_key(&key.unwrap(), None).unwrap());
    for (name, value) in with.as_object().unwrap() {
        if value.is_null() {
            jwk.as_object_mut().unwrap().remove(name);
        } else {
            jwk[name] = value.clone();
        }
    }
    jwk
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

fn token(name: &str, algorithm: Algorithm, key_id: Option<&str>) -> String {
    let mut header = Header::new(algorithm);
    header.kid = key_id.map(str::to_owned);
    signed(
        &header,
        &claims(&json!({})),
        &private_key(&format!("{name}.private.pem")),
    )
}

struct SetFile {
    _directory: tempfile::TempDir,
    path: PathBuf,
    verifier: Verifier,
    start: Instant,
}

impl SetFile {
    fn new(keys: &[Value]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        fs::write(&path, set(keys)).unwrap();
        let verifier = verifier(&AuthConfig::from(IssuerConfig {
            jwks_file: Some(path.clone()),
            ..IssuerConfig::default()
        }));
        Self {
            _directory: directory,
            path,
            verifier,
            start: Instant::now(),
        }
    }

    /// Replaces the file in one step, as a careful operator does.
    fn replace(&self, bytes: &[u8]) {
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }

    /// Verifies as if `after` had passed since the start.
    fn verify(&self, token: &str, after: Duration) -> Result<(), AuthError> {
        self.verifier
            .verify_at(token, now(), self.start + after)
            .map(drop)
    }
}

const UNKNOWN: AuthError = AuthError::Invalid("no key has its key id");
const WRONG_ALGORITHM: AuthError = AuthError::Invalid("its algorithm does not fit the key");
const BAD_SIGNATURE: AuthError = AuthError::Invalid("its signature does not match the key");
const ALL: [(&str, Algorithm); 6] = [
    ("rsa", Algorithm::RS256),
    ("rsa", Algorithm::RS384),
    ("rsa", Algorithm::PS512),
    ("p256", Algorithm::ES256),
    ("p384", Algorithm::ES384),
    ("ed25519", Algorithm::EdDSA),
];

fn all_keys() -> Vec<Value> {
    ["rsa", "p256", "p384", "ed25519"]
        .map(|name| jwk(name, &json!({"kid": name})))
        .to_vec()
}

#[test]
fn each_key_verifies_its_tokens_with_and_without_a_key_id() {
    let file = SetFile::new(&all_keys());
    let nameless: Vec<Value> = ["rsa", "p256", "p384", "ed25519"]
        .map(|name| jwk(name, &json!({})))
        .to_vec();
    let without_ids = SetFile::new(&nameless);
    for (name, algorithm) in ALL {
        for key_id in [Some(name), None] {
            let token = token(name, algorithm, key_id);
            assert_eq!(
                file.verify(&token, Duration::ZERO),
                Ok(()),
                "{name} {key_id:?}"
            );
            assert_eq!(
                without_ids.verify(&token, Duration::ZERO),
                Ok(()),
                "{name} {key_id:?}"
            );
        }
        let other = if name == "rsa" { "p256" } else { "rsa" };
        let refused = file.verify(&token(name, algorithm, Some(other)), Duration::ZERO);
        assert_eq!(refused, Err(WRONG_ALGORITHM), "{name}");
        let refused = file.verify(&token(name, algorithm, Some("absent")), Duration::ZERO);
        assert_eq!(refused, Err(UNKNOWN), "{name}");
    }
    let refused = file.verify(&token("p256-other", Algorithm::ES256, None), Duration::ZERO);
    assert_eq!(refused, Err(BAD_SIGNATURE));
}

#[test]
fn a_keys_own_alg_narrows_what_it_verifies() {
    let file = SetFile::new(&[
        jwk("rsa", &json!({"alg": "RS256", "use": "sig"})),
        jwk("ed25519", &json!({"alg": "Ed25519", "key_ops": ["verify"]})),
    ]);
    for (name, algorithm, expected) in [
        ("rsa", Algorithm::RS256, Ok(())),
        ("rsa", Algorithm::RS384, Err(WRONG_ALGORITHM)),
        ("rsa", Algorithm::PS256, Err(WRONG_ALGORITHM)),
        ("ed25519", Algorithm::EdDSA, Ok(())),
    ] {
        let token = token(name, algorithm, None);
        assert_eq!(
            file.verify(&token, Duration::ZERO),
            expected,
            "{algorithm:?}"
        );
    }
}

/// Software that writes a number as ASN.1 has it puts a zero before it.
#[test]
fn zeros_before_the_numbers_of_an_rsa_key_do_not_matter() {
    let plain = jwk("rsa", &json!({}));
    let padded = |name: &str, zeros: usize| {
        let number = URL_SAFE_NO_PAD.decode(plain[name].as_str().unwrap());
        URL_SAFE_NO_PAD.encode([vec![0; zeros], number.unwrap()].concat())
    };
    for (n, e) in [(1, 0), (0, 1), (1, 1), (8, 5)] {
        let file = SetFile::new(&[jwk(
            "rsa",
            &json!({"n": padded("n", n), "e": padded("e", e)}),
        )]);
        for algorithm in [Algorithm::RS256, Algorithm::PS512] {
            let token = token("rsa", algorithm, None);
            assert_eq!(file.verify(&token, Duration::ZERO), Ok(()), "{n} {e}");
        }
    }
    for zero in ["", "AA", "AAAA"] {
        for name in ["n", "e"] {
            let (_, remarks) =
                parse(&set(&[plain.clone(), jwk("rsa", &json!({name: zero}))])).unwrap();
            assert!(remarks[0].text.contains("missing or malformed"), "{name}");
        }
    }
}

/// A secret in a public set is never one to verify with, whatever the token says.
#[test]
fn an_hmac_token_never_passes_a_key_set() {
    let oct = json!({"kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let file = SetFile::new(&[oct, jwk("rsa", &json!({"kid": "rsa"}))]);
    for (key_id, expected) in [
        (Some("s"), UNKNOWN),
        (Some("rsa"), WRONG_ALGORITHM),
        (None, WRONG_ALGORITHM),
    ] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = key_id.map(str::to_owned);
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = signed(&header, &claims(&json!({})), &key);
        assert_eq!(
            file.verify(&token, Duration::ZERO),
            Err(expected),
            "{key_id:?}"
        );
    }
}

#[test]
fn entries_that_cannot_be_used_are_left_out_with_a_remark() {
    let good = jwk("p256", &json!({}));
    let y = good["y"].as_str().unwrap();
    for (entry, expected) in [
        (jwk("rsa", &json!({"use": "enc"})), "not for signatures"),
        (
            jwk("rsa", &json!({"key_ops": ["encrypt"]})),
            "not for verifying",
        ),
        (jwk("rsa", &json!({"key_ops": []})), "not for verifying"),
        (jwk("rsa", &json!({"alg": "RSA-OAEP"})), "its algorithm"),
        (jwk("rsa", &json!({"alg": "HS256"})), "its algorithm"),
        (jwk("rsa", &json!({"alg": "none"})), "its algorithm"),
        (jwk("rsa", &json!({"alg": "ES256"})), "its algorithm"),
        (jwk("p256", &json!({"alg": "ES384"})), "its algorithm"),
        (jwk("rsa", &json!({"n": null})), "missing or malformed"),
        (jwk("rsa", &json!({"n": "AQAB"})), "2048 to 8192"),
        (jwk("rsa", &json!({"n": "%%%"})), "missing or malformed"),
        (jwk("rsa", &json!({"e": "%"})), "missing or malformed"),
        (
            jwk("p256", &json!({"crv": "P-384"})),
            "missing or malformed",
        ),
        (jwk("p256", &json!({"crv": "P-521"})), "its curve"),
        (jwk("p256", &json!({"crv": "secp256k1"})), "its curve"),
        (jwk("p256", &json!({"crv": null})), "its curve"),
        (
            jwk("p256", &json!({"x": format!("AA{y}"), "y": null})),
            "missing or malformed",
        ),
        (jwk("p256", &json!({"x": ""})), "missing or malformed"),
        (jwk("ed25519", &json!({"crv": "X25519"})), "its curve"),
        (jwk("ed25519", &json!({"crv": "Ed448"})), "its curve"),
        (
            jwk("ed25519", &json!({"x": "AAAA"})),
            "missing or malformed",
        ),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), "shared secret"),
        (json!({"kty": "AKP", "pub": "AAAA"}), "key type"),
        (json!({"kid": "x"}), "malformed"),
        (json!({"kty": 7}), "malformed"),
        (json!(["RSA", null, null, null, null]), "malformed"),
        (json!("RSA"), "malformed"),
        (json!(null), "malformed"),
    ] {
        let (keys, remarks) = parse(&set(&[entry.clone(), good.clone()])).unwrap();
        assert_eq!(keys.len(), 1, "{entry}");
        assert_eq!(remarks.len(), 1, "{entry}");
        assert!(
            remarks[0].skipped && remarks[0].text.contains(expected),
            "{entry} {remarks:?}"
        );
        let told = parse(&set(&[entry])).unwrap_err().to_string();
        let text = format!("; keys[0]: {}", remarks[0].text);
        assert!(told.ends_with(&text), "{told}");
    }
    let told = parse(&set(&vec![json!({"kty": "oct", "kid": "secret"}); 5]));
    let told = told.unwrap_err().to_string();
    assert!(
        told.contains("keys[2]") && told.ends_with("; and 2 more") && !told.contains("keys[3]"),
        "{told}"
    );
    let (keys, remarks) = parse(&set(&[jwk("p256", &json!({"d": "AAAA"}))])).unwrap();
    assert_eq!((keys.len(), remarks[0].skipped), (1, false));
}

#[test]
fn a_byte_order_mark_and_what_is_not_used_do_not_matter() {
    let with = json!({ "x-owner": "HALF", "x-weight": "NUMBER" });
    let text = String::from_utf8(set(&[jwk("rsa", &with)])).unwrap();
    let text = text
        .replace("HALF", "Ann \\ud83d")
        .replace("\"NUMBER\"", "1e400");
    let (keys, remarks) = parse(format!("\u{feff}{text}").as_bytes()).unwrap();
    assert_eq!((keys.len(), remarks), (1, vec![]));
    let pem = [b"\xef\xbb\xbf", &*pem("rsa.public.pem")].concat();
    assert_eq!(parse(&pem).unwrap_err(), JwksError::Pem);
}

#[test]
fn a_file_that_is_no_key_set_is_refused_with_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let one = jwk("rsa", &json!({})).to_string();
    for (bytes, expected) in [
        (b"".as_slice(), "is not JSON"),
        (b"{", "is not JSON"),
        (b"{\n \xff", "is not UTF-8 at line 2 column 2"),
        (b"[]", "is not a JSON Web Key Set"),
        (b"{}", "is not a JSON Web Key Set"),
        (br#"{"keys":{}}"#, "is not a JSON Web Key Set"),
        (br#"{"keys":[]}"#, "holds no usable key"),
        (one.as_bytes(), "is one JSON Web Key"),
        (&pem("rsa.public.pem"), "set public_key_file instead"),
    ] {
        fs::write(&path, bytes).unwrap();
        let config = AuthConfig::from(IssuerConfig {
            jwks_file: Some(path.clone()),
            ..IssuerConfig::default()
        });
        let error = Verifier::from_config(&config).unwrap_err().to_string();
        assert!(error.starts_with("auth.jwks_file "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let config = AuthConfig::from(IssuerConfig {
        jwks_file: Some(directory.path().join("absent")),
        ..IssuerConfig::default()
    });
    let error = Verifier::from_config(&config).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn a_new_key_in_the_file_is_taken_with_its_first_token() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let old = token("rsa", Algorithm::RS256, Some("old"));
    let new = token("p256", Algorithm::ES256, Some("new"));
    // A flood of unknown ids finds the file unchanged, and does not use up its reads.
    for _ in 0..100 {
        assert_eq!(file.verify(&new, READ_INTERVAL), Err(UNKNOWN));
    }
    let both = [
        jwk("rsa", &json!({"kid": "old"})),
        jwk("p256", &json!({"kid": "new"})),
    ];
    file.replace(&set(&both));
    assert_eq!(file.verify(&new, READ_INTERVAL), Ok(()));
    assert_eq!(file.verify(&old, READ_INTERVAL), Ok(()));
}

#[test]
fn a_new_key_under_an_old_id_is_taken() {
    let file = SetFile::new(&[jwk("p256-other", &json!({"kid": "k"}))]);
    let new = token("p256", Algorithm::ES256, Some("k"));
    assert_eq!(file.verify(&new, READ_INTERVAL), Err(BAD_SIGNATURE));
    file.replace(&set(&[jwk("p256", &json!({"kid": "k"}))]));
    assert_eq!(file.verify(&new, READ_INTERVAL), Ok(()));
}

#[test]
fn the_file_is_read_at_most_once_in_ten_seconds() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "1"}))]);
    let second = token("p256", Algorithm::ES256, Some("2"));
    let third = token("p384", Algorithm::ES384, Some("3"));
    file.replace(&set(&[jwk("p256", &json!({"kid": "2"}))]));
    let second_left = Duration::from_secs(1);
    let just_before = READ_INTERVAL - second_left;
    // It is there, and a 4001 would be final. The file was read a moment before the start.
    let refused = file.verify(&second, just_before);
    assert!(
        matches!(refused, Err(AuthError::NotYet(pause)) if pause <= second_left),
        "{refused:?}"
    );
    assert_eq!(file.verify(&second, READ_INTERVAL), Ok(()));
    file.replace(&set(&[jwk("p384", &json!({"kid": "3"}))]));
    let soon = Err(AuthError::NotYet(second_left));
    assert_eq!(file.verify(&third, READ_INTERVAL + just_before), soon);
    assert_eq!(file.verify(&third, READ_INTERVAL * 2), Ok(()));
}

/// A key that was taken out of the file is taken out of force without any unknown key being seen.
#[test]
fn a_removed_key_is_soon_refused() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let old = token("rsa", Algorithm::RS256, Some("old"));
    file.replace(&set(&[jwk("p256", &json!({"kid": "new"}))]));
    assert_eq!(file.verify(&old, LOOK_INTERVAL / 2), Ok(()));
    assert_eq!(file.verify(&old, LOOK_INTERVAL), Err(UNKNOWN));
}

/// Its tokens are refused at once. Its sockets are closed only if a second read says the same.
#[test]
fn a_removed_key_is_withdrawn_by_the_second_read() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let token = token("rsa", Algorithm::RS256, Some("old"));
    let credential = file.verifier.verify_at(&token, now(), file.start);
    let credential = credential.unwrap().credential;
    let (old, new) = (
        set(&[jwk("rsa", &json!({"kid": "old"}))]),
        set(&[jwk("p256", &json!({"kid": "new"}))]),
    );
    let look = |second| file.verifier.look(file.start + Duration::from_secs(second));
    let trusts = || file.verifier.trusts(&credential);
    assert!(!look(10) && trusts());
    file.replace(&new);
    assert!(!look(20) && trusts());
    // It was a mistake.
    file.replace(&old);
    assert!(!look(30) && trusts());
    file.replace(&new);
    assert!(!look(40) && !look(50) && !look(60) && trusts());
    // Half-written, it decides nothing.
    file.replace(b"{");
    assert!(!look(70) && !look(80) && trusts());
    file.replace(&new);
    assert!(look(90) && !trusts());
    assert!(!look(100) && !look(130));
    // Without a change of the file, too.
    file.replace(&old);
    assert!(!look(140) && trusts());
    file.replace(&new);
    assert!(!look(150) && !look(179) && look(180) && !trusts());
    // Another issuer's key of the same id is not it.
    let foreign = Credential {
        issuer: Some("https://other.example.com".into()),
        ..credential.clone()
    };
    file.replace(&old);
    assert!(!look(190) && trusts());
    let strict = verifier(&AuthConfig::from(IssuerConfig {
        issuer: Some("https://id.example.com".to_owned()),
        jwks_file: Some(file.path.clone()),
        ..IssuerConfig::default()
    }));
    assert!(!strict.trusts(&foreign) && !strict.trusts(&credential));
}

#[test]
fn a_file_that_became_unusable_leaves_the_old_keys_in_force() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let old = token("rsa", Algorithm::RS256, Some("old"));
    let new = token("p256", Algorithm::ES256, Some("new"));
    let mut after = READ_INTERVAL;
    for bad in [b"{\"keys\": [".as_slice(), b"", br#"{"keys":[]}"#] {
        file.replace(bad);
        assert_eq!(file.verify(&old, after), Ok(()));
        // Perhaps it is only half-written: for as long as that may take, nobody is refused for good.
        assert_eq!(
            file.verify(&new, after),
            Err(AuthError::NotYet(READ_INTERVAL))
        );
        let second = Duration::from_secs(1);
        let almost = after + READ_INTERVAL - second;
        assert_eq!(file.verify(&new, almost), Err(AuthError::NotYet(second)));
        after += READ_INTERVAL;
        assert_eq!(file.verify(&new, after), Err(UNKNOWN));
        assert_eq!(file.verify(&old, after), Ok(()));
    }
    file.replace(&set(&[jwk("p256", &json!({"kid": "new"}))]));
    assert_eq!(file.verify(&new, after), Ok(()));
}

/// Whoever writes a file in place leaves it empty, then half-written, then whole.
#[test]
fn a_key_set_that_is_being_written_refuses_nobody_for_good() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let new = token("p256", Algorithm::ES256, Some("new"));
    let whole = set(&[jwk("p256", &json!({"kid": "new"}))]);
    fs::write(&file.path, &whole[..40]).unwrap();
    let later = |pause| Err(AuthError::NotYet(pause));
    assert_eq!(file.verify(&new, READ_INTERVAL), later(READ_INTERVAL));
    fs::write(&file.path, &whole).unwrap();
    let second = Duration::from_secs(1);
    let pause = READ_INTERVAL - second;
    assert_eq!(file.verify(&new, READ_INTERVAL + second), later(pause));
    assert_eq!(file.verify(&new, READ_INTERVAL * 2), Ok(()));
}

/// Reading it would wait for who writes, and every join with it.
#[test]
fn a_fifo_in_the_place_of_the_file_is_not_waited_for() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let old = token("rsa", Algorithm::RS256, Some("old"));
    let new = token("p256", Algorithm::ES256, Some("new"));
    fs::remove_file(&file.path).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&file.path)
        .status();
    assert!(made.unwrap().success());
    let later = Err(AuthError::NotYet(READ_INTERVAL));
    assert_eq!(file.verify(&new, READ_INTERVAL), later);
    assert_eq!(file.verify(&old, READ_INTERVAL), Ok(()));
    file.replace(&set(&[jwk("p256", &json!({"kid": "new"}))]));
    assert_eq!(file.verify(&new, 2 * READ_INTERVAL), Ok(()));
}

#[test]
fn a_file_that_was_away_is_read_when_it_is_back() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let old = token("rsa", Algorithm::RS256, Some("old"));
    let new = token("p256", Algorithm::ES256, Some("new"));
    fs::remove_file(&file.path).unwrap();
    let later = Err(AuthError::NotYet(READ_INTERVAL));
    assert_eq!(file.verify(&new, READ_INTERVAL), later);
    assert_eq!(file.verify(&new, READ_INTERVAL * 2), Err(UNKNOWN));
    assert_eq!(file.verify(&old, READ_INTERVAL), Ok(()));
    file.replace(&set(&[jwk("p256", &json!({"kid": "new"}))]));
    assert_eq!(file.verify(&new, READ_INTERVAL), Ok(()));
}

/// Kubernetes swaps the files of a ConfigMap by a symbolic link to their folder.
#[test]
fn a_swapped_symbolic_link_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    for (version, key) in [("v1", "rsa"), ("v2", "p256")] {
        let folder = directory.path().join(version);
        fs::create_dir(&folder).unwrap();
        fs::write(
            folder.join("jwks.json"),
            set(&[jwk(key, &json!({"kid": key}))]),
        )
        .unwrap();
    }
    let link = directory.path().join("data");
    symlink("v1", &link).unwrap();
    let verifier = verifier(&AuthConfig::from(IssuerConfig {
        jwks_file: Some(link.join("jwks.json")),
        ..IssuerConfig::default()
    }));
    let later = Instant::now() + READ_INTERVAL;
    let new = token("p256", Algorithm::ES256, Some("p256"));
    assert!(verifier.verify_at(&new, now(), later).is_err());
    let new_link = directory.path().join("data.new");
    symlink("v2", &new_link).unwrap();
    fs::rename(&new_link, &link).unwrap();
    assert!(verifier.verify_at(&new, now(), later).is_ok());
}

/// Refusing them would be final: 4001 tells a client to stop.
#[test]
fn tokens_that_come_together_all_see_the_new_key() {
    let file = SetFile::new(&[jwk("rsa", &json!({"kid": "old"}))]);
    let new = token("p256", Algorithm::ES256, Some("new"));
    file.replace(&set(&[jwk("p256", &json!({"kid": "new"}))]));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(file.verify(&new, READ_INTERVAL), Ok(())));
        }
    });
}
