//! A notification as the frame that all its sockets get (RFC 6455 section 5.2): made once, since a server
//! masks nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_tungstenite::tungstenite::Bytes;

use super::depth::QueueDepth;
use crate::telemetry::{Clock, SendTrace};

/// FIN and the opcode of a text, in a frame's first byte.
const TEXT: u8 = 0x81;

/// What all sockets of a notification share. It counts as waiting for as long as one of them has it in its
/// queue.
#[derive(Debug)]
pub struct Frame {
    /// Header and text.
    pub(crate) bytes: Bytes,
    /// The text's.
    pub(crate) size: usize,
    /// When it was made.
    pub(crate) made: Clock,
    /// From the event's store time until then.
    pub(crate) age: Duration,
    /// Opens `send` spans, where the event is recorded.
    pub(crate) trace: Option<SendTrace>,
    /// Counts it.
    depth: Arc<QueueDepth>,
}

impl Frame {
    /// A frame that is counted in `depth`.
    pub(crate) fn new(
        text: &str,
        made: Clock,
        age: Duration,
        trace: Option<SendTrace>,
        depth: &Arc<QueueDepth>,
    ) -> Arc<Self> {
        let bytes = frame(TEXT, text.as_bytes());
        depth.frame_made(bytes.len() as u64);
        Arc::new(Self {
            bytes,
            size: text.len(),
            made,
            age,
            trace,
            depth: Arc::clone(depth),
        })
    }
}

impl Frame {
    /// Bytes of the text.
    pub(crate) fn len(&self) -> usize {
        self.size
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.depth.frame_gone(self.bytes.len() as u64);
    }
}

/// A text that only one socket gets, as a frame.
pub(crate) fn text_frame(text: &str) -> Bytes {
    frame(TEXT, text.as_bytes())
}

/// A frame of a server's, unmasked, with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Bytes {
    let header = match payload.len() {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    // Exact: `Bytes` keeps what is larger behind an allocation more.
    let mut bytes = Vec::with_capacity(header + payload.len());
    bytes.push(first);
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => bytes.push(short),
        _ => match u16::try_from(payload.len()) {
            Ok(length) => {
                bytes.push(126);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(127);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        },
    }
    bytes.extend_from_slice(payload);
    Bytes::from(bytes)
}

#[cfg(test)]
impl Frame {
    /// A frame of so many bytes of text.
    pub(crate) fn of_length(length: usize) -> Arc<Self> {
        Self::counted(length, &Arc::default())
    }

    /// A frame of so many bytes of text, which is counted in `depth`.
    pub(crate) fn counted(length: usize, depth: &Arc<QueueDepth>) -> Arc<Self> {
        Self::new(
            &"x".repeat(length),
            Clock::now(),
            Duration::ZERO,
            None,
            depth,
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame as Reference;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    #[test]
    fn a_frame_is_as_the_library_would_write_it() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let text = "x".repeat(length);
            let reference =
                Reference::message(Bytes::from(text.clone()), OpCode::Data(Data::Text), true);
            let mut expected = Vec::new();
            reference.format(&mut expected).expect("it fits");
            assert_eq!(frame(TEXT, text.as_bytes()), expected, "{length}");
        }
    }
}
