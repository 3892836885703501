//! JSON as publishers and issuers really write it: read from bytes, and written again. Pure.
//!
//! Everything that RFC 8259 allows is read, also what other readers refuse: a byte order mark, half of
//! a surrogate pair, and a number of any length. A number is kept as it was written, since whoever
//! passes one on must not change it, and whoever does not use one must not judge it.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

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

impl Value {
    /// Writes its JSON behind `out`, on one line and without blanks.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(value) => out.write_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.write_str(number.as_str()),
            Self::String(text) => quote(text, out),
            Self::Array(list) => {
                out.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { "," })?;
                    value.write(out)?;
                }
                out.write_str("]")
            }
            Self::Object(map) => {
                out.write_str("{")?;
                for (index, (name, value)) in map.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { "," })?;
                    quote(name, out)?;
                    out.write_str(":")?;
                    value.write(out)?;
                }
                out.write_str("}")
            }
        }
    }
}

/// Its JSON on one line, without blanks.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// Writes `text` as a JSON string behind `out`.
///
/// # Errors
/// Those of `out`.
pub fn quote(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_str("\"")?;
    let mut rest = text;
    while let Some((plain, from)) = split_plain(rest) {
        out.write_str(plain)?;
        let mut chars = from.chars();
        match chars.next().unwrap_or_default() {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\u{8}' => out.write_str("\\b"),
            '\t' => out.write_str("\\t"),
            '\n' => out.write_str("\\n"),
            '\u{c}' => out.write_str("\\f"),
            '\r' => out.write_str("\\r"),
            control => write!(out, "\\u{:04x}", u32::from(control)),
        }?;
        rest = chars.as_str();
    }
    out.write_str(rest)?;
    out.write_str("\"")
}

/// What stands in a string as it is (section 7), up to the first that does not; `None` if all does.
fn split_plain(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let rest = bytes.get(plain_blocks::<32>(bytes)..)?;
    let rest = rest.get(plain_blocks::<8>(rest)..)?;
    let at = rest.iter().position(|byte| is_special(*byte))?;
    text.split_at_checked(text.len() - rest.len() + at)
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Bytes of the blocks at the beginning that nothing special is in. Looked through whole, a block is a few
/// vector instructions.
fn plain_blocks<const BLOCK: usize>(bytes: &[u8]) -> usize {
    let is_plain = |block: &&[u8; BLOCK]| {
        let special = |any, byte: &u8| any | is_special(*byte);
        !block.iter().fold(false, special)
    };
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    BLOCK * blocks.iter().take_while(is_plain).count()
}

/// The bytes without the byte order mark that some editors and shells write before UTF-8.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
