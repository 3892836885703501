//! Tokens: who connects, which workspaces they may enter, until when.
//!
//! A token is a JWT (RFC 7519) in compact form. [`presented_token`] finds it in a request and
//! [`Verifier::judge`] judges it, in this order: its form, its issuer, its signature, its other
//! claims, its time. The issuer decides which key is asked, and the key which algorithms are taken,
//! never the token. Nothing here prints a part of a token: errors are fixed sentences.

mod claims;
mod credential;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grants;
mod issuer;
mod jwks;
mod jwks_file;
mod jws;
mod key;
mod presented;
mod publisher;
mod revoked;
mod remote;
mod sign;
mod source;
#[cfg(test)]
mod tests;
mod user;
mod verified_token;
mod withdrawal;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tracing::warn;

use self::claims::SignedClaims;
pub use self::credential::{Credential, KeyId, TokenId};
pub(crate) use self::issuer::entry_for;
use self::issuer::{Issuer, Issuers};
use self::jwks::UNKNOWN_KEY;
pub(crate) use self::jwks_file::LOOK_INTERVAL;
use self::jws::Jws;
pub use self::key::{HmacSecret, HmacSecretError};
pub use self::presented::{PresentedToken, cookie_token, presented_token};
pub(crate) use self::presented::{bearer_token, has_token, offered_subprotocols};
pub(crate) use self::publisher::RememberedTokens;
pub use self::publisher::{PublishGrant, PublisherIdentity};
pub(crate) use self::remote::KeysStatus;
use self::remote::RemoteKeys;
pub use self::revoked::{
    RevocationAction, RevocationEntry, RevocationNames, RevocationTarget, Revocations, RevokedKind,
    RevokedSet,
};
pub use self::sign::{NewToken, SignError, sign};
use self::source::KeySource;
pub use self::user::UserKey;
pub use self::verified_token::VerifiedToken;
use crate::config::{AuthConfig, IssuerConfig, read_once};
use crate::event::WorkspaceSlug;
use crate::json;

/// Longest token taken, in bytes: twice the longest that proxies let through in a URL by default, so
/// that a token that reaches a gateway is judged by what it says. A longer one is refused unread.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a valid token says.
#[derive(Debug, Clone)]
pub struct Identity {
    pub credential: Credential,
    /// What the token calls the user, by default its `sub`; `recipients` name it.
    pub subject: Arc<str>,
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
    /// That part of the token is not JSON.
    #[error("invalid token: its {0} {1}")]
    NotJson(&'static str, json::Error),
    /// It is to be tried again after this while, which is short: all is right and it only becomes valid
    /// then, or the key set that may hold its key is read again then.
    #[error("token not yet valid")]
    NotYet(Duration),
    /// Its user, it or its key is revoked.
    #[error("token revoked")]
    Revoked,
    /// No key that is known signed it, but another key of its issuer may have. It is to be judged again once the keys
    /// are fetched.
    #[error("its key is not known yet")]
    UnknownKey,
    /// All is right but its time is over.
    #[error("token expired")]
    Expired,
}

impl AuthError {
    /// What is wrong with the token, for the log.
    fn reason(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Invalid(reason) => Some(Cow::Borrowed(reason)),
            Self::NotJson(part, error) => Some(Cow::Owned(format!("its {part} {error}"))),
            Self::Revoked => Some(Cow::Borrowed(
                "it is revoked: herald revoke --list has the entry",
            )),
            // That there is none, or that its time is over, is no fault. Of an unknown key it is not decided yet.
            Self::Missing | Self::NotYet(_) | Self::UnknownKey | Self::Expired => None,
        }
    }
}

/// In the log where a key set's file is away, half-written, or read again only in a moment.
const KEYS_UNKNOWN: &str = "no key that is known signed it, and the file of the key set has just changed: \
                            its sender is told to come again";
/// In the log where a key set cannot be fetched, or not in time.
const KEYS_NOT_FETCHED: &str = "no key that is known signed it, and its issuer's keys were not fetched in time: \
                                its sender can come again";

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthConfigError(pub String);

/// Verifies tokens with the keys of their issuers. Meant to be shared behind an `Arc`.
#[derive(Debug)]
pub struct Verifier(Issuers);

impl Verifier {
    /// Reads the key source of each issuer. Reads files, so not for the way of a socket.
    ///
    /// # Errors
    /// [`AuthConfigError`] naming each setting and what is wrong with it.
    pub fn from_config(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        Issuers::load(config).map(Self)
    }

