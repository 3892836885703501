//! Durations as people write them: `300s`, `5m`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// Reads `300s`, `5m`, `1h 30m`; a bare `0` is taken, any other number needs its unit.
///
/// # Errors
/// A sentence that shows how a duration is written.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| format!("`{text}` is not a duration: write for example 300s or 5m"))
}
