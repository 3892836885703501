//! The live settings: the settings and what was read from the files that they name. All of it is one value, which a
//! reload replaces at once. A request or an event reads it once, so it never sees a mixture of two.

mod admin_token;
mod findings;
mod static_tokens;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

pub(crate) use self::admin_token::{AdminToken, AdminTokenError};
pub(crate) use self::findings::{Finding, FindingLevel, NATS_SETTINGS};
pub(crate) use self::static_tokens::is_jwt;
use self::static_tokens::{StaticTokens, StaticTokensError};
use crate::admission::TrustedProxies;
use crate::auth::{AuthConfigError, RememberedTokens, Verifier};
use crate::config::{Config, LoadedConfig, NamedFile, read_bounded};
use crate::conn::tls::{ServerCertificate, TlsError};
use crate::projection::{Projector, RulesError};
use crate::telemetry::{Filter, FilterSettingError};

/// The [`Setup`] in force. Clones share it.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    setup: Arc<RwLock<Arc<Setup>>>,
    replaced: watch::Sender<()>,
}

/// Settings, and everything that is built of them and their files before the network is touched.
#[derive(Debug)]
pub struct Setup {
    pub(crate) config: Config,
    pub(crate) verifier: Verifier,
    pub(crate) projector: Projector,
    pub(crate) proxies: TrustedProxies,
    pub(crate) tls: Option<ServerCertificate>,
    pub(crate) admin_token: Option<AdminToken>,
    /// Those of HTTP publishing.
    pub(crate) static_tokens: StaticTokens,
    /// Tokens for publishing that these settings have verified.
    pub(crate) publishers: RememberedTokens,
    pub(crate) filter: Filter,
    /// The configuration file and those that it names, as they were just before all this was built of them.
    pub(crate) files: Vec<NamedFile>,
}

/// A [`Setup`] of which a part may be wrong. Each part is checked, whatever is wrong with the others.
#[derive(Debug)]
pub struct Building {
    pub(crate) config: Config,
    /// What is wrong with the settings, one sentence each.
    pub(crate) problems: Vec<String>,
    pub(crate) keys: Result<Verifier, AuthConfigError>,
    pub(crate) rules: Result<Projector, RulesError>,
    pub(crate) tls: Result<Option<ServerCertificate>, TlsError>,
    pub(crate) admin_token: Result<Option<AdminToken>, AdminTokenError>,
    pub(crate) static_tokens: Result<StaticTokens, StaticTokensError>,
    pub(crate) filter: Result<Filter, FilterSettingError>,
    /// Whether the files that the NATS client will want can be read.
    pub(crate) nats: Result<(), String>,
    pub(crate) files: Vec<NamedFile>,
}

impl LiveSettings {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup: Arc::new(RwLock::new(Arc::new(setup))),
            replaced: watch::Sender::default(),
        }
    }

    /// What is in force now. For one request or one event, not to be kept.
    pub(crate) fn now(&self) -> Arc<Setup> {
        // The lock is for the copy of an `Arc` only, here and below.
        Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, setup: Setup) {
        *self.setup.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
        self.replaced.send_replace(());
    }

    /// Changes each time that a [`Setup`] has come into force.
    pub(crate) fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }
}

