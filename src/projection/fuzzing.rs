//! What the fuzz targets reach of rules.

use super::rules::RuleSet;
use super::{DEFAULT_RULES, Projector};
use crate::config::TypeMode;

/// A projector with the rules of `text`; the built-in ones without.
pub fn projector(text: Option<&str>) -> Option<Projector> {
    Some(Projector {
        rules: RuleSet::parse(text.unwrap_or(DEFAULT_RULES)).ok()?,
        stream: "EVENTS".to_owned(),
        type_mode: TypeMode::Severity,
        traceparent: true,
    })
}
