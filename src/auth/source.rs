//! The one key source that the settings name, and reading its file.

use std::path::Path;
use std::time::Instant;

use super::AuthConfigError;
use super::jwks::KeySet;
use super::jwks_file::JwksFile;
use super::key::{HmacSecret, HmacSecretError, public_key_from_pem};
use crate::config::{AuthConfig, ReadError, Secret, read_bounded};

/// The key source in force.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeySource<'a> {
    HmacSecret(&'a Secret),
    HmacSecretFile(&'a Path),
    PublicKeyFile(&'a Path),
    JwksFile(&'a Path),
}

impl<'a> KeySource<'a> {
    /// The one source that is set.
    ///
    /// # Errors
    /// None is, or several: with two, a token's header would choose between them.
    pub(super) fn of(config: &'a AuthConfig) -> Result<Self, AuthConfigError> {
        let sources: Vec<Self> = [
            config.hmac_secret.as_ref().map(Self::HmacSecret),
            config.hmac_secret_file.as_deref().map(Self::HmacSecretFile),
            config.public_key_file.as_deref().map(Self::PublicKeyFile),
            config.jwks_file.as_deref().map(Self::JwksFile),
        ]
        .into_iter()
        .flatten()
        .collect();
        match sources.as_slice() {
            [source] => Ok(*source),
            [] => Err(AuthConfigError(
                "nothing to verify tokens with: set one of auth.hmac_secret, \
                 auth.hmac_secret_file, auth.public_key_file and auth.jwks_file"
                    .to_owned(),
            )),
            several => {
                let names: Vec<&str> = several.iter().map(Self::setting).collect();
                Err(AuthConfigError(format!(
                    "only one key source may be set, not {}",
                    names.join(" and ")
                )))
            }
        }
    }

    /// The name of the setting.
    pub(super) fn setting(&self) -> &'static str {
        match self {
            Self::HmacSecret(_) => "auth.hmac_secret",
            Self::HmacSecretFile(_) => "auth.hmac_secret_file",
            Self::PublicKeyFile(_) => "auth.public_key_file",
            Self::JwksFile(_) => "auth.jwks_file",
        }
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// [`AuthConfigError`] naming the setting, the file and what is wrong with it.
    pub(super) fn load(&self) -> Result<Keys, AuthConfigError> {
        match self {
            Self::HmacSecret(_) | Self::HmacSecretFile(_) => {
                let secret = self.hmac_secret(read_bounded)?;
                Ok(Keys::Fixed(KeySet::of(secret.verifying_key())))
            }
            Self::PublicKeyFile(path) => {
                let file = read_bounded(path).map_err(|error| self.error(path, error))?;
                let key = public_key_from_pem(&file).map_err(|error| self.error(path, error))?;
                Ok(Keys::Fixed(KeySet::of(key)))
            }
            Self::JwksFile(path) => JwksFile::open(path, Instant::now())
                .map(Keys::File)
                .map_err(|error| self.error(path, error)),
        }
    }

    /// The shared secret, if the source is one. A file is read by `read`.
    ///
    /// # Errors
    /// [`AuthConfigError`] where the source is a public key, or the secret cannot be used.
    pub(super) fn hmac_secret(
        &self,
        read: impl FnOnce(&Path) -> Result<Vec<u8>, ReadError>,
    ) -> Result<HmacSecret, AuthConfigError> {
        match self {
            Self::HmacSecret(secret) => {
                HmacSecret::new(secret.expose().as_bytes()).map_err(|error: HmacSecretError| {
                    AuthConfigError(format!("{} {error}", self.setting()))
                })
            }
            Self::HmacSecretFile(path) => {
                let file = read(path).map_err(|error| self.error(path, error))?;
                HmacSecret::new(&file).map_err(|error| self.error(path, error))
            }
            Self::PublicKeyFile(_) | Self::JwksFile(_) => Err(AuthConfigError(format!(
                "{} holds public keys, which verify tokens but cannot sign one",
                self.setting()
            ))),
        }
    }

    fn error(&self, path: &Path, error: impl std::fmt::Display) -> AuthConfigError {
        AuthConfigError(format!("{} {} {error}", self.setting(), path.display()))
    }
}

/// The keys in force.
#[derive(Debug)]
pub(super) enum Keys {
    /// A secret or a PEM key, read once.
    Fixed(KeySet),
    /// A key set that follows its file.
    File(JwksFile),
}
