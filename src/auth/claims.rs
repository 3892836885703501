//! What a token's claims must say, RFC 7519 section 4.1, and the identity they make. Pure; the
//! signature is verified before anything here is asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{AuthError, Identity, UserKey, Workspaces};
use crate::config::AuthConfig;
use crate::event::WorkspaceSlug;
use crate::json::{Map, Value};

/// The last moment that a token can name, the end of the year 9999. A later `exp` is taken as this
/// one, so that no arithmetic on it overflows.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Entry of the workspaces claim that stands for every workspace.
pub(super) const EVERY_WORKSPACE: &str = "*";

/// What the settings ask of the claims.
#[derive(Debug)]
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    workspaces_claim: String,
    leeway: Duration,
}

impl Rules {
    pub(super) fn from_config(config: &AuthConfig) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            workspaces_claim: config.workspaces_claim.clone(),
            leeway: config.leeway,
        }
    }

    /// Whose the claims are, as of `now`. Expiry is judged last, so that [`AuthError::Expired`]
    /// means that a newer token of the same kind would pass.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(super) fn identity(&self, claims: &Map, now: SystemTime) -> Result<Identity, AuthError> {
        let subject = match claims.get("sub") {
            // With half of a surrogate pair, two users could have one name: the reader replaces each half.
            Some(Value::String(subject))
                if !subject.is_empty() && !subject.contains(char::REPLACEMENT_CHARACTER) =>
            {
                subject
            }
            Some(_) => return Err(AuthError::Invalid("its sub is not a name")),
            None => return Err(AuthError::Invalid("it has no sub")),
        };
        let issuer = self.issuer(claims)?;
        self.check_audience(claims)?;
        if let Some(not_before) = claims.get("nbf") {
            let not_before =
                numeric_date(not_before).ok_or(AuthError::Invalid("its nbf is not a date"))?;
            // RFC 7519 section 4.1.5: the current time must be after or equal to it.
            if later(now, self.leeway) < not_before {
                return Err(AuthError::Invalid("it is not yet valid"));
            }
        }
        let expiry = claims
            .get("exp")
            .ok_or(AuthError::Invalid("it has no exp"))?;
        let expiry = numeric_date(expiry).ok_or(AuthError::Invalid("its exp is not a date"))?;
        let expires_at = later(expiry, self.leeway);
        // RFC 7519 section 4.1.4: the current time must be before it.
        if now >= expires_at {
            return Err(AuthError::Expired);
        }
        Ok(Identity {
            user: UserKey::new(issuer, subject),
            subject: Arc::from(subject.as_str()),
            expires_at,
            workspaces: workspaces(claims.get(&self.workspaces_claim)),
        })
    }

    fn issuer<'a>(&self, claims: &'a Map) -> Result<Option<&'a str>, AuthError> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer.as_str()),
            Some(_) => return Err(AuthError::Invalid("its iss is not a name")),
        };
        match &self.issuer {
            Some(wanted) if issuer != Some(wanted) => {
                Err(AuthError::Invalid("its iss is not the configured issuer"))
            }
            _ => Ok(issuer),
        }
    }

    /// RFC 7519 section 4.1.3: one name or a list of them. Without `auth.audience` it is not
    /// looked at.
    fn check_audience(&self, claims: &Map) -> Result<(), AuthError> {
        let Some(wanted) = &self.audience else {
            return Ok(());
        };
        let named = match claims.get("aud") {
            Some(Value::String(name)) => name == wanted,
            Some(Value::Array(names)) => names.iter().any(|name| name.as_str() == Some(wanted)),
            _ => false,
        };
        if named {
            Ok(())
        } else {
            Err(AuthError::Invalid("its aud is not the configured audience"))
        }
    }
}

/// A NumericDate, RFC 7519 section 2: seconds since 1970, with a fraction or without. A date before
/// 1970 is long past and taken as 1970.
fn numeric_date(value: &Value) -> Option<SystemTime> {
    let seconds = value.as_f64()?;
    if seconds.is_nan() {
        return None;
    }
    let since_epoch = Duration::try_from_secs_f64(seconds.clamp(0.0, LAST_SECOND)).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

fn later(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by).unwrap_or(time)
}

/// A slug, a list of slugs, or `"*"` alone or in the list. What is none of these grants nothing and
/// takes nothing away from what stands beside it.
fn workspaces(claim: Option<&Value>) -> Workspaces {
    let entries = match claim {
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(entry) => std::slice::from_ref(entry),
        None => &[],
    };
    let names = || entries.iter().filter_map(Value::as_str);
    if names().any(|name| name == EVERY_WORKSPACE) {
        return Workspaces::All;
    }
    Workspaces::Some(
        names()
            .filter_map(|name| WorkspaceSlug::parse(name).ok())
            .collect(),
    )
}
