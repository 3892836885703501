//! The notification's JSON, in the contract's shape and always in the same bytes.
//!
//! Fields stand in the contract's order; `metadata` has Herald's own keys first, then the others in
//! the order of their bytes (that of their map).

use std::fmt;

use crate::json::{Map, Quoted, Value};

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
        event: &'a str,
        event_id: Option<&'a str>,
        traceparent: Option<&'a str>,
        rest: &'a Map,
    },
    /// What a publisher gave that is no object, and has no place for keys.
    Other(&'a Value),
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            title,
            message,
            kind,
            timestamp,
            metadata,
        } = self;
        write!(
            f,
            r#"{{"id":{},"title":{},"message":{},"type":{},"read":false,"timestamp":{},"metadata":{metadata}}}"#,
            Quoted(id),
            Quoted(title),
            Quoted(message),
            Quoted(kind),
            Quoted(timestamp),
        )
    }
}

impl fmt::Display for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (event, event_id, traceparent, rest) = match self {
            Self::Other(value) => return write!(f, "{value}"),
            Self::Object {
                event,
                event_id,
                traceparent,
                rest,
            } => (event, event_id, traceparent, rest),
        };
        write!(f, r#"{{"event":{}"#, Quoted(event))?;
        for (name, own) in [("eventId", event_id), ("traceparent", traceparent)] {
            if let Some(own) = own {
                write!(f, ",{}:{}", Quoted(name), Quoted(own))?;
            }
        }
        for (key, value) in *rest {
            // These are Herald's also where it has none: a publisher cannot pretend.
            if !matches!(key.as_str(), "event" | "eventId" | "traceparent") {
                write!(f, ",{}:{value}", Quoted(key))?;
            }
        }
        f.write_str("}")
    }
}
