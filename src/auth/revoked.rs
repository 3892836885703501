//! Which credentials are revoked: the entries of REVOKED, read in their order, and what comes of them. Pure, but for
//! the lock of [`Revocations`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::credential::{Credential, KeyId, TokenId};
use super::user::UserKey;
use crate::word_enum::word_enum;

/// The last moment that an entry can name: the end of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// An entry of REVOKED. Whatever is not of this form does nothing: others than `herald revoke` may have the server
/// write there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationEntry {
    #[serde(rename = "do")]
    pub action: RevocationAction,
    pub what: RevocationNames,
    /// Tokens of a user that were issued before it are revoked, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationAction {
    Revoke,
    Lift,
}

/// What an entry is about, as it is written: a user of an issuer, a token by its hash, or a key by its thumbprint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationNames {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The `iss` of the user's tokens; none if they have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevocationTarget {
    User(UserKey),
    Token(TokenId),
    Key(KeyId),
}

impl RevocationNames {
    /// `None` if they do not name exactly one thing.
    pub fn target(&self) -> Option<RevocationTarget> {
        let issuer = self.issuer.as_deref();
        match (&self.user, &self.token, &self.key) {
            (Some(user), None, None) if !user.is_empty() => {
                Some(RevocationTarget::User(UserKey::new(issuer, user)))
            }
            (None, Some(token), None) if issuer.is_none() => {
                TokenId::parse(token).map(RevocationTarget::Token)
            }
            (None, None, Some(key)) if issuer.is_none() => {
                KeyId::of_thumbprint(key).map(RevocationTarget::Key)
            }
            _ => None,
        }
    }
}

impl fmt::Display for RevocationNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, &self.issuer, &self.token, &self.key) {
            (Some(user), Some(issuer), ..) => write!(f, "user {user} of {issuer}"),
            (Some(user), None, ..) => write!(f, "user {user}, tokens without an issuer"),
            (_, _, Some(token), _) => write!(f, "token {token}"),
            (.., key) => write!(f, "key {}", key.as_deref().unwrap_or_default()),
        }
    }
}

impl RevocationEntry {
    /// Reads the body of a message. `None` if it is no entry, such as a PubAck.
    pub fn parse(body: &[u8]) -> Option<Self> {
        // As objects: lists of their values would be taken, too.
        let whole: Map<String, Value> = serde_json::from_slice(body).ok()?;
        whole.get("what").filter(|what| what.is_object())?;
        let entry: Self = serde_json::from_value(Value::Object(whole)).ok()?;
        entry.change().is_some().then_some(entry)
    }

    /// What it does; `None` if it is not right.
    fn change(&self) -> Option<(RevocationTarget, Change)> {
        let target = self.what.target()?;
        let is_user = matches!(target, RevocationTarget::User(_));
        let change = match (self.action, self.before) {
            (RevocationAction::Lift, None) => Change::Lift,
            (RevocationAction::Revoke, Some(before)) if is_user => Change::Revoke(date(before)?),
            (RevocationAction::Revoke, None) if !is_user => Change::Revoke(SystemTime::UNIX_EPOCH),
            _ => return None,
        };
        Some((target, change))
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    /// The time is a user's: tokens that were issued before it.
    Revoke(SystemTime),
    Lift,
}

fn date(seconds: f64) -> Option<SystemTime> {
    let is_one = (0.0..=LAST_SECOND).contains(&seconds);
    let since_epoch = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|_| is_one)?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

/// What is revoked, as of the entries taken so far. With each, the last entry that revokes it.
#[derive(Debug, Clone, Default)]
pub struct RevokedSet {
    /// Tokens of a user that were issued before this time.
    users: HashMap<UserKey, (SystemTime, u64)>,
    tokens: HashMap<TokenId, u64>,
    keys: HashMap<KeyId, u64>,
}

word_enum! {
    /// By which of its properties a credential is revoked; a metric's label.
    pub enum RevokedKind {
        User = "user",
        Token = "token",
        Key = "key",
    }
}

impl RevokedSet {
    /// Takes the entry at `sequence`, after all before it. Says whether it revokes something.
    pub fn take(&mut self, sequence: u64, entry: &RevocationEntry) -> bool {
        let Some((target, change)) = entry.change() else {
            return false;
        };
        match (change, target) {
            (Change::Revoke(before), RevocationTarget::User(user)) => {
                let known = self.users.entry(user).or_insert((before, sequence));
                // Another entry never weakens the one before it.
                *known = (known.0.max(before), sequence);
            }
            (Change::Revoke(_), RevocationTarget::Token(token)) => {
                self.tokens.insert(token, sequence);
            }
            (Change::Revoke(_), RevocationTarget::Key(key)) => {
                self.keys.insert(key, sequence);
            }
            (Change::Lift, RevocationTarget::User(user)) => {
                self.users.remove(&user);
            }
            (Change::Lift, RevocationTarget::Token(token)) => {
                self.tokens.remove(&token);
            }
            (Change::Lift, RevocationTarget::Key(key)) => {
                self.keys.remove(&key);
            }
        }
        matches!(change, Change::Revoke(_))
    }

