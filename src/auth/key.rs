//! Keys that verify: a shared secret or one public key, each with the algorithms it stands for. A
//! key names its algorithms itself, from its type and curve, so that no token can choose them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::credential::KeyId;
use super::jws::Jws;
use crate::json::without_bom;

/// Bits an RSA modulus may have: RFC 7518 section 3.3 asks for 2048 at least, and the library
/// verifies with 8192 at most.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key and the algorithms it verifies.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    id: KeyId,
    /// RFC 7638, with SHA-256. A shared secret has none that may be shown.
    thumbprint: Option<[u8; 32]>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// The public key whose required members RFC 7638 section 3.2 writes so.
    fn of_public_key(members: &str, algorithms: Vec<Algorithm>, key: DecodingKey) -> Self {
        let thumbprint = Sha256::digest(members).into();
        let id = KeyId::of_public_key(&thumbprint);
        Self::new(id, Some(thumbprint), algorithms, key)
    }

    /// `algorithms` must be of the key's own family: a foreign one never verifies anything.
    fn new(
        id: KeyId,
        thumbprint: Option<[u8; 32]>,
        algorithms: Vec<Algorithm>,
        key: DecodingKey,
    ) -> Self {
        debug_assert!(
            algorithms
                .iter()
                .all(|algorithm| algorithm.family() == key.family())
        );
        Self {
            id,
            thumbprint,
            algorithms,
            key,
        }
    }

    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// In base64url, as `herald revoke --key` takes it.
    pub(super) fn thumbprint(&self) -> Option<String> {
        self.thumbprint.map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The same key for these algorithms only, if some of its own are among them.
    pub(super) fn only(mut self, algorithms: &[Algorithm]) -> Option<Self> {
        self.algorithms.retain(|own| algorithms.contains(own));
        (!self.algorithms.is_empty()).then_some(self)
    }

    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the signature is this key's. The library compares an HMAC in constant time.
    pub(super) fn verifies(&self, jws: &Jws<'_>) -> bool {
        self.takes(jws.algorithm)
            && jsonwebtoken::crypto::verify(
                jws.signature,
                jws.message.as_bytes(),
                &self.key,
                jws.algorithm,
            )
            .unwrap_or(false)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?})", self.algorithms)
    }
}

/// A shared secret that is long enough. Never printed.
#[derive(Clone)]
pub struct HmacSecret(Vec<u8>);

impl HmacSecret {
    /// Fewest bytes taken: the output size of SHA-256, RFC 7518 section 3.2.
    pub const MIN_BYTES: usize = 32;

    /// Takes `bytes` but for what editors and `echo` add: a byte order mark, and one newline at the end.
    ///
    /// # Errors
    /// [`HmacSecretError`].
    pub fn new(bytes: &[u8]) -> Result<Self, HmacSecretError> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        // A public key as a secret would let everyone who has it sign tokens.
        let bytes = without_bom(bytes);
        if bytes.starts_with(b"-----BEGIN ") {
            return Err(HmacSecretError::Pem);
        }
        // Text of ASCII has zeros then. Without them they may be any bytes.
        let is_utf16 = [b"\xff\xfe", b"\xfe\xff"].map(|bom| bytes.starts_with(bom));
        if is_utf16.contains(&true) && bytes.contains(&0) {
            return Err(HmacSecretError::Utf16);
        }
        if bytes.len() < Self::MIN_BYTES {
            return Err(HmacSecretError::Short);
        }
        Ok(Self(bytes.to_vec()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::new(
            KeyId::of_secret(&self.0),
            None,
            AlgorithmFamily::Hmac.algorithms().to_vec(),
            DecodingKey::from_secret(&self.0),
        )
    }
}

impl fmt::Debug for HmacSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacSecret(***)")
    }
}

/// Why a shared secret is refused. Completes a sentence that begins with the setting's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HmacSecretError {
    /// RFC 7518 section 3.2.
    #[error(
        "is shorter than {} bytes: make one with `openssl rand -hex 32`",
        HmacSecret::MIN_BYTES
    )]
    Short,
    /// The secret is a PEM file's text.
    #[error("holds a PEM key, not a shared secret: a public key belongs in public_key_file")]
    Pem,
    /// The issuer has the text in another encoding.
    #[error("is text in UTF-16: save it as UTF-8 or ASCII")]
    Utf16,
}

/// Why a file is not a public key. Completes a sentence that begins with the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublicKeyError {
    #[error("holds no PEM public key: a line `-----BEGIN PUBLIC KEY-----` is missing")]
    NoPem,
    #[error("holds a JSON Web Key: set jwks_file instead")]
    Json,
    #[error(
        "holds a private key, which does not belong on a gateway: \
         `openssl pkey -in FILE -pubout` makes the public key of it"
    )]
    Private,
    #[error(
        "holds a certificate: `openssl x509 -in FILE -pubkey -noout` makes the public key of it"
    )]
    Certificate,
    #[error("holds {0} PEM blocks: one public key is wanted, jwks_file takes several")]
    Several(usize),
    #[error("holds a PEM block of another kind than PUBLIC KEY")]
    OtherKind,
    #[error("is damaged: its PEM block is not the base64 of a key")]
    Damaged,
    #[error("holds an RSA key of {0} bits: 2048 to 8192 are wanted")]
    RsaBits(usize),
    #[error(
        "holds a key of a kind that is not supported: RSA, EC P-256, EC P-384 (points uncompressed) \
         and Ed25519 are"
    )]
    Unsupported,
}

