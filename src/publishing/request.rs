//! A request to publish becomes what is sent to NATS: its mode, its headers, its events. Pure.
//!
//! CloudEvents 1.0.2 over HTTP has three modes: binary, structured and batched (HTTP protocol binding, section 3). On
//! NATS each event is a message of its own, in binary or structured mode.

use std::borrow::Cow;

use async_nats::{HeaderMap as NatsHeaders, HeaderName as NatsName};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::check::cloudevent_value;
use super::problem::PublishProblem;
use crate::codes::ProblemType;
use crate::event::{EventName, PAYLOAD_MAX, WorkspaceSlug, is_json_type, media_type, unquoted};
use crate::json::without_bom;
use crate::word_enum::word_enum;

/// The most events of a batch.
const BATCH_EVENTS_MAX: usize = 100;
/// The most bytes of a batch.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the longest Idempotency-Key.
const KEY_BYTES_MAX: usize = 128;

word_enum! {
    /// How a request has its events. A metric's label.
    pub(super) enum PublishMode {
        /// The body is the payload.
        Plain = "plain",
        /// The body is the data of a CloudEvent, and its attributes are headers.
        Binary = "binary",
        /// The body is a CloudEvent.
        Structured = "structured",
        /// The body is a list of CloudEvents.
        Batch = "batch",
    }
}

/// One event of a batch.
#[derive(Debug)]
pub(super) struct BatchElement {
    /// Its CloudEvents `id`, if it has one.
    pub(super) id: Option<String>,
    pub(super) payload: Bytes,
}

/// Where an event is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventTarget {
    pub(super) workspace: WorkspaceSlug,
    pub(super) event: EventName,
}

impl EventTarget {
    /// Reads `/v1/workspaces/<slug>/events/<category>.<name>`.
    ///
    /// # Errors
    /// [`ProblemType::UnknownPath`].
    pub(super) fn parse(path: &str) -> Result<Self, PublishProblem> {
        let unknown = |why: &str| PublishProblem::new(ProblemType::UnknownPath, why);
        let parts = path.strip_prefix("/v1/workspaces/");
        let (workspace, event) = parts
            .and_then(|rest| rest.split_once("/events/"))
            .ok_or_else(|| unknown(ELSEWHERE))?;
        let workspace = decoded(workspace).and_then(|slug| WorkspaceSlug::parse(&slug).ok());
        let workspace = workspace.ok_or_else(|| {
            unknown(
                "the workspace in the path is no slug: letters, digits, `-` and `_`, at most 64",
            )
        })?;
        let event = decoded(event).ok_or_else(|| unknown(ELSEWHERE))?;
        let event = EventName::parse(&event).map_err(|bad| unknown(&bad.detail))?;
        Ok(Self { workspace, event })
    }
}

const ELSEWHERE: &str =
    "there is nothing at this path: POST /v1/workspaces/<slug>/events/<category>.<name>";

fn decoded(part: &str) -> Option<Cow<'_, str>> {
    percent_decode(part.as_bytes()).decode_utf8().ok()
}

/// The mode, by the headers alone.
///
/// # Errors
/// [`ProblemType::MediaType`], [`ProblemType::Malformed`].
pub(super) fn mode(headers: &HeaderMap) -> Result<PublishMode, PublishProblem> {
    let refused = |why: &str| Err(PublishProblem::new(ProblemType::MediaType, why));
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refused("a body with a Content-Encoding is not taken: send it as it is");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return refused(
            "a body with a Transfer-Encoding but chunked is not taken: send it as it is",
        );
    }
    let content_type = single(headers, header::CONTENT_TYPE.as_str())?.map(text);
    // As on NATS: one without a version is a CloudEvent, too, and no right one.
    let is_binary = headers.keys().any(|name| name.as_str().starts_with("ce-"));
    let Some(content_type) = content_type.filter(|text| !text.is_empty()) else {
        return Ok(if is_binary {
            PublishMode::Binary
        } else {
            PublishMode::Plain
        });
    };
    if !is_utf8(&content_type) {
        return refused("JSON is UTF-8 (RFC 8259, section 8.1): leave the charset out");
    }
    match media_type(&content_type).as_str() {
        "application/cloudevents+json" => Ok(PublishMode::Structured),
        "application/cloudevents-batch+json" => Ok(PublishMode::Batch),
        other if other.starts_with("application/cloudevents") => refused(
            "of CloudEvents the JSON format is taken: application/cloudevents+json or application/cloudevents-batch+json",
        ),
        other if !is_json_type(other) => refused(
            "an event is JSON: Content-Type: application/json, application/cloudevents+json or \
             application/cloudevents-batch+json",
        ),
        _ if is_binary => Ok(PublishMode::Binary),
        _ => Ok(PublishMode::Plain),
    }
}

