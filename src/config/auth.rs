//! Who may connect: the issuers of tokens, as a list or in the short form for one. And the checks of these settings that
//! need no key file.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::keys::KEYS;
use super::{Config, Secret, duration, list, publish};

/// Clock difference forgiven at least, where 4001 would be final: issuers write the moment of signing into
/// `nbf` and `iat`.
pub(crate) const CLOCK_LEEWAY_MIN: Duration = Duration::from_secs(10);

/// Who may connect: `issuers`, or the short form for one issuer.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The issuer whose keys stand in `[auth]` itself.
    pub short_form: IssuerConfig,
    /// Clock difference forgiven in `exp` and `nbf`, of all issuers. `nbf` has 10 s at least.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// Tokens that live longer are refused, and those without an `iat`. Unset: they may live as long as they like.
    #[serde(deserialize_with = "duration::some")]
    pub max_token_age: Option<Duration>,
    /// So long after the last good fetch, keys that are fetched from an address are no longer used. 0: no limit.
    #[serde(with = "duration")]
    pub jwks_max_stale: Duration,
    /// The cookie that carries the token where no other part of a request does.
    pub cookie: Option<String>,
    /// Several issuers, instead of the short form.
    pub issuers: Vec<IssuerConfig>,
    /// The audience of tokens that open no socket: see [`super::PublishConfig::audience`]. No setting of its own.
    #[serde(skip)]
    pub publish_audience: String,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            short_form: IssuerConfig::default(),
            leeway: Duration::ZERO,
            max_token_age: None,
            jwks_max_stale: Duration::from_secs(24 * 60 * 60),
            cookie: None,
            issuers: Vec::new(),
            publish_audience: publish::AUDIENCE.to_owned(),
        }
    }
}

/// One issuer of tokens. Exactly one of the six key sources is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// Shared secret for HS256/384/512, at least 32 bytes.
    pub hmac_secret: Option<Secret>,
    /// File with the shared secret. One trailing newline is not part of it.
    pub hmac_secret_file: Option<PathBuf>,
    /// PEM public key: RSA (RS*, PS*), EC P-256/P-384 (ES256/ES384) or Ed25519 (EdDSA).
    pub public_key_file: Option<PathBuf>,
    /// JSON Web Key Set file, RFC 7517.
    pub jwks_file: Option<PathBuf>,
    /// Address of a JSON Web Key Set: `https`, or `http` on this host.
    pub jwks_url: Option<String>,
    /// Whether `issuer` is an OpenID provider whose discovery document names the address of its key set.
    pub discovery: bool,
    /// The only algorithms taken; unset: all of the key's.
    #[serde(deserialize_with = "some_list")]
    pub algorithms: Option<Vec<String>>,
    /// The `iss` of its tokens; unset: it takes all tokens that no other entry names.
    pub issuer: Option<String>,
    /// Required `aud`; unset: not looked at.
    pub audience: Option<String>,
    /// As `audience`, several: one of them is required.
    #[serde(deserialize_with = "some_list")]
    pub audiences: Option<Vec<String>>,
    /// Claims with the user, the first that a token has.
    #[serde(deserialize_with = "list::string_or_list")]
    pub user_claim: Vec<String>,
    /// Claim with the workspaces a token is good for: its name, or the path to it.
    pub workspaces_claim: String,
    /// What each workspace of that claim begins with; what does not grants nothing.
    pub workspaces_prefix: Option<String>,
    /// Claims without which a token is refused.
    #[serde(deserialize_with = "list::string_or_list")]
    pub required_claims: Vec<String>,
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            hmac_secret: None,
            hmac_secret_file: None,
            public_key_file: None,
            jwks_file: None,
            jwks_url: None,
            discovery: false,
            algorithms: None,
            issuer: None,
            audience: None,
            audiences: None,
            user_claim: vec!["sub".to_owned()],
            workspaces_claim: "workspaces".to_owned(),
            workspaces_prefix: None,
            required_claims: Vec::new(),
        }
    }
}

