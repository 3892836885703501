//! A message in the stream of revocations. What is an entry is written again as the same entry; no acknowledgement of
//! JetStream is one.

#![no_main]

use herald::auth::{RevocationEntry, RevokedSet};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some(entry) = RevocationEntry::parse(data) else {
        return;
    };
    let object: Value = serde_json::from_slice(data).expect("an entry is JSON");
    assert!(object.get("stream").is_none() && object.get("error").is_none());
    let written = serde_json::to_vec(&entry).expect("it can be written");
    assert_eq!(RevocationEntry::parse(&written).as_ref(), Some(&entry));
    let mut set = RevokedSet::default();
    let revokes = set.take(1, &entry);
    let target = entry.what.target().expect("an entry is about something");
    assert_eq!(set.has(target), revokes);
});
