//! The one key source that an issuer's settings name, and reading its file. An address is fetched later, by `remote`.

use std::path::Path;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use super::credential::KeyId;
use super::jwks::KeySet;
use super::jwks_file::JwksFile;
use super::jws::Jws;
use super::key::{HmacSecret, HmacSecretError, VerifyingKey, public_key_from_pem};
use super::remote::RemoteKeys;
use super::{AuthConfigError, AuthError};
use crate::config::{FileError, IssuerConfig, Secret, read_bounded};

/// The key source in force, and the place of its settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeySource<'a> {
    table: &'a str,
    kind: KeySourceKind<'a>,
}

#[derive(Debug, Clone, Copy)]
enum KeySourceKind<'a> {
    HmacSecret(&'a Secret),
    HmacSecretFile(&'a Path),
    PublicKeyFile(&'a Path),
    JwksFile(&'a Path),
    JwksUrl(&'a str),
    /// With the issuer, which has to be set, too.
    Discovery(Option<&'a str>),
}

impl<'a> KeySource<'a> {
    /// The one source that is set.
    ///
    /// # Errors
    /// None is, or several: with two, a token's header would choose between them.
    pub(super) fn of(table: &'a str, config: &'a IssuerConfig) -> Result<Self, AuthConfigError> {
        let sources: Vec<Self> = [
            config.hmac_secret.as_ref().map(KeySourceKind::HmacSecret),
            config
                .hmac_secret_file
                .as_deref()
                .map(KeySourceKind::HmacSecretFile),
            config
                .public_key_file
                .as_deref()
                .map(KeySourceKind::PublicKeyFile),
            config.jwks_file.as_deref().map(KeySourceKind::JwksFile),
            config.jwks_url.as_deref().map(KeySourceKind::JwksUrl),
            config
                .discovery
                .then_some(KeySourceKind::Discovery(config.issuer.as_deref())),
        ]
        .into_iter()
        .flatten()
        .map(|kind| Self { table, kind })
        .collect();
        match sources.as_slice() {
            [source] => Ok(*source),
            [] => Err(AuthConfigError(format!(
                "nothing to verify tokens with: set one of {table}.hmac_secret, \
                 {table}.hmac_secret_file, {table}.public_key_file, {table}.jwks_file, {table}.jwks_url and \
                 {table}.discovery"
            ))),
            several => {
                let names: Vec<String> = several.iter().map(Self::setting).collect();
                Err(AuthConfigError(format!(
                    "only one key source may be set, not {}",
                    names.join(" and ")
                )))
            }
        }
    }

    /// The name of the setting.
    pub(super) fn setting(&self) -> String {
        let key = match self.kind {
            KeySourceKind::HmacSecret(_) => "hmac_secret",
            KeySourceKind::HmacSecretFile(_) => "hmac_secret_file",
            KeySourceKind::PublicKeyFile(_) => "public_key_file",
            KeySourceKind::JwksFile(_) => "jwks_file",
            KeySourceKind::JwksUrl(_) => "jwks_url",
            KeySourceKind::Discovery(_) => "discovery",
        };
        format!("{}.{key}", self.table)
    }

    /// Reads the keys, for these algorithms only, if any are given. Those of an address are not fetched yet, and are
    /// used until they are older than `max_stale`.
    ///
    /// # Errors
    /// [`AuthConfigError`] naming the setting, the file and what is wrong with it.
    pub(super) fn load(
        &self,
        algorithms: Option<Vec<Algorithm>>,
        max_stale: Duration,
    ) -> Result<Keys, AuthConfigError> {
        let key = match self.kind {
            KeySourceKind::HmacSecret(_) | KeySourceKind::HmacSecretFile(_) => {
                self.hmac_secret(read_bounded)?.verifying_key()
            }
            KeySourceKind::PublicKeyFile(path) => {
                let file = read_bounded(path).map_err(|error| self.error(path, error))?;
                public_key_from_pem(&file).map_err(|error| self.error(path, error))?
            }
            KeySourceKind::JwksFile(path) => {
                self.check(algorithms.as_deref(), PUBLIC_KEY_ALGORITHMS)?;
                return JwksFile::open(path, algorithms, Instant::now())
                    .map(Keys::File)
                    .map_err(|error| self.error(path, error));
            }
            KeySourceKind::JwksUrl(_) | KeySourceKind::Discovery(_) => {
                self.check(algorithms.as_deref(), PUBLIC_KEY_ALGORITHMS)?;
                let keys = self.remote()?.restricted(algorithms, max_stale);
                return Ok(Keys::Remote(keys));
            }
        };
        self.check(algorithms.as_deref(), key.algorithms())?;
        let keys = KeySet::of([key]);
        Ok(Keys::Fixed(match algorithms {
            Some(algorithms) => keys.only(&algorithms),
            None => keys,
        }))
    }

    /// The keys of its address.
    fn remote(&self) -> Result<RemoteKeys, AuthConfigError> {
        // What an address has may be a secret: it is not shown.
        match self.kind {
            KeySourceKind::JwksUrl(url) => RemoteKeys::of_jwks(url)
                .map_err(|error| AuthConfigError(format!("{} {error}", self.setting()))),
            KeySourceKind::Discovery(Some(issuer)) => {
                RemoteKeys::of_issuer(issuer).map_err(|error| {
                    AuthConfigError(format!(
                        "{} is fetched from {table}.issuer, which {error}",
                        self.setting(),
                        table = self.table
                    ))
                })
            }
            KeySourceKind::Discovery(None)
            | KeySourceKind::HmacSecret(_)
            | KeySourceKind::HmacSecretFile(_)
            | KeySourceKind::PublicKeyFile(_)
            | KeySourceKind::JwksFile(_) => Err(AuthConfigError(format!(
                "{} needs {}.issuer: the keys are found by it",
                self.setting(),
                self.table
            ))),
        }
    }

    /// Whether the source's keys can have all of these algorithms.
    fn check(
        &self,
        algorithms: Option<&[Algorithm]>,
        possible: &[Algorithm],
    ) -> Result<(), AuthConfigError> {
        let mut algorithms = algorithms.into_iter().flatten();
        match algorithms.find(|algorithm| !possible.contains(algorithm)) {
            None => Ok(()),
            Some(foreign) => Err(AuthConfigError(format!(
                "{}.algorithms: {foreign:?} does not fit {}, whose key takes {possible:?}",
                self.table,
                self.setting()
            ))),
        }
    }

    /// The shared secret, if the source is one. A file is read by `read`.
    ///
    /// # Errors
    /// [`AuthConfigError`] where the source is a public key, or the secret cannot be used.
    pub(super) fn hmac_secret(
        &self,
        read: impl FnOnce(&Path) -> Result<Vec<u8>, FileError>,
    ) -> Result<HmacSecret, AuthConfigError> {
        match self.kind {
            KeySourceKind::HmacSecret(secret) => HmacSecret::new(secret.expose().as_bytes())
                .map_err(|error: HmacSecretError| {
                    AuthConfigError(format!("{} {error}", self.setting()))
                }),
            KeySourceKind::HmacSecretFile(path) => {
                let file = read(path).map_err(|error| self.error(path, error))?;
                HmacSecret::new(&file).map_err(|error| self.error(path, error))
            }
            KeySourceKind::PublicKeyFile(_)
            | KeySourceKind::JwksFile(_)
            | KeySourceKind::JwksUrl(_)
            | KeySourceKind::Discovery(_) => Err(AuthConfigError(format!(
                "{} holds public keys, which verify tokens but cannot sign one",
                self.setting()
            ))),
        }
    }

    fn error(&self, path: &Path, error: impl std::fmt::Display) -> AuthConfigError {
        AuthConfigError(format!("{} {} {error}", self.setting(), path.display()))
    }
}

/// What the keys of a key set may take. Which of them they do, they say themselves.
const PUBLIC_KEY_ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The keys in force.
#[derive(Debug)]
pub(super) enum Keys {
    /// A secret or a PEM key, read once.
    Fixed(KeySet),
    /// A key set that follows its file.
    File(JwksFile),
    /// A key set that is fetched.
    Remote(RemoteKeys),
}

impl Keys {
    /// Which of them signed the token; `now` is what rereading a file is timed with.
    ///
    /// # Errors
    /// As [`KeySet::verify`]; [`AuthError::NotYet`] and [`AuthError::UnknownKey`] where the keys are not all known.
    pub(super) fn verify(&self, jws: &Jws<'_>, now: Instant) -> Result<KeyId, AuthError> {
        match self {
            Self::Fixed(keys) => keys.verify(jws),
            Self::File(file) => file.verify(jws, now),
            Self::Remote(remote) => remote.verify(jws, now),
        }
    }

    /// Whether tokens of this key are to be trusted: it is one of them, or not yet withdrawn.
    pub(super) fn trust(&self, key: KeyId) -> bool {
        match self {
            Self::Fixed(keys) => keys.contains(key),
            Self::File(file) => file.trusts(key),
            Self::Remote(remote) => remote.trusts(key),
        }
    }

    /// Looks whether there are other keys now; whether one was withdrawn since the last look.
    pub(super) fn look(&self, now: Instant) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::File(file) => file.look(now),
            Self::Remote(remote) => remote.look(),
        }
    }

    /// Those that are fetched.
    pub(super) fn remote(&self) -> Option<&RemoteKeys> {
        match self {
            Self::Remote(remote) => Some(remote),
            Self::Fixed(_) | Self::File(_) => None,
        }
    }

    /// Each key that is known now, in words that show no secret.
    pub(super) fn descriptions(&self) -> Vec<String> {
        let describe = |keys: &KeySet| keys.named().map(described).collect();
        match self {
            Self::Fixed(keys) => describe(keys),
            Self::File(file) => describe(&file.keys()),
            Self::Remote(remote) => remote.keys().map_or_else(Vec::new, |keys| describe(&keys)),
        }
    }
}

fn described((name, key): (Option<&str>, &VerifyingKey)) -> String {
    let algorithms: Vec<String> = key
        .algorithms()
        .iter()
        .map(|name| format!("{name:?}"))
        .collect();
    let algorithms = algorithms.join(" ");
    let Some(thumbprint) = key.thumbprint() else {
        return format!("a shared secret, for {algorithms}");
    };
    match name {
        Some(name) => format!("kid {name:?}, for {algorithms}, thumbprint {thumbprint}"),
        None => format!("without a kid, for {algorithms}, thumbprint {thumbprint}"),
    }
}
