//! Tokens for a run's own gateways.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::Error;

/// The secret of HS256, as the contract with the targets has it.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123";
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

/// Signs tokens.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// Whose signatures a gateway can check with this PEM; HS256 has the secret instead.
    public: Option<String>,
}

impl Signer {
    /// With a new key, where the algorithm is not HS256.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn new(algorithm: Algorithm) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::of("cannot make a key", error);
        let (private, public) = match algorithm {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|e| failed(&e))?;
                let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|e| failed(&e))?;
                let public: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|e| failed(&e))?;
                (
                    pem("PRIVATE KEY", private.as_ref()),
                    pem("PUBLIC KEY", public.as_ref()),
                )
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
                let pair = pair.map_err(|e| failed(&e))?;
                let private = pair.to_pkcs8v1().map_err(|e| failed(&e))?;
                let public: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|e| failed(&e))?;
                (
                    pem("PRIVATE KEY", private.as_ref()),
                    pem("PUBLIC KEY", public.as_ref()),
                )
            }
            _ => {
                return Ok(Self {
                    algorithm: Algorithm::HS256,
                    key: EncodingKey::from_secret(SECRET.as_bytes()),
                    public: None,
                });
            }
        };
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(private.as_bytes()),
            _ => EncodingKey::from_ec_pem(private.as_bytes()),
        };
        Ok(Self {
            algorithm,
            key: key.map_err(|e| failed(&e))?,
            public: Some(public),
        })
    }

    /// Writes the public key to `file`, and says whether there is one.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_public(&self, file: &Path) -> Result<bool, Error> {
        let Some(public) = &self.public else {
            return Ok(false);
        };
        std::fs::write(file, public).map_err(|error| Error::of("cannot write a key", error))?;
        Ok(true)
    }

    /// A token of `user` for `workspace`.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn token(&self, user: &str, workspace: &str) -> Result<String, Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let claims = json!({
            "sub": user,
            "workspaces": [workspace],
            "exp": (now + VALID_FOR).as_secs(),
        });
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, &self.key)
            .map_err(|error| Error::of("cannot sign a token", error))
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + &format!("\n-----END {label}-----\n")
}