fn is_utf8(content_type: &str) -> bool {
    let parameters = content_type.split(';').skip(1);
    let mut charsets = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"'))
    });
    charsets.all(|charset| {
        charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
    })
}

impl PublishMode {
    /// The most bytes of the body.
    pub(super) const fn bytes_max(self) -> usize {
        match self {
            Self::Batch => BATCH_BYTES_MAX,
            Self::Plain | Self::Binary | Self::Structured => PAYLOAD_MAX,
        }
    }

    /// The problem of a longer body.
    pub(super) fn too_large(self) -> PublishProblem {
        let detail = match self {
            Self::Batch => format!("the batch is over {BATCH_BYTES_MAX} bytes: send several"),
            // As `herald publish` says it.
            Self::Plain | Self::Binary | Self::Structured => format!(
                "a gateway would refuse this event: too_large: the payload is over {PAYLOAD_MAX} bytes"
            ),
        };
        PublishProblem::new(ProblemType::TooLarge, detail)
    }

    /// Whether the body may be empty: a CloudEvent need not have data.
    pub(super) fn may_be_empty(self) -> bool {
        matches!(self, Self::Binary)
    }
}

/// The sender's key of the request.
///
/// # Errors
/// [`ProblemType::IdempotencyKey`].
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, PublishProblem> {
    let mut all = headers.get_all("idempotency-key").iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let is_right = (1..=KEY_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_graphic)
        && all.next().is_none();
    let key = value.to_str().ok().filter(|_| is_right);
    key.map(Some).ok_or_else(|| {
        PublishProblem::new(
            ProblemType::IdempotencyKey,
            format!("an Idempotency-Key is 1 to {KEY_BYTES_MAX} visible ASCII characters, and given once"),
        )
    })
}

/// The headers that the event has on NATS. No other passes, so that a sender names no header of NATS' own.
///
/// # Errors
/// [`ProblemType::Malformed`].
pub(super) fn nats_headers(
    mode: PublishMode,
    headers: &HeaderMap,
) -> Result<NatsHeaders, PublishProblem> {
    let mut on_nats = NatsHeaders::new();
    for name in ["traceparent", "tracestate"] {
        // A malformed one would be ignored, too.
        for value in headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
        {
            on_nats.append(name, value);
        }
    }
    match mode {
        PublishMode::Plain => {}
        PublishMode::Binary => cloudevent_headers(headers, &mut on_nats)?,
        PublishMode::Structured | PublishMode::Batch => {
            on_nats.insert("content-type", "application/cloudevents+json");
        }
    }
    Ok(on_nats)
}

/// The attributes of binary mode: decoded as HTTP has them (binding, section 3.1.3.2), and encoded for NATS.
fn cloudevent_headers(
    headers: &HeaderMap,
    on_nats: &mut NatsHeaders,
) -> Result<(), PublishProblem> {
    if headers.contains_key("ce-datacontenttype") && headers.contains_key(header::CONTENT_TYPE) {
        return Err(malformed(
            "ce-datacontenttype beside Content-Type: the Content-Type is the attribute datacontenttype",
        ));
    }
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        on_nats.insert("content-type", text(value).as_ref());
    }
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("ce-") {
            continue;
        }
        let value = text(value);
        let plain = unquoted(&value).map_or(value, Cow::Owned);
        let decoded = percent_decode(plain.as_bytes()).decode_utf8();
        let decoded =
            decoded.map_err(|_| malformed(&format!("{name} is not UTF-8 in percent-encoding")))?;
        let nats_name = name.parse::<NatsName>();
        let nats_name =
            nats_name.map_err(|_| malformed("a ce- header has no name of an attribute"))?;
        on_nats.append(nats_name, cloudevent_value(&decoded));
    }
    Ok(())
}

