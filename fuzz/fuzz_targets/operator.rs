//! The body of a request to the operator service, or of what a gateway reports of itself. What the server makes of a
//! publish for its sender, who may name any subject for it, is neither.

#![no_main]

use herald::fuzzing::operator::{is_presence, understood};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let endpoints = understood(data);
    let is_presence = is_presence(data);
    if endpoints.is_empty() && !is_presence {
        return;
    }
    let body: Value = serde_json::from_slice(data).expect("it is JSON");
    let object = body.as_object().expect("it is an object");
    for key in ["stream", "seq", "error", "duplicate", "batch", "server"] {
        assert!(!object.contains_key(key), "{key}");
    }
    let names = |key: &str| object.get(key).is_some_and(Value::is_string);
    for endpoint in endpoints {
        // What changes something names what it means.
        let is_named = match endpoint {
            "disconnect" => names("session") || names("user") || names("workspace"),
            "drain" | "log-level" => names("gateway"),
            _ => true,
        };
        assert!(is_named, "{endpoint}");
    }
    assert!(!is_presence || (names("gateway") && names("process")));
});