    /// Judges `token` as of `now`: its signature first, its time last. Before its time whether it is `revoked`: an
    /// expired one promises that a fresh one will do. Only the moment from which it is valid and the
    /// workspace are left to [`VerifiedToken`]. What is wrong with it stands in the log, with its issuer's settings.
    ///
    /// With a `jwks_file` this looks at the file's metadata if no key fits, and reads it again if it changed, at most
    /// once in ten seconds. That blocks for a moment, on a local disk.
    ///
    /// # Errors
    /// [`AuthError`]; `NotYet` and `UnknownKey` only if the keys are not known yet.
    pub fn judge(
        &self,
        token: &str,
        now: SystemTime,
        revoked: &Revocations,
    ) -> Result<VerifiedToken<'_>, AuthError> {
        self.judge_at(token, now, Instant::now(), revoked)
    }

    /// As [`Verifier::judge`], when it is known whether all keys are known: what [`Verifier::wait_for_key`] said.
    ///
    /// # Errors
    /// [`AuthError`]; never `UnknownKey`.
    pub(crate) fn judge_finally(
        &self,
        token: &str,
        now: SystemTime,
        revoked: &Revocations,
        waited: Result<(), Duration>,
    ) -> Result<VerifiedToken<'_>, AuthError> {
        self.judge(token, now, revoked)
            .map_err(|error| self.decided(token, error, waited))
    }

    /// What `error` of `token` comes to, when it is known whether all keys are known.
    pub(crate) fn decided(
        &self,
        token: &str,
        error: AuthError,
        waited: Result<(), Duration>,
    ) -> AuthError {
        if error != AuthError::UnknownKey {
            return error;
        }
        let (error, reason) = match waited {
            Ok(()) => (UNKNOWN_KEY, UNKNOWN_KEY.reason().unwrap_or_default()),
            Err(pause) => (AuthError::NotYet(pause), Cow::Borrowed(KEYS_NOT_FETCHED)),
        };
        let issuer = self.issuer_of(token).map(|issuer| issuer.table.as_str());
        warn!(issuer, reason = &*reason, "token not verified");
        error
    }

    /// Judges a token for publishing, as [`Verifier::judge`] does one for a socket.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(crate) fn judge_publisher(
        &self,
        token: &str,
        now: SystemTime,
        revoked: &Revocations,
    ) -> Result<PublisherIdentity, AuthError> {
        let (issuer, signed) = self.signed(token, Instant::now())?;
        let judged = issuer.rules.judge_publisher(&signed, now, revoked);
        if let Some(reason) = judged.as_ref().err().and_then(AuthError::reason) {
            warn!(
                issuer = issuer.table,
                reason = &*reason,
                "publish token refused"
            );
        }
        judged
    }

    /// Waits, after [`AuthError::UnknownKey`], until the keys are known that a token may be signed with which came at
    /// `since`.
    ///
    /// # Errors
    /// They are not known. With the time after which it may come again.
    pub(crate) async fn wait_for_key(&self, token: &str, since: Instant) -> Result<(), Duration> {
        match (
            Jws::parse(token),
            self.issuer_of(token)
                .and_then(|issuer| issuer.keys.remote()),
        ) {
            (Ok(jws), Some(keys)) => keys.wait_for_key(&jws, since).await,
            // It had both, so that it is judged again at once.
            _ => Ok(()),
        }
    }

    /// The issuer that a token names. Nothing of it is verified.
    fn issuer_of(&self, token: &str) -> Option<&Issuer> {
        let claims = Jws::parse(token).ok()?.claims().ok()?;
        self.0.of(claims::issuer(&claims).ok()?).ok()
    }

    /// The table of the settings of the issuer that a token names. Nothing of the token is verified.
    pub(crate) fn issuer_table(&self, token: &str) -> Option<&str> {
        self.issuer_of(token).map(|issuer| issuer.table.as_str())
    }

    /// The keys that are fetched from an address, each with the table of its issuer's settings.
    fn remote(&self) -> impl Iterator<Item = (&str, &RemoteKeys)> {
        let issuers = self.0.all();
        issuers.filter_map(|issuer| Some((issuer.table.as_str(), issuer.keys.remote()?)))
    }

    /// Begins to fetch the keys that come from an address. The runtime of the caller runs what fetches them.
    pub(crate) fn start_fetching(&self) {
        self.remote().for_each(|(_, keys)| keys.start());
    }

    /// Has all keys fetched again that come from an address.
    pub(crate) fn refresh_keys(&self) {
        self.remote().for_each(|(_, keys)| keys.refresh());
    }

    /// Waits until each address has answered or failed once, since [`Verifier::start_fetching`].
    ///
    /// # Errors
    /// The addresses without keys, one sentence each.
    pub(crate) async fn first_fetch(&self) -> Result<(), Vec<String>> {
        let fetches = self.remote().map(async |(table, keys)| {
            let fetched = keys.first_fetch().await;
            fetched.map_err(|why| format!("keys of {table} {why}"))
        });
        let fetched = join_all(fetches).await;
        let wrong: Vec<String> = fetched.into_iter().filter_map(Result::err).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The first of the issuers whose keys are not fetched yet, and why.
    pub(crate) fn missing_keys(&self) -> Option<String> {
        self.remote().find_map(|(table, keys)| {
            let why = keys.missing()?;
            Some(format!("the keys of {table} {why}"))
        })
    }

    /// The state of the keys that come from an address, each with the table of its issuer's settings.
    pub(crate) fn keys_status(&self, now: Instant) -> Vec<(&str, KeysStatus)> {
        self.remote()
            .map(|(table, keys)| (table, keys.status(now)))
            .collect()
    }

    /// Each key that is known now, with the table of its issuer's settings, in words that show no secret.
    pub(crate) fn key_descriptions(&self) -> impl Iterator<Item = String> {
        self.0.all().flat_map(|Issuer { table, keys, .. }| {
            let keys = keys.descriptions();
            keys.into_iter().map(move |key| format!("{table}: {key}"))
        })
    }

    /// Goes on with the keys that `old` has fetched from the same addresses.
    pub(crate) fn go_on_from(&mut self, old: &Self) {
        self.0.go_on_from(&old.0);
    }

    /// `instant` is what rereading a key file is timed with.
    fn judge_at(
        &self,
        token: &str,
        now: SystemTime,
        instant: Instant,
        revoked: &Revocations,
    ) -> Result<VerifiedToken<'_>, AuthError> {
        let (issuer, signed) = self.signed(token, instant)?;
        let judged = issuer.rules.judge(&signed, now, &issuer.table, revoked);
        if let Some(reason) = judged.as_ref().err().and_then(AuthError::reason) {
            // The issuer itself wrote it: the settings, or its own, are to be looked at.
            warn!(issuer = issuer.table, reason = &*reason, "token refused");
        }
        judged
    }

    /// Whether the key of a socket's credential is to be trusted still: its issuer is in the settings, and its key
    /// is not withdrawn.
    pub fn trusts(&self, credential: &Credential) -> bool {
        let issuer = self.0.of(credential.issuer.as_deref());
        issuer.is_ok_and(|issuer| issuer.keys.trust(credential.key))
    }

    /// Looks at the key files; whether a key was withdrawn since the last look. May block, as
    /// [`Verifier::verify`]. To be called every [`LOOK_INTERVAL`].
    pub(crate) fn look(&self, now: Instant) -> bool {
        // Each of them has to be looked at.
        let looks = self.0.all().map(|issuer| issuer.keys.look(now));
        looks.fold(false, |any, withdrawn| any | withdrawn)
    }

    /// The claims of a token, and the key that signed it, with its issuer: the one that they name.
    fn signed(&self, token: &str, instant: Instant) -> Result<(&Issuer, SignedClaims), AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let mut table = None;
        let signed = (|| {
            if token.len() > TOKEN_BYTES_MAX {
                return Err(AuthError::Invalid("it is longer than 16 KiB"));
            }
            let jws = Jws::parse(token)?;
            // They choose whose key is asked; nothing else of them counts before it has said yes.
            let claims = jws.claims()?;
            let issuer = self.0.of(claims::issuer(&claims)?)?;
            table = Some(issuer.table.as_str());
            let signed = SignedClaims {
                key: issuer.keys.verify(&jws, instant)?,
                issuer: issuer.of_token(claims::issuer(&claims)?),
                claims,
            };
            Ok((issuer, signed))
        })();
        let error = signed.as_ref().err();
        let reason = match error {
            Some(AuthError::NotYet(_)) => Some(Cow::Borrowed(KEYS_UNKNOWN)),
            error => error.and_then(AuthError::reason),
        };
        if let Some(reason) = reason {
            // Anybody may have made it. A line of its own, so that many do not hide those above.
            warn!(issuer = table, reason = &*reason, "token not verified");
        }
        signed
    }
}

/// Which tokens are verified, and by which settings.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a token that is known but perhaps not good, for `herald revoke`: nothing of it is verified. `None` if it
/// has no `jti`.
///
/// # Errors
/// It is no token.
pub fn id_of_unverified(token: &str) -> Result<Option<TokenId>, AuthError> {
    let claims = Jws::parse(token)?.claims()?;
    Ok(claims::token(&claims, claims::issuer(&claims)?))
}

/// The shared secret of the issuer whose settings stand in `place`, which `herald token` signs with.
///
/// # Errors
/// [`AuthConfigError`] where the key source is not exactly one, or not a usable shared secret.
pub fn signing_secret(table: &str, config: &IssuerConfig) -> Result<HmacSecret, AuthConfigError> {
    KeySource::of(table, config)?.hmac_secret(read_once)
}