impl Building {
    /// Reads files, and so may block.
    pub fn of(reading: LoadedConfig) -> Self {
        let LoadedConfig {
            config,
            problems,
            file,
        } = reading;
        // Before anything is built from them: a file that is written meanwhile has another hash afterwards.
        let files = file.into_iter().chain(files(&config)).collect();
        let server = &config.server;
        let tls = match (&server.tls_cert, &server.tls_key) {
            (Some(cert), Some(key)) => ServerCertificate::load(cert, key).map(Some),
            // One without the other is a problem of the settings'.
            _ => Ok(None),
        };
        let admin_token = server.admin_token_file.as_deref().map(AdminToken::load);
        let static_tokens = config.publish.tokens_file.as_deref();
        let static_tokens = static_tokens.map(StaticTokens::load).transpose();
        Self {
            static_tokens: static_tokens.map(Option::unwrap_or_default),
            keys: Verifier::from_config(&config.auth),
            rules: Projector::from_config(&config.projection, &config.nats.stream),
            tls,
            admin_token: admin_token.transpose(),
            filter: Filter::configured(&config.log),
            nats: readable(nats_files(&config)),
            files,
            problems: problems.iter().map(ToString::to_string).collect(),
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
        if !self.problems.is_empty() {
            return Err(self.problems.join("\n"));
        }
        self.nats?;
        Ok(Setup {
            verifier: self.keys.map_err(wrong)?,
            projector: self.rules.map_err(wrong)?,
            proxies: TrustedProxies::new(self.config.server.trusted_proxies.clone()),
            tls: self.tls.map_err(wrong)?,
            admin_token: self.admin_token.map_err(wrong)?,
            static_tokens: self.static_tokens.map_err(wrong)?,
            publishers: RememberedTokens::default(),
            filter: self.filter.map_err(wrong)?,
            files: self.files,
            config: self.config,
        })
    }
}

impl Setup {
    /// Goes on with the keys that `old` has fetched, and fetches those of new addresses.
    ///
    /// # Errors
    /// The new addresses that give no keys, one sentence each.
    pub async fn fetch_keys(&mut self, old: &Self) -> Result<(), Vec<String>> {
        self.verifier.go_on_from(&old.verifier);
        self.verifier.start_fetching();
        self.verifier.first_fetch().await
    }

    /// The files that have changed since this was built from them. Reads them, and so may block.
    pub fn changed_files(&self) -> Vec<String> {
        let changed = self.files.iter().filter(|file| file.has_changed());
        changed.map(ToString::to_string).collect()
    }
}

/// The files that the settings name, as they are now.
fn files(config: &Config) -> impl Iterator<Item = NamedFile> {
    let Config {
        server,
        auth,
        publish,
        projection,
        ..
    } = config;
    let flat: [(&str, &Option<_>); 5] = [
        ("server.tls_cert", &server.tls_cert),
        ("server.tls_key", &server.tls_key),
        ("server.admin_token_file", &server.admin_token_file),
        ("publish.tokens_file", &publish.tokens_file),
        ("projection.rules", &projection.rules),
    ];
    let flat = flat.into_iter().chain(nats_files(config));
    let flat = flat.map(|(setting, path)| (setting.to_owned(), path.clone()));
    let keys = auth.entries().into_iter().flat_map(|(table, issuer)| {
        [
            ("hmac_secret_file", issuer.hmac_secret_file),
            ("public_key_file", issuer.public_key_file),
            ("jwks_file", issuer.jwks_file),
        ]
        .map(|(key, path)| (format!("{table}.{key}"), path))
    });
    flat.chain(keys)
        .filter_map(|(setting, path)| Some(NamedFile::read(setting, &path?)))
}

/// The files that NATS' client reads, with their settings.
fn nats_files(config: &Config) -> impl Iterator<Item = (&'static str, &Option<PathBuf>)> {
    let publish = &config.publish;
    let publishing = [
        (
            "publish.nats_credentials_file",
            &publish.nats_credentials_file,
        ),
        ("publish.nats_nkey_file", &publish.nats_nkey_file),
    ];
    config.nats.files().into_iter().chain(publishing)
}

/// The NATS client reads them when it connects. With a FIFO it would wait for a writer without end.
fn readable<'a>(
    files: impl Iterator<Item = (&'static str, &'a Option<PathBuf>)>,
) -> Result<(), String> {
    for (setting, path) in files {
        if let Some(path) = path
            && let Err(error) = read_bounded(path)
        {
            let (path, error) = (path.display(), std::io::Error::from(error));
            return Err(format!("cannot read {setting} {path}: {error}"));
        }
    }
    Ok(())
}
