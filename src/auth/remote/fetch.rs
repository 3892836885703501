//! Fetches a key set over HTTP, within limits of time, size and redirects. What it means is decided elsewhere.

use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, CACHE_CONTROL};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};
use tokio::time::timeout;

use super::address::{DiscoveryError, KeyAddress, is_this_host, jwks_uri};
use super::cache::fresh_for;
use crate::auth::jwks::{JwksError, KeySet, Remark, parse_published};
use crate::word_enum::word_enum;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a fetch may take, all in all.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest key sets of providers have some 20 KiB.
const BYTES_MAX: usize = 512 * 1024;
/// All of them on the same host.
const REDIRECTS_MAX: usize = 3;

/// What an address answered.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    pub(super) keys: KeySet,
    pub(super) remarks: Vec<Remark>,
    /// As its provider says.
    pub(super) fresh_for: Duration,
}

/// Why there are no keys. Completes a sentence that begins with the address. Nothing of an answer is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// With the cause.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("gave no whole answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("answers with status {0}")]
    Status(StatusCode),
    #[error("answers with more than {} KiB", BYTES_MAX / 1024)]
    TooLarge,
    #[error("redirects to another scheme, host or port, or more than {REDIRECTS_MAX} times")]
    Redirect,
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error(transparent)]
    Jwks(#[from] JwksError),
    #[error(
        "holds certificates, not keys: of Firebase, set discovery = true, or use \
         https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
    )]
    Certificates,
}

word_enum! {
    /// How a fetch can end, as metrics call it.
    pub(super) enum FetchResult {
        Ok = "ok",
        Unreachable = "unreachable",
        Timeout = "timeout",
        Status = "status",
        TooLarge = "too_large",
        Redirect = "redirect",
        Invalid = "invalid",
    }
}

impl From<&FetchError> for FetchResult {
    fn from(error: &FetchError) -> Self {
        match error {
            FetchError::Unreachable(_) => Self::Unreachable,
            FetchError::Timeout => Self::Timeout,
            FetchError::Status(_) => Self::Status,
            FetchError::TooLarge => Self::TooLarge,
            FetchError::Redirect => Self::Redirect,
            FetchError::Discovery(_) | FetchError::Jwks(_) | FetchError::Certificates => {
                Self::Invalid
            }
        }
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_redirect() {
            return Self::Redirect;
        }
        if error.is_connect() && error.is_timeout() {
            let text = format!("no connection within {} s", CONNECT.as_secs());
            return Self::Unreachable(text);
        }
        // Its own text has the address with the query. The last cause says most.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self::Unreachable(cause.to_string())
    }
}

/// HTTP clients: a proxy of the environment is for other hosts alone.
#[derive(Debug)]
pub(super) struct KeyClient {
    others: Client,
    this_host: Client,
}

impl KeyClient {
    /// Reads the CA certificates of the system, and so may block.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] where they cannot be read.
    pub(super) fn new() -> Result<Self, FetchError> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .redirect(Policy::custom(redirect))
                .referer(false)
                // Between two fetches are minutes.
                .pool_max_idle_per_host(0)
        };
        Ok(Self {
            others: builder().build()?,
            this_host: builder().no_proxy().build()?,
        })
    }

    /// The keys that `address` has now.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn fetch(&self, address: &KeyAddress) -> Result<FetchedKeys, FetchError> {
        let fetch = async {
            match address {
                KeyAddress::Jwks(url) => self.jwks(url).await,
                KeyAddress::Discovery { issuer, document } => {
                    let (document, _) = self.get(document).await?;
                    self.jwks(&jwks_uri(&document, issuer)?).await
                }
            }
        };
        timeout(TIMEOUT, fetch)
            .await
            .unwrap_or(Err(FetchError::Timeout))
    }

    async fn jwks(&self, url: &Url) -> Result<FetchedKeys, FetchError> {
        let (body, fresh_for) = self.get(url).await?;
        let parsed = parse_published(&body).map_err(|error| match error {
            JwksError::NoKeys if has_certificates(&body) => FetchError::Certificates,
            error => error.into(),
        });
        let (keys, remarks) = parsed?;
        Ok(FetchedKeys {
            keys,
            remarks,
            fresh_for,
        })
    }

    /// The body, and how long it is fresh. The type that it says it has does not matter: some providers say another.
    async fn get(&self, url: &Url) -> Result<(Vec<u8>, Duration), FetchError> {
        let client = if is_this_host(url) {
            &self.this_host
        } else {
            &self.others
        };
        let request = client
            .get(url.clone())
            .header(ACCEPT, "application/json")
            // A cache on the way may not know the key that has a token wait for this.
            .header(CACHE_CONTROL, "no-cache");
        let mut answer = request.send().await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        if answer
            .content_length()
            .is_some_and(|length| length > BYTES_MAX as u64)
        {
            return Err(FetchError::TooLarge);
        }
        let fresh_for = fresh_for(answer.headers(), SystemTime::now());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, fresh_for))
    }
}

/// Who can redirect to another host could have any keys trusted.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let is_same_origin = attempt
        .previous()
        .first()
        .is_some_and(|first| first.origin() == attempt.url().origin());
    if is_same_origin && attempt.previous().len() <= REDIRECTS_MAX {
        attempt.follow()
    } else {
        attempt.error("redirect refused")
    }
}

/// Whether it is a map from key ids to certificates, as the documentation of Firebase names one.
fn has_certificates(body: &[u8]) -> bool {
    let Ok(crate::json::Value::Object(map)) = crate::json::parse(body) else {
        return false;
    };
    let is_certificate = |value: &crate::json::Value| {
        let text = value.as_str();
        text.is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE-----"))
    };
    !map.is_empty() && map.values().all(is_certificate)
}
