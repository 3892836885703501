//! File and environment into a [`Config`], with every problem named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};

use super::Config;
use super::file::{NamedFile, read_once, text};
use super::keys::{KEYS, PREFIX, nearest};
use super::problem::{Locations, Problem, line, tables, wrong_value};
use super::{NatsConfig, auth, edge, issuers, names};

/// How the configuration file is named where other files are by their settings.
pub(crate) const FILE: &str = "configuration file";
/// Most `send` spans of one event: each costs as much as a delivery.
const SEND_SPANS_MAX: usize = 1000;
/// Most new connections a second that can be asked for: beyond what any host accepts.
const RATE_MAX: u32 = 1_000_000;
/// The largest `sockets.max_message_bytes`: each socket may have a message of that size being read, and its limits on
/// bytes are reckoned from it.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most workspaces with series of their own; the SDK takes 2,000 of one instrument.
const WORKSPACES_MAX: usize = 1000;

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

/// As much of a configuration as could be read, and what is wrong with the rest.
#[derive(Debug)]
pub struct LoadedConfig {
    /// With the default where a value could not be read.
    pub config: Config,
    /// What is wrong, one sentence each. No secret is in it.
    pub problems: Vec<Problem>,
    /// The file, as it was read.
    pub(crate) file: Option<NamedFile>,
}

impl From<Config> for LoadedConfig {
    /// Nothing is wrong with what no file says.
    fn from(config: Config) -> Self {
        Self {
            config,
            problems: Vec::new(),
            file: None,
        }
    }
}

impl Config {
    /// Reads `path` (if any) and the process' environment.
    ///
    /// # Errors
    /// [`ConfigError`], naming each unknown key and each value that is out of range.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(path)?.into_config()
    }

    /// As [`Config::load`], from a given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::read_from(path, environment)?.into_config()
    }

    /// As [`Config::load`], but goes on where something is wrong, for who has more to look at.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Syntax`], after which there is nothing to go on
    /// with.
    pub fn read(path: Option<&Path>) -> Result<LoadedConfig, ConfigError> {
        let mut problems = Vec::new();
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            // A name that is not UTF-8 is none of ours.
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) if is_setting(&name) => {
                    let text = format!("environment variable `{name}` is not UTF-8");
                    problems.push(Problem::new(text));
                }
                Err(_) => {}
            }
        }
        let mut reading = Self::read_from(path, environment)?;
        reading.problems.splice(0..0, problems);
        Ok(reading)
    }

    /// As [`Config::read`], from a given environment.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_from(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<LoadedConfig, ConfigError> {
        let Some(path) = path else {
            return Self::read_toml(None, "", environment);
        };
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let text = text(read_once(path)).map_err(unreadable)?;
        let mut reading = Self::read_toml(Some(path), &text, environment)?;
        reading.file = Some(NamedFile::new(FILE, path, Some(text.as_bytes())));
        Ok(reading)
    }

    /// As [`Config::read_from`], with the file's text.
    pub(super) fn read_toml(
        path: Option<&Path>,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<LoadedConfig, ConfigError> {
        let environment: BTreeMap<String, String> = environment
            .into_iter()
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        let table = parse_toml(path, text)?;
        let locations = Locations::new(path, text, environment.keys());
        let mut problems: Vec<String> = unknown_in_file(&table)
            .into_iter()
            .chain(unknown_in_environment(environment.keys()))
            .collect();
        let variables = environment
            .into_iter()
            .filter(|(name, _)| is_setting(name))
            .collect();
        let config = values(text, variables, &mut problems);
        problems.extend(config.problems());
        let located = problems.into_iter().map(|text| locations.located(text));
        Ok(LoadedConfig {
            problems: located.collect(),
            ..config.into()
        })
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
        check(
            self.telemetry.send_spans <= SEND_SPANS_MAX,
            &format!("telemetry.send_spans must be at most {SEND_SPANS_MAX}"),
        );
        check(
            self.telemetry.workspaces <= WORKSPACES_MAX,
            &format!("telemetry.workspaces must be at most {WORKSPACES_MAX}"),
        );
        problems.extend(auth::problems(self));
        problems.extend(self.nats.problems());
        problems.extend(self.problems_of_limits());
        problems.extend(edge::problems(self));
        problems
    }

    /// As [`Config::problems`], of numbers that limit one another.
    fn problems_of_limits(&self) -> Vec<String> {
        let sockets = &self.sockets;
        let mut problems = Vec::new();
        let mut check = |ok: bool, text: &str| {
            if !ok {
                problems.push(text.to_owned());
            }
        };
        for (name, value) in [
            ("sockets.max_message_bytes", sockets.max_message_bytes),
            ("sockets.queue_bytes", sockets.queue_bytes),
            ("sockets.max_connections", sockets.max_connections),
        ] {
            check(value > 0, &format!("{name} must not be 0"));
        }
        check(
            sockets.max_message_bytes <= MESSAGE_BYTES_MAX,
            &format!("sockets.max_message_bytes must be at most {MESSAGE_BYTES_MAX}"),
        );
        check(
            sockets.queue_bytes >= 64 * 1024,
            "sockets.queue_bytes must hold one notification: at least 65536",
        );
        check(
            sockets.queue_bytes_total >= sockets.queue_bytes,
            "sockets.queue_bytes_total must be at least sockets.queue_bytes",
        );
        check(
            sockets.max_connections_per_address <= sockets.max_connections,
            "sockets.max_connections_per_address must be at most sockets.max_connections (0: no limit)",
        );
        for (name, rate) in [
            ("sockets.connect_rate", sockets.connect_rate),
            (
                "sockets.connect_rate_per_address",
                sockets.connect_rate_per_address,
            ),
        ] {
            check(
                rate <= RATE_MAX,
                &format!("{name} must be at most {RATE_MAX} (0: no limit)"),
            );
        }
        check(
            sockets.connect_rate == 0 || sockets.connect_rate_per_address <= sockets.connect_rate,
            "sockets.connect_rate_per_address must be at most sockets.connect_rate (0: no limit)",
        );
        problems
    }
}