    /// The stream has no entry below `first` any more: the tokens of those have expired.
    pub fn forget_below(&mut self, first: u64) {
        self.users.retain(|_, (_, sequence)| *sequence >= first);
        self.tokens.retain(|_, sequence| *sequence >= first);
        self.keys.retain(|_, sequence| *sequence >= first);
    }

    /// What comes is of another stream, whose sequences say nothing of these entries: they stay until they are lifted.
    pub fn keep_all(&mut self) {
        let users = self.users.values_mut().map(|(_, sequence)| sequence);
        let others = self.tokens.values_mut().chain(self.keys.values_mut());
        users
            .chain(others)
            .for_each(|sequence| *sequence = u64::MAX);
    }

    /// By what the credential is revoked. A user's token without a time of issue may be of any time.
    pub fn kind_of(&self, credential: &Credential) -> Option<RevokedKind> {
        let of_user = self.users.get(&credential.user);
        let is_before = |(before, _): &(SystemTime, u64)| {
            let issued_at = credential.issued_at;
            issued_at.is_none_or(|issued_at| issued_at < *before)
        };
        if of_user.is_some_and(is_before) {
            return Some(RevokedKind::User);
        }
        let token = credential.token.as_ref();
        if token.is_some_and(|token| self.tokens.contains_key(token)) {
            return Some(RevokedKind::Token);
        }
        let is_of_key = self.keys.contains_key(&credential.key);
        is_of_key.then_some(RevokedKind::Key)
    }

    /// Whether something of this target is revoked.
    pub fn has(&self, target: RevocationTarget) -> bool {
        match target {
            RevocationTarget::User(user) => self.users.contains_key(&user),
            RevocationTarget::Token(token) => self.tokens.contains_key(&token),
            RevocationTarget::Key(key) => self.keys.contains_key(&key),
        }
    }

    /// How much is revoked.
    pub fn len(&self) -> usize {
        RevokedKind::ALL.map(|kind| self.count(kind)).iter().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of `kind` are revoked.
    pub fn count(&self, kind: RevokedKind) -> usize {
        match kind {
            RevokedKind::User => self.users.len(),
            RevokedKind::Token => self.tokens.len(),
            RevokedKind::Key => self.keys.len(),
        }
    }
}

/// What is revoked now. Clones share it. The lock is for one look, or for the entries of one read.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<RwLock<RevokedSet>>);

impl Revocations {
    pub fn kind_of(&self, credential: &Credential) -> Option<RevokedKind> {
        self.look(|set| set.kind_of(credential))
    }

    pub fn look<T>(&self, look: impl FnOnce(&RevokedSet) -> T) -> T {
        // No code that has the lock panics half-way through a change, here and below.
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut RevokedSet) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    const OTHER_THUMBPRINT: &str = "AAAAsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn credential(user: &str, issued_at: Option<u64>, jti: Option<&str>) -> Credential {
        Credential {
            user: UserKey::new(Some("i"), user),
            issuer: Some("i".into()),
            issued_at: issued_at.map(at),
            token: jti.map(|jti| TokenId::new(Some("i"), jti)),
            key: KeyId::of_thumbprint(THUMBPRINT).unwrap(),
            expires_at: at(1_000_000),
        }
    }

    fn entry(body: &str) -> RevocationEntry {
        RevocationEntry::parse(body.as_bytes()).unwrap_or_else(|| panic!("no entry: {body}"))
    }

