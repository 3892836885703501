//! Looking a variable up, with a warning for what it cannot be.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::event::key_value;

/// The variables and what was wrong with those looked at.
#[derive(Debug)]
pub(super) struct Variables {
    values: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Variables {
    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with("OTEL_"))
            .map(|(name, value)| (name, value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self {
            values,
            warnings: Vec::new(),
        }
    }

    /// The value, if there is one.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// Notes that the value of `name` is wrong, and what holds instead. The value is not quoted.
    pub(super) fn wrong(&mut self, name: &str, what: &str, instead: &str) {
        let warning = format!("{name} {what}; {instead} holds instead");
        // Each signal looks at the general variables.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Only `true`, in any case, is true.
    pub(super) fn boolean(&mut self, name: &str) -> bool {
        match self.get(name).map(|text| text.to_ascii_lowercase()) {
            None => false,
            Some(text) if text == "true" => true,
            Some(text) => {
                if text != "false" {
                    self.wrong(name, "is neither true nor false", "false");
                }
                false
            }
        }
    }

    pub(super) fn number(&mut self, name: &str, default: u64, allowed: RangeInclusive<u64>) -> u64 {
        let Some(text) = self.get(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if allowed.contains(&number) => number,
            _ => {
                let (least, most) = allowed.into_inner();
                let what = format!("is not a whole number from {least} to {most}");
                self.wrong(name, &what, &default.to_string());
                default
            }
        }
    }

    /// A duration in milliseconds; 0 is none.
    pub(super) fn millis(&mut self, name: &str, default: u64) -> Duration {
        const DAY: u64 = 24 * 3600 * 1000;
        Duration::from_millis(self.number(name, default, 1..=DAY))
    }

    pub(super) fn optional_u32(&mut self, name: &str) -> Option<u32> {
        let text = self.get(name)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.wrong(name, "is not a whole number", "128");
        }
        number
    }

    /// `key=value` pairs with commas, percent-encoded as W3C Baggage has it. A pair that is none is
    /// left out.
    pub(super) fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let Some(text) = self.get(name) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for pair in text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            match key_value(pair) {
                Some(pair) => pairs.push(pair),
                None => self.wrong(
                    name,
                    "has an entry that is no key=value",
                    "what is right in it",
                ),
            }
        }
        pairs
    }
}