impl NatsConfig {
    /// As [`Config::problems`].
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, text: &str| {
            if !ok {
                problems.push(text.to_owned());
            }
        };
        check(
            matches!(self.replicas, 1 | 3 | 5),
            "nats.replicas must be 1, 3 or 5",
        );
        check(
            is_stream_name(&self.stream),
            "nats.stream must be a JetStream name: letters, digits, - and _, at most 64",
        );
        check(
            is_inbox_prefix(&self.inbox_prefix),
            "nats.inbox_prefix must be a subject of plain tokens without wildcards",
        );
        check(self.urls().next().is_some(), "nats.url must not be empty");
        check(
            names::is_domain(self.domain.as_deref().unwrap_or_default()),
            "nats.domain must be the name of a JetStream domain: one word without . * > $ and blanks",
        );
        check(
            self.client_cert.is_some() == self.client_key.is_some(),
            "nats.client_cert and nats.client_key go together: set both or neither",
        );
        let ways = [
            ("nats.credentials_file", &self.credentials_file),
            ("nats.token_file", &self.token_file),
            ("nats.nkey_file", &self.nkey_file),
        ];
        let ways: Vec<&str> = ways
            .into_iter()
            .filter_map(|(name, file)| file.is_some().then_some(name))
            .collect();
        if let [first, second, ..] = ways.as_slice() {
            check(
                false,
                &format!("{first} and {second} are two ways in: set one of them"),
            );
        }
        for (name, bytes, least) in [
            ("nats.max_bytes", self.max_bytes, EVENTS_BYTES_MIN),
            (
                "nats.sessions_max_bytes",
                self.sessions_max_bytes,
                SESSIONS_BYTES_MIN,
            ),
            ("nats.dead_max_bytes", self.dead_max_bytes, DEAD_BYTES_MIN),
        ] {
            let fits = |bytes: u64| bytes == 0 || bytes >= least && i64::try_from(bytes).is_ok();
            check(
                bytes.is_none_or(fits),
                &format!(
                    "{name} must be at least {least} and at most {}, or 0: no limit",
                    i64::MAX
                ),
            );
        }
        problems.extend(names::problem(self));
        problems
    }
}

impl LoadedConfig {
    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn into_config(self) -> Result<Config, ConfigError> {
        if self.problems.is_empty() {
            Ok(self.config)
        } else {
            let problems = self.problems.iter().map(ToString::to_string);
            Err(ConfigError::Invalid(problems.collect()))
        }
    }

    /// The configuration for who needs these tables of it, if nothing is wrong with them.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn of(mut self, tables: &[&str]) -> Result<Config, ConfigError> {
        self.problems.retain(|problem| problem.is_of(tables));
        self.into_config()
    }
}

