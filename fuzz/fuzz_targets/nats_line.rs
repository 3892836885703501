//! The line of a message as nats-server writes it, and a subject that a publisher chose: the server passes on
//! any bytes but space, tab, carriage return and line feed.

#![no_main]

use async_nats::Message;
use async_nats::wire::{Line, header_block, line, text};
use bytes::Bytes;
use herald::config::NatsConfig;
use herald::event::WorkspaceSlug;
use herald::nats::live_event;
use libfuzzer_sys::fuzz_target;

/// Whatever the line is: what is read of it stands in it, in its place.
fn check_line(data: &[u8], has_headers: bool) {
    let Ok(read) = line(data, has_headers) else {
        return;
    };
    let words: Vec<&[u8]> = data
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .collect();
    let number = |word: &[u8]| String::from_utf8_lossy(word).parse::<u64>().ok();
    assert_eq!(read.subject.as_str(), text(words[0]));
    assert_eq!(Some(read.sid), number(words[1]));
    assert_eq!(Some(read.total_len as u64), number(words[words.len() - 1]));
    assert!(read.header_len <= read.total_len);
    let without_reply = if has_headers { 4 } else { 3 };
    assert_eq!(read.reply.is_some(), words.len() == without_reply + 1);
}

/// A publisher's subject leaves the rest of the line alone, and is the same in the line and in the server's header.
fn check_subject(subject: &[u8]) {
    let block = [
        b"NATS/1.0\r\nNats-Stream: EVENTS\r\nNats-Subject: ws.acme.custom.",
        subject,
        b"\r\nNats-Sequence: 7\r\nNats-Time-Stamp: 2026-01-02T03:04:05Z\r\nNats-Last-Sequence: 3\r\n\r\n",
    ]
    .concat();
    let numbers = format!(" 17 {0} {0}", block.len());
    let whole = [b"live.ws.acme.custom.", subject, numbers.as_bytes()].concat();
    let expected = format!("live.ws.acme.custom.{}", text(subject));
    let read = line(&whole, true).expect("a line of the server's");
    assert_eq!(
        read,
        Line {
            subject: expected.into(),
            sid: 17,
            reply: None,
            header_len: block.len(),
            total_len: block.len(),
        }
    );
    let message = || Message {
        subject: read.subject.clone(),
        reply: None,
        payload: Bytes::new(),
        headers: Some(header_block(&block).2),
        status: None,
        description: None,
        length: 0,
    };
    let names = NatsConfig::default().names();
    let acme = WorkspaceSlug::parse("acme").expect("a slug");
    let live = live_event(message(), &names, &acme).expect("an event of acme");
    assert_eq!(live.sequence, 7);
    for other in ["acm", "acme-custom", "custom", "globex"] {
        let other = WorkspaceSlug::parse(other).expect("a slug");
        assert!(live_event(message(), &names, &other).is_none());
    }
    let prefix = Some("blue".to_owned());
    let blue = NatsConfig {
        prefix,
        ..NatsConfig::default()
    };
    assert!(live_event(message(), &blue.names(), &acme).is_none());
}

fuzz_target!(|data: &[u8]| {
    check_line(data, false);
    check_line(data, true);
    if !data.iter().any(|byte| b" \t\r\n".contains(byte)) {
        check_subject(data);
    }
});