/// Reads the one public key of a PEM file: `PUBLIC KEY` (RFC 7468 section 13) or `RSA PUBLIC KEY`
/// (PKCS #1).
pub(super) fn public_key_from_pem(file: &[u8]) -> Result<VerifyingKey, PublicKeyError> {
    let file = without_bom(file);
    let text = String::from_utf8_lossy(file);
    let labels: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN "))
        .map(|label| label.trim_end_matches('-'))
        .collect();
    match labels.as_slice() {
        [] if text.trim_start().starts_with('{') => Err(PublicKeyError::Json),
        [] => Err(PublicKeyError::NoPem),
        labels if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) => {
            Err(PublicKeyError::Private)
        }
        labels if labels.iter().any(|label| label.ends_with("CERTIFICATE")) => {
            Err(PublicKeyError::Certificate)
        }
        ["PUBLIC KEY"] => from_spki(file),
        ["RSA PUBLIC KEY"] => from_rsa_pem(file),
        [_] => Err(PublicKeyError::OtherKind),
        several => Err(PublicKeyError::Several(several.len())),
    }
}

/// What stands before the key's own bytes in a SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7.
/// For these three kinds it is always the same, so that a comparison tells kind and curve without
/// an ASN.1 parser. RFC 5480 section 2.1.1 (id-ecPublicKey with secp256r1, secp384r1), RFC 8410
/// section 4 (id-Ed25519).
const P256_PREFIX: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384_PREFIX: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
const ED25519_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// The object identifier rsaEncryption with its NULL, RFC 3279 section 2.3.1.
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

fn from_spki(file: &[u8]) -> Result<VerifyingKey, PublicKeyError> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(file).map_err(|_| PublicKeyError::Damaged)?;
    if let Some(point) = der.strip_prefix(P256_PREFIX) {
        ec_key(Curve::P256, point).ok_or(PublicKeyError::Damaged)
    } else if let Some(point) = der.strip_prefix(P384_PREFIX) {
        ec_key(Curve::P384, point).ok_or(PublicKeyError::Damaged)
    } else if let Some(point) = der.strip_prefix(ED25519_PREFIX) {
        ed25519_key(point).ok_or(PublicKeyError::Damaged)
    } else if der
        .windows(RSA_ENCRYPTION.len())
        .any(|window| window == RSA_ENCRYPTION)
    {
        from_rsa_pem(file)
    } else {
        Err(PublicKeyError::Unsupported)
    }
}

fn from_rsa_pem(file: &[u8]) -> Result<VerifyingKey, PublicKeyError> {
    let key = DecodingKey::from_rsa_pem(file).map_err(|_| PublicKeyError::Damaged)?;
    // The way through a JWK has the library check the key, which its reading of the PEM does not.
    let jwk = Jwk::from_decoding_key(&key, None).map_err(|_| PublicKeyError::Damaged)?;
    let AlgorithmParameters::RSA(parameters) = &jwk.algorithm else {
        return Err(PublicKeyError::Damaged);
    };
    match rsa_key(&parameters.n, &parameters.e) {
        Ok(key) => Ok(key),
        Err(RsaKeyError::Bits(bits)) => Err(PublicKeyError::RsaBits(bits)),
        Err(RsaKeyError::Encoding) => Err(PublicKeyError::Damaged),
    }
}

/// The curves of RFC 7518 section 6.2.1.1 that are taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Curve {
    P256,
    P384,
}

/// The key of an uncompressed point (SEC 1 section 2.3.3: 4, x, y), if it has the curve's length.
pub(super) fn ec_key(curve: Curve, point: &[u8]) -> Option<VerifyingKey> {
    let (algorithm, curve, coordinate_bytes) = match curve {
        Curve::P256 => (Algorithm::ES256, "P-256", 32),
        Curve::P384 => (Algorithm::ES384, "P-384", 48),
    };
    let (x, y) = point
        .strip_prefix(&[4])?
        .split_at_checked(coordinate_bytes)?;
    if y.len() != coordinate_bytes {
        return None;
    }
    let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let members = format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let key = DecodingKey::from_ec_der(point);
    Some(VerifyingKey::of_public_key(&members, vec![algorithm], key))
}

/// The key of an Ed25519 point, if it has 32 bytes (RFC 8032 section 5.1.5).
pub(super) fn ed25519_key(point: &[u8]) -> Option<VerifyingKey> {
    if point.len() != 32 {
        return None;
    }
    let x = URL_SAFE_NO_PAD.encode(point);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let key = DecodingKey::from_ed_der(point);
    Some(VerifyingKey::of_public_key(
        &members,
        vec![Algorithm::EdDSA],
        key,
    ))
}

/// Why RSA components make no key.
pub(super) enum RsaKeyError {
    Encoding,
    Bits(usize),
}

/// The key of a modulus and exponent in base64url (RFC 7518 section 6.3.1), for all six algorithms.
pub(super) fn rsa_key(modulus: &str, exponent: &str) -> Result<VerifyingKey, RsaKeyError> {
    let modulus = unsigned(modulus).ok_or(RsaKeyError::Encoding)?;
    let exponent = unsigned(exponent).ok_or(RsaKeyError::Encoding)?;
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = modulus.len() * 8 - unused as usize;
    if !RSA_BITS.contains(&bits) {
        return Err(RsaKeyError::Bits(bits));
    }
    let [modulus, exponent] = [modulus, exponent].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let members = format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#);
    let algorithms = AlgorithmFamily::Rsa.algorithms().to_vec();
    DecodingKey::from_rsa_components(&modulus, &exponent)
        .map(|key| VerifyingKey::of_public_key(&members, algorithms, key))
        .map_err(|_| RsaKeyError::Encoding)
}

/// A big-endian number in base64url that is not 0. RFC 7518 section 2 wants no zero before it, but
/// software writes the one that ASN.1 has there, and the library would not know the key with it.
fn unsigned(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let significant = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(significant..).map(<[u8]>::to_vec)
}
