//! A stored message becomes an [`Event`], or a [`BadEvent`] that says why not. Pure, and total:
//! whatever the bytes and headers, it neither panics nor takes longer than their length.

use std::collections::BTreeSet;
use std::fmt;

use super::cloudevent::{self, Attributes, Mode};
use super::subject::{EventName, event_name};
use super::{BadEvent, Reason, StoredMessage, trace};
use crate::json::{self, Fault, Map, Value};
use crate::word_enum::word_enum;

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

/// Whose the fields of a payload are, as the rule of its event says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Payload {
    /// `title`, `message`, `type`, `metadata` and `recipients` are what the publisher wants Herald to do.
    #[default]
    Herald,
    /// A sender that knows nothing of Herald wrote them: they are fields like the others.
    Foreign {
        /// The path to the field that names the users who get it; `None`: everyone.
        recipients: Option<Vec<String>>,
    },
}

word_enum! {
    /// The contract's five values of `type`, in its order.
    pub enum Severity {
        Info = "info",
        Success = "success",
        Warning = "warning",
        Error = "error",
        Alert = "alert",
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
    /// The `tracestate` of the same CloudEvents extension. That of the headers is read where it is needed.
    pub tracestate: Option<String>,
    /// The rest of the payload. Only a rule's allow-list lets any of it out.
    pub fields: Map,
}

/// Reads one stored message; `payload` says of an event whose its fields are.
///
/// # Errors
/// [`BadEvent`] with the first fault found; its detail has no value of the payload.
pub fn decode<'a>(
    message: &StoredMessage,
    payload: impl FnOnce(&EventName) -> &'a Payload,
) -> Result<Event, BadEvent> {
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
    let mut event = Event {
        name,
        title: None,
        message: None,
        severity: None,
        metadata: None,
        recipients: Recipients::Everyone,
        event_id: attributes.id,
        traceparent: header.map(str::to_owned).or(extension),
        tracestate,
        fields: Map::new(),
    };
    match payload(&event.name) {
        Payload::Herald => {
            event.title = text(&mut fields, "title")?;
            event.message = text(&mut fields, "message")?;
            event.severity = severity(&mut fields)?;
            event.metadata = take(&mut fields, "metadata");
            event.recipients = recipients(&mut fields)?;
        }
        Payload::Foreign { recipients: None } => {}
        Payload::Foreign {
            recipients: Some(path),
        } => event.recipients = recipients_at(&fields, path)?,
    }
    event.fields = fields;
    Ok(event)
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
        Some(other) => Err(bad_field(format!(
            "{name} is {}, not a string",
            other.form()
        ))),
    }
}

fn severity(fields: &mut Map) -> Result<Option<Severity>, BadEvent> {
    let Some(text) = text(fields, "type")? else {
        return Ok(None);
    };
    Severity::parse(&text).map(Some).ok_or_else(|| {
        bad_field("type is a string that is none of info, success, warning, error, alert")
    })
}

/// Null is bad here: whoever computed a list and got none must not reach everyone by it.
fn recipients(fields: &mut Map) -> Result<Recipients, BadEvent> {
    let bad = |form: &str| {
        let detail = format!("recipients is {form}, not a list of strings{IF_FOREIGN}");
        BadEvent::new(Reason::Recipients, detail)
    };
    let list = match fields.remove("recipients") {
        None => return Ok(Recipients::Everyone),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(bad(other.form())),
    };
    list.into_iter()
        .map(|value| match value {
            Value::String(user) => Ok(user),
            other => Err(bad(&format!("a list with {} in it", other.form()))),
        })
        .collect::<Result<_, _>>()
        .map(Recipients::Users)
}

/// The users that a foreign payload names where its rule says. Without any it is bad: what was meant for
/// somebody must not reach everyone.
fn recipients_at(fields: &Map, path: &[String]) -> Result<Recipients, BadEvent> {
    let bad = |found: &str| {
        let path = path.join(".");
        let detail = format!(
            "the rule reads the recipients from `{path}`, which is {found}: not a user or a list of users"
        );
        BadEvent::new(Reason::Recipients, detail)
    };
    let user = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.as_str().to_owned()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(()),
    };
    let mut names = path.iter();
    let first = names.next().and_then(|name| fields.get(name));
    let found = names.try_fold(first, |value, name| match value {
        Some(Value::Object(object)) => Some(object.get(name)),
        _ => None,
    });
    let value = found.flatten().ok_or_else(|| bad("absent"))?;
    let users = match value {
        Value::Array(list) => list.iter().map(user).collect(),
        one => user(one).map(|user| [user].into()),
    };
    let users = users.map_err(|()| match value {
        Value::Array(_) => bad("a list of something else"),
        other => bad(other.form()),
    });
    users.map(Recipients::Users)
}

/// The way out for whoever meant the field for something else.
const IF_FOREIGN: &str = "; where the sender means something else by it, the rule of this event needs \
    payload = \"foreign\"";

fn bad_field(detail: impl fmt::Display) -> BadEvent {
    BadEvent::new(Reason::Field, format!("{detail}{IF_FOREIGN}"))
}
