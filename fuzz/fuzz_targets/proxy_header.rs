//! The first bytes of a connection, where a PROXY header may stand (versions 1 and 2).

#![no_main]

use herald::fuzzing::admission::{Said, proxy_header, starts_with_proxy_header};
use libfuzzer_sys::fuzz_target;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let read = proxy_header(data);
    if let Some((said, length)) = read {
        assert!(length <= data.len() && length <= 16 + 16 * 1024);
        assert_eq!(starts_with_proxy_header(data), Some(true));
        // It ends where it ends, whatever follows, and no part of it is one.
        let header = &data[..length];
        assert_eq!(
            proxy_header(&[header, REQUEST].concat()),
            Some((said, length))
        );
        assert_eq!(proxy_header(&header[..length - 1]), None);
        if header.starts_with(b"PROXY ") {
            assert!(length <= 107 && header.ends_with(b"\r\n"));
            let text = String::from_utf8_lossy(header);
            let words: Vec<&str> = text.trim_end().split(' ').collect();
            match said {
                Said::Client(ip) => assert_eq!(words[2].parse(), Ok(ip)),
                Said::Unknown => assert_eq!(words[1], "UNKNOWN"),
                Said::Peer => panic!("version 1 has no word for it"),
            }
        } else {
            assert!(header.starts_with(SIGNATURE));
            let is_local = header[12] == 0x20;
            assert_eq!(said == Said::Peer, is_local);
        }
    }
    // Once it is known, more bytes change nothing.
    for end in 0..data.len().min(16) {
        if let Some(is) = starts_with_proxy_header(&data[..end]) {
            assert_eq!(starts_with_proxy_header(data), Some(is));
        }
    }
});