/// The events of a batch, each by its own bytes.
///
/// # Errors
/// [`ProblemType::Malformed`], [`ProblemType::TooLarge`].
pub(super) fn batch(body: &Bytes) -> Result<Vec<BatchElement>, PublishProblem> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let list: Vec<&RawValue> = serde_json::from_slice(without_bom(body)).map_err(|error| {
        malformed(&format!(
            "the batch is not a JSON list of CloudEvents: {error}"
        ))
    })?;
    if list.len() > BATCH_EVENTS_MAX {
        let detail = format!("the batch has over {BATCH_EVENTS_MAX} events: send several");
        return Err(PublishProblem::new(ProblemType::TooLarge, detail));
    }
    let element = |raw: &&RawValue| BatchElement {
        id: serde_json::from_str::<Id>(raw.get()).ok().map(|it| it.id),
        payload: body.slice_ref(raw.get().as_bytes()),
    };
    Ok(list.iter().map(element).collect())
}

/// The only value of a header.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a HeaderValue>, PublishProblem> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(malformed(&format!("the header {name} is given twice"))),
        (value, None) => Ok(value),
    }
}

/// The value as text. JavaScript's `fetch` sends letters beyond ASCII as Latin-1, others send UTF-8.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => value
            .as_bytes()
            .iter()
            .map(|byte| char::from(*byte))
            .collect(),
    }
}

