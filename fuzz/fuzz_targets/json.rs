//! A JSON text. What a strict reader takes is taken, and means the same; what is written of it is read again.

#![no_main]

use herald::json::parse;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let strict = serde_json::from_slice::<Value>(data);
    let ours = match parse(data) {
        Ok(ours) => ours,
        Err(error) => {
            assert!(strict.is_err(), "{error}");
            assert!(error.line > 0 && error.column > 0 && error.column <= data.len() + 1);
            return;
        }
    };
    let written = ours.to_string();
    assert!(!written.contains(['\n', '\r']), "a line break");
    if let Ok(strict) = strict {
        let again: Value = serde_json::from_str(&written).expect("it can be written strictly");
        assert_eq!(again, strict);
        // A number beyond a float alone is lost here, and a strict reader takes none.
        assert_eq!(Value::from(ours.clone()), strict);
    }
    assert_eq!(parse(written.as_bytes()).expect("it was written"), ours);
    if !data.starts_with(b"\xef\xbb\xbf") {
        let marked = [b"\xef\xbb\xbf", data].concat();
        assert_eq!(parse(&marked).expect("a mark is skipped"), ours);
    }
});
