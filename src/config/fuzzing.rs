//! What the fuzz targets reach of the settings.

use super::{Config, ConfigError, LoadedConfig};

/// Reads a file's text and an environment.
///
/// # Errors
/// As [`Config::read_from`].
pub fn read(text: &str, environment: Vec<(String, String)>) -> Result<LoadedConfig, ConfigError> {
    Config::read_toml(None, text, environment)
}
