//! A request to publish, from its bytes to what is sent to NATS.

#![no_main]

use axum::http::HeaderValue;
use axum::http::header::HOST;
use bytes::Bytes;
use herald::event::{EventName, WorkspaceSlug};
use herald::fuzzing::publishing::read;
use herald::publishing::PublishProblem;
use herald_fuzz::http_request;
use libfuzzer_sys::fuzz_target;

fn refused(problem: &PublishProblem) {
    let details = serde_json::to_value(problem.details()).expect("JSON");
    let status = details["status"].as_u64().expect("a status");
    assert!((400..500).contains(&status), "{details}");
    assert_eq!(details["stored"], "no");
    assert!(!details["detail"].as_str().expect("a sentence").is_empty());
}

fuzz_target!(|data: &[u8]| {
    let Some((mut parts, body)) = http_request(data) else {
        return;
    };
    // It has its own test, and would hide all that follows.
    let host = HeaderValue::from_static("publish.example.com");
    parts.headers.insert(HOST, host);
    let body = Bytes::copy_from_slice(body);
    let read = match read(&parts, &body) {
        Ok(read) => read,
        Err(problem) => return refused(&problem),
    };
    // What becomes a subject is one workspace and one event, and no wildcard.
    WorkspaceSlug::parse(&read.workspace).expect("a slug");
    EventName::parse(&read.event).expect("an event");
    if let Some(key) = read.key {
        assert!((1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    for (name, values) in read.headers.iter() {
        let name = name.as_ref();
        // No sender names a header of NATS' own.
        let is_passed_on = ["content-type", "traceparent", "tracestate"].contains(&name);
        assert!(is_passed_on || name.starts_with("ce-"), "{name}");
        for value in values {
            assert!(!value.as_str().contains(['\r', '\n']), "{name}");
        }
    }
    assert!(read.payloads.len() <= 100);
    let all: usize = read.payloads.iter().map(Bytes::len).sum();
    assert!(all <= body.len());
});
