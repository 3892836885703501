//! File and environment into a [`Config`], with every problem named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};

use super::Config;
use super::file::{NamedFile, read_once, text};
use super::keys::{KEYS, PREFIX, nearest};
use super::problem::{Locations, Problem, line, tables, wrong_value};
use super::{checks, issuers};

/// The name of the configuration file in messages, where other files have the name of their setting.
pub(crate) const FILE: &str = "configuration file";

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
    /// Settings that no file contains have no problem.
    fn from(config: Config) -> Self {
        Self {
            config,
            problems: Vec::new(),
            file: None,
        }
    }
}

impl Config {
    /// Reads `path` (if any) and the process' environment, and goes on where something is wrong.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Syntax`], after which there is nothing to go on
    /// with.
    pub fn read(path: Option<&Path>) -> Result<LoadedConfig, ConfigError> {
        let mut problems = Vec::new();
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            // A name that is not UTF-8 is no setting.
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
        let mut config = values(text, variables, &mut problems);
        config.nats.revoked_max_age = config.auth.revoked_max_age();
        config
            .auth
            .publish_audience
            .clone_from(&config.publish.audience);
        problems.extend(checks::problems(&config));
        let located = problems.into_iter().map(|text| locations.located(text));
        Ok(LoadedConfig {
            problems: located.collect(),
            ..config.into()
        })
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

    /// The configuration, if nothing is wrong with these tables of it. A command needs no others to be right.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn of(mut self, tables: &[&str]) -> Result<Config, ConfigError> {
        self.problems.retain(|problem| problem.is_of(tables));
        self.into_config()
    }
}

/// Whether a variable of this name is meant as a setting. Only names with `__` are: Kubernetes adds
/// HERALD_PORT and the like to every pod beside a service of that name.
fn is_setting(variable: &str) -> bool {
    variable.starts_with(PREFIX) && variable.contains("__")
}

/// The values of all known keys. One that cannot be read is a problem and keeps its default. So each key is read
/// alone: the library stops at the first error.
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
        match alone(key.path, value.clone()) {
            // The library rounds it, and 0 often means no limit.
            Ok(()) if matches!(value.kind, config::ValueKind::Float(_)) => {
                let name = key.name;
                problems.push(format!("`{name}` has a fraction: write a whole number"));
            }
            Ok(()) => match good.clone().set_override(key.path, value) {
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

fn parse_toml(path: Option<&Path>, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse::<toml::Table>().map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax {
            path: path.unwrap_or(Path::new("")).to_owned(),
            line: line(text, before),
            // The full error quotes the line, and a secret may be in it.
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
