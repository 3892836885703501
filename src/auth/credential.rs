//! What a verified token was, for as long as a socket is open by it: enough to find the socket again when the user,
//! the token or the key is no longer to be trusted. Nothing of the token itself is kept.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::user::{
    UserKey, first_half, from_hex, update_with_length, update_with_optional, write_hex,
};

/// By what a socket is open.
#[derive(Clone)]
pub struct Credential {
    pub user: UserKey,
    /// Its `iss`.
    pub issuer: Option<Arc<str>>,
    /// Its `iat`.
    pub issued_at: Option<SystemTime>,
    /// Its `jti`, if it has one.
    pub token: Option<TokenId>,
    /// The key that verified it.
    pub key: KeyId,
    /// The first moment at which the token is no longer taken: its `exp` plus the leeway.
    pub expires_at: SystemTime,
}

/// Nothing of the token, but for the hash of its user.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?}, ***)", self.user)
    }
}

/// One token of an issuer: a hash of its `iss` and `jti`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 16]);

impl TokenId {
    /// The id of the token to which `issuer` (its `iss`, if it has one) gave this `jti`.
    ///
    /// Every gateway and `herald revoke` must agree on this, as on [`UserKey::new`].
    pub fn new(issuer: Option<&str>, jti: &str) -> Self {
        let mut hash = Sha256::new_with_prefix("herald-token");
        update_with_optional(&mut hash, issuer);
        update_with_length(&mut hash, jti);
        Self(first_half(&hash.finalize().into()))
    }

    /// Reads 32 lower-case hex digits, as `Display` writes them.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(self.0, f)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenId(***)")
    }
}

/// A key that verifies tokens: half of its thumbprint (RFC 7638 with SHA-256), or half of a hash of a shared secret.
/// Never printed: from the hash of a weak secret the secret can be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// The id of the public key with this thumbprint, which is written in base64url.
    pub fn of_thumbprint(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self::of_public_key(&bytes.try_into().ok()?))
    }

    /// The same, from the bytes of the thumbprint.
    pub(super) fn of_public_key(thumbprint: &[u8; 32]) -> Self {
        Self(first_half(thumbprint))
    }

    pub(super) fn of_secret(secret: &[u8]) -> Self {
        let hash = Sha256::new_with_prefix("herald-hmac").chain_update(secret);
        Self(first_half(&hash.finalize().into()))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(***)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Entries about a token are stored: its id must not change from one version to the next.
    #[test]
    fn the_id_of_a_token_never_changes() {
        for (issuer, key) in [
            (
                Some("https://id.example.com"),
                "d0f8817403b0f144aaf9bfc5c3fa7e1f",
            ),
            (None, "4e48698d717c76163dd0dac4d83f1465"),
        ] {
            let token = TokenId::new(issuer, "c0ffee");
            assert_eq!(token.to_string(), key);
            assert_eq!(TokenId::parse(key), Some(token));
        }
        assert_eq!(TokenId::parse("c0ffee"), None);
    }

    #[test]
    fn tokens_of_two_issuers_and_names_cut_otherwise_are_not_one() {
        let keys: HashSet<_> = [
            (None, "ab"),
            (Some(""), "ab"),
            (Some("a"), "b"),
            (Some("ab"), ""),
        ]
        .map(|(issuer, jti)| TokenId::new(issuer, jti))
        .into();
        assert_eq!(keys.len(), 4);
    }

    /// The example of RFC 7638 section 3.1.
    #[test]
    fn a_public_key_is_known_by_its_thumbprint() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let members = format!(r#"{{"e":"AQAB","kty":"RSA","n":"{n}"}}"#);
        let key = KeyId::of_public_key(&Sha256::digest(members).into());
        let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(KeyId::of_thumbprint(thumbprint), Some(key));
        for bad in [
            "",
            "NzbL",
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs=",
            "é",
        ] {
            assert_eq!(KeyId::of_thumbprint(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_of_a_token_or_a_key_is_printed() {
        let credential = Credential {
            user: UserKey::new(None, "ada"),
            issuer: Some("https://id.example.com".into()),
            issued_at: Some(SystemTime::UNIX_EPOCH),
            token: Some(TokenId::new(None, "c0ffee")),
            key: KeyId::of_secret(b"swordfish"),
            expires_at: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(
            format!("{credential:?} {:?} {:?}", credential.token, credential.key),
            "Credential(8036673843e325a233e42fff76e9ad12, ***) Some(TokenId(***)) KeyId(***)"
        );
    }
}
