//! The PROXY header (versions 1 and 2), which a balancer sends before all else of a connection: who connected
//! to it. Pure. <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>
//!
//! What follows the header is not ours to read: TLS may begin with the next byte. So [`next_read`] says at each point
//! how many bytes are still of the header for certain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What a header of version 1 begins with, and no request does that is served here.
const START_1: &[u8] = b"PROXY ";
/// The same of version 2: no TLS record begins so, nor a request.
const START_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;
/// Bytes that may follow these. Version 2 could say 65,535; addresses take 216 at most, and what balancers add
/// some hundred, or a client's certificate.
const VARIABLE_MAX: usize = 16 * 1024;

/// Who a header says has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionSource {
    /// A client with this address.
    Client(IpAddr),
    /// A client whose address the proxy does not know or that has none.
    Unknown,
    /// Who connected to us: the proxy itself, to look whether we live.
    Peer,
}

/// What is to be done with the bytes of a header so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    /// Read exactly so many more.
    Exactly(usize),
    /// Read on to the end of the line, at most so many more.
    Line(usize),
    /// The header is complete.
    Done(ConnectionSource),
}

/// A header that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

const NONE: Malformed = Malformed("it sent no PROXY header");
const BAD_LINE: Malformed = Malformed("its PROXY line is malformed");
const LONG_LINE: Malformed = Malformed("its PROXY line is longer than 107 bytes");
const BAD_2: Malformed = Malformed("its PROXY header of version 2 is malformed");
const LONG_2: Malformed = Malformed("its PROXY header of version 2 is longer than 16 KiB");

/// Whether a connection that starts with these bytes starts with a header. `None`: they are too few to tell.
pub(crate) fn is_header(start: &[u8]) -> Option<bool> {
    let starts = [START_1, START_2];
    if starts.iter().any(|known| start.starts_with(known)) {
        Some(true)
    } else if starts.iter().any(|known| known.starts_with(start)) {
        None
    } else {
        Some(false)
    }
}

/// What to do after these bytes, all of them a header's.
///
/// # Errors
/// They are no header's.
pub(crate) fn next_read(bytes: &[u8]) -> Result<HeaderRead, Malformed> {
    if is_header(bytes) == Some(false) {
        return Err(NONE);
    }
    // The shortest line has 15 bytes, so that none of these is another's.
    let missing = START_2.len().saturating_sub(bytes.len());
    if missing > 0 {
        return Ok(HeaderRead::Exactly(missing));
    }
    if bytes.starts_with(START_1) {
        return line(bytes);
    }
    version_2(bytes)
}

fn line(bytes: &[u8]) -> Result<HeaderRead, Malformed> {
    let left = LINE_MAX.saturating_sub(bytes.len());
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 == bytes.len() && bytes.len() <= LINE_MAX => {
            version_1(bytes).map(HeaderRead::Done).ok_or(BAD_LINE)
        }
        Some(_) => Err(BAD_LINE),
        None if left > 0 => Ok(HeaderRead::Line(left)),
        None => Err(LONG_LINE),
    }
}

fn version_1(line: &[u8]) -> Option<ConnectionSource> {
    let line = line.strip_prefix(START_1)?.strip_suffix(b"\r\n")?;
    let is_unknown = line.strip_prefix(b"UNKNOWN");
    if is_unknown.is_some_and(|rest| rest.is_empty() || rest.starts_with(b" ")) {
        // Whatever follows is to be passed over.
        return Some(ConnectionSource::Unknown);
    }
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let ip = match words.next()? {
        "TCP4" => addresses::<Ipv4Addr>(&mut words)?,
        "TCP6" => addresses::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    let is_whole = is_port(words.next()?) && is_port(words.next()?) && words.next().is_none();
    is_whole.then_some(ConnectionSource::Client(ip))
}

/// The client's address, which is followed by ours.
fn addresses<'a, A: FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Option<IpAddr> {
    let source = words.next()?.parse::<A>().ok()?;
    words.next()?.parse::<A>().ok()?;
    Some(source.into())
}

