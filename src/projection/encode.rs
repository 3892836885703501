//! The notification's JSON, in the contract's shape and always in the same bytes.
//!
//! Fields stand in the contract's order; `metadata` has Herald's own keys first, then the others in
//! the order of their bytes (that of their map).

use std::fmt;

use crate::event::EventName;
use crate::json::{Map, Value, quote};

/// Largest encoded notification, in bytes. The contract's 64 KiB.
pub const ENCODED_MAX: usize = 64 * 1024;

/// What is written, field by field.
#[derive(Debug)]
pub(super) struct Encoded<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) message: &'a str,
    pub(super) kind: &'a str,
    pub(super) timestamp: &'a str,
    pub(super) metadata: Metadata<'a>,
}

/// `metadata`.
#[derive(Debug)]
pub(super) enum Metadata<'a> {
    /// Herald's keys, then `rest` without keys of their names.
    Object {
        event: &'a EventName,
        event_id: Option<&'a str>,
        traceparent: Option<&'a str>,
        rest: &'a Map,
    },
    /// What a publisher gave that is no object, and can have no keys.
    Other(&'a Value),
}

impl Encoded<'_> {
    /// Writes it behind `out`. Without the machinery of `format!`, which would take longer than all the rest.
    pub(super) fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        for (before, text) in [
            (r#"{"id":"#, self.id),
            (r#","title":"#, self.title),
            (r#","message":"#, self.message),
            (r#","type":"#, self.kind),
            (r#","read":false,"timestamp":"#, self.timestamp),
        ] {
            out.write_str(before)?;
            quote(text, out)?;
        }
        out.write_str(r#","metadata":"#)?;
        self.metadata.write(out)?;
        out.write_str("}")
    }
}

impl Metadata<'_> {
    fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let (event, event_id, traceparent, rest) = match self {
            Self::Other(value) => return value.write(out),
            Self::Object {
                event,
                event_id,
                traceparent,
                rest,
            } => (event, event_id, traceparent, rest),
        };
        // Nothing in a name needs an escape.
        for text in [
            r#"{"event":""#,
            event.category().as_str(),
            ".",
            event.name(),
            r#"""#,
        ] {
            out.write_str(text)?;
        }
        for (before, own) in [
            (r#","eventId":"#, event_id),
            (r#","traceparent":"#, traceparent),
        ] {
            if let Some(own) = own {
                out.write_str(before)?;
                quote(own, out)?;
            }
        }
        for (key, value) in *rest {
            // These are Herald's also where it has none: a publisher cannot pretend.
            if !matches!(key.as_str(), "event" | "eventId" | "traceparent") {
                out.write_str(",")?;
                quote(key, out)?;
                out.write_str(":")?;
                value.write(out)?;
            }
        }
        out.write_str("}")
    }
}
