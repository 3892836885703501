//! A string that is never printed: `Debug` and `Display` show `***`.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A configured secret. Only [`Secret::expose`] gives its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Not for logs, errors, subjects or attributes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// A secret that a file may also give as a list, joined with commas.
pub(super) fn secret_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Secret, D::Error> {
    super::list::string_or_list(deserializer).map(|urls| Secret(urls.join(",")))
}

/// The same where there need not be one.
pub(super) fn some_secret_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Secret>, D::Error> {
    secret_or_list(deserializer).map(Some)
}
