//! A JSON Web Key Set, RFC 7517, becomes verifying keys. Pure: bytes in, keys and skipped entries
//! out. The file it comes from is `jwks_file`'s.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::AuthError;
use super::credential::KeyId;
use super::jws::{Jws, WRONG_ALGORITHM, algorithm};
use super::key::{Curve, RsaKeyError, VerifyingKey, ec_key, ed25519_key, rsa_key};
use crate::json::{self, without_bom};

/// Keys of which any may have signed a token. A single key is a set of one without an id.
#[derive(Debug)]
pub(super) struct KeySet(Vec<NamedKey>);

#[derive(Debug, Clone)]
struct NamedKey {
    id: Option<String>,
    key: VerifyingKey,
}

pub(super) const UNKNOWN_KEY: AuthError = AuthError::Invalid("no key has its key id");
const BAD_SIGNATURE: AuthError = AuthError::Invalid("its signature does not match the key");

impl KeySet {
    /// The set of keys without a name, as that of a secret or a PEM file: a token's `kid` does not matter.
    pub(super) fn of(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        let keys = keys.into_iter().map(|key| NamedKey { id: None, key });
        Self(keys.collect())
    }

    /// The keys that take some of these algorithms, for these only. It may be empty.
    pub(super) fn only(self, algorithms: &[Algorithm]) -> Self {
        let keys = self.0.into_iter().filter_map(|NamedKey { id, key }| {
            let key = key.only(algorithms)?;
            Some(NamedKey { id, key })
        });
        Self(keys.collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys themselves, whatever the set calls them.
    pub(super) fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(|NamedKey { key, .. }| key.id())
    }

    pub(super) fn contains(&self, key: KeyId) -> bool {
        self.ids().any(|id| id == key)
    }

    /// The name that the set has for a key.
    pub(super) fn name(&self, key: KeyId) -> Option<&str> {
        let named = self.0.iter().find(|named| named.key.id() == key);
        named?.id.as_deref()
    }

    /// All keys, in their order, each with the name that the set has for it.
    pub(super) fn named(&self) -> impl Iterator<Item = (Option<&str>, &VerifyingKey)> {
        self.0
            .iter()
            .map(|NamedKey { id, key }| (id.as_deref(), key))
    }

    /// These keys, and those of `other` that are `wanted`.
    pub(super) fn and(mut self, other: &Self, wanted: impl Fn(KeyId) -> bool) -> Self {
        let more = other.0.iter().filter(|named| wanted(named.key.id()));
        self.0.extend(more.cloned());
        self
    }

    /// Whether a newer set may have the key of the token: none of these has the id that it names, or it names none.
    pub(super) fn may_lack_key(&self, jws: &Jws<'_>) -> bool {
        let is_public = jws.algorithm.family() != AlgorithmFamily::Hmac;
        is_public
            && match &jws.key_id {
                None => true,
                Some(wanted) => wanted.as_str().is_some_and(|wanted| {
                    !self
                        .0
                        .iter()
                        .any(|NamedKey { id, .. }| id.as_deref() == Some(wanted))
                }),
            }
    }

    /// Which of the keys signed the token. An id restricts only where both sides name one: a
    /// token without `kid` is tried with every key, and a key without one on every token (RFC 7515
    /// section 4.1.4 calls it a hint).
    ///
    /// # Errors
    /// [`AuthError::Invalid`] with what came nearest.
    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<KeyId, AuthError> {
        let mut nearest = UNKNOWN_KEY;
        for NamedKey { id, key } in &self.0 {
            if let (Some(id), Some(wanted)) = (id, &jws.key_id)
                && wanted.as_str() != Some(id)
            {
                continue;
            }
            if key.verifies(jws) {
                return Ok(key.id());
            }
            if key.takes(jws.algorithm) {
                nearest = BAD_SIGNATURE;
            } else if nearest == UNKNOWN_KEY {
                nearest = WRONG_ALGORITHM;
            }
        }
        Err(nearest)
    }
}

/// Something about one entry of a set that its operator should know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// Place in `keys`, from 0.
    pub index: usize,
    pub key_id: Option<String>,
    /// Whether the entry is not used at all.
    pub skipped: bool,
    pub text: &'static str,
}

/// Why a file is not a key set. Completes a sentence that begins with the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwksError {
    /// It is not JSON.
    #[error("is {0}")]
    NotJson(json::Error),
    #[error("holds a PEM key: set public_key_file instead")]
    Pem,
    #[error("is not a JSON Web Key Set: an object with a list `keys` is wanted")]
    NoKeys,
    #[error("is one JSON Web Key: write it as {{\"keys\":[…]}}")]
    OneKey,
    /// With what is wrong with the first keys.
    #[error(
        "holds no usable key: only RSA, EC P-256, EC P-384 and Ed25519 keys for signatures can be used{0}"
    )]
    NothingUsable(String),
}

/// So many keys of a set in which nothing can be used are said what is wrong with them.
const REPORTED_MAX: usize = 3;

impl JwksError {
    fn nothing_usable(remarks: &[Remark]) -> Self {
        let mut reported: String = remarks
            .iter()
            .take(REPORTED_MAX)
            .map(|Remark { index, text, .. }| format!("; keys[{index}]: {text}"))
            .collect();
        if remarks.len() > REPORTED_MAX {
            reported.push_str(&format!("; and {} more", remarks.len() - REPORTED_MAX));
        }
        Self::NothingUsable(reported)
    }
}

