//! What a client sends as `Forwarded` and `X-Forwarded-For`, one line each. A trusted proxy adds its own.

#![no_main]

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use herald::fuzzing::admission::client;
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

const CLIENT: &str = "203.0.113.9";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

fn headers(lines: &[(HeaderName, Vec<u8>)]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, line) in lines {
        headers.append(name.clone(), HeaderValue::from_bytes(line).ok()?);
    }
    Some(headers)
}

fuzz_target!(|data: &[u8]| {
    let split = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let (one, other) = data.split_at(split);
    let other = other.strip_prefix(b"\n").unwrap_or_default();
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (it, proxy) = (ip(CLIENT), ip("10.1.2.3"));
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
    let joined = |line: &[u8], added: &str| [line, b", ", added.as_bytes()].concat();
    let (forwarded, x) = (header::FORWARDED, X_FORWARDED_FOR);

    // Nobody believes a peer that is no proxy.
    let sent = [
        (forwarded.clone(), one.to_vec()),
        (x.clone(), other.to_vec()),
    ];
    if let Some(headers) = headers(&sent) {
        assert_eq!(client(&trusted, it, &headers), it);
        client(&trusted, proxy, &headers);
    }
    // What a proxy appends counts, whatever stands before it.
    if let Some(headers) = headers(&[(x.clone(), joined(other, CLIENT))]) {
        assert_eq!(client(&trusted, proxy, &headers), it);
    }
    if let Some(headers) = headers(&[(x.clone(), other.to_vec()), (x, CLIENT.as_bytes().to_vec())])
    {
        assert_eq!(client(&trusted, proxy, &headers), it);
    }
    let by_proxy = format!("for={CLIENT}");
    let lines = [
        (forwarded.clone(), one.to_vec()),
        (forwarded.clone(), by_proxy.clone().into_bytes()),
    ];
    if let Some(headers) = headers(&lines) {
        assert_eq!(client(&trusted, proxy, &headers), it);
    }
    // In one line with what is no list, it cannot be read; then the proxy stands for the client.
    if let Some(headers) = headers(&[(forwarded, joined(one, &by_proxy))]) {
        let client = client(&trusted, proxy, &headers);
        assert!(client == it || client == proxy, "counts as {client}");
    }
});
