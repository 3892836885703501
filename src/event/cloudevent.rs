//! CloudEvents 1.0 in both modes of its NATS protocol binding: only the envelope, never the data.
//!
//! Binary mode has the attributes in percent-encoded `ce-*` headers and the data as the payload;
//! structured mode (`content-type: application/cloudevents+json`) has both in one JSON object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_nats::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{BadEvent, Reason};

const STRUCTURED: &str = "application/cloudevents";

/// What Herald takes from an envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `id`.
    pub(super) id: Option<String>,
    /// The distributed-tracing extension, not yet checked.
    pub(super) traceparent: Option<String>,
    /// The same extension's `tracestate`, not yet checked.
    pub(super) tracestate: Option<String>,
}

/// How a message carries its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// The payload is the data, with or without attributes in headers.
    Plain(Attributes),
    /// The payload is an envelope.
    Structured,
}

/// Tells the mode from the headers (binding, section 3) and checks binary mode's attributes.
///
/// # Errors
/// [`Reason::CloudEvent`].
pub(super) fn mode(headers: &HeaderMap) -> Result<Mode, BadEvent> {
    let mut attributes = BTreeMap::new();
    let mut content_types = Vec::new();
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        if name.eq_ignore_ascii_case("content-type") {
            content_types.extend(values.iter().map(|value| media_type(value.as_str())));
        } else if let Some(attribute) = strip_ce(name) {
            let values = values.iter().map(|value| value.as_str());
            attributes
                .entry(attribute.to_ascii_lowercase())
                .or_insert_with(Vec::new)
                .extend(values);
        }
    }
    if let Some(found) = content_types
        .iter()
        .find(|found| found.starts_with(STRUCTURED))
    {
        // The attributes may be repeated as headers here; the envelope's are the ones that count.
        return match (content_types.len(), found.strip_prefix(STRUCTURED)) {
            (1, Some("" | "+json")) => Ok(Mode::Structured),
            (1, Some("-batch+json")) => Err(bad("a batch of CloudEvents is not taken")),
            _ => Err(bad("the content-type is not application/cloudevents+json")),
        };
    }
    if attributes.is_empty() {
        return Ok(Mode::Plain(Attributes::default()));
    }
    binary(&attributes).map(Mode::Plain)
}

/// Checks the attributes of binary mode.
fn binary(headers: &BTreeMap<String, Vec<&str>>) -> Result<Attributes, BadEvent> {
    let mut attributes = BTreeMap::new();
    for (name, values) in headers {
        if !is_attribute_name(name) {
            return Err(bad(
                "a ce- header's name is not ce- and lower-case letters and digits",
            ));
        }
        let [value] = values.as_slice() else {
            return Err(bad("a CloudEvents attribute is given twice"));
        };
        attributes.insert(name.as_str(), decode_value(value)?);
    }
    check(|name| attributes.get(name).map(AsRef::as_ref))?;
    let mut take = |name: &str| attributes.remove(name).map(Cow::into_owned);
    Ok(Attributes {
        id: take("id"),
        traceparent: take("traceparent"),
        tracestate: take("tracestate"),
    })
}

/// Takes an envelope of structured mode apart: attributes and data.
///
/// # Errors
/// [`Reason::CloudEvent`].
pub(super) fn structured(
    mut envelope: Map<String, Value>,
) -> Result<(Attributes, Map<String, Value>), BadEvent> {
    if envelope.contains_key("data_base64") {
        return Err(bad("binary data (data_base64) is not taken"));
    }
    for name in ["specversion", "id", "source", "type", "datacontenttype"] {
        let value = envelope.get(name).unwrap_or(&Value::Null);
        // An attribute of null is one that is not there (JSON format, section 2.2).
        if !value.is_null() && !value.is_string() {
            return Err(bad(&format!("the attribute {name} is not a string")));
        }
    }
    check(|name| envelope.get(name).and_then(Value::as_str))?;
    let Some(Value::Object(data)) = envelope.remove("data") else {
        return Err(bad("the data is not a JSON object"));
    };
    let mut take = |name: &str| match envelope.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let attributes = Attributes {
        id: take("id"),
        traceparent: take("traceparent"),
        tracestate: take("tracestate"),
    };
    Ok((attributes, data))
}

/// The rules that hold for the attributes in both modes.
fn check<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<(), BadEvent> {
    for name in ["specversion", "id", "source", "type"] {
        if get(name).is_none_or(str::is_empty) {
            return Err(bad(&format!("the attribute {name} is missing or empty")));
        }
    }
    if get("specversion") != Some("1.0") {
        return Err(bad("the attribute specversion is not 1.0"));
    }
    match get("datacontenttype") {
        Some(text) if !is_json(&media_type(text)) => {
            Err(bad("the attribute datacontenttype is not JSON"))
        }
        _ => Ok(()),
    }
}

/// Undoes quoting (RFC 7230, section 3.2.6) and one round of percent-encoding, in that order
/// (binding, section 3.1.3.2).
fn decode_value(value: &str) -> Result<Cow<'_, str>, BadEvent> {
    let text = unquote(value)?;
    if !percent_signs_are_escapes(&text) {
        return Err(bad("an attribute's percent-encoding is broken"));
    }
    let text = match text {
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8(),
        Cow::Owned(text) => percent_decode_str(&text)
            .decode_utf8()
            .map(|text| Cow::Owned(text.into_owned())),
    }
    .map_err(|_| bad("an attribute is not UTF-8 after percent-decoding"))?;
    if text.chars().any(char::is_control) {
        return Err(bad("an attribute has a control character"));
    }
    Ok(text)
}

fn unquote(value: &str) -> Result<Cow<'_, str>, BadEvent> {
    let Some(rest) = value.strip_prefix('"') else {
        return Ok(Cow::Borrowed(value));
    };
    let broken = || bad("an attribute's quoting is broken");
    let inner = rest.strip_suffix('"').ok_or_else(broken)?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.push(chars.next().ok_or_else(broken)?),
            '"' => return Err(broken()),
            char => text.push(char),
        }
    }
    Ok(Cow::Owned(text))
}

/// The decoder passes a `%` without two hexadecimal digits on as it stands, which hides a value
/// that was never encoded.
fn percent_signs_are_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let mut bytes = rest.bytes();
        let mut is_hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        is_hex() && is_hex()
    })
}

fn strip_ce(name: &str) -> Option<&str> {
    let (prefix, rest) = name.split_at_checked(3)?;
    prefix.eq_ignore_ascii_case("ce-").then_some(rest)
}

/// CloudEvents, "Naming Conventions": lower-case letters and digits, and not `data`.
fn is_attribute_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(is_plain) && name != "data"
}

/// A media type without its parameters, in lower case.
fn media_type(text: &str) -> String {
    let essence = text.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// `*/json` or `*/*+json` (JSON format, section 3.1.1).
fn is_json(media_type: &str) -> bool {
    media_type
        .split_once('/')
        .is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

fn bad(detail: &str) -> BadEvent {
    BadEvent::new(Reason::CloudEvent, detail)
}
