//! File and environment into a [`Config`], with every problem named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use serde::{Deserialize, Deserializer};

use super::Config;
use super::keys::{KEYS, nearest};

/// Why a configuration was refused. `Display` has one line per problem and no secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {} is not valid TOML, line {line}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    /// Keys or values that are not right, one sentence each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads `path` (if any) and the process' environment.
    ///
    /// # Errors
    /// [`ConfigError`], naming each unknown key and each value that is out of range.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from(
            path,
            std::env::vars_os().filter_map(|(key, value)| {
                Some((key.into_string().ok()?, value.into_string().ok()?))
            }),
        )
    }

    /// As [`Config::load`], from a given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let variables: BTreeMap<String, String> = environment
            .into_iter()
            // Only names with `__` are settings: Kubernetes adds HERALD_PORT and the like to every
            // pod beside a service of that name.
            .filter(|(name, value)| {
                name.starts_with("HERALD_") && name.contains("__") && !value.is_empty()
            })
            .collect();
        let text = match path {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
                    path: path.to_owned(),
                    source,
                })?
            }
        };
        let table = parse_toml(path, &text)?;
        let problems: Vec<String> = unknown_in_file(&table)
            .into_iter()
            .chain(unknown_in_environment(variables.keys()))
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        let config: Self = config::Config::builder()
            .add_source(File::from_str(&text, FileFormat::Toml))
            .add_source(
                Environment::with_prefix("HERALD")
                    .prefix_separator("_")
                    .separator("__")
                    .source(Some(variables.into_iter().collect())),
            )
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| ConfigError::Invalid(vec![without_secret(&error)]))?;
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// Values that parse but cannot work, whatever command reads them.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, text: &str| {
            if !ok {
                problems.push(text.to_owned());
            }
        };
        check(
            self.server.tls_cert.is_some() == self.server.tls_key.is_some(),
            "server.tls_cert and server.tls_key go together: set both or neither",
        );
        for (name, value) in [
            ("sockets.inactivity", self.sockets.inactivity),
            ("sockets.ping", self.sockets.ping),
            ("nats.max_age", self.nats.max_age),
        ] {
            check(
                value >= Duration::from_millis(100),
                &format!("{name} must be at least 100ms"),
            );
        }
        for (name, value) in [
            ("sockets.max_message_bytes", self.sockets.max_message_bytes),
            ("sockets.queue_bytes", self.sockets.queue_bytes),
            ("sockets.max_connections", self.sockets.max_connections),
        ] {
            check(value > 0, &format!("{name} must not be 0"));
        }
        check(
            self.sockets.queue_bytes >= 64 * 1024,
            "sockets.queue_bytes must hold one notification: at least 65536",
        );
        check(
            matches!(self.nats.replicas, 1 | 3 | 5),
            "nats.replicas must be 1, 3 or 5",
        );
        check(
            is_stream_name(&self.nats.stream),
            "nats.stream must be a JetStream name: letters, digits, - and _, at most 64",
        );
        check(
            is_inbox_prefix(&self.nats.inbox_prefix),
            "nats.inbox_prefix must be a subject of plain tokens without wildcards",
        );
        check(
            self.nats.urls().next().is_some(),
            "nats.url must not be empty",
        );
        check(
            !self.auth.workspaces_claim.is_empty(),
            "auth.workspaces_claim must not be empty",
        );
        problems
    }
}

fn is_stream_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_inbox_prefix(prefix: &str) -> bool {
    prefix.split('.').all(|token| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>')
    })
}

fn parse_toml(path: Option<&Path>, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse::<toml::Table>().map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax {
            path: path.unwrap_or(Path::new("")).to_owned(),
            line: 1 + text
                .bytes()
                .take(before)
                .filter(|byte| *byte == b'\n')
                .count(),
            // The full error quotes the line, which may hold a secret.
            message: error.message().to_owned(),
        }
    })
}

fn unknown_in_file(table: &toml::Table) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, value) in table {
        let names: Vec<String> = match value {
            toml::Value::Table(inner) if !inner.is_empty() => {
                inner.keys().map(|key| format!("{name}.{key}")).collect()
            }
            toml::Value::Table(_) => continue,
            _ => vec![name.clone()],
        };
        unknown.extend(names.into_iter().filter(|name| !is_known(name)));
    }
    unknown
        .into_iter()
        .map(|name| format!("unknown key `{name}`: did you mean `{}`?", nearest(&name)))
        .collect()
}

fn unknown_in_environment<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    names
        .filter_map(|variable| {
            let name = variable
                .strip_prefix("HERALD_")?
                .to_lowercase()
                .replace("__", ".");
            let known = nearest(&name);
            let suggestion = KEYS.iter().find(|key| key.name == known)?.variable();
            (!is_known(&name)).then(|| {
                format!("unknown environment variable `{variable}`: did you mean `{suggestion}`?")
            })
        })
        .collect()
}

fn is_known(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name)
}

/// The library's error names the key and the expected type; it also quotes the value, which may be
/// a secret under `auth` or in `nats.url`.
fn without_secret(error: &config::ConfigError) -> String {
    let text = error.to_string();
    if text.contains("auth.") || text.contains("nats.url") {
        let key = KEYS
            .iter()
            .map(|key| key.name)
            .filter(|name| text.contains(name))
            .max_by_key(|name| name.len())
            .unwrap_or("auth");
        return format!("`{key}` has a value of the wrong type");
    }
    text
}

/// A list, or one string with commas (the environment has only strings).
pub(super) fn string_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let parts = match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => text.split(',').map(str::to_owned).collect(),
        OneOrMany::Many(parts) => parts,
    };
    Ok(parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect())
}
