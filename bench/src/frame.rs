//! Frames of RFC 6455 as a client reads and writes them. Pure.

/// Length of the longest payload of a control frame (section 5.5).
const CONTROL_MAX: usize = 125;

/// Opcodes (section 5.2).
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A frame that a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) is_last: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// What came is no frame that a server may send; the text says why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// The first frame in `bytes` and what is behind it. `None`: it is not all there yet.
///
/// # Errors
/// [`Broken`] where it is not what a server may send to a client that asked for no extension.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, Broken> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (is_last, opcode) = (first & 0x80 != 0, first & 0x0F);
    if first & 0x70 != 0 {
        return Err(Broken("a reserved bit is set"));
    }
    if second & 0x80 != 0 {
        return Err(Broken("a server's frame is masked"));
    }
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(Broken("an unknown opcode"));
    }
    let (length, rest) = match second & 0x7F {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    let shortest = match second & 0x7F {
        126 => CONTROL_MAX as u64 + 1,
        127 => u64::from(u16::MAX) + 1,
        _ => 0,
    };
    if length < shortest {
        return Err(Broken("a length is not written in the shortest way"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if opcode >= CLOSE && (length > CONTROL_MAX || !is_last) {
        return Err(Broken("a control frame is too long or in parts"));
    }
    Ok(rest.split_at_checked(length).map(|(payload, rest)| {
        let frame = Frame {
            is_last,
            opcode,
            payload,
        };
        (frame, rest)
    }))
}

/// A frame as a client sends it (section 5.3: masked).
pub(crate) fn masked(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=CONTROL_MAX => frame.push(0x80 | u8::try_from(length).unwrap_or_default()),
        length => match u16::try_from(length) {
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        },
    }
    frame.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(first: u8, length: &[u8], payload: usize) -> Vec<u8> {
        [&[first], length, &vec![b'x'; payload]].concat()
    }

    #[test]
    fn frames_are_split_where_they_end_and_not_before() {
        for (length, payload) in [
            (&[5][..], 5),
            (&[126, 0, 126], 126),
            (&[127, 0, 0, 0, 0, 0, 1, 0, 0], 65536),
        ] {
            let mut bytes = server_frame(0x81, length, payload);
            let whole = bytes.len();
            for cut in (0..whole).rev().step_by(7).chain([0, 1, whole - 1]) {
                assert_eq!(split(&bytes[..cut]), Ok(None), "{cut} of {whole}");
            }
            bytes.push(b'n');
            let (frame, rest) = split(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.is_last), (TEXT, true));
            assert_eq!((frame.payload.len(), rest), (payload, &b"n"[..]));
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_broken() {
        for (bytes, what) in [
            (server_frame(0xC1, &[1], 1), "compressed"),
            (server_frame(0x81, &[0x81], 9), "masked"),
            (server_frame(0x83, &[1], 1), "opcode"),
            (server_frame(0x81, &[126, 0, 125], 125), "16 bits for 125"),
            (
                server_frame(0x81, &[127, 0, 0, 0, 0, 0, 0, 1, 0], 256),
                "64 bits",
            ),
            (server_frame(0x89, &[126, 0, 126], 126), "a long ping"),
            (server_frame(0x09, &[1], 1), "a ping in parts"),
        ] {
            assert!(split(&bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn what_is_sent_is_masked() {
        // RFC 6455 section 5.7: a single-frame masked text message, "Hello".
        let hello = masked(TEXT, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(
            hello,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
        assert_eq!(masked(TEXT, &[0; 126], [1; 4])[..4], [0x81, 0xFE, 0, 126]);
        let long = masked(BINARY, &[0; 65536], [1; 4]);
        assert_eq!(long[..10], [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(long.len(), 14 + 65536);
    }
}
