//! One migration file: TOML into operations with the settings' values in place. Pure.
//!
//! ```toml
//! description = "What it does"
//! breaks_older_gateways = false
//!
//! [[create]]            # a whole StreamConfig; `name` is required
//! name = "${stream}"
//!
//! [[update]]            # fields of an existing stream
//! stream = "SESSIONS"
//! set = { max_age = "48h" }
//! ```
//!
//! Files know nothing of `nats.prefix`: it is put on streams and subjects here, so that a file and its
//! checksum are the same in every deployment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::difference::is_duration;
use super::error::MigrateError;
use crate::config::{Names, NatsConfig, parse_duration};

/// The wanted value of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) value: Value,
    /// Whether a setting decides it. What differs is then reconciled; otherwise it is drift.
    pub(super) from_setting: bool,
}

/// Wanted values by field name.
pub(super) type Fields = BTreeMap<String, Wanted>;

/// A migration with the settings' values in it.
#[derive(Debug, Clone)]
pub struct Migration {
    /// The file's name without its ending: `0001_events`.
    pub name: String,
    /// SHA-256 of the file as it is, in hexadecimal.
    pub checksum: String,
    pub description: String,
    /// Whether a gateway that does not know this migration must not serve once it is applied.
    pub breaks_older_gateways: bool,
    pub operations: Vec<Operation>,
}

/// One change of one stream.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The stream's name.
    pub stream: String,
    /// Whether the stream is made; otherwise some of its fields are changed.
    pub creates: bool,
    pub(super) fields: Fields,
    /// Fields that a setting would give a value if it were set.
    pub(super) unset: Vec<String>,
}

impl Operation {
    /// The fields it sets, in the JetStream API's form.
    pub fn config(&self) -> Map<String, Value> {
        to_config(&self.fields)
    }
}

/// `fields` in the JetStream API's form.
pub(super) fn to_config(fields: &Fields) -> Map<String, Value> {
    fields
        .iter()
        .map(|(name, wanted)| (name.clone(), wanted.value.clone()))
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    description: String,
    breaks_older_gateways: bool,
    #[serde(default)]
    create: Vec<Map<String, Value>>,
    #[serde(default)]
    update: Vec<Update>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    stream: String,
    set: Map<String, Value>,
}

