//! A handshake request, from its bytes through all checks that need no key.

#![no_main]

use axum::http::{Method, header};
use herald::auth::{TOKEN_BYTES_MAX, cookie_token, presented_token};
use herald::fuzzing::socket::{key, origin_allowed, switching, workspace};
use herald_fuzz::http_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((request, _)) = http_request(data) else {
        return;
    };
    match key(&request) {
        Ok(key) => {
            assert_eq!(request.method, Method::GET);
            assert_eq!(request.headers[header::SEC_WEBSOCKET_VERSION], "13");
            assert_eq!(key.len(), 24, "16 bytes in base64");
            let headers = switching("accepted", &request.headers);
            if let Some(selected) = headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
                // As bytes: what stands beside it need not be text.
                let selected = selected.as_bytes();
                let offered = request.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
                let mut offered = offered
                    .iter()
                    .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
                assert!(offered.any(|one| one.trim_ascii() == selected));
            }
        }
        Err(status) => assert!(matches!(status, 400 | 426), "refused with {status}"),
    }
    match workspace(&request) {
        Ok(slug) => {
            let slug = slug.as_str().as_bytes();
            assert!((1..=64).contains(&slug.len()));
            assert!(slug[0].is_ascii_alphanumeric());
            assert!(
                slug.iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
            );
        }
        Err(code) => assert_eq!(code, 4002),
    }
    if let Ok(token) = presented_token(request.uri.query(), &request.headers) {
        assert!(!token.expose().is_empty());
        assert!(token.expose().len() <= data.len().max(TOKEN_BYTES_MAX) * 3);
        assert_eq!(format!("{token:?}"), "***");
    }
    if let Ok(token) = cookie_token(&request.headers, "token") {
        assert!(!token.expose().is_empty());
        assert!(!token.expose().contains(';'));
        assert!(request.headers.contains_key(header::COOKIE));
        assert_eq!(format!("{token:?}"), "***");
    }
    let ours = ["https://app.example.com".to_owned()];
    if let Some(origin) = request.headers.get(header::ORIGIN) {
        let is_ours = origin.as_bytes().eq_ignore_ascii_case(ours[0].as_bytes());
        let is_one = request.headers.get_all(header::ORIGIN).iter().count() == 1;
        assert!(!origin_allowed(&request, &ours) || is_ours);
        assert!(origin_allowed(&request, &ours) || !is_ours || !is_one);
        if origin_allowed(&request, &["https://*.example.com".to_owned()]) {
            let text = origin.to_str().expect("ASCII").to_ascii_lowercase();
            let host = text.strip_prefix("https://").expect("its scheme");
            let label = host.strip_suffix(".example.com").expect("its domain");
            let is_of_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(
                !label.is_empty() && label.bytes().all(is_of_label),
                "{text}"
            );
        }
    }
});
