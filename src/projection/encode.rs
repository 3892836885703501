//! The notification's JSON, in the contract's shape and always in the same bytes.
//!
//! Fields stand in the contract's order; `metadata` has Herald's own keys first, then the others in
//! the order of their bytes (the order of the JSON library's maps, which a test holds on to).

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value};

/// Largest encoded notification, in bytes. The contract's 64 KiB.
pub const ENCODED_MAX: usize = 64 * 1024;

/// What is written, field by field.
#[derive(Debug, serde::Serialize)]
pub(super) struct Encoded<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) message: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) read: bool,
    pub(super) timestamp: &'a str,
    pub(super) metadata: Metadata<'a>,
}

/// `metadata`: Herald's keys, then `rest` without keys of their names.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    pub(super) event: &'a str,
    pub(super) event_id: Option<&'a str>,
    pub(super) traceparent: Option<&'a str>,
    pub(super) rest: &'a Map<String, Value>,
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", self.event)?;
        if let Some(id) = self.event_id {
            map.serialize_entry("eventId", id)?;
        }
        if let Some(traceparent) = self.traceparent {
            map.serialize_entry("traceparent", traceparent)?;
        }
        for (key, value) in self.rest {
            // These are Herald's also where it has none: a publisher cannot pretend.
            if !matches!(key.as_str(), "event" | "eventId" | "traceparent") {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}