/// Less of the stream of events has no room for one that is as large as may be, with its headers.
const EVENTS_BYTES_MIN: u64 = 128 * 1024;
/// Less of SESSIONS has no room for a dozen users.
const SESSIONS_BYTES_MIN: u64 = 4 * 1024;
/// Less of DEAD has no room for a letter of a large event: whole ones take half of it at most.
const DEAD_BYTES_MIN: u64 = 128 * 1024;

/// Whether a variable of this name is meant as a setting. Only names with `__` are: Kubernetes adds
/// HERALD_PORT and the like to every pod beside a service of that name.
fn is_setting(variable: &str) -> bool {
    variable.starts_with(PREFIX) && variable.contains("__")
}

/// The values of all known keys. One that cannot be read is a problem and keeps its default, so that
/// each is looked at alone: the library stops at the first.
fn values(
    text: &str,
    variables: config::Map<String, String>,
    problems: &mut Vec<String>,
) -> Config {
    let environment = Environment::with_prefix("HERALD")
        .prefix_separator("_")
        .separator("__")
        .source(Some(variables));
    let tables = config::Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(environment)
        .build()
        .and_then(|merged| merged.cache.into_table());
    let mut tables = match tables {
        Ok(tables) => tables,
        Err(error) => {
            problems.push(wrong_value("auth", &error));
            return Config::default();
        }
    };
    let mut good = config::Config::builder();
    for key in KEYS {
        let Some(mut value) = take(&mut tables, key.name) else {
            continue;
        };
        if key.name == "auth.issuers" {
            value = issuers::readable(value, problems);
        }
        match alone(key.name, value.clone()) {
            Ok(()) => match good.clone().set_override(key.name, value) {
                Ok(more) => good = more,
                Err(error) => problems.push(wrong_value(key.name, &error)),
            },
            Err(error) => problems.push(wrong_value(key.name, &error)),
        }
    }
    good.build()
        .and_then(config::Config::try_deserialize)
        .unwrap_or_else(|error| {
            problems.push(wrong_value("auth", &error));
            Config::default()
        })
}

/// Takes `table.key` out of the merged tables.
fn take(tables: &mut config::Map<String, config::Value>, name: &str) -> Option<config::Value> {
    let (table, key) = name.split_once('.')?;
    match &mut tables.get_mut(table)?.kind {
        config::ValueKind::Table(values) => values.remove(key),
        _ => None,
    }
}

/// Whether the value is one for the key.
fn alone(name: &str, value: config::Value) -> Result<(), config::ConfigError> {
    config::Config::builder()
        .set_override(name, value)?
        .build()?
        .try_deserialize::<Config>()
        .map(drop)
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
            line: line(text, before),
            // The full error quotes the line, which may hold a secret.
            message: error.message().to_owned(),
        }
    })
}

fn unknown_in_file(table: &toml::Table) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in table {
        let names: Vec<String> = match value {
            toml::Value::Table(inner) => inner.keys().map(|key| format!("{name}.{key}")).collect(),
            other if tables().any(|known| known == name) => {
                let form = other.type_str();
                problems.push(format!(
                    "`{name}` is of the type {form}, and is a table: write [{name}] above its keys"
                ));
                continue;
            }
            _ => vec![name.clone()],
        };
        let unknown = names.into_iter().filter(|name| !is_known(name));
        problems.extend(unknown.map(|name| format!("unknown key `{name}`: {}", meant(&name))));
    }
    problems
}

/// What to do about an unknown key.
fn meant(unknown: &str) -> String {
    match nearest(unknown) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "docs/configuration.md lists all of them".to_owned(),
    }
}

fn unknown_in_environment<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    names
        .filter_map(|variable| {
            let known = if is_setting(variable) {
                let name = variable.strip_prefix(PREFIX)?.to_lowercase();
                let name = name.replace("__", ".");
                if is_known(&name) {
                    return None;
                }
                let known = nearest(&name);
                KEYS.iter().find(|key| Some(key.name) == known)
            } else {
                // One underscore where two are wanted, and a name that is nobody else's by chance.
                let known = KEYS
                    .iter()
                    .find(|key| key.variable().replace("__", "_") == *variable);
                Some(known?)
            };
            let way = match known {
                Some(key) => format!("did you mean `{}`?", key.variable()),
                None => meant(""),
            };
            Some(format!("unknown environment variable `{variable}`: {way}"))
        })
        .collect()
}

fn is_known(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name)
}
