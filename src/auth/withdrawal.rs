//! When a key that a key set no longer has is withdrawn. Pure: the time is given.
//!
//! One answer without a key may be a mistake: half of a rotation, or one bad node behind a balancer. The sockets of a key
//! that is withdrawn are closed, so a second answer must lack the key, too.

use std::time::{Duration, Instant};

use super::credential::KeyId;
use super::jwks::KeySet;

/// The second answer counts only so long after the first.
pub(super) const CONFIRMED_AFTER: Duration = Duration::from_secs(30);

/// Keys that the last good answer lacked, each with the time of the first good answer that lacked it.
#[derive(Debug, Default)]
pub(super) struct MissingKeys(Vec<(KeyId, Instant)>);

impl MissingKeys {
    /// The source had the keys of `before`, and answered `now` with those of `answer`; the keys that are withdrawn now.
    pub(super) fn answered(
        &mut self,
        before: &KeySet,
        answer: &KeySet,
        now: Instant,
    ) -> Vec<KeyId> {
        self.0.retain(|(key, _)| !answer.contains(*key));
        for key in before.ids() {
            if !answer.contains(key) && !self.contains(key) {
                self.0.push((key, now));
            }
        }
        let withdrawn = self
            .0
            .extract_if(.., |(_, since)| now >= *since + CONFIRMED_AFTER);
        withdrawn.map(|(key, _)| key).collect()
    }

    /// Whether the key is missing, but is not withdrawn yet.
    pub(super) fn contains(&self, key: KeyId) -> bool {
        self.0.iter().any(|(missing, _)| *missing == key)
    }

    /// When the next answer decides about a key. `None`: no key is missing.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.0.iter().map(|(_, since)| *since + CONFIRMED_AFTER);
        due.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::HmacSecret;

    fn key(letter: &str) -> HmacSecret {
        HmacSecret::new(letter.repeat(32).as_bytes()).unwrap()
    }

    fn set(letters: &[&str]) -> KeySet {
        KeySet::of(letters.iter().map(|letter| key(letter).verifying_key()))
    }

    fn id(letter: &str) -> KeyId {
        key(letter).verifying_key().id()
    }

    /// Answers at their seconds, and which keys each of them withdraws.
    #[test]
    fn a_key_is_withdrawn_by_the_second_answer_that_lacks_it() {
        let start = Instant::now();
        type Answer = (u64, &'static [&'static str], &'static [&'static str]);
        let cases: [&[Answer]; 5] = [
            &[(0, &["b"], &[]), (30, &["b"], &["a"]), (60, &["b"], &[])],
            // Too soon for a second one.
            &[(0, &["b"], &[]), (29, &["b"], &[]), (31, &["b"], &["a"])],
            // It came back, and was missing again.
            &[
                (0, &["b"], &[]),
                (30, &["a", "b"], &[]),
                (40, &["b"], &[]),
                (69, &["b"], &[]),
                (70, &["b"], &["a"]),
            ],
            // Each has its own time.
            &[
                (0, &["b"], &[]),
                (20, &["c"], &[]),
                (30, &["c"], &["a"]),
                (50, &["c"], &["b"]),
            ],
            // A new key withdraws none.
            &[(0, &["a", "b", "c"], &[]), (60, &["a", "b", "c"], &[])],
        ];
        for answers in cases {
            let (mut missing, mut before) = (MissingKeys::default(), set(&["a", "b"]));
            for (second, letters, withdrawn) in answers {
                let now = start + Duration::from_secs(*second);
                let answer = set(letters);
                let found = missing.answered(&before, &answer, now);
                let wanted: Vec<_> = withdrawn.iter().map(|letter| id(letter)).collect();
                assert_eq!(found, wanted, "{second} of {answers:?}");
                before = answer;
            }
        }
    }

    #[test]
    fn it_is_known_which_keys_are_missing_and_when_it_is_decided() {
        let now = Instant::now();
        let mut missing = MissingKeys::default();
        assert_eq!(missing.due(), None);
        missing.answered(&set(&["a", "b"]), &set(&["b"]), now);
        assert!(missing.contains(id("a")) && !missing.contains(id("b")));
        assert_eq!(missing.due(), Some(now + CONFIRMED_AFTER));
    }
}
