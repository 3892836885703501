//! Workspace slugs, checked before they come near a subject.

use std::fmt;
use std::sync::Arc;

/// A workspace's name: `[a-z0-9][a-z0-9_-]{0,62}`. Safe as one token of a NATS subject.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceSlug(Arc<str>);

/// The text is not a slug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a workspace slug is 1 to 63 characters of a-z, 0-9, _ and -, and starts with a letter or digit"
)]
pub struct SlugError;

impl WorkspaceSlug {
    /// Longest slug, in bytes.
    pub const MAX_LEN: usize = 63;

    /// Checks `text`.
    ///
    /// # Errors
    /// [`SlugError`] where `text` does not have the form above.
    pub fn parse(text: &str) -> Result<Self, SlugError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut bytes = text.bytes();
        let first_ok = bytes.next().is_some_and(is_plain);
        let rest_ok = bytes.all(|byte| is_plain(byte) || byte == b'_' || byte == b'-');
        if first_ok && rest_ok && text.len() <= Self::MAX_LEN {
            Ok(Self(Arc::from(text)))
        } else {
            Err(SlugError)
        }
    }

    /// The slug's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkspaceSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_taken_or_refused_by_their_form() {
        for good in [
            "a",
            "0",
            "acme",
            "my-workspace",
            "a_b",
            "9-_",
            &"a".repeat(63),
        ] {
            assert_eq!(WorkspaceSlug::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "acMe",
            "a.b",
            "*",
            ">",
            "../x",
            "a b",
            "é",
            "a\0",
            &"a".repeat(64),
        ] {
            assert_eq!(WorkspaceSlug::parse(bad), Err(SlugError), "{bad:?}");
        }
    }
}
