//! CloudEvents 1.0 in both modes of its NATS protocol binding: only the envelope, never the data.
//!
//! Binary mode has the attributes in percent-encoded `ce-*` headers and the data as the payload;
//! structured mode (`content-type: application/cloudevents+json`, or no content type) has both in one
//! JSON object. What SDKs write beside the letter of the binding is taken, too.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use super::{BadEvent, Reason};
use crate::json::{self, Map, Value, without_bom};

const STRUCTURED: &str = "application/cloudevents";

/// The attributes that every CloudEvent has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// The others that Herald looks at.
const OPTIONAL: [&str; 3] = ["datacontenttype", "traceparent", "tracestate"];

/// Padding adds nothing to what is encoded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
    /// The payload is the data, unless it turns out to be an envelope.
    Plain,
    /// The payload is the data, the attributes are headers.
    Binary(Attributes),
    /// The payload is an envelope.
    Structured,
}

/// Tells the mode from the headers (binding, section 3) and checks binary mode's attributes.
///
/// # Errors
/// [`Reason::CloudEvent`].
pub(super) fn mode(headers: &HeaderMap, payload: &[u8]) -> Result<Mode, BadEvent> {
    let mut attributes = None;
    let mut content_types = BTreeSet::new();
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        if name.eq_ignore_ascii_case("content-type") {
            content_types.extend(values.iter().map(|value| media_type(value.as_str())));
        } else if let Some(attribute) = strip_ce(name) {
            let all = attributes.get_or_insert_with(BTreeMap::new);
            all.entry(attribute.to_ascii_lowercase())
                .or_insert_with(Vec::new)
                .extend(values.iter().map(|value| value.as_str()));
        }
    }
    if let Some(found) = content_types
        .iter()
        .find(|found| found.starts_with(STRUCTURED))
    {
        // The attributes may be repeated as headers here; the envelope's are the ones that count.
        return match (content_types.len(), found.strip_prefix(STRUCTURED)) {
            (1, Some("" | "+json")) => Ok(Mode::Structured),
            (1, Some("-batch" | "-batch+json")) => Err(bad(
                "a batch of CloudEvents is not taken: publish each of them by itself",
            )),
            _ => Err(bad("the content-type is not application/cloudevents+json")),
        };
    }
    let data = if is_blank(payload) {
        Data::None
    } else {
        Data::Bytes
    };
    attributes.map_or(Ok(Mode::Plain), |headers| {
        binary(&headers, data).map(Mode::Binary)
    })
}

/// Checks the attributes of binary mode. Those that Herald has no use for are not looked at.
fn binary(headers: &BTreeMap<String, Vec<&str>>, data: Data) -> Result<Attributes, BadEvent> {
    let mut attributes = BTreeMap::new();
    for name in REQUIRED.into_iter().chain(OPTIONAL) {
        match headers.get(name).map(Vec::as_slice) {
            None => {}
            Some([value]) => {
                attributes.insert(name, decode_value(value));
            }
            Some(_) => return Err(bad(&format!("the attribute {name} is given twice"))),
        }
    }
    check(|name| attributes.get(name).map(AsRef::as_ref), data)?;
    let mut take = |name: &str| attributes.remove(name).map(Cow::into_owned);
    Ok(Attributes {
        id: take("id"),
        traceparent: take("traceparent"),
        tracestate: take("tracestate"),
    })
}

/// Whether bytes that should be JSON are no data at all.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    without_bom(bytes).trim_ascii().is_empty()
}

/// Whether a payload without a content type that says so is an envelope. SDKs whose transport has no
/// headers send it like that. One that says its version is one, too, if an attribute is of a wrong
/// type: so its publisher learns which.
pub(super) fn is_envelope(payload: &Map) -> bool {
    let says_version = match payload.get("specversion") {
        Some(Value::String(version)) => version.starts_with('1'),
        version => matches!(version, Some(Value::Number(_))),
    };
    REQUIRED.iter().all(|name| {
        let value = payload.get(*name);
        value.is_some_and(|value| says_version || value.as_str().is_some())
    })
}

