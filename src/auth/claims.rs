//! What a token's claims must say, RFC 7519 section 4.1, and the identity they make. Pure; the
//! signature is verified before anything here is asked, but for [`issuer`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::credential::{Credential, KeyId, TokenId};
use super::grants::{claim, workspaces};
use super::publisher::{PublishGrant, PublisherIdentity};
use super::revoked::Revocations;
use super::{AuthError, Identity, UserKey, VerifiedToken, Workspaces};
use crate::config::{AuthConfig, CLOCK_LEEWAY_MIN, IssuerConfig};
use crate::json::{Map, Number, Value};

/// The last moment that a token can name, the end of the year 9999. What is later was counted in
/// milliseconds, and would be a token that never ends.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// How long beyond its leeway an `nbf` may be ahead to be worth waiting for: two minutes from now,
/// where the leeway is the least.
const NBF_AHEAD_MAX: Duration = Duration::from_secs(120 - CLOCK_LEEWAY_MIN.as_secs());

/// What the settings ask of the claims.
#[derive(Debug)]
pub(super) struct ClaimRules {
    audiences: Option<Vec<String>>,
    /// The audience of tokens for publishing, which open no socket.
    publish_audience: String,
    user_claims: Vec<String>,
    workspaces_claim: String,
    workspaces_prefix: String,
    required_claims: Vec<String>,
    leeway: Duration,
    max_token_age: Option<Duration>,
}

/// The claims of a token whose signature is good.
pub(super) struct SignedClaims {
    pub(super) claims: Map,
    /// Their `iss`.
    pub(super) issuer: Option<Arc<str>>,
    /// What signed them.
    pub(super) key: KeyId,
}

impl ClaimRules {
    pub(super) fn new(config: &IssuerConfig, all: &AuthConfig) -> Self {
        Self {
            audiences: config.audiences(),
            publish_audience: all.publish_audience.clone(),
            user_claims: config.user_claim.clone(),
            workspaces_claim: config.workspaces_claim.clone(),
            workspaces_prefix: config.workspaces_prefix.clone().unwrap_or_default(),
            required_claims: config.required_claims.clone(),
            leeway: all.leeway,
            max_token_age: all.max_token_age,
        }
    }

