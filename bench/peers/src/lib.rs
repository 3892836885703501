//! What the floor and the bridge share: a reader of NATS that costs next to nothing.
//!
//! It speaks as much of the protocol as one subscription needs, on a blocking socket, and shares no code with
//! the gateway that it is measured against.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

/// Room for one large message, or for many small ones of a burst in one read.
const BUFFER_BYTES: usize = 256 * 1024;

/// One subscription on a connection of its own.
#[derive(Debug)]
pub struct Subscription {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read and not yet taken.
    unread: Range<usize>,
}

/// A message, borrowed from the buffer it was read into.
#[derive(Debug)]
pub struct Message<'a> {
    pub subject: &'a [u8],
    pub payload: &'a [u8],
}

/// Where the next operation of the protocol ends, and what it is.
enum Operation {
    Message {
        subject: Range<usize>,
        payload: Range<usize>,
        end: usize,
    },
    Ping {
        end: usize,
    },
    Other {
        end: usize,
    },
}

impl Subscription {
    /// Subscribes to `subject` at `url` (`nats://host:port`), and returns once the subscription is in force.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached, or refuses.
    pub fn open(url: &str, subject: &str) -> io::Result<Self> {
        let address = url
            .strip_prefix("nats://")
            .unwrap_or(url)
            .trim_end_matches('/');
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let options =
            r#"{"verbose":false,"pedantic":false,"headers":true,"protocol":1,"name":"bench"}"#;
        write!(stream, "CONNECT {options}\r\nSUB {subject} 1\r\nPING\r\n")?;
        let mut subscription = Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            unread: 0..0,
        };
        while !subscription
            .pending()
            .windows(6)
            .any(|bytes| bytes == b"PONG\r\n")
        {
            subscription.fill()?;
        }
        Ok(subscription)
    }

    /// Waits for more bytes and reads them.
    ///
    /// # Errors
    ///
    /// Where the connection ends, or a message is larger than the buffer.
    pub fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let free = self.buffer.get_mut(self.unread.end..).unwrap_or_default();
        if free.is_empty() {
            return Err(io::Error::other(
                "a message of NATS is larger than the buffer",
            ));
        }
        let count = self.stream.read(free)?;
        if count == 0 {
            return Err(io::Error::other("NATS closed the connection"));
        }
        self.unread.end += count;
        Ok(())
    }

    /// Takes the next message that was read whole. `None`: [`fill`](Self::fill) first.
    ///
    /// # Errors
    ///
    /// Where the server sends an error, or bytes that are no protocol.
    pub fn take(&mut self) -> io::Result<Option<Message<'_>>> {
        loop {
            match parse(self.pending())? {
                None => return Ok(None),
                Some(Operation::Other { end }) => self.unread.start += end,
                Some(Operation::Ping { end }) => {
                    self.unread.start += end;
                    self.stream.write_all(b"PONG\r\n")?;
                }
                Some(Operation::Message {
                    subject,
                    payload,
                    end,
                }) => {
                    let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
                    self.unread.start += end;
                    return Ok(Some(Message {
                        subject: unread.get(subject).unwrap_or_default(),
                        payload: unread.get(payload).unwrap_or_default(),
                    }));
                }
            }
        }
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.unread.clone()).unwrap_or_default()
    }
}

/// Reads one operation at the start of `bytes`; `None` where it is not there whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Operation>> {
    let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let end = line_end + 1;
    let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    let malformed = || io::Error::other(format!("not NATS: {:?}", String::from_utf8_lossy(line)));
    // `MSG <subject> <sid> [reply] <total>`, and HMSG with the length of the headers before the total.
    let with_headers = line.starts_with(b"HMSG ");
    if !with_headers && !line.starts_with(b"MSG ") {
        return match line {
            b"PING" => Ok(Some(Operation::Ping { end })),
            error if error.starts_with(b"-ERR") => Err(malformed()),
            _ => Ok(Some(Operation::Other { end })),
        };
    }
    let subject_start = if with_headers { 5 } else { 4 };
    let subject_len = line
        .iter()
        .skip(subject_start)
        .position(|byte| *byte == b' ')
        .ok_or_else(malformed)?;
    let mut from_end = line.rsplit(|byte| *byte == b' ').map(number);
    let total = from_end.next().flatten().ok_or_else(malformed)?;
    let headers = if with_headers {
        from_end.next().flatten().ok_or_else(malformed)?
    } else {
        0
    };
    if headers > total {
        return Err(malformed());
    }
    if bytes.len() < end + total + 2 {
        return Ok(None);
    }
    Ok(Some(Operation::Message {
        subject: subject_start..subject_start + subject_len,
        payload: end + headers..end + total,
        end: end + total + 2,
    }))
}

fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value.checked_mul(10)?.checked_add(usize::from(byte - b'0')))?
    })
}

/// The workspace in `live.ws.<workspace>.…`.
#[must_use]
pub fn workspace(subject: &[u8]) -> Option<&[u8]> {
    subject
        .strip_prefix(b"live.ws.")?
        .split(|byte| *byte == b'.')
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_taken_only_whole() {
        let whole = b"HMSG live.ws.acme.custom.x 1 12 15\r\nNATS/1.0\r\n\r\nabc\r\nPING\r\n";
        for cut in 0..whole.len() - 6 {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let Some(Operation::Message {
            subject,
            payload,
            end,
        }) = parse(whole).unwrap()
        else {
            panic!("no message")
        };
        assert_eq!(&whole[subject.clone()], b"live.ws.acme.custom.x");
        assert_eq!(workspace(&whole[subject]), Some(&b"acme"[..]));
        assert_eq!(&whole[payload], b"abc");
        assert!(matches!(
            parse(&whole[end..]).unwrap(),
            Some(Operation::Ping { end: 6 })
        ));
    }

    #[test]
    fn what_is_no_protocol_is_an_error() {
        for bytes in [
            "MSG a\r\n",
            "MSG a 1 x\r\n",
            "HMSG a 1 9 3\r\n",
            "-ERR 'no'\r\n",
            "MSG a 1 99999999999999999999\r\n",
        ] {
            assert!(parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }
}
