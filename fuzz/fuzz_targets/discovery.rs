//! What a provider answers beside its keys: cache headers and a discovery document. Keys are fetched by TLS, or from this
//! host, and by a document of the issuer alone.

#![no_main]

use herald::fuzzing::auth::{fresh_for, jwks_uri};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const ISSUER: &str = "https://id.example.com";

fuzz_target!(|data: &[u8]| {
    fresh_for(data);
    let Some(uri) = jwks_uri(data, ISSUER) else {
        return;
    };
    let document = Value::from(herald::json::parse(data).expect("it was read"));
    assert_eq!(document["issuer"], ISSUER);
    let is_of_this_host = ["http://localhost", "http://127.", "http://[::1]"]
        .iter()
        .any(|start| uri.starts_with(start));
    assert!(uri.starts_with("https://") || is_of_this_host, "{uri}");
    assert!(!uri.contains(['#', '\n', ' ']), "{uri}");
});