    /// Whose the claims are, as of `now`; the settings of their issuer stand in `table`.
    ///
    /// # Errors
    /// [`AuthError`], but [`AuthError::NotYet`].
    pub(super) fn judge<'a>(
        &self,
        signed: &SignedClaims,
        now: SystemTime,
        table: &'a str,
        revoked: &Revocations,
    ) -> Result<VerifiedToken<'a>, AuthError> {
        let claims = &signed.claims;
        let subject = self.user(claims)?;
        self.check_audience(claims)?;
        let (credential, ahead) = self.credential(signed, &subject, now, revoked)?;
        let workspaces = workspaces(claims, &self.workspaces_claim, &self.workspaces_prefix);
        Ok(VerifiedToken {
            no_access: self.no_access(claims, &workspaces),
            identity: Identity {
                credential,
                subject: Arc::from(subject),
                workspaces,
            },
            ahead,
            now,
            table,
        })
    }

    /// Who publishes by the claims, and what.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(super) fn judge_publisher(
        &self,
        signed: &SignedClaims,
        now: SystemTime,
        revoked: &Revocations,
    ) -> Result<PublisherIdentity, AuthError> {
        let claims = &signed.claims;
        let subject = self.user(claims)?;
        let is_ours = |name: &Value| name.as_str() == Some(&self.publish_audience);
        // It is for nothing else: a token that a socket takes, too, is taken by neither.
        if audiences(claims).is_empty() || !audiences(claims).iter().all(is_ours) {
            return Err(NOT_FOR_PUBLISHING);
        }
        let grant = Arc::new(PublishGrant::of_claims(claims)?);
        let (credential, ahead) = self.credential(signed, &subject, now, revoked)?;
        if ahead > Duration::ZERO {
            return Err(AuthError::NotYet(ahead));
        }
        Ok(PublisherIdentity { credential, grant })
    }

    /// What all tokens have in common, and how long this one still is not valid. Time is judged last, so that
    /// [`AuthError::Expired`] means that a newer token of the same kind would pass, and a moment from which it is valid
    /// that this one will.
    fn credential(
        &self,
        signed: &SignedClaims,
        subject: &str,
        now: SystemTime,
        revoked: &Revocations,
    ) -> Result<(Credential, Duration), AuthError> {
        let SignedClaims {
            claims,
            issuer,
            key,
        } = signed;
        self.check_required(claims)?;
        let date = |name, no_date, too_far| {
            let date = present(claims, name).map(|date| numeric_date(date, no_date, too_far));
            date.transpose()
        };
        let not_before = date("nbf", NBF_NO_DATE, NBF_TOO_FAR)?;
        let ahead = match not_before {
            // RFC 7519 section 4.1.5: the current time must be after or equal to it.
            Some(not_before) => ahead(not_before, later(now, self.clock_leeway()))?,
            None => Duration::ZERO,
        };
        let issued_at = date("iat", IAT_NO_DATE, IAT_TOO_FAR)?;
        let exp = date("exp", EXP_NO_DATE, EXP_TOO_FAR)?.ok_or(NO_EXP)?;
        self.check_age(issued_at, exp, now)?;
        let credential = Credential {
            user: UserKey::new(issuer.as_deref(), subject),
            issued_at,
            token: token(claims, issuer.as_deref()),
            issuer: issuer.clone(),
            key: *key,
            expires_at: later(exp, self.leeway),
        };
        if revoked.kind_of(&credential).is_some() {
            return Err(AuthError::Revoked);
        }
        // RFC 7519 section 4.1.4: the current time must be before it.
        if now >= credential.expires_at {
            return Err(AuthError::Expired);
        }
        if not_before.is_some_and(|not_before| exp <= not_before) {
            return Err(NEVER);
        }
        Ok((credential, ahead))
    }

    /// What is forgiven where a date is compared with this clock, and 4001 would be final.
    fn clock_leeway(&self) -> Duration {
        self.leeway.max(CLOCK_LEEWAY_MIN)
    }

    /// Whether the token lives no longer than `auth.max_token_age`, from its own begin and from now: an `iat`
    /// that is ahead must not hide how long it lives.
    fn check_age(
        &self,
        issued_at: Option<SystemTime>,
        exp: SystemTime,
        now: SystemTime,
    ) -> Result<(), AuthError> {
        let Some(most) = self.max_token_age else {
            return Ok(());
        };
        let issued_at = issued_at.ok_or(NO_IAT)?;
        let is_over = |since: SystemTime, leeway| {
            let life = exp.duration_since(since).unwrap_or_default();
            life > most.saturating_add(leeway)
        };
        if is_over(issued_at, self.leeway) || is_over(now, self.clock_leeway()) {
            return Err(TOO_LONG);
        }
        Ok(())
    }

    /// Names are taken literally, as that of the user's claim.
    fn check_required(&self, claims: &Map) -> Result<(), AuthError> {
        let mut required = self.required_claims.iter();
        let has_all = required.all(|name| present(claims, name).is_some());
        if has_all { Ok(()) } else { Err(NOT_ALL_CLAIMS) }
    }

    /// Why a workspace is not granted that is not among these.
    fn no_access(&self, claims: &Map, workspaces: &Workspaces) -> &'static str {
        match (claim(claims, &self.workspaces_claim), workspaces) {
            (None | Some(Value::Null), _) => NO_WORKSPACES,
            (_, Workspaces::Some(slugs)) if slugs.is_empty() => UNUSABLE_WORKSPACES,
            _ => OTHER_WORKSPACES,
        }
    }

    /// The first of the user's claims that is there. One that cannot be a user is not passed over
    /// for the next, which may be somebody else's.
    fn user<'a>(&self, claims: &'a Map) -> Result<Cow<'a, str>, AuthError> {
        let mut named = self.user_claims.iter().filter_map(|name| claims.get(name));
        match named.find(|claim| !claim.is_null()).ok_or(NO_USER)? {
            // With half of a surrogate pair, two users could have one name: the reader replaces each half.
            Value::String(name) if name.contains(char::REPLACEMENT_CHARACTER) => Err(REPLACED_USER),
            Value::String(name) if !name.is_empty() => Ok(Cow::Borrowed(name)),
            Value::Number(number) if is_integer(number) => Ok(Cow::Borrowed(number.as_str())),
            _ => Err(BAD_USER),
        }
    }

    /// RFC 7519 section 4.1.3: one name or a list of them. Without `auth.audience` only that it is not for publishing.
    fn check_audience(&self, claims: &Map) -> Result<(), AuthError> {
        let named = audiences(claims);
        let is_named = |wanted: &String| named.iter().any(|name| name.as_str() == Some(wanted));
        if is_named(&self.publish_audience) {
            return Err(FOR_PUBLISHING);
        }
        match &self.audiences {
            Some(wanted) if !wanted.iter().any(is_named) => Err(AUDIENCE),
            _ => Ok(()),
        }
    }
}

/// The token's `aud`.
fn audiences(claims: &Map) -> &[Value] {
    match claims.get("aud") {
        Some(Value::Array(names)) => names,
        Some(name) => std::slice::from_ref(name),
        None => &[],
    }
}

const FOR_PUBLISHING: AuthError =
    AuthError::Invalid("it is for publishing: its aud is publish.audience, which opens no socket");
const NOT_FOR_PUBLISHING: AuthError =
    AuthError::Invalid("it is not for publishing: its aud is not publish.audience alone");
const NO_USER: AuthError =
    AuthError::Invalid("it has no claim with the user (user_claim, by default sub)");
