//! The reader: RFC 8259 by recursive descent, with a limit on depth and a line and column for each fault.
//!
//! Of its own because no reader at hand keeps a number's text and takes half of a surrogate pair, and
//! says where a text is nested too deeply; `serde_json`'s `arbitrary_precision` would keep the text, but
//! mistakes a publisher's object for its own marker, and changes what every other user of it reads.

use super::{Map, Number, Value, split_plain, without_bom};

/// How many objects and lists may stand in each other. Whoever reads a notification may recurse.
pub const DEPTH_MAX: usize = 127;

/// What stands for half of a surrogate pair, as when JavaScript encodes such a string.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Why bytes are no [`Value`], and where; both count from 1, the column in characters. Completes a
/// sentence that ends with "is", and contains nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at line {line} column {column}")]
pub struct Error {
    pub fault: Fault,
    pub line: usize,
    pub column: usize,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("not UTF-8")]
    Utf8,
    #[error("nested too deeply: more than {DEPTH_MAX} objects and lists stand in each other")]
    Depth,
    #[error("not JSON: {0}")]
    Syntax(&'static str),
}

/// Reads the one value of a JSON text.
///
/// # Errors
/// [`Error`] with the first fault.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    let bytes = without_bom(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        error_after(&String::from_utf8_lossy(before), Fault::Utf8)
    })?;
    let mut reader = JsonReader {
        text,
        at: 0,
        depth: 0,
    };
    reader.document().map_err(|fault| {
        let before = text.get(..reader.at).unwrap_or(text);
        error_after(before, fault)
    })
}

/// A fault of what follows `before`.
fn error_after(before: &str, fault: Fault) -> Error {
    let line = before.rsplit('\n').next().unwrap_or_default();
    Error {
        fault,
        line: 1 + before.bytes().filter(|byte| *byte == b'\n').count(),
        column: 1 + line.chars().count(),
    }
}

/// Reads on from `at`, which is where the fault is once there is one.
struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> JsonReader<'a> {
    fn document(&mut self) -> Result<Value, Fault> {
        self.blanks();
        if self.peek().is_none() {
            return Err(Fault::Syntax("it is empty"));
        }
        let value = self.value()?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(Fault::Syntax("something follows after its end")),
        }
    }

    /// A value and the blanks after it.
    fn value(&mut self) -> Result<Value, Fault> {
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.expected("a value is expected")),
        }?;
        self.blanks();
        Ok(value)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Fault>) -> Result<Value, Fault> {
        if self.depth == DEPTH_MAX {
            return Err(Fault::Depth);
        }
        self.depth += 1;
        self.at += 1;
        self.blanks();
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, Fault> {
        let mut map = Map::new();
        if self.take(b'}') {
            return Ok(Value::Object(map));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.expected("a name in double quotes is expected"));
            }
            let name = self.string()?;
            self.blanks();
            if !self.take(b':') {
                return Err(self.expected("a colon is expected after a name"));
            }
            self.blanks();
            let value = self.value()?;
            map.insert(name, value);
            if self.take(b'}') {
                return Ok(Value::Object(map));
            }
            self.comma("a comma or a closing brace is expected")?;
        }
    }

    fn list(&mut self) -> Result<Value, Fault> {
        let mut list = Vec::new();
        if self.take(b']') {
            return Ok(Value::Array(list));
        }
        loop {
            list.push(self.value()?);
            if self.take(b']') {
                return Ok(Value::Array(list));
            }
            self.comma("a comma or a closing bracket is expected")?;
        }
    }

    fn comma(&mut self, expected: &'static str) -> Result<(), Fault> {
        if !self.take(b',') {
            return Err(self.expected(expected));
        }
        self.blanks();
        Ok(())
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        if !self.rest().starts_with(word) {
            return Err(Fault::Syntax("a value is expected"));
        }
        self.at += word.len();
        Ok(value)
    }

    /// Section 6. What may not follow a number is the next reader's to refuse.
    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        self.take(b'-');
        // After a first 0 there is no other digit.
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Value::Number(Number(text.into())))
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit);
        let count = digits.count();
        if count == 0 {
            return Err(self.expected("a digit is expected"));
        }
        self.at += count;
        Ok(())
    }

    /// Section 7.
    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = self.rest();
            let (plain, _) = split_plain(rest).unwrap_or((rest, ""));
            string.push_str(plain);
            self.at += plain.len();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return Err(self.expected("a control character in a string is not escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        const UNKNOWN: Fault = Fault::Syntax("an escape in a string is none of JSON's");
        let char = match self.rest().as_bytes().get(1) {
            Some(b'u') => {
                let first = self.unit().ok_or(UNKNOWN)?;
                self.at += 6;
                let second = self.unit().unwrap_or(0);
                return Ok(match (first, second) {
                    (0xd800..=0xdbff, 0xdc00..=0xdfff) => {
                        self.at += 6;
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        char::from_u32(code).unwrap_or(REPLACEMENT)
                    }
                    _ => char::from_u32(first).unwrap_or(REPLACEMENT),
                });
            }
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(escaped @ (b'"' | b'\\' | b'/')) => char::from(*escaped),
            Some(_) => return Err(UNKNOWN),
            None => return Err(Fault::Syntax("it ends too early")),
        };
        self.at += 2;
        Ok(char)
    }

    /// The UTF-16 unit of a `\uXXXX` that stands here.
    fn unit(&self) -> Option<u32> {
        let digits = self.rest().strip_prefix("\\u")?.get(..4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
    }

    /// The fault where something else is expected here.
    fn expected(&self, what: &'static str) -> Fault {
        Fault::Syntax(match self.peek() {
            Some(_) => what,
            None => "it ends too early",
        })
    }

    fn blanks(&mut self) {
        let rest = self.rest().bytes();
        let blanks = rest.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.at += blanks.count();
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// What is left. `at` never stands within a character: only ASCII is stepped over, or whole runs.
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}
