//! What is wrong with a setting, for its author: the file and line, the form of its value, and what is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use config::ConfigError;

use super::keys::{KEYS, PREFIX};

/// One thing that is wrong. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The table that it is about, if such a table exists.
    table: Option<&'static str>,
    text: String,
}

impl Problem {
    /// From a sentence whose first name is the key or the variable.
    pub(super) fn new(text: String) -> Self {
        let table = table_of(&text);
        Self { table, text }
    }

    pub(super) fn is_of(&self, tables: &[&str]) -> bool {
        self.table.is_some_and(|table| tables.contains(&table))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The keys, variables and other words of a sentence.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_of_a_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    text.split(move |char| !is_of_a_name(char))
        .map(|word| word.trim_matches('.'))
        .filter(|word| !word.is_empty())
}

/// The table of the first key or variable in `text`.
fn table_of(text: &str) -> Option<&'static str> {
    let mut is_first = true;
    words(text).find_map(|word| {
        let is_alone = std::mem::take(&mut is_first) && text.starts_with('`');
        let table = match word.strip_prefix(PREFIX) {
            Some(variable) => variable.split('_').next()?.to_lowercase(),
            None if word.contains('.') || is_alone => word.split('.').next()?.to_owned(),
            None => return None,
        };
        tables().find(|known| *known == table)
    })
}

/// All tables.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter_map(|key| Some(key.name.split_once('.')?.0))
}

/// Where each setting was written.
#[derive(Debug, Default)]
pub(super) struct Locations {
    file: String,
    lines: BTreeMap<String, usize>,
    /// By key.
    variables: BTreeMap<String, String>,
}

impl Locations {
    /// Of a file that is TOML, and of variables.
    pub(super) fn new<'a>(
        path: Option<&Path>,
        text: &str,
        variables: impl Iterator<Item = &'a String>,
    ) -> Self {
        let mut lines = BTreeMap::new();
        if let Ok(table) = toml::de::DeTable::parse(text) {
            for (name, value) in table.get_ref() {
                lines.insert(name.get_ref().to_string(), line(text, name.span().start));
                let toml::de::DeValue::Table(inner) = value.get_ref() else {
                    continue;
                };
                for key in inner.keys() {
                    let name = format!("{}.{}", name.get_ref(), key.get_ref());
                    lines.insert(name, line(text, key.span().start));
                }
            }
        }
        let variables = variables.filter_map(|variable| {
            let key = KEYS.iter().find(|key| key.variable() == *variable)?;
            Some((key.name.to_owned(), variable.clone()))
        });
        Self {
            file: path.map_or(String::new(), |path| path.display().to_string()),
            lines,
            variables: variables.collect(),
        }
    }

    /// The problem, with the file and line, or the variable, of the key that it names.
    pub(super) fn located(&self, text: String) -> Problem {
        let mut problem = Problem::new(text);
        let location = words(&problem.text).find_map(|word| {
            let by_variable = self.variables.get(word).cloned();
            let in_file = || Some(format!("{} line {}", self.file, self.lines.get(word)?));
            by_variable.or_else(in_file)
        });
        if let Some(location) = location {
            problem.text = format!("{location}: {}", problem.text);
        }
        problem
    }
}

/// The line of a byte, from 1.
pub(crate) fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Why the value of `key` cannot be taken.
pub(super) fn wrong_value(key: &str, error: &ConfigError) -> String {
    let error = innermost(error).to_string();
    let (found, expected) = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|start| error.strip_prefix(start)?.split_once(", expected "))
        .map_or((None, ""), |(found, expected)| (Some(found), expected));
    let is_secret =
        matches!(key, "auth" | "auth.issuers" | "nats.url") || key.ends_with(".hmac_secret");
    match found {
        Some(found) if is_secret => {
            let form = form(found).split(' ').take(2).collect::<Vec<_>>().join(" ");
            format!("`{key}` has a value of the wrong type: {form}, not text in quotes")
        }
        None if is_secret => format!("`{key}` has a value of the wrong type"),
        Some(found) => format!("`{key}` is {}: write {}", form(found), allowed(expected)),
        // A sentence of our own, which shows the value and how one is written.
        None => format!("`{key}`: {error}"),
    }
}

fn innermost(error: &ConfigError) -> &ConfigError {
    match error {
        ConfigError::At { error, .. } => innermost(error),
        error => error,
    }
}

/// A value as the libraries describe it, in the words of the file.
fn form(found: &str) -> String {
    // `for key` and the like come behind the value.
    let value = found.split('`').nth(1);
    match (found.split(' ').next().unwrap_or_default(), value) {
        ("map", _) => "a table".to_owned(),
        ("sequence", _) => "a list".to_owned(),
        ("unit", _) => "empty".to_owned(),
        ("boolean", Some(value)) => format!("a truth value, {value}"),
        ("string", _) => format!("the text {}", found.trim_start_matches("string ")),
        (_, Some(value)) => format!("the number {value}"),
        (other, None) => format!("a {other}"),
    }
}

/// What a library expects, in the words of the file.
fn allowed(expected: &str) -> String {
    let expected = expected.split(" for key ").next().unwrap_or(expected);
    let is = |word: &str| expected.contains(word);
    let allowed = if is("bool") {
        "true or false"
    } else if is("integer") || expected.starts_with('u') {
        // None of ours is negative.
        "a whole number, 0 or more and not larger than fits"
    } else if is("list") {
        expected
    } else if is("string") {
        "text in quotes"
    } else if is("map") || is("struct") {
        "a table"
    } else {
        expected
    };
    allowed.to_owned()
}
