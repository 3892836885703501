//! Durations as people write them: `300s`, `5m`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// Longer than anything runs. A time and a duration together must not overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// One that is set.
pub(super) fn some<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserialize(deserializer).map(Some)
}

/// Reads `300s`, `5m`, `1h 30m`; a bare `0` is taken, any other number needs its unit.
///
/// # Errors
/// A sentence that shows how a duration is written.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim())
        .map_err(|_| format!("`{text}` is not a duration: write for example 300s or 5m"))?;
    if duration > LONGEST {
        return Err(format!("`{text}` is longer than 100 years"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_no_clock_can_take_is_refused() {
        for (text, is_good) in [
            ("36500d", true),
            ("36501d", false),
            ("18446744073709551615s", false),
            ("9999999999999999999999s", false),
            ("-1s", false),
            ("5", false),
        ] {
            assert_eq!(parse(text).is_ok(), is_good, "{text}");
        }
    }
}
