//! A notification on its way from its room to sockets: one for all of them.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::telemetry::{Clock, SendTrace};

/// What all sockets of a notification share.
#[derive(Debug)]
pub struct Parcel {
    /// The encoded notification.
    pub text: Utf8Bytes,
    /// When it was made, which is when it comes into the queues.
    pub(crate) queued: Clock,
    /// From the event's store time until then.
    pub(crate) age: Duration,
    /// Makes `send` spans, where the event is recorded.
    pub(crate) trace: Option<SendTrace>,
}

#[cfg(test)]
impl Parcel {
    /// A parcel of so many bytes.
    pub(crate) fn of_length(length: usize) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self {
            text: Utf8Bytes::from("x".repeat(length)),
            queued: Clock::now(),
            age: Duration::ZERO,
            trace: None,
        })
    }
}
