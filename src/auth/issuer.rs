//! The issuers whose tokens are taken. Owns which of them a token goes to: the entry that its `iss`
//! names, and no other, so that no key ever vouches for another issuer's users.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::claims::ClaimRules;
use super::jws::algorithm;
use super::source::{KeySource, Keys};
use super::{AuthConfigError, AuthError};
use crate::config::{AuthConfig, IssuerConfig};

/// Keys and rules of one issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Where its settings stand: `auth`, or `auth.issuers[0]`.
    pub(super) table: String,
    /// The `iss` that it is named by; `None`: it takes what no other is named by.
    name: Option<Arc<str>>,
    /// The setting of its keys.
    source: String,
    pub(super) keys: Keys,
    pub(super) rules: ClaimRules,
}

/// All issuers of the settings. There is one at least.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Issuer>);

impl Issuers {
    /// Reads the keys of all of them.
    ///
    /// # Errors
    /// Everything that is wrong, one line each.
    pub(super) fn load(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        let mut issuers = Vec::new();
        let mut wrong = Vec::new();
        for (table, entry) in config.entries() {
            match Issuer::load(table, &entry, config) {
                Ok(issuer) => issuers.push(issuer),
                Err(AuthConfigError(text)) => wrong.push(text),
            }
        }
        if wrong.is_empty() {
            let mut issuers = Self(issuers);
            issuers.share_addresses();
            Ok(issuers)
        } else {
            Err(AuthConfigError(wrong.join("\n")))
        }
    }

    /// Issuers with the same address have the same keys.
    fn share_addresses(&mut self) {
        for index in 1..self.0.len() {
            let (before, rest) = self.0.split_at_mut(index);
            if let Some(Keys::Remote(keys)) = rest.first_mut().map(|issuer| &mut issuer.keys) {
                before
                    .iter()
                    .filter_map(|issuer| issuer.keys.remote())
                    .for_each(|other| keys.share(other));
            }
        }
    }

    /// Goes on with the keys that `old` has of the same addresses.
    pub(super) fn go_on_from(&mut self, old: &Self) {
        for issuer in &mut self.0 {
            if let Keys::Remote(keys) = &mut issuer.keys {
                old.all()
                    .filter_map(|issuer| issuer.keys.remote())
                    .for_each(|other| keys.share(other));
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Issuer> {
        self.0.iter()
    }

    /// The one that checks tokens with this `iss`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(&self, iss: Option<&str>) -> Result<&Issuer, AuthError> {
        let names = self.0.iter().map(|issuer| issuer.name.as_deref());
        let index = entry_for(names, iss);
        index.and_then(|index| self.0.get(index)).ok_or(match iss {
            None => AuthError::Invalid("it has no iss"),
            Some(_) => AuthError::Invalid(
                "its iss is not a configured issuer: compare `issuer` letter for letter, \
                 also a slash at its end",
            ),
        })
    }
}

impl Issuer {
    /// The `iss` of a token that is checked here. Where the settings name it, all its sockets share the text.
    pub(super) fn of_token(&self, iss: Option<&str>) -> Option<Arc<str>> {
        self.name.clone().or_else(|| iss.map(Arc::from))
    }

    fn load(
        table: String,
        config: &IssuerConfig,
        all: &AuthConfig,
    ) -> Result<Self, AuthConfigError> {
        let source = KeySource::of(&table, config)?;
        let algorithms = config.algorithms.as_ref();
        let algorithms = algorithms
            .map(|names| names.iter().map(|name| known(&table, name)).collect())
            .transpose()?;
        Ok(Self {
            keys: source.load(algorithms, all.jwks_max_stale)?,
            rules: ClaimRules::new(config, all),
            name: config.issuer.as_deref().map(Arc::from),
            source: source.setting(),
            table,
        })
    }
}

/// What each of them takes, for the output of `herald check`.
impl fmt::Display for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, issuer) in self.0.iter().enumerate() {
            let Issuer { name, source, .. } = issuer;
            let separator = if number == 0 { "" } else { "; " };
            match name {
                Some(name) => write!(f, "{separator}those of {name} by {source}")?,
                None if self.0.len() == 1 => write!(f, "all by {source}")?,
                None => write!(f, "{separator}all others by {source}")?,
            }
            if let Some(remote) = issuer.keys.remote() {
                write!(f, ", to be fetched from {remote}")?;
            }
        }
        Ok(())
    }
}

/// Which of the entries, by their issuers, takes tokens with this `iss`: the one that it names, else
/// the one without an issuer. Names are compared as they are (RFC 7519 section 4.1.1).
pub(crate) fn entry_for<'a>(
    issuers: impl Iterator<Item = Option<&'a str>> + Clone,
    iss: Option<&str>,
) -> Option<usize> {
    let mut others = issuers.clone();
    let named = iss.and_then(|iss| issuers.into_iter().position(|issuer| issuer == Some(iss)));
    named.or_else(|| others.position(|issuer| issuer.is_none()))
}

fn known(table: &str, name: &str) -> Result<Algorithm, AuthConfigError> {
    algorithm(name).ok_or_else(|| {
        AuthConfigError(format!(
            "{table}.algorithms: `{name}` is not supported: HS256, HS384, HS512, RS256, RS384, RS512, PS256, \
                PS384, PS512, ES256, ES384 and EdDSA are, as the key allows"
        ))
    })
}
