//! Tokens: who connects, which workspaces they may enter, until when.
//!
//! A token is a JWT (RFC 7519) in compact form. [`presented_token`] finds it in a request and
//! [`Verifier::verify`] judges it, in this order: its form, its signature, its other claims, its
//! expiry. The key decides which algorithms are taken, never the token. Nothing here prints a part
//! of a token: errors are fixed sentences.

mod claims;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod jwks;
mod jwks_file;
mod jws;
mod key;
mod presented;
mod sign;
mod source;
#[cfg(test)]
mod tests;
mod user;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use self::claims::Rules;
use self::jws::Jws;
pub use self::key::{HmacSecret, HmacSecretError};
pub(crate) use self::presented::offered_subprotocols;
pub use self::presented::{PresentedToken, presented_token};
pub use self::sign::{NewToken, SignError, sign};
use self::source::{KeySource, Keys};
pub use self::user::UserKey;
use crate::config::{AuthConfig, read_once};
use crate::event::WorkspaceSlug;

/// Longest token taken, in bytes: twice the longest that proxies let through in a URL by default, so
/// that a token that reaches a gateway is judged by what it says. A longer one is refused unread.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a valid token says.
#[derive(Debug, Clone)]
pub struct Identity {
    pub user: UserKey,
    /// The token's `sub`, which `recipients` name.
    pub subject: Arc<str>,
    /// The first moment at which the token is no longer taken: its `exp` plus the leeway.
    pub expires_at: SystemTime,
    pub workspaces: Workspaces,
}

/// The workspaces a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workspaces {
    All,
    Some(Vec<WorkspaceSlug>),
}

impl Workspaces {
    /// Whether `workspace` may be entered.
    pub fn allow(&self, workspace: &WorkspaceSlug) -> bool {
        match self {
            Self::All => true,
            Self::Some(slugs) => slugs.contains(workspace),
        }
    }
}

/// Why a token is refused. `Display` never holds a part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("no token")]
    Missing,
    /// The token is malformed, not signed by the key, or its claims are not right.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// All is right but its time is over.
    #[error("token expired")]
    Expired,
}

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthConfigError(pub String);

/// Verifies tokens with the configured key or key set. Meant to be shared behind an `Arc`.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    rules: Rules,
}

impl Verifier {
    /// Reads the one configured key source. Reads files, so not for the way of a socket.
    ///
    /// # Errors
    /// [`AuthConfigError`] naming the setting and what is wrong with it.
    pub fn from_config(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        for (setting, value) in [
            ("auth.issuer", &config.issuer),
            ("auth.audience", &config.audience),
        ] {
            if value.as_deref() == Some("") {
                return Err(AuthConfigError(format!(
                    "{setting} must not be empty: leave it out to take any"
                )));
            }
        }
        Ok(Self {
            keys: KeySource::of(config)?.load()?,
            rules: Rules::from_config(config),
        })
    }

    /// Verifies `token` as of `now`: its signature first, its expiry last.
    ///
    /// With `auth.jwks_file` this looks at the file's metadata where no key fits, and reads it again
    /// if it changed, at most once in ten seconds: a moment's blocking, on a local disk.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
        self.verify_at(token, now, Instant::now())
    }

    /// As [`Verifier::verify`]; `instant` is what rereading a key file is timed with.
    fn verify_at(
        &self,
        token: &str,
        now: SystemTime,
        instant: Instant,
    ) -> Result<Identity, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Invalid("it is longer than 16 KiB"));
        }
        let jws = Jws::parse(token)?;
        match &self.keys {
            Keys::Fixed(keys) => keys.verify(&jws),
            Keys::File(file) => file.verify(&jws, instant),
        }?;
        self.rules.identity(&jws.claims()?, now)
    }
}

/// The shared secret of the settings, which `herald token` signs with.
///
/// # Errors
/// [`AuthConfigError`] where the key source is not exactly one, or not a usable shared secret.
pub fn signing_secret(config: &AuthConfig) -> Result<HmacSecret, AuthConfigError> {
    KeySource::of(config)?.hmac_secret(read_once)
}
