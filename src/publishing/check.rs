//! Whether an event is right before it is stored: a gateway with the same settings maps it first. `herald publish`, HTTP
//! publishing and the page's preview use this. Pure, but for the clock.

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::Utc;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::event::{BadEvent, StoredMessage};
use crate::projection::{Notification, Projector};

/// Most warnings of one event.
const WARNINGS_MAX: usize = 10;

/// What a CloudEvents header value must have encoded (NATS binding, section 3.1.3.2); the encoder
/// adds whatever is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Why no gateway would make a notification of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a gateway would refuse this event: {0}")]
pub struct RefusedEvent(pub BadEvent);

/// What would become of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// One line of JSON. What only the store can give is zeros.
    pub notification: String,
    /// What is in the payload for nothing, one sentence each.
    pub warnings: Vec<String>,
}

/// The event as it would be stored under the plain `subject`. All that is not known yet has a fixed length.
pub fn message(subject: &str, headers: HeaderMap, payload: Bytes) -> StoredMessage {
    StoredMessage {
        subject: subject.into(),
        sequence: 0,
        time: Utc::now(),
        last_sequence: None,
        headers: Some(headers),
        payload,
    }
}

/// Maps the event as a gateway with the same settings would. So a mistake is reported here, and is no dead letter there.
///
/// # Errors
/// [`RefusedEvent`].
pub fn check(projector: &Projector, message: &StoredMessage) -> Result<Notification, RefusedEvent> {
    projector.project(message).map_err(RefusedEvent)
}

/// As [`check`], with what a person wants to see.
///
/// # Errors
/// [`RefusedEvent`].
pub fn preview(projector: &Projector, message: &StoredMessage) -> Result<Preview, RefusedEvent> {
    let notification = check(projector, message)?;
    Ok(Preview {
        notification: shown(projector, message, &notification),
        warnings: warnings(projector, message),
    })
}

/// A value of a CloudEvents header, encoded for NATS.
pub fn cloudevent_value(value: &str) -> String {
    utf8_percent_encode(value, ENCODED).to_string()
}

/// Nothing is stored, and `why`.
pub fn not_stored(why: impl std::fmt::Display) -> String {
    format!("{why}. Nothing is stored")
}

/// The event was sent, and nobody knows whether it is stored; `way` is the way to find out.
pub fn unsure(why: impl std::fmt::Display, way: &str) -> String {
    format!("{why}, after the event was sent: it may be stored. To be sure, {way}")
}

fn warnings(projector: &Projector, message: &StoredMessage) -> Vec<String> {
    let unused = projector.unused(message);
    let more = unused.len().saturating_sub(WARNINGS_MAX);
    let mut warnings: Vec<String> = unused
        .into_iter()
        .take(WARNINGS_MAX)
        .map(|field| {
            let way = match field.nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "put it into `metadata`, or into the `fields` of the rule".to_owned(),
            };
            let path: String = field.path.escape_debug().take(100).collect();
            format!("{} does not use the field `{path}`: {way}", field.rule)
        })
        .collect();
    if more > 0 {
        warnings.push(format!("and of {more} more"));
    }
    warnings
}

/// The notification without what only the store can give.
fn shown(projector: &Projector, message: &StoredMessage, notification: &Notification) -> String {
    const ID: &str = "notif_00000000-0000-0000-0000-000000000000";
    const TRACEPARENT: &str = "00-00000000000000000000000000000000-0000000000000000-00";
    let derived = projector.identity(message).traceparent();
    notification
        .encoded
        .replacen(&notification.id, ID, 1)
        .replacen(&derived, TRACEPARENT, 1)
}
