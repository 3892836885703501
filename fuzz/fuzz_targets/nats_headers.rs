//! A publisher's header block, behind which the server adds its own headers: these decide, whatever the
//! publisher wrote.

#![no_main]

use async_nats::Message;
use async_nats::wire::header_block;
use bytes::Bytes;
use herald::config::NatsConfig;
use herald::event::{StoredMessage, WorkspaceSlug};
use herald::nats::live_event;
use libfuzzer_sys::fuzz_target;

const SERVERS: &str = "Nats-Stream: EVENTS\r\nNats-Subject: ws.acme.custom.x\r\nNats-Sequence: 7\r\n\
    Nats-Time-Stamp: 2026-01-02T03:04:05.000000006Z\r\nNats-Last-Sequence: 3\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let block = [b"NATS/1.0\r\n", data, b"\r\n", SERVERS.as_bytes()].concat();
    let message = || Message {
        subject: "live.ws.acme.custom.x".into(),
        reply: None,
        payload: Bytes::new(),
        headers: Some(header_block(&block).2),
        status: None,
        description: None,
        length: 0,
    };
    let raw = StoredMessage::parse(message()).expect("the server's headers are there");
    assert_eq!(raw.subject.as_str(), "ws.acme.custom.x");
    assert_eq!((raw.sequence, raw.last_sequence), (7, Some(3)));
    assert_eq!(raw.time.timestamp_subsec_nanos(), 6);
    let names = NatsConfig::default().names();
    let acme = WorkspaceSlug::parse("acme").expect("a slug");
    let live = live_event(message(), &names, &acme).expect("an event of acme");
    assert_eq!((live.sequence, live.last_sequence), (7, Some(3)));
    let globex = WorkspaceSlug::parse("globex").expect("a slug");
    assert!(live_event(message(), &names, &globex).is_none());
});
