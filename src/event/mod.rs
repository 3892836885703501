//! Bytes and headers become an [`Event`]: subject, payload, CloudEvents. Pure.

mod bad;
mod cloudevent;
mod decode;
mod slug;
mod stored;
mod subject;
#[cfg(test)]
mod tests;
mod trace;

pub use self::bad::{BadEvent, Reason};
pub(crate) use self::cloudevent::{is_json_type, media_type, unquoted};
pub use self::decode::{Event, PAYLOAD_MAX, Payload, Recipients, Severity, decode};
pub use self::slug::{SlugError, WorkspaceSlug};
pub(crate) use self::stored::ServerHeaders;
pub use self::stored::{NotStored, Position, StoredMessage};
pub use self::subject::{Category, EventName, NAME_MAX, unroutable};
pub use self::trace::{
    TRACESTATE_MAX, Traceparent, baggage, baggage_members, ce_traceparent, is_traceparent,
    traceparent, tracestate,
};
