//! A field of a stream that is not as wanted, and the words for it. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// StreamConfig's durations: nanoseconds in the API, text in a file.
const DURATIONS: &[&str] = &["max_age", "duplicate_window", "subject_delete_marker_ttl"];

/// Whether `field` of a StreamConfig is a duration.
pub(super) fn is_duration(field: &str) -> bool {
    DURATIONS.contains(&field)
}

/// A field of a stream that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub stream: String,
    /// The field's name in StreamConfig.
    pub field: String,
    /// What the server has, in the JetStream API's form; null where it has none.
    pub found: Value,
    /// What is wanted, in the same form.
    pub wanted: Value,
    /// What comes of it, where no setting explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<&'static str>,
    /// The setting that would decide it, and does not because it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<&'static str>,
}

impl Difference {
    /// One sentence on a value that its operator gave it: what comes of it, and what to do.
    pub fn advice(&self) -> String {
        let stream = &self.stream;
        let way = match self.setting {
            _ if self.cannot_be_edited() => format!("keep it, or {}", self.way_back()),
            Some(setting) => {
                format!("set {setting} to say so, or put it back with `nats stream edit {stream}`")
            }
            None => format!("keep it, or put it back with `nats stream edit {stream}`"),
        };
        format!("{self}. It was changed by hand and is left as it is: {way}")
    }

    /// Whether the stream is to take less of the account than it does.
    pub(super) fn is_lowered(&self) -> bool {
        let size = |value: &Value| match value.as_i64() {
            Some(size) if size > 0 => size,
            _ => i64::MAX,
        };
        matches!(self.field.as_str(), "max_bytes" | "num_replicas")
            && size(&self.wanted) < size(&self.found)
    }

    /// Whether the server lets nobody undo it.
    fn cannot_be_edited(&self) -> bool {
        match self.field.as_str() {
            "sealed" | "mirror" | "allow_msg_counter" | "persist_mode" | "storage" => true,
            "retention" => self.found == "workqueue",
            _ => false,
        }
    }

    /// How it is undone, in words that follow "or".
    fn way_back(&self) -> String {
        let stream = &self.stream;
        if self.cannot_be_edited() {
            return format!(
                "make the stream anew, since the server lets nobody undo that: `nats stream backup {stream} FOLDER`, \
                `nats stream rm {stream}`, then `nats stream restore --config FILE FOLDER` with its configuration as \
                Herald makes it (docs/operations.md, \"A sealed stream\")"
            );
        }
        let bytes = match (self.field.as_str(), self.wanted.as_i64()) {
            ("max_bytes", Some(bytes)) => format!(" --max-bytes={bytes}"),
            _ => String::new(),
        };
        format!("put it back (nats stream edit {stream}{bytes})")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, field) = (&self.stream, &self.field);
        let found = readable(field, &self.found);
        let wanted = readable(field, &self.wanted);
        write!(f, "stream {stream}: {field} is {found}, wanted {wanted}")?;
        match self.consequence {
            Some(consequence) => write!(f, " ({consequence})"),
            None => Ok(()),
        }
    }
}

/// `value` as a person writes it.
fn readable(field: &str, value: &Value) -> String {
    match value.as_i64() {
        Some(nanoseconds) if is_duration(field) && nanoseconds > 0 => {
            let duration = Duration::from_nanos(nanoseconds.unsigned_abs());
            humantime::format_duration(duration).to_string()
        }
        Some(0 | -1) if field.starts_with("max_") => "no limit".to_owned(),
        _ if value.is_null() => "not set".to_owned(),
        _ => value.to_string(),
    }
}

/// All of `differences` in one sentence.
pub(super) fn list(differences: &[Difference]) -> String {
    let parts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    parts.join("; ")
}

/// Each way back once, as a sentence.
pub(super) fn ways_back(differences: &[Difference]) -> String {
    let mut ways: Vec<String> = differences.iter().map(Difference::way_back).collect();
    ways.sort();
    ways.dedup();
    let mut sentence = ways.join("; ");
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_reads_as_a_sentence() {
        let difference = Difference {
            stream: "EVENTS".to_owned(),
            field: "max_age".to_owned(),
            found: json!(7_200_000_000_000_u64),
            wanted: json!(90_000_000_000_u64),
            consequence: None,
            setting: None,
        };
        assert_eq!(
            difference.to_string(),
            "stream EVENTS: max_age is 2h, wanted 1m 30s"
        );
    }

    #[test]
    fn the_way_back_is_one_that_the_server_takes() {
        let of = |field: &str, wanted: Value| Difference {
            stream: "S".to_owned(),
            field: field.to_owned(),
            found: true.into(),
            wanted,
            consequence: None,
            setting: None,
        };
        for (difference, way) in [
            (of("subjects", Value::Null), "(nats stream edit S)"),
            (
                of("max_bytes", 9.into()),
                "(nats stream edit S --max-bytes=9)",
            ),
            (of("sealed", Value::Null), "nats stream rm S"),
        ] {
            assert!(difference.way_back().contains(way), "{difference:?}");
        }
        let advice = of("sealed", Value::Null).advice();
        assert!(
            advice.contains("restore") && !advice.contains("edit"),
            "{advice}"
        );
    }
}
