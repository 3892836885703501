//! A close frame at the end of what a peer sent, where nobody knows any more where a frame begins.
//!
//! After a frame that breaks the protocol, or one that is too long to be read, nobody knows where the
//! next one begins. But nothing follows a close frame (RFC 6455 5.5.1), so it ends the bytes that came.

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// A final close frame, in a frame's first byte.
const CLOSE: u8 = 0x88;
/// Whether the frame is masked, in its second byte. A client's always is.
const MASKED: u8 = 0x80;
/// Two bytes, the mask, and the longest payload of a control frame.
const LONGEST: usize = 2 + 4 + 125;

/// The last bytes that came.
#[derive(Debug, Default)]
pub(super) struct CloseFrameScanner(Vec<u8>);

impl CloseFrameScanner {
    /// Takes what was read. The code of the close frame that it ends with, if it does; 1005 if that
    /// says none.
    pub(super) fn take(&mut self, read: &[u8]) -> Option<u16> {
        let (_, last) = read.split_at(read.len().saturating_sub(LONGEST));
        self.0.extend_from_slice(last);
        let over = self.0.len().saturating_sub(LONGEST);
        self.0.drain(..over);
        (0..self.0.len()).find_map(|start| whole(self.0.get(start..)?))
    }
}

/// The code of `bytes`, if they are one close frame as a client sends it.
fn whole(bytes: &[u8]) -> Option<u16> {
    let (head, payload) = bytes.split_first_chunk::<6>()?;
    let [CLOSE, length, mask @ ..] = *head else {
        return None;
    };
    if length & MASKED == 0 || usize::from(length & !MASKED) != payload.len() {
        return None;
    }
    let [first, second, ..] = mask;
    match *payload {
        [] => Some(1005),
        [high, low, ..] => {
            let code = u16::from_be_bytes([high ^ first, low ^ second]);
            CloseCode::from(code).is_allowed().then_some(code)
        }
        [_] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn close(payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let masked = payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b);
        [CLOSE, MASKED | length]
            .into_iter()
            .chain(MASK)
            .chain(masked)
            .collect()
    }

    #[test]
    fn a_close_frame_is_found_behind_anything_and_in_any_pieces() {
        let frames = [
            (close(b""), 1005),
            (close(&1000u16.to_be_bytes()), 1000),
            (close(b"\x03\xf1protocol error"), 1009),
            (
                close(&[&4001u16.to_be_bytes()[..], &[b'x'; 123]].concat()),
                4001,
            ),
        ];
        for (frame, code) in frames {
            for before in [0, 1, 5, 131, 5000] {
                let bytes = [vec![0xff; before], frame.clone()].concat();
                for piece in [1, 7, bytes.len()] {
                    let mut scanner = CloseFrameScanner::default();
                    let mut found = Vec::new();
                    for piece in bytes.chunks(piece) {
                        found.extend(scanner.take(piece));
                    }
                    assert_eq!(found, [code], "{before} bytes before it");
                    assert!(scanner.0.len() <= LONGEST);
                }
            }
        }
    }

    #[test]
    fn what_is_no_close_frame_of_a_client_is_none() {
        let mut unmasked = close(b"");
        unmasked[1] = 0;
        let mut more = close(&1000u16.to_be_bytes());
        more.push(0);
        for bytes in [
            &b"\x88"[..],
            b"\x88\x80\x01\x02\x03",
            &unmasked,
            &more,
            &close(b"\x03"),
            // No peer may send this code.
            &close(&1006u16.to_be_bytes()),
        ] {
            assert_eq!(CloseFrameScanner::default().take(bytes), None, "{bytes:?}");
        }
    }
}