/// A port in decimal without leading zeros.
fn is_port(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

fn version_2(bytes: &[u8]) -> Result<HeaderRead, Malformed> {
    let Some((fixed, variable)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(HeaderRead::Exactly(FIXED.saturating_sub(bytes.len())));
    };
    let [.., version_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > VARIABLE_MAX {
        return Err(LONG_2);
    }
    // Bytes of both addresses and their ports; what follows them is nothing that is used here.
    let (size, is_tcp) = match family {
        0x00 => (0, false),
        0x11 => (12, true),
        0x21 => (36, true),
        // UDP, and UNIX sockets: no address that a TCP connection could come from.
        0x12 => (12, false),
        0x22 => (36, false),
        0x31 | 0x32 => (216, false),
        _ => return Err(BAD_2),
    };
    let is_command = match version_command {
        // Whatever it says of addresses is to be passed over.
        0x20 => false,
        0x21 if length >= size => true,
        _ => return Err(BAD_2),
    };
    match length.checked_sub(variable.len()) {
        None => Err(BAD_2),
        Some(0) if !is_command => Ok(HeaderRead::Done(ConnectionSource::Peer)),
        Some(0) if !is_tcp => Ok(HeaderRead::Done(ConnectionSource::Unknown)),
        Some(0) => source_2(size, variable)
            .map(|ip| HeaderRead::Done(ConnectionSource::Client(ip)))
            .ok_or(BAD_2),
        Some(missing) => Ok(HeaderRead::Exactly(missing)),
    }
}

/// The address that stands first.
fn source_2(size: usize, variable: &[u8]) -> Option<IpAddr> {
    Some(match size {
        12 => IpAddr::from(*variable.first_chunk::<4>()?),
        _ => IpAddr::from(*variable.first_chunk::<16>()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as a connection is read, from what the whole of it sends. The source, and what is left.
    fn read(sent: &[u8]) -> Result<(ConnectionSource, &[u8]), Malformed> {
        let mut taken = 0;
        loop {
            let (header, rest) = sent.split_at(taken);
            let more = match next_read(header)? {
                HeaderRead::Done(source) => return Ok((source, rest)),
                HeaderRead::Exactly(more) => more,
                HeaderRead::Line(most) => {
                    let end = rest.iter().take(most).position(|byte| *byte == b'\n');
                    end.map_or(most, |end| end + 1)
                }
            };
            assert!(more > 0);
            if more > rest.len() {
                return Err(Malformed("it ends"));
            }
            taken += more;
        }
    }

    fn v2(version_command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let length = u16::try_from(variable.len()).unwrap().to_be_bytes();
        let head = [version_command, family, length[0], length[1]];
        [START_2, &head, variable].concat()
    }

    fn client(text: &str) -> ConnectionSource {
        ConnectionSource::Client(text.parse().unwrap())
    }

    const REST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    #[test]
    fn version_1_is_read_to_the_end_of_its_line() {
        for (line, source) in [
            ("TCP4 203.0.113.9 10.0.0.1 56324 443", client("203.0.113.9")),
            (
                "TCP4 255.255.255.255 255.255.255.255 65535 65535",
                client("255.255.255.255"),
            ),
            ("TCP4 203.0.113.9 10.0.0.1 0 443", client("203.0.113.9")),
            ("TCP6 2001:db8::7 ::1 56324 443", client("2001:db8::7")),
            (
                "TCP6 ::ffff:203.0.113.9 ::1 1 2",
                client("::ffff:203.0.113.9"),
            ),
            ("UNKNOWN", ConnectionSource::Unknown),
            ("UNKNOWN ", ConnectionSource::Unknown),
            (
                "UNKNOWN ffff::1 ffff::2 65535 65535 \u{e9} whatever",
                ConnectionSource::Unknown,
            ),
        ] {
            let sent = [b"PROXY ", line.as_bytes(), b"\r\n", REST].concat();
            assert_eq!(read(&sent), Ok((source, REST)), "{line}");
        }
        // The longest that there may be.
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 16));
        assert_eq!(longest.len(), LINE_MAX);
        assert_eq!(
            read(longest.as_bytes()),
            Ok((ConnectionSource::Unknown, &b""[..]))
        );
        let too_long = longest.replace("x\r", "xx\r");
        assert_eq!(read(too_long.as_bytes()), Err(LONG_LINE));
        assert_eq!(read(&[b'P'; 200]), Err(NONE));
    }

    #[test]
    fn what_is_no_line_of_version_1_is_refused() {
        for line in [
            "TCP4 203.0.113.9 10.0.0.1 56324 443\n",
            "TCP4 203.0.113.9 10.0.0.1 56324 443 \r\n",
            "TCP4 203.0.113.9 10.0.0.1 56324 443 1\r\n",
            "TCP4 203.0.113.9 10.0.0.1 56324\r\n",
            "TCP4  203.0.113.9 10.0.0.1 56324 443\r\n",
            "TCP4\t203.0.113.9 10.0.0.1 56324 443\r\n",
            "TCP4 203.0.113.009 10.0.0.1 56324 443\r\n",
            "TCP4 203.0.113 10.0.0.1 56324 443\r\n",
            "TCP4 203.0.113.9 10.0.0.1.1 56324 443\r\n",
            "TCP4 2001:db8::7 ::1 56324 443\r\n",
            "TCP6 203.0.113.9 10.0.0.1 56324 443\r\n",
            "TCP6 fe80::1%eth0 ::1 56324 443\r\n",
            "TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
            "TCP4 203.0.113.9 10.0.0.1 -1 443\r\n",
            "TCP4 203.0.113.9 10.0.0.1 +1 443\r\n",
            "TCP4 203.0.113.9 10.0.0.1 0080 443\r\n",
            "TCP4 example.com 10.0.0.1 80 443\r\n",
            "UDP4 203.0.113.9 10.0.0.1 56324 443\r\n",
            "tcp4 203.0.113.9 10.0.0.1 56324 443\r\n",
            "UNKNOWNS\r\n",
            "UNKNOWN\n",
            " UNKNOWN\r\n",
            "\r\n       ",
        ] {
            let sent = format!("PROXY {line}");
            assert_eq!(read(sent.as_bytes()), Err(BAD_LINE), "{line}");
        }
    }

    #[test]
    fn version_2_is_read_to_the_end_of_its_length() {
        let four = [203, 0, 113, 9, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb];
        let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut six = [0; 36];
        six[..16].copy_from_slice(&ip.octets());
        let tlv = [4, 0, 3, 0, 0, 0];
        let long = [&four[..], &vec![0xff; VARIABLE_MAX - 12]].concat();
        for (header, source) in [
            (v2(0x21, 0x11, &four), client("203.0.113.9")),
            (
                v2(0x21, 0x11, &[&four[..], &tlv].concat()),
                client("203.0.113.9"),
            ),
            (v2(0x21, 0x11, &long), client("203.0.113.9")),
            (v2(0x21, 0x21, &six), client("2001:db8::7")),
            (
                v2(0x21, 0x21, &[&six[..], &tlv].concat()),
                client("2001:db8::7"),
            ),
            (v2(0x21, 0x00, &[]), ConnectionSource::Unknown),
            (v2(0x21, 0x00, &tlv), ConnectionSource::Unknown),
            (v2(0x21, 0x12, &four), ConnectionSource::Unknown),
            (v2(0x21, 0x22, &six), ConnectionSource::Unknown),
            (v2(0x21, 0x31, &[b'/'; 216]), ConnectionSource::Unknown),
            (v2(0x21, 0x32, &[b'/'; 216]), ConnectionSource::Unknown),
            (v2(0x20, 0x00, &[]), ConnectionSource::Peer),
            (v2(0x20, 0x00, &tlv), ConnectionSource::Peer),
            (v2(0x20, 0x11, &four), ConnectionSource::Peer),
            (v2(0x20, 0x11, &[]), ConnectionSource::Peer),
        ] {
            let sent = [&header, REST].concat();
            assert_eq!(read(&sent), Ok((source, REST)), "{header:?}");
        }
        for (header, told) in [
            (v2(0x11, 0x11, &four), BAD_2),
            (v2(0x22, 0x11, &four), BAD_2),
            (v2(0x31, 0x11, &four), BAD_2),
            (v2(0x21, 0x10, &four), BAD_2),
            (v2(0x21, 0x13, &four), BAD_2),
            (v2(0x21, 0x41, &four), BAD_2),
            (v2(0x21, 0x11, &four[..11]), BAD_2),
            (v2(0x21, 0x21, &six[..35]), BAD_2),
            (v2(0x21, 0x31, &[b'/'; 215]), BAD_2),
            (v2(0x21, 0x11, &vec![0; VARIABLE_MAX + 1]), LONG_2),
            (v2(0x20, 0x00, &[0xff; 0xffff]), LONG_2),
        ] {
            assert_eq!(read(&header), Err(told), "{header:?}");
        }
    }

    #[test]
    fn the_first_bytes_tell_a_header_from_tls_and_http() {
        let hello = [0x16, 3, 1, 2, 0, 1];
        for (start, is) in [
            (&b""[..], None),
            (b"P", None),
            (b"PROXY", None),
            (b"PROXY ", Some(true)),
            (b"PROXY TCP4", Some(true)),
            (b"PROXYX", Some(false)),
            (b"POST / HTTP/1.1", Some(false)),
            (b"PUT /", Some(false)),
            (b"GET /", Some(false)),
            (b"\r\n", None),
            (b"\r\nGET /", Some(false)),
            (b"\r\n\r\nGET /", Some(false)),
            (START_2, Some(true)),
            (&hello, Some(false)),
            (&hello[..1], Some(false)),
        ] {
            assert_eq!(is_header(start), is, "{start:?}");
            if is == Some(false) {
                assert_eq!(next_read(start), Err(NONE), "{start:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_byte_behind_a_header_is_taken(
            which in any::<bool>(),
            source in any::<IpAddr>(),
            tlvs in prop::collection::vec(any::<u8>(), 0..300),
            rest in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let header = match (which, source) {
                (true, IpAddr::V4(ip)) => format!("PROXY TCP4 {ip} 10.0.0.1 1 2\r\n").into_bytes(),
                (true, IpAddr::V6(ip)) => format!("PROXY TCP6 {ip} ::1 1 2\r\n").into_bytes(),
                (false, IpAddr::V4(ip)) => {
                    v2(0x21, 0x11, &[&ip.octets()[..], &[0; 8], &tlvs].concat())
                }
                (false, IpAddr::V6(ip)) => {
                    v2(0x21, 0x21, &[&ip.octets()[..], &[0; 20], &tlvs].concat())
                }
            };
            let sent = [&header[..], &rest].concat();
            prop_assert_eq!(read(&sent), Ok((ConnectionSource::Client(source), &rest[..])));
            prop_assert_eq!(is_header(&sent), Some(true));
        }

        #[test]
        fn anything_is_read_or_refused(sent in prop::collection::vec(any::<u8>(), 0..400), which in 0..3) {
            let start: &[u8] = [b"", START_1, START_2][which as usize];
            let sent = [start, &sent].concat();
            if read(&sent).is_ok() {
                prop_assert_eq!(is_header(&sent), Some(true));
            }
        }
    }
}