    fn revoke_user(user: &str, before: f64) -> RevocationEntry {
        entry(&format!(
            r#"{{"do":"revoke","what":{{"user":"{user}","issuer":"i"}},"before":{before}}}"#
        ))
    }

    fn lift_user(user: &str) -> RevocationEntry {
        entry(&format!(
            r#"{{"do":"lift","what":{{"user":"{user}","issuer":"i"}}}}"#
        ))
    }

    fn set(entries: &[RevocationEntry]) -> RevokedSet {
        let mut set = RevokedSet::default();
        for (sequence, entry) in (1..).zip(entries) {
            set.take(sequence, entry);
        }
        set
    }

    #[test]
    fn only_what_herald_writes_is_an_entry() {
        let token = TokenId::new(None, "c0ffee").to_string();
        let good = [
            r#"{"do":"revoke","what":{"user":"ada"},"before":1795886866.123,"note":"ticket"}"#,
            r#"{"do":"lift","what":{"user":"ada","issuer":"i"}}"#,
            &format!(r#"{{"do":"revoke","what":{{"token":"{token}"}}}}"#),
            &format!(r#"{{"do":"revoke","what":{{"key":"{THUMBPRINT}"}}}}"#),
        ];
        for body in good {
            let written = serde_json::to_string(&entry(body)).unwrap();
            assert_eq!(entry(&written), entry(body), "{body}");
        }
        for body in [
            // What the server writes to whatever subject a publisher names.
            r#"{"stream":"EVENTS","seq":2}"#,
            r#"{"stream":"EVENTS","seq":2,"duplicate": true}"#,
            r#"{"error":{"code":400,"err_code":10070,"description":"{\"do\":\"lift\"}"},"stream":"EVENTS","seq":0}"#,
            "",
            "[]",
            "null",
            r#"["lift",{"user":"ada"}]"#,
            r#"{"do":"lift","what":["ada"]}"#,
            r#"{"do":"lift","what":{"user":"ada"},"more":1}"#,
            r#"{"do":"lift","what":{"user":"ada","more":1}}"#,
            r#"{"do":"lift","what":{"user":"ada"},"before":1}"#,
            r#"{"do":"lift","what":{}}"#,
            r#"{"do":"lift"}"#,
            r#"{"do":"lift","what":{"user":""}}"#,
            r#"{"do":"lift","what":{"issuer":"i"}}"#,
            r#"{"do":"revoke","what":{"user":"ada"}}"#,
            r#"{"do":"revoke","what":{"user":"ada"},"before":-1}"#,
            r#"{"do":"revoke","what":{"user":"ada"},"before":1e300}"#,
            r#"{"do":"revoke","what":{"user":"ada"},"before":"2026-11-28"}"#,
            r#"{"do":"revoke","what":{"token":"c0ffee"}}"#,
            &format!(r#"{{"do":"revoke","what":{{"token":"{token}","issuer":"i"}}}}"#),
            &format!(r#"{{"do":"revoke","what":{{"token":"{token}"}},"before":1}}"#),
            &format!(r#"{{"do":"revoke","what":{{"token":"{token}","user":"ada"}},"before":1}}"#),
            r#"{"do":"revoke","what":{"key":"short"}}"#,
            r#"{"do":"purge","what":{"user":"ada"}}"#,
        ] {
            assert_eq!(RevocationEntry::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn what_an_entry_revokes_is_revoked_and_nothing_else() {
        let jti = TokenId::new(Some("i"), "leaked");
        let token = entry(&format!(r#"{{"do":"revoke","what":{{"token":"{jti}"}}}}"#));
        let key = |print: &str| entry(&format!(r#"{{"do":"revoke","what":{{"key":"{print}"}}}}"#));
        let user = revoke_user("ada", 100.5);
        use RevokedKind::{Key, Token, User};
        for (entry, credential, revoked) in [
            (&user, credential("ada", Some(100), None), Some(User)),
            (&user, credential("ada", Some(101), None), None),
            // It may have been issued before.
            (&user, credential("ada", None, None), Some(User)),
            (&user, credential("bob", None, None), None),
            (
                &token,
                credential("ada", Some(1), Some("leaked")),
                Some(Token),
            ),
            (&token, credential("ada", Some(1), Some("other")), None),
            (&token, credential("ada", Some(1), None), None),
            (
                &key(THUMBPRINT),
                credential("ada", Some(1), None),
                Some(Key),
            ),
            (
                &key(OTHER_THUMBPRINT),
                credential("ada", Some(1), None),
                None,
            ),
        ] {
            let set = set(std::slice::from_ref(entry));
            assert_eq!(set.kind_of(&credential), revoked, "{entry:?}");
        }
        // The same name at another issuer is another user.
        let none = entry(r#"{"do":"revoke","what":{"user":"ada"},"before":100}"#);
        assert_eq!(set(&[none]).kind_of(&credential("ada", None, None)), None);
    }

    #[test]
    fn entries_are_taken_in_their_order_and_none_weakens_one_before_it() {
        let revoked = |entries: &[RevocationEntry], issued_at| {
            let set = set(entries);
            set.kind_of(&credential("ada", Some(issued_at), None))
                .is_some()
        };
        let earlier = [revoke_user("ada", 100.0), revoke_user("ada", 50.0)];
        assert!(revoked(&earlier, 99));
        assert!(!revoked(&[revoke_user("ada", 100.0), lift_user("ada")], 99));
        assert!(!revoked(
            &[
                revoke_user("ada", 100.0),
                lift_user("bob"),
                lift_user("ada")
            ],
            99
        ));
        assert!(revoked(&[lift_user("ada"), revoke_user("ada", 100.0)], 99));
        let again = [
            revoke_user("ada", 100.0),
            lift_user("ada"),
            revoke_user("ada", 50.0),
        ];
        assert!(revoked(&again, 49) && !revoked(&again, 50));
    }

    #[test]
    fn entries_that_have_ended_are_forgotten_but_those_of_another_stream() {
        let mut set = set(&[revoke_user("ada", 100.0), revoke_user("bob", 100.0)]);
        set.forget_below(2);
        let is_revoked =
            |set: &RevokedSet, user| set.kind_of(&credential(user, None, None)).is_some();
        assert!(!is_revoked(&set, "ada") && is_revoked(&set, "bob"));
        assert_eq!(set.count(RevokedKind::User), 1);
        set.keep_all();
        set.forget_below(1000);
        assert!(is_revoked(&set, "bob"));
        set.take(1, &lift_user("bob"));
        assert!(!is_revoked(&set, "bob"));
    }

    fn entries() -> impl Strategy<Value = Vec<RevocationEntry>> {
        let one = (0..3_u8, proptest::option::of(0..10_u32)).prop_map(|(user, before)| {
            let user = format!("u{user}");
            before.map_or_else(
                || lift_user(&user),
                |before| revoke_user(&user, before.into()),
            )
        });
        proptest::collection::vec(one, 0..20)
    }

    proptest! {
        /// However the reads cut the stream, and also when a part of it is read twice, the last read being whole.
        #[test]
        fn the_state_is_that_of_the_stream(entries in entries(), cuts in proptest::collection::vec(0..20_usize, 0..5)) {
            let whole = set(&entries);
            let mut cut = RevokedSet::default();
            let ends: BTreeSet<usize> = cuts.into_iter().map(|end| end.min(entries.len())).collect();
            let mut from = 0;
            for end in ends.into_iter().chain([entries.len()]) {
                for (sequence, entry) in (1..).zip(&entries).skip(from).take(end - from) {
                    cut.take(sequence, entry);
                }
                from = end;
            }
            // By the definition: the latest time of all since the last that lifts.
            for user in 0..3 {
                let name = format!("u{user}");
                let of_user = entries.iter().filter(|entry| entry.what.user.as_deref() == Some(&name));
                let before = of_user.fold(None, |known: Option<f64>, entry| match entry.action {
                    RevocationAction::Lift => None,
                    RevocationAction::Revoke => match known { Some(known) if Some(known) >= entry.before => Some(known), _ => entry.before },
                });
                for issued_at in 0..10 {
                    let token = credential(&name, Some(issued_at), None);
                    let wanted = before.is_some_and(|before| (issued_at as f64) < before);
                    prop_assert_eq!(whole.kind_of(&token).is_some(), wanted);
                    prop_assert_eq!(cut.kind_of(&token).is_some(), wanted);
                }
            }
        }

        #[test]
        fn any_body_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = RevocationEntry::parse(&body);
        }
    }
}