impl Migration {
    /// Reads the file `name` with the text `text`.
    ///
    /// # Errors
    /// [`MigrateError::File`].
    pub(super) fn read(name: &str, text: &str, config: &NatsConfig) -> Result<Self, MigrateError> {
        let wrong = |problem: String| MigrateError::File {
            name: name.to_owned(),
            problem,
        };
        if !is_migration_name(name) {
            return Err(wrong("a name is four digits, _ and a word".to_owned()));
        }
        let document: Document = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let creates = document.create.into_iter();
        let updates = document.update.into_iter();
        let operations = creates
            .map(|fields| create(fields, config))
            .chain(updates.map(|change| update(change, config)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(wrong)?;
        if operations.is_empty() {
            return Err(wrong("it has neither [[create]] nor [[update]]".to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            checksum: format!("{:x}", Sha256::digest(text.as_bytes())),
            description: document.description,
            breaks_older_gateways: document.breaks_older_gateways,
            operations,
        })
    }
}

fn is_migration_name(name: &str) -> bool {
    name.split_once('_').is_some_and(|(number, word)| {
        number.len() == 4
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

fn create(fields: Map<String, Value>, config: &NatsConfig) -> Result<Operation, String> {
    let (fields, unset) = resolve(fields, config)?;
    let name = fields.get("name").and_then(|name| name.value.as_str());
    let stream = name
        .ok_or("a [[create]] has no name, which must be text")?
        .to_owned();
    Ok(Operation {
        stream,
        creates: true,
        fields,
        unset,
    })
}

fn update(update: Update, config: &NatsConfig) -> Result<Operation, String> {
    let (fields, unset) = resolve(update.set, config)?;
    Ok(Operation {
        stream: object(&update.stream, config)?,
        creates: false,
        fields,
        unset,
    })
}

/// The fields with their values, and the names of those whose setting is not set.
fn resolve(
    given: Map<String, Value>,
    config: &NatsConfig,
) -> Result<(Fields, Vec<String>), String> {
    let mut fields = Fields::new();
    let mut unset = Vec::new();
    for (field, value) in given {
        match wanted(&field, value, config).map_err(|problem| format!("{field}: {problem}"))? {
            Some(wanted) => drop(fields.insert(field, wanted)),
            None => unset.push(field),
        }
    }
    Ok((fields, unset))
}

/// What is wanted in `field`; `None` where that is for a setting to say, and it is not set.
fn wanted(field: &str, value: Value, config: &NatsConfig) -> Result<Option<Wanted>, String> {
    let names = config.names();
    Ok(Some(match (field, value) {
        (_, Value::String(text)) if is_duration(field) => duration(&text, config)?,
        (_, Value::String(text)) if text == "${replicas}" => of_setting(config.replicas),
        ("max_bytes", Value::String(text)) => return limit(&text, config),
        ("name", Value::String(text)) => fixed(object(&text, config)?),
        (_, Value::String(text)) => fixed(with_stream(&text, config)?),
        ("subjects", Value::Array(list)) => {
            let subjects = list.into_iter().map(|value| prefixed(value, &names));
            fixed(subjects.collect::<Vec<Value>>())
        }
        ("republish", Value::Object(mapping)) => {
            let mapping = mapping
                .into_iter()
                .map(|(name, value)| (name, prefixed(value, &names)));
            fixed(mapping.collect::<Map<String, Value>>())
        }
        (_, value) => fixed(value),
    }))
}

/// A subject with the prefix of the settings. Anything else, such as a flag, has none.
fn prefixed(value: Value, names: &Names) -> Value {
    match value {
        Value::String(subject) => names.subject(&subject).into(),
        other => other,
    }
}

/// A number of bytes that a setting decides: `${max_bytes}`.
fn limit(text: &str, config: &NatsConfig) -> Result<Option<Wanted>, String> {
    let bytes = match text {
        "${max_bytes}" => config.max_bytes,
        "${sessions_max_bytes}" => config.sessions_max_bytes,
        "${dead_max_bytes}" => config.dead_max_bytes,
        _ => return Err(format!("`{text}` is no setting of a number of bytes")),
    };
    Ok(bytes.map(|bytes| match bytes {
        0 => of_setting(-1),
        bytes => of_setting(bytes),
    }))
}

fn fixed(value: impl Into<Value>) -> Wanted {
    Wanted {
        value: value.into(),
        from_setting: false,
    }
}

fn of_setting(value: impl Into<Value>) -> Wanted {
    Wanted {
        value: value.into(),
        from_setting: true,
    }
}

/// `text` with the stream's name in it. The name is no value that could differ: it says which stream
/// is meant.
fn with_stream(text: &str, config: &NatsConfig) -> Result<String, String> {
    let text = text.replace("${stream}", &config.stream);
    if text.contains("${") {
        return Err(format!(
            "`{text}` has a placeholder that cannot stand there"
        ));
    }
    Ok(text)
}

/// The stream that a file calls `text`.
fn object(text: &str, config: &NatsConfig) -> Result<String, String> {
    Ok(config.names().object(&with_stream(text, config)?))
}

/// A duration: `2m`, `${max_age}`, or the least of several, `min(2m, ${max_age})`.
fn duration(text: &str, config: &NatsConfig) -> Result<Wanted, String> {
    let terms = text
        .strip_prefix("min(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(text);
    let mut least = Duration::MAX;
    for term in terms.split(',').map(str::trim) {
        least = least.min(match term {
            "${max_age}" => config.max_age,
            literal => parse_duration(literal)?,
        });
    }
    // The API's durations are signed 64 bit: 292 years.
    let nanoseconds = i64::try_from(least.as_nanos()).unwrap_or(i64::MAX);
    Ok(Wanted {
        value: nanoseconds.into(),
        from_setting: text.contains("${"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> NatsConfig {
        NatsConfig {
            stream: "MINE".to_owned(),
            replicas: 3,
            max_age: Duration::from_secs(60),
            ..NatsConfig::default()
        }
    }

    fn read(text: &str) -> Result<Migration, MigrateError> {
        Migration::read("0001_test", text, &config())
    }

    const HEAD: &str = "description = \"d\"\nbreaks_older_gateways = true\n";

    #[test]
    fn placeholders_take_the_settings_values_and_durations_become_nanoseconds() {
        let text = format!(
            "{HEAD}[[create]]\nname = \"${{stream}}\"\nnum_replicas = \"${{replicas}}\"\nmax_age = \"${{max_age}}\"\n\
             duplicate_window = \"min(2m, ${{max_age}})\"\nmax_msgs = 5\n\
             [[update]]\nstream = \"SESSIONS\"\nset = {{ max_age = \"1h\" }}\n"
        );
        let migration = read(&text).unwrap();
        assert!(migration.breaks_older_gateways);
        let [create, update] = &migration.operations[..] else {
            panic!("two operations");
        };
        assert_eq!((create.stream.as_str(), create.creates), ("MINE", true));
        assert_eq!(
            Value::Object(create.config()),
            json!({
                "name": "MINE",
                "num_replicas": 3,
                "max_age": 60_000_000_000_i64,
                "duplicate_window": 60_000_000_000_i64,
                "max_msgs": 5
            })
        );
        let from_settings: Vec<&str> = create
            .fields
            .iter()
            .filter(|(_, wanted)| wanted.from_setting)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            from_settings,
            ["duplicate_window", "max_age", "num_replicas"]
        );
        assert_eq!(
            (update.stream.as_str(), update.creates),
            ("SESSIONS", false)
        );
        assert_eq!(update.config()["max_age"], json!(3_600_000_000_000_i64));
        assert!(!update.fields["max_age"].from_setting);
    }

    #[test]
    fn a_limit_in_bytes_is_that_of_its_setting_and_left_alone_where_that_is_not_set() {
        let text = format!(
            "{HEAD}[[update]]\nstream = \"DEAD\"\nset = {{ max_bytes = \"${{dead_max_bytes}}\" }}\n"
        );
        for (setting, want) in [(None, None), (Some(0), Some(-1)), (Some(7), Some(7))] {
            let config = NatsConfig {
                dead_max_bytes: setting,
                ..config()
            };
            let migration = Migration::read("0001_test", &text, &config).unwrap();
            let [update] = &migration.operations[..] else {
                panic!("{migration:?}");
            };
            let fields = update.config();
            let got = fields.get("max_bytes").and_then(Value::as_i64);
            assert_eq!(got, want, "{setting:?}");
            assert_eq!(update.unset.len(), usize::from(setting.is_none()));
        }
    }

    #[test]
    fn a_prefix_is_put_on_streams_and_subjects_and_leaves_the_checksum() {
        let text = format!(
            "{HEAD}[[create]]\nname = \"${{stream}}\"\nsubjects = [\"ws.>\"]\nretention = \"limits\"\n\
             republish = {{ src = \"ws.>\", dest = \"live.ws.>\" }}\n[[update]]\nstream = \"DEAD\"\nset = {{ max_msgs = 1 }}\n"
        );
        let config = NatsConfig {
            prefix: Some("blue".to_owned()),
            ..config()
        };
        let migration = Migration::read("0001_test", &text, &config).unwrap();
        assert_eq!(migration.checksum, read(&text).unwrap().checksum);
        let [create, update] = &migration.operations[..] else {
            panic!("{migration:?}");
        };
        assert_eq!(
            Value::Object(create.config()),
            json!({
                "name": "blue-MINE",
                "subjects": ["blue.ws.>"],
                "retention": "limits",
                "republish": {"src": "blue.ws.>", "dest": "blue.live.ws.>"}
            })
        );
        assert_eq!(
            (create.stream.as_str(), update.stream.as_str()),
            ("blue-MINE", "blue-DEAD")
        );
    }

    #[test]
    fn the_checksum_is_of_the_file_as_it_is() {
        let text = format!("{HEAD}[[create]]\nname = \"A\"\n");
        let one = read(&text).unwrap().checksum;
        assert_eq!(one.len(), 64);
        assert_ne!(one, read(&format!("{text}\n")).unwrap().checksum);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (text, problem) in [
            ("", "description"),
            (HEAD, "neither"),
            (&format!("{HEAD}[[create]]\nmax_msgs = 1\n"), "no name"),
            (
                &format!("{HEAD}[[create]]\nname = \"A\"\nmax_age = \"soon\"\n"),
                "max_age",
            ),
            (
                &format!("{HEAD}[[create]]\nname = \"${{nonsense}}\"\n"),
                "placeholder",
            ),
            (&format!("{HEAD}[[update]]\nset = {{}}\n"), "stream"),
            (&format!("{HEAD}[[delete]]\nname = \"A\"\n"), "delete"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        for name in ["1_a", "0001", "0001_", "0001_A", "x001_a"] {
            assert!(Migration::read(name, "", &config()).is_err(), "{name}");
        }
    }
}