/// Takes an envelope of structured mode apart: attributes and data.
///
/// # Errors
/// [`Reason::CloudEvent`].
pub(super) fn structured(mut envelope: Map) -> Result<(Attributes, Map), BadEvent> {
    // An attribute of null is one that is not there (JSON format, section 2.2).
    envelope.retain(|_, value| !value.is_null());
    for name in REQUIRED.into_iter().chain(["datacontenttype"]) {
        if let Some(value) = envelope.get(name)
            && value.as_str().is_none()
        {
            let form = value.form();
            return Err(bad(&format!(
                "the attribute {name} is {form}, not a string"
            )));
        }
    }
    let data = match (envelope.get("data"), envelope.get("data_base64")) {
        (_, Some(_)) => Data::Bytes,
        (None, None) => Data::None,
        (Some(data), None) if data.as_str().is_some_and(str::is_empty) => Data::None,
        (Some(_), None) => Data::Json,
    };
    check(|name| envelope.get(name).and_then(Value::as_str), data)?;
    let data = match (envelope.remove("data"), envelope.remove("data_base64")) {
        (Some(_), Some(_)) => return Err(bad("data and data_base64 are both given")),
        (Some(data), None) => encoded_twice(data),
        (None, Some(data)) => decode_data(&data)?,
        (None, None) => Value::Object(Map::new()),
    };
    let data = match data {
        Value::Object(data) => data,
        Value::Null => Map::new(),
        other => {
            let form = other.form();
            return Err(bad(&format!("the data is {form}, not a JSON object")));
        }
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

/// The object that `data` is, or contains as the text of its JSON: some publishers give their SDK that text. An
/// empty text is no data.
fn encoded_twice(data: Value) -> Value {
    let Some(text) = data.as_str() else {
        return data;
    };
    if is_blank(text.as_bytes()) {
        return Value::Null;
    }
    match json::parse(text.as_bytes()) {
        Ok(inner @ (Value::Object(_) | Value::Null)) => inner,
        _ => data,
    }
}

/// The JSON of `data_base64`: SDKs write bytes so, whatever they are.
fn decode_data(data: &Value) -> Result<Value, BadEvent> {
    let Some(text) = data.as_str() else {
        let form = data.form();
        return Err(bad(&format!("data_base64 is {form}, not a string")));
    };
    let bytes = BASE64
        .decode(text)
        .map_err(|_| bad("data_base64 is not base64"))?;
    if is_blank(&bytes) {
        return Ok(Value::Null);
    }
    json::parse(&bytes).map_err(|error| bad(&format!("what data_base64 holds is {error}")))
}

/// The rules that hold for the attributes in both modes.
fn check<'a>(get: impl Fn(&str) -> Option<&'a str>, data: Data) -> Result<(), BadEvent> {
    for name in REQUIRED {
        if get(name).is_none_or(str::is_empty) {
            return Err(bad(&format!("the attribute {name} is missing or empty")));
        }
    }
    if get("specversion") != Some("1.0") {
        return Err(bad("the attribute specversion is not 1.0"));
    }
    match get("datacontenttype") {
        Some(text) if !data.may_be(&media_type(text)) => {
            Err(bad("the attribute datacontenttype is not JSON"))
        }
        _ => Ok(()),
    }
}

/// How data comes: what its media type may be depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    None,
    Json,
    /// Bytes, which SDKs call `application/octet-stream` where nobody says what they are.
    Bytes,
}

impl Data {
    fn may_be(self, media_type: &str) -> bool {
        match self {
            Self::None => true,
            Self::Json => is_json_type(media_type),
            Self::Bytes => is_json_type(media_type) || media_type == "application/octet-stream",
        }
    }
}

/// Undoes quoting (RFC 7230, section 3.2.6) and one round of percent-encoding, in that order
/// (binding, section 3.1.3.2). Some SDKs encode nothing: what is no quoting, no escape, or decodes to
/// no text is taken as it stands.
fn decode_value(value: &str) -> Cow<'_, str> {
    let text = unquoted(value).map_or(Cow::Borrowed(value), Cow::Owned);
    let decoded = percent_decode_str(&text)
        .decode_utf8()
        .ok()
        .filter(|decoded| !decoded.contains(char::is_control))
        .map(Cow::into_owned);
    decoded.map_or(text, Cow::Owned)
}

/// What is between the quotes of a quoted string (RFC 9110, section 5.6.4); `None` if it is none.
pub(crate) fn unquoted(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.push(chars.next()?),
            '"' => return None,
            char => text.push(char),
        }
    }
    Some(text)
}

fn strip_ce(name: &str) -> Option<&str> {
    let (prefix, rest) = name.split_at_checked(3)?;
    prefix.eq_ignore_ascii_case("ce-").then_some(rest)
}

/// A media type without its parameters, in lower case.
pub(crate) fn media_type(text: &str) -> String {
    let essence = text.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// `*/json` or `*/*+json` (JSON format, section 3.1.1).
pub(crate) fn is_json_type(media_type: &str) -> bool {
    media_type
        .split_once('/')
        .is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

fn bad(detail: &str) -> BadEvent {
    BadEvent::new(Reason::CloudEvent, detail)
}
