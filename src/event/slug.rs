//! Workspace slugs, checked before they come near a subject.

use std::fmt;
use std::sync::Arc;

/// A workspace's name: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`. Safe as one token of a NATS subject. Case counts:
/// `Acme` and `acme` are two workspaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceSlug(Arc<str>);

/// The text is not a slug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a workspace slug is 1 to 64 characters of A-Z, a-z, 0-9, _ and -, and starts with a letter or digit"
)]
pub struct SlugError;

impl WorkspaceSlug {
    /// Longest slug, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks `text`.
    ///
    /// # Errors
    /// [`SlugError`] where `text` does not have the form above.
    pub fn parse(text: &str) -> Result<Self, SlugError> {
        if Self::is_valid(text) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(SlugError)
        }
    }

    /// Whether `text` has the form above.
    pub fn is_valid(text: &str) -> bool {
        let mut bytes = text.bytes();
        let first_ok = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest_ok =
            bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        first_ok && rest_ok && text.len() <= Self::MAX_LEN
    }

    /// What stands for the workspace of an event whose subject names none, in a dead letter and nowhere else.
    /// No slug: none begins with `_`.
    pub fn unroutable() -> Self {
        Self(Arc::from("_unroutable"))
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
            "A",
            "acMe",
            "user_2NNEqL2nrIRdJ194ndJqAHwEfxC",
            "V1StGXR8_Z5jdHi6B-myT",
            "6F9619FF-8B86-D011-B42D-00C04FC964FF",
            &"a".repeat(64),
        ] {
            assert_eq!(WorkspaceSlug::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a.b",
            "*",
            ">",
            "../x",
            "a b",
            "é",
            "a\0",
            &"a".repeat(65),
            WorkspaceSlug::unroutable().as_str(),
        ] {
            assert_eq!(WorkspaceSlug::parse(bad), Err(SlugError), "{bad:?}");
        }
    }
}
