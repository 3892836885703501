//! JSON as publishers and issuers really write it: read from bytes, and written again. Pure.
//!
//! Everything that RFC 8259 allows is read, also what other readers refuse: a byte order mark, half of
//! a surrogate pair, and a number of any length. A number is kept as it was written, since whoever
//! passes one on must not change it, and whoever does not use one must not judge it.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

pub use self::read::{DEPTH_MAX, Error, Fault, parse};

/// An object. Of a name given twice the last value counts, as in JavaScript.
pub type Map = BTreeMap<String, Value>;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Self>),
    Object(Map),
}

/// A number as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(Box<str>);

impl Number {
    /// Its text, which is a number in JSON's own syntax.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest float; `None` where that would be infinite.
    pub fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok().filter(|float: &f64| float.is_finite())
    }
}

impl Value {
    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The nearest float of a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// What it is, for a message that must not show it.
    pub fn form(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// For readers that know no number beyond their own: one that does not fit is null there.
impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => serde_json::from_str(number.as_str()).unwrap_or_default(),
            Value::String(text) => Self::String(text),
            Value::Array(list) => list.into_iter().collect(),
            Value::Object(map) => map.into_iter().collect(),
        }
    }
}

/// Its JSON on one line, without blanks.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => f.write_str(number.as_str()),
            Self::String(text) => write!(f, "{}", Quoted(text)),
            Self::Array(list) => {
                f.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
            Self::Object(map) => {
                f.write_str("{")?;
                for (index, (name, value)) in map.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    write!(f, "{}:{value}", Quoted(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A text as a JSON string.
#[derive(Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0;
        while let Some((plain, from)) = split_plain(rest) {
            f.write_str(plain)?;
            let mut chars = from.chars();
            match chars.next().unwrap_or_default() {
                mark @ ('"' | '\\') => write!(f, "\\{mark}"),
                '\u{8}' => f.write_str("\\b"),
                '\t' => f.write_str("\\t"),
                '\n' => f.write_str("\\n"),
                '\u{c}' => f.write_str("\\f"),
                '\r' => f.write_str("\\r"),
                control => write!(f, "\\u{:04x}", u32::from(control)),
            }?;
            rest = chars.as_str();
        }
        f.write_str(rest)?;
        f.write_char('"')
    }
}

/// What stands in a string as it is (section 7), up to the first that does not; `None` if all does.
fn split_plain(text: &str) -> Option<(&str, &str)> {
    const BLOCK: usize = 32;
    let is_special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let bytes = text.as_bytes();
    // Looked through whole, a block is a few vector instructions.
    let is_plain = |block: &&[u8]| !block.iter().fold(false, |any, byte| any | is_special(byte));
    let plain = BLOCK * bytes.chunks_exact(BLOCK).take_while(is_plain).count();
    let at = bytes.get(plain..)?.iter().position(is_special)?;
    text.split_at_checked(plain + at)
}

/// The bytes without the byte order mark that some editors and shells write before UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
