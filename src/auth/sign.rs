//! Making a token, for `herald token` and `herald dev`. A gateway in production only verifies.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::claims::EVERY_WORKSPACE;
use super::{HmacSecret, Workspaces};

/// What a new token says.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// `sub`.
    pub subject: &'a str,
    pub workspaces: &'a Workspaces,
    /// Name of the claim that holds `workspaces`: `auth.workspaces_claim`.
    pub workspaces_claim: &'a str,
    /// `iss`, if any.
    pub issuer: Option<&'a str>,
    /// `aud`, if any.
    pub audience: Option<&'a str>,
    /// `iat`, and what `expires_in` counts from.
    pub issued_at: SystemTime,
    /// `exp` is this much later, rounded up to a whole second.
    pub expires_in: Duration,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed")]
pub struct SignError;

/// Makes a token signed with HS256.
///
/// # Errors
/// [`SignError`] where the library fails, which it has no known reason to.
pub fn sign(secret: &HmacSecret, token: &NewToken<'_>) -> Result<String, SignError> {
    let issued_at = since_epoch(token.issued_at);
    let expires_at = issued_at.saturating_add(token.expires_in);
    let round_up = u64::from(expires_at.subsec_nanos() > 0);
    let mut claims = Map::new();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put(
        token.workspaces_claim,
        match token.workspaces {
            Workspaces::All => vec![EVERY_WORKSPACE].into(),
            Workspaces::Some(slugs) => slugs
                .iter()
                .map(|slug| Value::from(slug.as_str()))
                .collect(),
        },
    );
    // After the workspaces, so that no name of that claim replaces one of these.
    put("sub", token.subject.into());
    put("iat", issued_at.as_secs().into());
    put("exp", expires_at.as_secs().saturating_add(round_up).into());
    if let Some(issuer) = token.issuer {
        put("iss", issuer.into());
    }
    if let Some(audience) = token.audience {
        put("aud", audience.into());
    }
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret.bytes()),
    )
    .map_err(|_| SignError)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
