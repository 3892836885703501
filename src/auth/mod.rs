//! Tokens: who connects, which workspaces they may enter, until when.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::AuthConfig;
use crate::event::WorkspaceSlug;

/// A user as Herald tells users apart: a fixed-length hash of the token's issuer and subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey([u8; 16]);

impl UserKey {
    /// The key as the one token it takes in a claim's subject: 32 lower-case hex digits.
    pub fn parse(_text: &str) -> Option<Self> {
        None
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a valid token says.
#[derive(Debug, Clone)]
pub struct Identity {
    pub user: UserKey,
    /// The token's `sub`, which `recipients` name.
    pub subject: Arc<str>,
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

/// Verifies tokens with the configured key or key set.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Reads the one configured key source.
    ///
    /// # Errors
    /// [`AuthConfigError`] naming the setting and what is wrong with it.
    pub fn from_config(_config: &AuthConfig) -> Result<Self, AuthConfigError> {
        Ok(Self {})
    }

    /// Verifies `token` as of `now`: its signature first, its expiry last.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn verify(&self, _token: &str, _now: SystemTime) -> Result<Identity, AuthError> {
        Err(AuthError::Missing)
    }
}
