//! A notification on its way from its room to sockets: one for all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::telemetry::{Clock, QueueDepth, SendTrace};

/// What all sockets of a notification share. Its text counts as waiting for as long as one of them has
/// it in its queue.
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
    /// Counts the text.
    depth: Arc<QueueDepth>,
}

impl Parcel {
    /// A parcel whose text is counted in `depth`.
    pub(crate) fn new(
        text: Utf8Bytes,
        queued: Clock,
        age: Duration,
        trace: Option<SendTrace>,
        depth: &Arc<QueueDepth>,
    ) -> Arc<Self> {
        depth.text_made(text.len() as u64);
        Arc::new(Self {
            text,
            queued,
            age,
            trace,
            depth: Arc::clone(depth),
        })
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.depth.text_gone(self.text.len() as u64);
    }
}

#[cfg(test)]
impl Parcel {
    /// A parcel of so many bytes.
    pub(crate) fn of_length(length: usize) -> Arc<Self> {
        Self::counted(length, &Arc::default())
    }

    /// A parcel of so many bytes that are counted in `depth`.
    pub(crate) fn counted(length: usize, depth: &Arc<QueueDepth>) -> Arc<Self> {
        let text = Utf8Bytes::from("x".repeat(length));
        Self::new(text, Clock::now(), Duration::ZERO, None, depth)
    }
}
