//! What makes the same event the same notification everywhere: its id and its trace, both computed
//! from where and when the event was stored, and from nothing else.

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

/// The id and the trace of one stored event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventIdentity {
    uuid: Uuid,
    span: u64,
}

impl EventIdentity {
    /// Computes both. The id is a UUIDv7 (RFC 9562, section 5.7): the store time in milliseconds,
    /// then 74 bits of SHA-256 over the stream's name, a zero byte and the sequence, big-endian.
    pub(crate) fn new(stream: &str, sequence: u64, time: DateTime<Utc>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(stream.as_bytes());
        // No stream name contains a zero byte, so that no two inputs give the same bytes.
        hasher.update([0]);
        hasher.update(sequence.to_be_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, ..] = hash;
        let random = [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9];
        // A store time before 1970 is a broken clock; the id then only loses its order.
        let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
        let [.., s0, s1, s2, s3, s4, s5, s6, s7] = hash;
        Self {
            uuid: Builder::from_unix_timestamp_millis(millis, &random).into_uuid(),
            // All zero is not a span id.
            span: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]).max(1),
        }
    }

    /// `notif_<uuid>`.
    pub(crate) fn notification_id(&self) -> String {
        let uuid = self.uuid.hyphenated();
        ["notif_", uuid.encode_lower(&mut Uuid::encode_buffer())].concat()
    }

    /// The trace id of an event whose publisher sent no `traceparent`: the notification id's UUID.
    pub(crate) fn trace(&self) -> u128 {
        self.uuid.as_u128()
    }

    /// The `traceparent` of an event whose publisher sent none. Its trace id is the id's UUID, so
    /// that a notification's id leads to its trace; it is marked as sampled, for whoever looks for
    /// it should find it.
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-01", self.uuid.simple(), self.span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::is_traceparent;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    #[test]
    fn the_id_is_the_same_for_ever() {
        // These bytes are a promise to every client that stored an id: a change here is a breaking
        // change.
        let identity = EventIdentity::new("EVENTS", 42, at(1_700_000_000_123));
        assert_eq!(
            identity.notification_id(),
            "notif_018bcfe5-687b-7776-92d3-196f76387947"
        );
        assert_eq!(
            identity.traceparent(),
            "00-018bcfe5687b777692d3196f76387947-c8486d9f7dfac1f5-01"
        );
    }

    #[test]
    fn stream_sequence_and_time_each_make_another_id() {
        let id = |stream, sequence, millis| EventIdentity::new(stream, sequence, at(millis)).uuid;
        let one = id("EVENTS", 1, 1);
        assert_ne!(one, id("EVENT", 1, 1));
        assert_ne!(one, id("EVENTS", 2, 1));
        assert_ne!(one, id("EVENTS", 1, 2));
    }

    proptest! {
        #[test]
        fn ids_are_uuids_of_version_7_ordered_by_time(
            sequences in any::<(u64, u64)>(),
            early in 0i64..1 << 47,
            later in 1i64..1 << 40,
        ) {
            let first = EventIdentity::new("EVENTS", sequences.0, at(early));
            let second = EventIdentity::new("EVENTS", sequences.1, at(early + later));
            prop_assert!(first.notification_id() < second.notification_id());
            prop_assert_eq!(first.uuid.get_version_num(), 7);
            prop_assert_eq!(first.uuid.get_variant(), uuid::Variant::RFC4122);
            prop_assert!(is_traceparent(&first.traceparent()));
        }
    }
}
