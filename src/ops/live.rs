//! What a gateway is made of that can change while it serves: the settings and what was read from the
//! files that they name. All of it is one value, which a reload replaces at once; who serves a request
//! or an event looks at it once, and so sees no half of another.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use super::admin::{AdminToken, AdminTokenError};
use super::tls::{Tls, TlsError};
use crate::admission::TrustedProxies;
use crate::auth::{AuthConfigError, Verifier};
use crate::config::{Config, read_bounded};
use crate::projection::{Projector, RulesError};
use crate::telemetry::{Filter, FilterSettingError};

/// The [`Setup`] in force. Clones share it.
#[derive(Debug, Clone)]
pub struct Live(Arc<RwLock<Arc<Setup>>>);

/// Settings, and everything that is built of them and their files before the network is touched.
#[derive(Debug)]
pub struct Setup {
    pub(crate) config: Config,
    pub(crate) verifier: Verifier,
    pub(crate) projector: Projector,
    pub(crate) proxies: TrustedProxies,
    pub(crate) tls: Option<Tls>,
    pub(crate) admin_token: Option<AdminToken>,
    pub(crate) filter: Filter,
    pub(crate) files: Vec<NamedFile>,
}

/// A setting that names a file, and a hash of what was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) setting: &'static str,
    content: [u8; 32],
}

/// A [`Setup`] of which a part may be wrong. Each is looked at, whatever is wrong with the others.
#[derive(Debug)]
pub struct Building {
    config: Config,
    pub(crate) keys: Result<Verifier, AuthConfigError>,
    pub(crate) rules: Result<Projector, RulesError>,
    pub(crate) tls: Result<Option<Tls>, TlsError>,
    pub(crate) admin_token: Result<Option<AdminToken>, AdminTokenError>,
    pub(crate) filter: Result<Filter, FilterSettingError>,
    files: Vec<NamedFile>,
}

impl Live {
    pub(crate) fn new(setup: Setup) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(setup))))
    }

    /// What holds now. For one request or one event, not to be kept.
    pub(crate) fn now(&self) -> Arc<Setup> {
        // Held for the copy of an `Arc` only, here and below.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, setup: Setup) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
    }
}

impl Building {
    /// Reads files, and so may block.
    pub fn of(config: Config) -> Self {
        let server = &config.server;
        let tls = match (&server.tls_cert, &server.tls_key) {
            (Some(cert), Some(key)) => Tls::load(cert, key).map(Some),
            // One without the other is a problem of the settings'.
            _ => Ok(None),
        };
        let admin_token = server.admin_token_file.as_deref().map(AdminToken::load);
        Self {
            keys: Verifier::from_config(&config.auth),
            rules: Projector::from_config(&config.projection, &config.nats.stream),
            tls,
            admin_token: admin_token.transpose(),
            filter: Filter::configured(&config.log),
            files: files(&config),
            config,
        }
    }

    /// The whole, if no part is wrong.
    ///
    /// # Errors
    /// The first part that is.
    pub fn finish(self) -> Result<Setup, String> {
        fn wrong(error: impl std::fmt::Display) -> String {
            error.to_string()
        }
        Ok(Setup {
            verifier: self.keys.map_err(wrong)?,
            projector: self.rules.map_err(wrong)?,
            proxies: TrustedProxies::new(self.config.server.trusted_proxies.clone()),
            tls: self.tls.map_err(wrong)?,
            admin_token: self.admin_token.map_err(wrong)?,
            filter: self.filter.map_err(wrong)?,
            files: self.files,
            config: self.config,
        })
    }
}

/// What is in the files that the settings name. One that cannot be read is not among them: what is built
/// of it tells.
fn files(config: &Config) -> Vec<NamedFile> {
    let Config {
        server,
        nats,
        auth,
        projection,
        ..
    } = config;
    let named: [(&'static str, &Option<_>); 9] = [
        ("server.tls_cert", &server.tls_cert),
        ("server.tls_key", &server.tls_key),
        ("server.admin_token_file", &server.admin_token_file),
        ("nats.credentials_file", &nats.credentials_file),
        ("nats.ca_file", &nats.ca_file),
        ("auth.hmac_secret_file", &auth.hmac_secret_file),
        ("auth.public_key_file", &auth.public_key_file),
        ("auth.jwks_file", &auth.jwks_file),
        ("projection.rules", &projection.rules),
    ];
    let content = |path: &Path| Some(Sha256::digest(read_bounded(path).ok()?).into());
    named
        .into_iter()
        .filter_map(|(setting, path)| {
            let content = content(path.as_deref()?)?;
            Some(NamedFile { setting, content })
        })
        .collect()
}