/// Reads the key set of a file. Entries that cannot be used are left out, as RFC 7517 section 5 asks, each with
/// a remark.
///
/// # Errors
/// [`JwksError`] where there is no key set, or none of its keys can be used.
pub(super) fn parse(file: &[u8]) -> Result<(KeySet, Vec<Remark>), JwksError> {
    read(file, false)
}

/// Reads a key set that everybody can read, as [`parse`]. Keys with a private part are left out, too: everybody can
/// sign with them.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_published(answer: &[u8]) -> Result<(KeySet, Vec<Remark>), JwksError> {
    read(answer, true)
}

fn read(file: &[u8], is_published: bool) -> Result<(KeySet, Vec<Remark>), JwksError> {
    if without_bom(file).starts_with(b"-----BEGIN ") {
        return Err(JwksError::Pem);
    }
    let set = Value::from(json::parse(file).map_err(JwksError::NotJson)?);
    let entries = match (set.get("keys"), set.get("kty")) {
        (Some(Value::Array(entries)), _) => entries,
        (None, Some(_)) => return Err(JwksError::OneKey),
        _ => return Err(JwksError::NoKeys),
    };
    let mut keys = Vec::new();
    let mut remarks = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let key_id = entry.get("kid").and_then(Value::as_str).map(str::to_owned);
        let mut remark = |skipped, text| {
            remarks.push(Remark {
                index,
                key_id: key_id.clone(),
                skipped,
                text,
            });
        };
        // An array would pass for a struct.
        let parsed = match entry {
            Value::Object(_) => JwksEntry::deserialize(entry).map_err(|_| MALFORMED),
            _ => Err(MALFORMED),
        };
        // Of an RSA key one of the primes is enough.
        let is_private = ["d", "p", "q"].map(|name| entry.get(name).is_some());
        let is_private = is_private.contains(&true);
        match parsed.and_then(|entry| entry.key()) {
            Ok(_) if is_private && is_published => remark(true, PUBLISHED),
            Ok(key) => {
                if is_private {
                    remark(false, "it holds a private key, which belongs to its signer");
                }
                keys.push(NamedKey { id: key_id, key });
            }
            Err(reason) => remark(true, reason),
        }
    }
    if keys.is_empty() {
        return Err(JwksError::nothing_usable(&remarks));
    }
    Ok((KeySet(keys), remarks))
}

const MALFORMED: &str = "it is malformed";
const PUBLISHED: &str = "its private part is published, so that everybody can sign with it";
const MISSING: &str = "a parameter of its key type is missing or malformed";
const OTHER_ALGORITHM: &str = "its algorithm is not one that its key type can verify";
const OTHER_CURVE: &str = "its curve is not supported";

/// One JWK: the parameters of RFC 7517 section 4 and RFC 7518 section 6 that decide.
#[derive(Deserialize)]
struct JwksEntry {
    kty: String,
    #[serde(rename = "kid")]
    _key_id: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    #[serde(rename = "d")]
    _private: Option<IgnoredAny>,
}

impl JwksEntry {
    fn key(&self) -> Result<VerifyingKey, &'static str> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("it is not for signatures (`use`)");
        }
        if let Some(operations) = &self.key_ops
            && !operations.iter().any(|operation| operation == "verify")
        {
            return Err("it is not for verifying (`key_ops`)");
        }
        let key = match self.kty.as_str() {
            "RSA" => self.rsa(),
            "EC" => self.ec(),
            "OKP" => self.okp(),
            // A public file is no place for a secret, and a set that mixes both kinds is how an
            // HMAC token comes to pass as a signed one.
            "oct" => Err("it is a shared secret (`oct`): set hmac_secret_file instead"),
            _ => Err("its key type is not supported"),
        }?;
        match &self.alg {
            None => Ok(key),
            Some(name) => algorithm(name)
                .and_then(|algorithm| key.only(&[algorithm]))
                .ok_or(OTHER_ALGORITHM),
        }
    }

    fn rsa(&self) -> Result<VerifyingKey, &'static str> {
        let (Some(n), Some(e)) = (&self.n, &self.e) else {
            return Err(MISSING);
        };
        rsa_key(n, e).map_err(|error| match error {
            RsaKeyError::Encoding => MISSING,
            RsaKeyError::Bits(_) => "its modulus does not have 2048 to 8192 bits",
        })
    }

    fn ec(&self) -> Result<VerifyingKey, &'static str> {
        let curve = match self.crv.as_deref() {
            Some("P-256") => Curve::P256,
            Some("P-384") => Curve::P384,
            _ => return Err(OTHER_CURVE),
        };
        let mut point = vec![4];
        point.extend(bytes(self.x.as_ref())?);
        // RFC 7518 section 6.2.1.2: each coordinate has the curve's full length, so that a wrong
        // split of the two would be a wrong length of one.
        let x_bytes = point.len() - 1;
        point.extend(bytes(self.y.as_ref())?);
        if point.len() - 1 != 2 * x_bytes {
            return Err(MISSING);
        }
        ec_key(curve, &point).ok_or(MISSING)
    }

    /// RFC 8037 section 2.
    fn okp(&self) -> Result<VerifyingKey, &'static str> {
        match self.crv.as_deref() {
            Some("Ed25519") => ed25519_key(&bytes(self.x.as_ref())?).ok_or(MISSING),
            _ => Err(OTHER_CURVE),
        }
    }
}

fn bytes(parameter: Option<&String>) -> Result<Vec<u8>, &'static str> {
    parameter
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(MISSING)
}
