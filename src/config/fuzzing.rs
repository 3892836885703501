//! What the fuzz targets reach of the settings.

use super::{Config, ConfigError, Reading};

/// Reads a file's text and an environment.
///
/// # Errors
/// As [`Config::read_from`].
pub fn read(text: &str, environment: Vec<(String, String)>) -> Result<Reading, ConfigError> {
    Config::read_toml(None, text, environment)
}