pub(super) fn malformed(why: &str) -> PublishProblem {
    PublishProblem::new(ProblemType::Malformed, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn the_headers_say_the_mode() {
        let version = ("ce-specversion", "1.0");
        for (all, wanted) in [
            (&[][..], Ok(PublishMode::Plain)),
            (
                &[("content-type", "application/json")],
                Ok(PublishMode::Plain),
            ),
            (
                &[("content-type", "Application/JSON; charset=\"UTF-8\"")],
                Ok(PublishMode::Plain),
            ),
            (&[version], Ok(PublishMode::Binary)),
            (&[("ce-id", "a")], Ok(PublishMode::Binary)),
            (&[("transfer-encoding", "chunked")], Ok(PublishMode::Plain)),
            (
                &[("transfer-encoding", "gzip, chunked")],
                Err(ProblemType::MediaType),
            ),
            (
                &[("content-type", "application/vnd.x+json"), version],
                Ok(PublishMode::Binary),
            ),
            (
                &[
                    (
                        "content-type",
                        "application/cloudevents+json; charset=utf-8",
                    ),
                    version,
                ],
                Ok(PublishMode::Structured),
            ),
            (
                &[("content-type", "application/cloudevents-batch+json")],
                Ok(PublishMode::Batch),
            ),
            (
                &[("content-type", "application/cloudevents+avro")],
                Err(ProblemType::MediaType),
            ),
            (
                &[("content-type", "text/plain")],
                Err(ProblemType::MediaType),
            ),
            (
                &[("content-type", "application/x-www-form-urlencoded")],
                Err(ProblemType::MediaType),
            ),
            (
                &[("content-type", "application/json; charset=latin1")],
                Err(ProblemType::MediaType),
            ),
            (
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", "gzip"),
                ],
                Err(ProblemType::MediaType),
            ),
            (
                &[
                    ("content-type", "application/json"),
                    ("content-type", "text/plain"),
                ],
                Err(ProblemType::Malformed),
            ),
        ] {
            let got = mode(&headers(all)).map_err(|problem| problem.problem);
            assert_eq!(got, wanted, "{all:?}");
        }
    }

    #[test]
    fn a_key_is_visible_ascii_and_one() {
        let long = "k".repeat(128);
        for good in ["k", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", &long] {
            assert_eq!(
                idempotency_key(&headers(&[("idempotency-key", good)])),
                Ok(Some(good))
            );
        }
        assert_eq!(idempotency_key(&headers(&[])), Ok(None));
        for bad in [
            &[("idempotency-key", "")][..],
            &[("idempotency-key", "a b")],
            &[("idempotency-key", "é")],
            &[("idempotency-key", &"k".repeat(129))],
            &[("idempotency-key", "a"), ("idempotency-key", "a")],
        ] {
            assert!(idempotency_key(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_names_a_workspace_and_an_event() {
        let target = EventTarget::parse("/v1/workspaces/acme/events/record.created").unwrap();
        assert_eq!(
            (target.workspace.as_str(), target.event.to_string().as_str()),
            ("acme", "record.created")
        );
        for (bad, part) in [
            ("/", "POST /v1"),
            ("/v1/workspaces/acme", "POST /v1"),
            ("/v2/workspaces/acme/events/custom.x", "POST /v1"),
            ("/v1/workspaces/a.b/events/custom.x", "no slug"),
            ("/v1/workspaces/a%2eb/events/custom.x", "no slug"),
            ("/v1/workspaces/%ff/events/custom.x", "no slug"),
            ("/v1/workspaces/acme/events/custom.x/", "subject"),
            ("/v1/workspaces/acme/events/custom", "subject"),
            ("/v1/workspaces/acme/events/record.made", "created, updated"),
            ("/v1/workspaces/acme/events/orders.made", "category"),
        ] {
            let problem = EventTarget::parse(bad).unwrap_err();
            let said = format!("{problem:?}");
            assert!(
                said.contains(part) && problem.problem == ProblemType::UnknownPath,
                "{bad}: {said}"
            );
        }
    }

    #[test]
    fn attributes_go_on_as_nats_has_them_and_nothing_else_does() {
        let all = headers(&[
            ("ce-specversion", "1.0"),
            ("ce-id", "\"a \\\"b\\\"\""),
            ("ce-source", "/%E2%82%AC%20%25"),
            ("ce-subject", "caf\u{e9}"),
            ("content-type", "application/json"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("nats-msg-id", "mine"),
            ("nats-ttl", "1s"),
            ("x-other", "1"),
        ]);
        let on_nats = nats_headers(PublishMode::Binary, &all).unwrap();
        let mut got: Vec<String> = on_nats
            .iter()
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| format!("{name}: {}", value.as_str()))
            })
            .collect();
        got.sort();
        assert_eq!(
            got,
            [
                "ce-id: a%20%22b%22",
                "ce-source: /%E2%82%AC%20%25",
                "ce-specversion: 1.0",
                "ce-subject: caf%C3%A9",
                "content-type: application/json",
                "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ]
        );
        for bad in [
            &[("ce-specversion", "1.0"), ("ce-id", "%ff")][..],
            &[
                ("ce-specversion", "1.0"),
                ("ce-datacontenttype", "application/json"),
                ("content-type", "application/json"),
            ],
        ] {
            let problem = nats_headers(PublishMode::Binary, &headers(bad)).unwrap_err();
            assert_eq!(problem.problem, ProblemType::Malformed, "{bad:?}");
        }
        let plain = nats_headers(PublishMode::Plain, &all).unwrap();
        assert_eq!(plain.iter().count(), 1);
    }

    #[test]
    fn a_batch_is_cut_into_its_own_bytes() {
        let body = Bytes::from_static(b" [ {\"id\":\"a\", \"n\":1e400} ,{\"id\":7},\n3 ] ");
        let events = batch(&body).unwrap();
        let got: Vec<_> = events
            .iter()
            .map(|it| (it.id.as_deref(), &it.payload[..]))
            .collect();
        assert_eq!(
            got,
            [
                (Some("a"), &b"{\"id\":\"a\", \"n\":1e400}"[..]),
                (None, b"{\"id\":7}"),
                (None, b"3"),
            ]
        );
        assert!(batch(&Bytes::from_static(b"[]")).unwrap().is_empty());
        let with_bom = Bytes::from_static(b"\xef\xbb\xbf[{}]");
        assert_eq!(batch(&with_bom).unwrap()[0].payload, "{}");
        for bad in ["", "{}", "[1,]", "[1] x", "null", "[\"\u{0}\"]"] {
            assert!(batch(&Bytes::from(bad)).is_err(), "{bad}");
        }
        let many = format!("[{}]", vec!["{}"; 101].join(","));
        assert_eq!(
            batch(&many.into()).unwrap_err().problem,
            ProblemType::TooLarge
        );
    }
}
