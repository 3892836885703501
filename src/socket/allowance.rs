//! How much a client may send: frames and bytes of every kind, counted where they come in. Pure: the bytes
//! and the time are given.
//!
//! Messages are not what is counted. A client can keep the gateway busy without one: with pongs that no
//! ping came before, with empty fragments, with a message that never ends.

use std::time::{Duration, Instant};

use crate::admission::Rate;

/// Frames a second that a client may go on sending.
const FRAMES_PER_SECOND: u32 = 20;
/// Frames that it may send at once. A heartbeat a second for minutes fits well in it.
const FRAMES_BURST: u32 = 200;
/// A continuation frame with so many bytes or more is no frame that counts: its bytes do. So any message that is
/// not too large passes, unless its fragments are smaller than their own headers.
const FRAGMENT: u64 = 8;
/// Bytes a second are those of one largest message of the contract, or of one that the settings allow. Nobody
/// who keeps a socket open, with heartbeats and tokens, comes near.
const BYTES_PER_SECOND_MIN: usize = 64 * 1024;
/// As many seconds' worth may come at once: the largest message never comes too fast, nor do some of them.
const BYTES_BURST: u32 = 4;

/// A second.
const SECOND: Duration = Duration::from_secs(1);
const FRAMES: Rate = Rate::new(
    Duration::from_millis(1000 / FRAMES_PER_SECOND as u64),
    FRAMES_BURST,
);

/// What one client has left.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes_per_second: u32,
    /// When the frames, and the bytes, that came are earned.
    frames: Option<Instant>,
    bytes: Option<Instant>,
    at: FramePosition,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Excess {
    #[error("too many frames")]
    Frames,
    #[error("too many bytes")]
    Bytes,
}

impl Allowance {
    /// For a client whose messages have so many bytes at most.
    pub(super) fn new(max_message_bytes: usize) -> Self {
        let bytes_per_second = max_message_bytes.max(BYTES_PER_SECOND_MIN);
        Self {
            bytes_per_second: u32::try_from(bytes_per_second).unwrap_or(u32::MAX),
            frames: None,
            bytes: None,
            at: FramePosition::First,
        }
    }

    /// Takes the next bytes of the connection.
    ///
    /// # Errors
    /// What they are too many of.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> Result<(), Excess> {
        let frames = self.at.advance(bytes);
        let took = FRAMES.take(self.frames, frames, now);
        self.frames = Some(took.map_err(|_| Excess::Frames)?);
        let per_second = Rate::new(
            SECOND / self.bytes_per_second,
            self.bytes_per_second.saturating_mul(BYTES_BURST),
        );
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let took = per_second.take(self.bytes, count, now);
        self.bytes = Some(took.map_err(|_| Excess::Bytes)?);
        Ok(())
    }
}

/// Where in a frame (RFC 6455 section 5.2) the next byte stands. Whether the frame is a good one the
/// library says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramePosition {
    /// At its first byte.
    First,
    /// At its second byte.
    Second { is_fragment: bool },
    /// In its extended length.
    Length {
        left: u8,
        so_far: u64,
        header: Header,
    },
    /// So many bytes before its end: mask and payload.
    Rest(u64),
}

/// What a frame's first two bytes say, besides its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// It continues a message.
    is_fragment: bool,
    has_mask: bool,
}

