//! Making a token, for `herald token` and `herald dev`. A gateway in production only verifies.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::grants::EVERY_WORKSPACE;
use super::jws::algorithm;
use super::publisher::CLAIM;
use super::{HmacSecret, PublishGrant, Workspaces};
use crate::config::IssuerConfig;

/// What a new token says.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// The settings that it is to pass, for the names of claims and what they hold.
    pub settings: &'a IssuerConfig,
    /// The user.
    pub subject: &'a str,
    pub workspaces: &'a Workspaces,
    /// What it may publish. With this it is for publishing, and for no workspace's socket.
    pub publish: Option<&'a PublishGrant>,
    /// `iss`, instead of the settings'.
    pub issuer: Option<&'a str>,
    /// `aud`, instead of the settings'.
    pub audience: Option<&'a str>,
    /// `iat`, and what `expires_in` counts from.
    pub issued_at: SystemTime,
    /// `exp` is this much later, rounded up to a whole second.
    pub expires_in: Duration,
}

impl NewToken<'_> {
    /// The first of the claims that the settings require and the token does not have.
    pub(crate) fn missing_claim(&self) -> Option<&str> {
        let claims = self.claims();
        let mut required = self.settings.required_claims.iter();
        let missing = required.find(|name| !claims.contains_key(*name));
        missing.map(String::as_str)
    }

    fn claims(&self) -> Map<String, Value> {
        let issued_at = since_epoch(self.issued_at);
        let expires_at = issued_at.saturating_add(self.expires_in);
        let round_up = u64::from(expires_at.subsec_nanos() > 0);
        let Self { settings, .. } = self;
        let prefix = settings.workspaces_prefix.as_deref().unwrap_or_default();
        let mut claims = Map::new();
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        match (self.publish, self.workspaces) {
            (Some(grant), _) => put(CLAIM, grant.to_claim()),
            (None, Workspaces::All) => {
                put(&settings.workspaces_claim, vec![EVERY_WORKSPACE].into())
            }
            (None, Workspaces::Some(slugs)) => {
                let slugs = slugs.iter().map(|slug| format!("{prefix}{slug}"));
                put(&settings.workspaces_claim, slugs.collect())
            }
        };
        // After the workspaces, so that no name of that claim replaces one of these.
        let user_claim = settings.user_claim.first().map_or("sub", String::as_str);
        put(user_claim, self.subject.into());
        put("iat", issued_at.as_secs().into());
        put("jti", Uuid::new_v4().to_string().into());
        put("exp", expires_at.as_secs().saturating_add(round_up).into());
        if let Some(issuer) = self.issuer.or(settings.issuer.as_deref()) {
            put("iss", issuer.into());
        }
        let audiences = settings.audiences().unwrap_or_default();
        let audience = audiences.first().map(String::as_str);
        if let Some(audience) = self.audience.or(audience) {
            put("aud", audience.into());
        }
        claims
    }
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed")]
pub struct SignError;

/// Makes a token, signed with HS256 unless the settings take another HMAC only.
///
/// # Errors
/// [`SignError`] where the library fails, which it has no known reason to.
pub fn sign(secret: &HmacSecret, token: &NewToken<'_>) -> Result<String, SignError> {
    let claims = token.claims();
    let algorithm = token
        .settings
        .algorithms
        .iter()
        .flatten()
        .filter_map(|name| algorithm(name))
        .find(|algorithm| algorithm.family() == AlgorithmFamily::Hmac);
    jsonwebtoken::encode(
        &Header::new(algorithm.unwrap_or(Algorithm::HS256)),
        &claims,
        &EncodingKey::from_secret(secret.bytes()),
    )
    .map_err(|_| SignError)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
