//! A stored message becomes an [`Event`], or a [`BadEvent`] that says why not. Pure, and total:
//! whatever the bytes and headers, it neither panics nor takes longer than their length.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::cloudevent::{self, Attributes, Mode};
use super::subject::{EventName, event_name};
use super::{BadEvent, Reason, StoredMessage, trace};
use crate::json::{self, Fault, Map, Value};

/// Largest payload, in bytes; headers do not count. The contract's 64 KiB.
pub const PAYLOAD_MAX: usize = 64 * 1024;

/// Who an event is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipients {
    /// Everyone in the workspace (`recipients` was absent).
    Everyone,
    /// The users with these token subjects; nobody where it is empty.
    Users(BTreeSet<String>),
}

/// The contract's five values of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    Info,
    Success,
    Warning,
    Error,
    Alert,
}

impl Severity {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 5] = [
        Self::Info,
        Self::Success,
        Self::Warning,
        Self::Error,
        Self::Alert,
    ];

    /// The severity as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Alert => "alert",
        }
    }

    /// The severity of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// What a publisher said. `None` is what a rule fills in.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened, from the subject.
    pub name: EventName,
    /// `title`.
    pub title: Option<String>,
    /// `message`.
    pub message: Option<String>,
    /// `type`.
    pub severity: Option<Severity>,
    /// `metadata`, as given: any JSON but null.
    pub metadata: Option<Value>,
    /// `recipients`.
    pub recipients: Recipients,
    /// The CloudEvents `id`.
    pub event_id: Option<String>,
    /// A valid W3C `traceparent`: the header's, else that of the CloudEvents extension.
    pub traceparent: Option<String>,
    /// The `tracestate` of the same CloudEvents extension. That of the headers is read by who wants it.
    pub tracestate: Option<String>,
    /// The rest of the payload. Only a rule's allow-list lets any of it out.
    pub fields: Map,
}

/// Reads one stored message.
///
/// # Errors
/// [`BadEvent`] with the first fault found; its detail holds no value of the payload.
pub fn decode(message: &StoredMessage) -> Result<Event, BadEvent> {
    let name = event_name(message)?;
    if message.payload.len() > PAYLOAD_MAX {
        let detail = format!("the payload is over {PAYLOAD_MAX} bytes");
        return Err(BadEvent::new(Reason::TooLarge, detail));
    }
    let mode = match &message.headers {
        Some(headers) => cloudevent::mode(headers, &message.payload)?,
        None => Mode::Plain,
    };
    let (attributes, mut fields) = match mode {
        Mode::Binary(attributes) if cloudevent::is_blank(&message.payload) => {
            (attributes, Map::new())
        }
        Mode::Binary(attributes) => match read(&message.payload)? {
            Value::Null => (attributes, Map::new()),
            data => (attributes, object(data)?),
        },
        Mode::Structured => cloudevent::structured(object(read(&message.payload)?)?)?,
        Mode::Plain => match object(read(&message.payload)?)? {
            envelope if cloudevent::is_envelope(&envelope) => cloudevent::structured(envelope)?,
            payload => (Attributes::default(), payload),
        },
    };
    let header = message.headers.as_ref().and_then(trace::traceparent);
    let extension = attributes
        .traceparent
        .filter(|text| trace::is_traceparent(text));
    let tracestate = attributes
        .tracestate
        .filter(|text| text.len() <= trace::TRACESTATE_MAX);
    Ok(Event {
        name,
        title: text(&mut fields, "title")?,
        message: text(&mut fields, "message")?,
        severity: severity(&mut fields)?,
        metadata: take(&mut fields, "metadata"),
        recipients: recipients(&mut fields)?,
        event_id: attributes.id,
        traceparent: header.map(str::to_owned).or(extension),
        tracestate,
        fields,
    })
}

/// The payload as JSON.
fn read(payload: &[u8]) -> Result<Value, BadEvent> {
    json::parse(payload).map_err(|error| {
        let reason = match error.fault {
            Fault::Utf8 => Reason::Utf8,
            Fault::Depth | Fault::Syntax(_) => Reason::Json,
        };
        BadEvent::new(reason, format!("the payload is {error}"))
    })
}

fn object(payload: Value) -> Result<Map, BadEvent> {
    let form = match payload {
        Value::Object(map) => return Ok(map),
        Value::Array(_) => "a list, not an object: publish each event by itself",
        other => &format!("{}, not an object", other.form()),
    };
    let detail = format!("the payload is {form}");
    Err(BadEvent::new(Reason::NotAnObject, detail))
}

/// Takes a field out; null is as good as absent.
fn take(fields: &mut Map, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| !value.is_null())
}

fn text(fields: &mut Map, name: &str) -> Result<Option<String>, BadEvent> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad_field(format!("{name} is not a string"))),
    }
}

fn severity(fields: &mut Map) -> Result<Option<Severity>, BadEvent> {
    let Some(text) = text(fields, "type")? else {
        return Ok(None);
    };
    Severity::parse(&text)
        .map(Some)
        .ok_or_else(|| bad_field("type is none of info, success, warning, error, alert"))
}

/// Null is bad here: whoever computed a list and got none must not reach everyone by it.
fn recipients(fields: &mut Map) -> Result<Recipients, BadEvent> {
    let bad = || BadEvent::new(Reason::Recipients, "recipients is not a list of strings");
    let list = match fields.remove("recipients") {
        None => return Ok(Recipients::Everyone),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad()),
    };
    list.into_iter()
        .map(|value| match value {
            Value::String(user) => Ok(user),
            _ => Err(bad()),
        })
        .collect::<Result<_, _>>()
        .map(Recipients::Users)
}

fn bad_field(detail: impl Into<Cow<'static, str>>) -> BadEvent {
    BadEvent::new(Reason::Field, detail.into())
}