impl FramePosition {
    /// Goes on over `bytes`: how many frames that count have their header's end in them.
    fn advance(&mut self, bytes: &[u8]) -> u32 {
        let mut frames = 0;
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            *self = match *self {
                Self::First => Self::Second {
                    is_fragment: byte & 0x0f == 0,
                },
                Self::Second { is_fragment } => {
                    let header = Header {
                        is_fragment,
                        has_mask: byte & 0x80 != 0,
                    };
                    match byte & 0x7f {
                        126 => Self::length(2, 0, header, &mut frames),
                        127 => Self::length(8, 0, header, &mut frames),
                        short => Self::length(0, short.into(), header, &mut frames),
                    }
                }
                Self::Length {
                    left,
                    so_far,
                    header,
                } => {
                    let so_far = so_far << 8 | u64::from(byte);
                    Self::length(left - 1, so_far, header, &mut frames)
                }
                Self::Rest(left) => {
                    let skipped = usize::try_from(left).map_or(rest.len(), |n| n.min(rest.len()));
                    rest = rest.get(skipped..).unwrap_or_default();
                    *self = Self::ends_in(left - skipped as u64);
                    continue;
                }
            };
            rest = after;
        }
        frames
    }

    /// With so many bytes of the length to come. Where it is whole, the frame is counted.
    fn length(left: u8, so_far: u64, header: Header, frames: &mut u32) -> Self {
        if left > 0 {
            return Self::Length {
                left,
                so_far,
                header,
            };
        }
        if !header.is_fragment || so_far < FRAGMENT {
            *frames += 1;
        }
        let mask = if header.has_mask { 4 } else { 0 };
        Self::ends_in(so_far.saturating_add(mask))
    }

    fn ends_in(left: u64) -> Self {
        match left {
            0 => Self::First,
            left => Self::Rest(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: u8 = 0x81;
    const PONG: u8 = 0x8a;
    const CONTINUATION: u8 = 0x00;

    /// A frame as a client sends it, masked with zeros.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(0x80 | payload as u8),
            126..65536 => {
                bytes.push(0x80 | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + 4 + payload, 0);
        bytes
    }

    fn allowance() -> Allowance {
        Allowance::new(64 * 1024)
    }

    #[test]
    fn frames_of_every_kind_count() {
        let whole = [TEXT, 0x01, 0x82, 0x88, 0x89, PONG, 0xff];
        let whole = whole.map(|kind| (kind, &[0, 1, 125, 126][..]));
        let fragments = [CONTINUATION, 0x80].map(|kind| (kind, &[0, 1, 7][..]));
        for (kind, payloads) in whole.into_iter().chain(fragments) {
            for &payload in payloads {
                let now = Instant::now();
                let mut allowance = allowance();
                for _ in 0..FRAMES_BURST {
                    assert_eq!(allowance.take(&frame(kind, payload), now), Ok(()));
                }
                let excess = allowance.take(&frame(kind, payload), now);
                assert_eq!(excess, Err(Excess::Frames), "{kind:x}");
            }
        }
    }

    #[test]
    fn a_steady_stream_of_frames_is_fine() {
        let mut now = Instant::now();
        let mut allowance = allowance();
        for _ in 0..600 {
            for _ in 0..FRAMES_PER_SECOND {
                assert_eq!(allowance.take(&frame(TEXT, 30), now), Ok(()));
            }
            now += SECOND;
        }
    }

    #[test]
    fn the_largest_message_is_fine_in_any_form_and_a_stream_of_them_is_not() {
        const LARGEST: usize = 64 * 1024;
        let whole = frame(TEXT, LARGEST);
        let fragments = |size: usize| {
            let more = frame(CONTINUATION, size).repeat(LARGEST / size - 1);
            [frame(0x01, size), more].concat()
        };
        for message in [&whole, &fragments(1024), &fragments(100), &fragments(8)] {
            let mut now = Instant::now();
            let mut allowance = allowance();
            // One a second, and one more at the beginning.
            for _ in 0..2 {
                for byte in message.chunks(1) {
                    assert_eq!(allowance.take(byte, now), Ok(()));
                }
            }
            now += SECOND * 10;
            for _ in 0..60 {
                assert_eq!(allowance.take(&whole, now), Ok(()));
                // Its header is beyond what a second earns.
                now += SECOND + Duration::from_millis(1);
            }
        }
        let now = Instant::now();
        let mut allowance = allowance();
        let excess = (0..5).find_map(|_| allowance.take(&whole, now).err());
        assert_eq!(excess, Some(Excess::Bytes));
        // With larger messages allowed, more may come.
        let mut allowance = Allowance::new(10 * LARGEST);
        for _ in 0..39 {
            assert_eq!(allowance.take(&whole, now), Ok(()));
        }
        assert_eq!(allowance.take(&whole.repeat(2), now), Err(Excess::Bytes));
    }

    #[test]
    fn a_setting_for_small_messages_leaves_room_for_control_frames() {
        let now = Instant::now();
        let mut allowance = Allowance::new(1);
        for _ in 0..FRAMES_BURST {
            assert_eq!(allowance.take(&frame(0x89, 125), now), Ok(()));
        }
    }

    #[test]
    fn lengths_that_no_frame_can_have_are_nothing_special() {
        let mut at = FramePosition::First;
        let header = [vec![TEXT, 0xff], vec![0xff; 8]].concat();
        assert_eq!(at.advance(&header), 1);
        assert_eq!(at.advance(&[0; 5000]), 0);
        // Without a mask, and without a payload, a frame is its two bytes.
        let mut at = FramePosition::First;
        assert_eq!(at.advance(&[TEXT, 0, PONG, 0, TEXT]), 2);
    }

    proptest! {
        /// However the bytes are cut, the frames are the same.
        #[test]
        fn frames_are_counted_however_the_bytes_come(
            payloads in prop::collection::vec(
                prop_oneof![0usize..200, 65_530usize..65_540], 1..20),
            cuts in prop::collection::vec(1usize..3000, 1..50),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|n| frame(TEXT, *n)).collect();
            let mut at = FramePosition::First;
            let mut frames = 0;
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                frames += at.advance(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(frames as usize, payloads.len());
            prop_assert_eq!(at, FramePosition::First);
        }
    }
}