impl From<IssuerConfig> for AuthConfig {
    /// The settings of one issuer alone.
    fn from(short_form: IssuerConfig) -> Self {
        Self {
            short_form,
            ..Self::default()
        }
    }
}

impl AuthConfig {
    /// After this time no token is taken any more that was issued before now: its longest life, and what is forgiven at
    /// both ends of it. `None`: never.
    pub fn revoked_max_age(&self) -> Option<Duration> {
        let leeway = self.leeway.max(CLOCK_LEEWAY_MIN);
        let forgiven = leeway.saturating_mul(2);
        self.max_token_age.map(|age| age.saturating_add(forgiven))
    }

    /// All issuers, each with the table of its settings: `auth`, or `auth.issuers[0]`.
    pub(crate) fn entries(&self) -> Vec<(String, IssuerConfig)> {
        if self.issuers.is_empty() {
            return vec![("auth".to_owned(), self.short_form.clone())];
        }
        let tables = (0..).map(|index: usize| format!("auth.issuers[{index}]"));
        tables.zip(self.issuers.iter().cloned()).collect()
    }
}

impl IssuerConfig {
    /// The audiences of which a token must name one; `None`: it need not name any.
    pub(crate) fn audiences(&self) -> Option<Vec<String>> {
        let several = self.audiences.as_ref();
        (self.audience.is_some() || several.is_some()).then(|| {
            let several = several.into_iter().flatten();
            self.audience.iter().chain(several).cloned().collect()
        })
    }

    fn problems(&self, table: &str) -> impl Iterator<Item = String> {
        let is_empty = |text: &Option<String>| text.as_deref() == Some("");
        let no_item = |list: &Option<Vec<String>>| list.as_deref().is_some_and(<[_]>::is_empty);
        [
            (
                "issuer",
                is_empty(&self.issuer),
                ": leave it out to take any",
            ),
            (
                "audience",
                is_empty(&self.audience),
                ": leave it out to take any",
            ),
            (
                "audiences",
                no_item(&self.audiences),
                ": leave it out to take any",
            ),
            (
                "algorithms",
                no_item(&self.algorithms),
                ": leave it out to take all of the key's",
            ),
            ("user_claim", self.user_claim.is_empty(), ""),
            ("workspaces_claim", self.workspaces_claim.is_empty(), ""),
        ]
        .into_iter()
        .filter(|(_, is_wrong, _)| *is_wrong)
        .map(move |(key, _, way_out)| format!("{table}.{key} must not be empty{way_out}"))
    }
}

/// What is wrong with the issuers, each by itself and all together.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let auth = &config.auth;
    let entries = auth.entries();
    let mut problems: Vec<String> = entries
        .iter()
        .flat_map(|(table, entry)| entry.problems(table))
        .collect();
    if auth.max_token_age == Some(Duration::ZERO) {
        problems.push("auth.max_token_age must not be 0: leave it out for no limit".to_owned());
    }
    let mut taken = HashSet::new();
    for (table, entry) in &entries {
        if taken.insert(&entry.issuer) {
            continue;
        }
        problems.push(match &entry.issuer {
            Some(issuer) => format!(
                "{table}.issuer is `{issuer}` as in an entry before it: a token is checked by one entry only"
            ),
            None => format!(
                "{table} has no issuer, as an entry before it: only one may take the tokens that no entry names"
            ),
        });
    }
    if !auth.issuers.is_empty() {
        let default = Config::default();
        let beside = KEYS
            .iter()
            .filter(|key| key.of_issuer().is_some() && key.differs(config, &default));
        problems.extend(beside.map(|key| {
            format!(
                "{} stands beside auth.issuers: it is the short form for one issuer, \
                 move it into an entry [[auth.issuers]] of its own",
                key.name
            )
        }));
    }
    problems
}

/// A list that is set, or one string with commas.
fn some_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    list::string_or_list(deserializer).map(Some)
}
