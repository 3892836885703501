//! Who a user is to Herald: a fixed-length hash, so that a claim's subject and a map key never grow
//! with what an identity provider writes into `sub`, and never hold a character NATS reads.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What identifies a user in Herald: a fixed-length hash of the token's issuer and subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey([u8; 16]);

impl UserKey {
    /// The key of the user whom `issuer` (the token's `iss`, if it has one) calls `subject`.
    ///
    /// Both are hashed with their length before them, so that no pair can be cut differently into
    /// another pair. Every gateway and `herald disconnect` must agree on this: changing it makes
    /// every user a stranger to the claims that SESSIONS holds.
    pub fn new(issuer: Option<&str>, subject: &str) -> Self {
        let mut hash = Sha256::new();
        update_with_optional(&mut hash, issuer);
        update_with_length(&mut hash, subject);
        Self(first_half(&hash.finalize().into()))
    }

    /// The key as the one token it takes in a claim's subject: 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

pub(super) fn update_with_optional(hash: &mut Sha256, text: Option<&str>) {
    match text {
        None => hash.update([0]),
        Some(text) => {
            hash.update([1]);
            update_with_length(hash, text);
        }
    }
}

pub(super) fn update_with_length(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

/// What is kept of a hash: 128 bits, so that no two users ever meet by chance.
pub(super) fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(hash) {
        *to = *from;
    }
    half
}

/// Reads 32 lower-case hex digits.
pub(super) fn from_hex(text: &str) -> Option<[u8; 16]> {
    let mut key = [0; 16];
    if text.len() != 2 * key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = pair
            .iter()
            .try_fold(0, |value, digit| Some(value << 4 | hex_value(*digit)?))?;
    }
    Some(key)
}

/// Writes 32 lower-case hex digits.
pub(super) fn write_hex(key: [u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Also 128 bits in lower-case hexadecimal, and quicker than `{:02x}` for each byte.
    let digits = Uuid::from_bytes(key).simple();
    f.write_str(digits.encode_lower(&mut Uuid::encode_buffer()))
}

/// Upper case is refused: one user has one spelling.
fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(self.0, f)
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Claims outlive a gateway: the key of a user must not change from one version to the next.
    #[test]
    fn a_users_key_never_changes() {
        let key = UserKey::new(Some("https://id.example.com"), "ada");
        assert_eq!(key.to_string(), "be96eef93ddbd5d656a3732f49ec2608");
        assert_eq!(
            UserKey::new(None, "ada").to_string(),
            "8036673843e325a233e42fff76e9ad12"
        );
    }

    #[test]
    fn issuer_and_subject_cannot_be_cut_differently() {
        let keys: HashSet<UserKey> = [
            (None, "ab"),
            (Some(""), "ab"),
            (Some("a"), "b"),
            (Some("ab"), ""),
            (Some("b"), "a"),
            (None, "b"),
        ]
        .into_iter()
        .map(|(issuer, subject)| UserKey::new(issuer, subject))
        .collect();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn only_32_lower_case_hex_digits_are_a_key() {
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(UserKey::parse(good).unwrap().to_string(), good);
        for bad in [
            "",
            "0123",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdef0",
            "0123456789ABCDEF0123456789abcdef",
            "0123456789abcdeg0123456789abcdef",
            "0123456789abcde.0123456789abcdef",
            "ééééééééééééééééé",
        ] {
            assert_eq!(UserKey::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_key_is_read_back(issuer in proptest::option::of(".*"), subject in ".*") {
            let key = UserKey::new(issuer.as_deref(), &subject);
            prop_assert_eq!(UserKey::parse(&key.to_string()), Some(key));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            let _ = UserKey::parse(&text);
        }
    }
}