const BAD_USER: AuthError =
    AuthError::Invalid("its claim with the user is neither text nor an integer of 64 bits");
const REPLACED_USER: AuthError = AuthError::Invalid(
    "its claim with the user has half of a surrogate pair or U+FFFD: two users could then have the same name",
);
const NO_WORKSPACES: &str =
    "it has no claim with the workspaces (workspaces_claim, by default workspaces)";
const UNUSABLE_WORKSPACES: &str =
    "its claim with the workspaces grants nothing that can be used (see workspaces_prefix)";
const OTHER_WORKSPACES: &str = "it does not grant the workspace asked for";
const AUDIENCE: AuthError = AuthError::Invalid("its aud is not the configured audience");
const NO_EXP: AuthError = AuthError::Invalid("it has no exp");
const EXP_NO_DATE: AuthError =
    AuthError::Invalid("its exp is not a date, which is a number of seconds since 1970");
const EXP_TOO_FAR: AuthError = AuthError::Invalid(
    "its exp is beyond the year 9999: it seems to be in milliseconds, dates are in seconds",
);
const NBF_NO_DATE: AuthError =
    AuthError::Invalid("its nbf is not a date, which is a number of seconds since 1970");
const NBF_TOO_FAR: AuthError = AuthError::Invalid(
    "its nbf is beyond the year 9999: it seems to be in milliseconds, dates are in seconds",
);
const IAT_NO_DATE: AuthError =
    AuthError::Invalid("its iat is not a date, which is a number of seconds since 1970");
const IAT_TOO_FAR: AuthError = AuthError::Invalid(
    "its iat is beyond the year 9999: it seems to be in milliseconds, dates are in seconds",
);
const NO_IAT: AuthError = AuthError::Invalid("it has no iat, which auth.max_token_age needs");
const TOO_LONG: AuthError = AuthError::Invalid("it lives longer than auth.max_token_age");
const NOT_ALL_CLAIMS: AuthError = AuthError::Invalid("it lacks a claim of required_claims");
const NEVER: AuthError = AuthError::Invalid("its exp is not after its nbf: it is never valid");
const NOT_YET: AuthError = AuthError::Invalid("it is not yet valid");

/// The `iss` of the claims.
///
/// # Errors
/// It is there and not a name.
pub(super) fn issuer(claims: &Map) -> Result<Option<&str>, AuthError> {
    match present(claims, "iss") {
        None => Ok(None),
        // A user is one of their issuer's: what is said of a user's name holds for its, too.
        Some(Value::String(issuer)) if issuer.contains(char::REPLACEMENT_CHARACTER) => {
            Err(AuthError::Invalid(
                "its iss has half of a surrogate pair or U+FFFD: two issuers could then have the same name",
            ))
        }
        Some(Value::String(issuer)) => Ok(Some(issuer.as_str())),
        Some(_) => Err(AuthError::Invalid("its iss is not a name")),
    }
}

/// The id of the token, by its `jti`. RFC 7519 section 4.1.7 makes it text; some issuers count.
pub(super) fn token(claims: &Map, issuer: Option<&str>) -> Option<TokenId> {
    match present(claims, "jti")? {
        Value::String(jti) => Some(TokenId::new(issuer, jti)),
        Value::Number(jti) => Some(TokenId::new(issuer, jti.as_str())),
        _ => None,
    }
}

/// The claim `name`. Serialisers write null for what is absent.
fn present<'a>(claims: &'a Map, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|claim| !claim.is_null())
}

/// Whether it is an integer of 64 bits. Others may be larger than what the issuer's software can tell apart,
/// or be written in more than one way, as `-0`.
fn is_integer(number: &Number) -> bool {
    let text = number.as_str();
    text != "-0" && (text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok())
}

/// How far `not_before` is ahead of `now`.
///
/// # Errors
/// It is farther ahead than is worth waiting for.
fn ahead(not_before: SystemTime, now: SystemTime) -> Result<Duration, AuthError> {
    let ahead = not_before.duration_since(now).unwrap_or_default();
    if ahead > NBF_AHEAD_MAX {
        return Err(NOT_YET);
    }
    Ok(ahead)
}

/// A NumericDate, RFC 7519 section 2: seconds since 1970, with a fraction or without. A date before
/// 1970 is long past and taken as 1970.
///
/// # Errors
/// `no_date`, or `too_far` beyond [`LAST_SECOND`].
fn numeric_date(
    value: &Value,
    no_date: AuthError,
    too_far: AuthError,
) -> Result<SystemTime, AuthError> {
    let seconds = value.as_f64().ok_or(no_date)?;
    if seconds > LAST_SECOND {
        return Err(too_far);
    }
    let since_epoch = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| no_date)?;
    let date = SystemTime::UNIX_EPOCH.checked_add(since_epoch);
    date.ok_or(too_far)
}

fn later(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by).unwrap_or(time)
}
