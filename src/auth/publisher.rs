//! Tokens for publishing: what they grant, and those that were verified lately. Pure, but for a lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::grants::EVERY_WORKSPACE;
use super::{AuthError, Credential, Workspaces};
use crate::event::{Category, WorkspaceSlug};
use crate::json::{Map, Value};

/// The claim with what a token grants.
pub(super) const CLAIM: &str = "publish";
/// Most verified tokens that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// What a token may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishGrant {
    workspaces: Workspaces,
    categories: Vec<Category>,
}

/// Whose a valid token for publishing is, and what it grants.
#[derive(Debug)]
pub struct PublisherIdentity {
    pub credential: Credential,
    pub grant: Arc<PublishGrant>,
}

impl PublishGrant {
    /// Whether an event of `category` may be published to `workspace`.
    pub fn allows(&self, workspace: &WorkspaceSlug, category: Category) -> bool {
        self.workspaces.allow(workspace) && self.categories.contains(&category)
    }

    /// Reads both as words: `acme,globex` or `*`, and `record,custom` or `*`.
    ///
    /// # Errors
    /// A sentence that names the word.
    pub fn parse(workspaces: &str, categories: &str) -> Result<Self, String> {
        let workspaces: Vec<&str> = workspaces.split(',').collect();
        let categories: Vec<&str> = categories.split(',').collect();
        Self::of_words(&workspaces, &categories)
    }

    fn of_words(workspaces: &[&str], categories: &[&str]) -> Result<Self, String> {
        let slug = |word: &&str| {
            WorkspaceSlug::parse(word).map_err(|error| format!("`{word}` is no workspace: {error}"))
        };
        let category = |word: &&str| {
            let known = Category::parse(word);
            known.ok_or_else(|| format!("`{word}` is none of record, function, system, custom"))
        };
        Ok(Self {
            workspaces: match workspaces {
                [EVERY_WORKSPACE] => Workspaces::All,
                words => Workspaces::Some(words.iter().map(slug).collect::<Result<_, _>>()?),
            },
            categories: match categories {
                [EVERY_WORKSPACE] => Category::ALL.to_vec(),
                words => words.iter().map(category).collect::<Result<_, _>>()?,
            },
        })
    }

    /// Reads the claim: `{"workspaces":["acme"],"categories":"*"}`. What is not exactly of this form grants nothing: it
    /// was written for another purpose.
    ///
    /// # Errors
    /// [`AuthError::Invalid`].
    pub(super) fn of_claims(claims: &Map) -> Result<Self, AuthError> {
        let Some(Value::Object(claim)) = claims.get(CLAIM) else {
            return Err(NO_GRANT);
        };
        let words = |name| match claim.get(name) {
            Some(Value::String(all)) if all == EVERY_WORKSPACE => Some(vec![EVERY_WORKSPACE]),
            Some(Value::Array(list)) if !list.is_empty() => {
                // In a list, a star is no word.
                let word =
                    |value: &Value| value.as_str().is_some_and(|word| word != EVERY_WORKSPACE);
                list.iter()
                    .all(word)
                    .then(|| list.iter().filter_map(Value::as_str).collect())
            }
            _ => None,
        };
        match (claim.len(), words("workspaces"), words("categories")) {
            (2, Some(workspaces), Some(categories)) => {
                Self::of_words(&workspaces, &categories).map_err(|_| BAD_GRANT)
            }
            _ => Err(BAD_GRANT),
        }
    }

    /// The claim of a new token.
    pub(super) fn to_claim(&self) -> serde_json::Value {
        let workspaces: serde_json::Value = match &self.workspaces {
            Workspaces::All => EVERY_WORKSPACE.into(),
            Workspaces::Some(slugs) => slugs.iter().map(ToString::to_string).collect(),
        };
        let categories: Vec<_> = self.categories.iter().map(|it| it.as_str()).collect();
        serde_json::json!({ "workspaces": workspaces, "categories": categories })
    }
}

const NO_GRANT: AuthError =
    AuthError::Invalid("it has no claim `publish` with workspaces and categories");
const BAD_GRANT: AuthError = AuthError::Invalid(
    "its claim `publish` is not {\"workspaces\":[…],\"categories\":[…]}, each a list of names or \"*\"",
);

/// Tokens that were verified lately, by their hashes. To verify one takes longer than to publish an event.
#[derive(Default)]
pub(crate) struct RememberedTokens(Mutex<HashMap<[u8; 32], Arc<PublisherIdentity>>>);

impl RememberedTokens {
    /// Whose the token of this hash is, if it is remembered and its time is not over.
    pub(crate) fn find(&self, hash: &[u8; 32], now: SystemTime) -> Option<Arc<PublisherIdentity>> {
        let found = self.lock().get(hash).map(Arc::clone);
        found.filter(|publisher| now < publisher.credential.expires_at)
    }

    /// Remembers one that was verified. If there are many, those whose time is over are forgotten, or all.
    pub(crate) fn insert(
        &self,
        hash: [u8; 32],
        publisher: Arc<PublisherIdentity>,
        now: SystemTime,
    ) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, publisher| now < publisher.credential.expires_at);
        }
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(hash, publisher);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<PublisherIdentity>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a token is nobody's business.
impl fmt::Debug for RememberedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RememberedTokens(***)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{KeyId, UserKey};
    use super::*;
    use crate::json;

    fn read(claims: &str) -> Result<PublishGrant, AuthError> {
        let Ok(Value::Object(claims)) = json::parse(claims.as_bytes()) else {
            panic!("{claims}");
        };
        PublishGrant::of_claims(&claims)
    }

    fn allowed(grant: &PublishGrant) -> Vec<String> {
        let slugs = ["acme", "globex"].map(|slug| WorkspaceSlug::parse(slug).unwrap());
        let pairs = slugs
            .iter()
            .flat_map(|slug| Category::ALL.map(|category| (slug, category)));
        let pairs = pairs.filter(|(slug, category)| grant.allows(slug, *category));
        pairs
            .map(|(slug, category)| format!("{slug}:{}", category.as_str()))
            .collect()
    }

    #[test]
    fn a_claim_grants_what_it_names_and_nothing_else() {
        let one = read(r#"{"publish":{"workspaces":["acme"],"categories":["record","custom"]}}"#);
        assert_eq!(allowed(&one.unwrap()), ["acme:record", "acme:custom"]);
        let all = read(r#"{"publish":{"workspaces":"*","categories":"*"}}"#).unwrap();
        assert_eq!(allowed(&all).len(), 8);
        let claim = format!("{{\"publish\":{}}}", all.to_claim());
        assert_eq!(read(&claim), Ok(all));
        for bad in [
            "{}",
            r#"{"publish":null}"#,
            r#"{"publish":true}"#,
            r#"{"publish":"*"}"#,
            r#"{"publish":["acme"]}"#,
            r#"{"publish":{"workspaces":["acme"]}}"#,
            r#"{"publish":{"categories":["record"]}}"#,
            r#"{"publish":{"workspaces":[],"categories":"*"}}"#,
            r#"{"publish":{"workspaces":"acme","categories":"*"}}"#,
            r#"{"publish":{"workspaces":["*"],"categories":"*"}}"#,
            r#"{"publish":{"workspaces":["acme","*"],"categories":"*"}}"#,
            r#"{"publish":{"workspaces":["acme",1],"categories":"*"}}"#,
            r#"{"publish":{"workspaces":["a.b"],"categories":"*"}}"#,
            r#"{"publish":{"workspaces":"*","categories":["records"]}}"#,
            r#"{"publish":{"workspaces":"*","categories":null}}"#,
            r#"{"publish":{"workspaces":"*","categories":"*","events":"*"}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_grant_the_same() {
        let grant = PublishGrant::parse("acme,globex", "custom").unwrap();
        assert_eq!(allowed(&grant), ["acme:custom", "globex:custom"]);
        assert_eq!(allowed(&PublishGrant::parse("*", "*").unwrap()).len(), 8);
        for (workspaces, categories) in [
            ("", "*"),
            ("*", ""),
            ("acme,*", "*"),
            ("a b", "*"),
            ("*", "x"),
        ] {
            assert!(
                PublishGrant::parse(workspaces, categories).is_err(),
                "{workspaces} {categories}"
            );
        }
    }

    #[test]
    fn so_many_tokens_are_remembered_and_none_beyond_its_time() {
        let start = SystemTime::UNIX_EPOCH;
        let publisher = |seconds| {
            Arc::new(PublisherIdentity {
                credential: Credential {
                    user: UserKey::new(None, "ci"),
                    issuer: None,
                    issued_at: None,
                    token: None,
                    key: KeyId::of_secret(b"x"),
                    expires_at: start + Duration::from_secs(seconds),
                },
                grant: Arc::new(PublishGrant::parse("*", "*").unwrap()),
            })
        };
        let hash = |number: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash
        };
        let tokens = RememberedTokens::default();
        tokens.insert(hash(0), publisher(10), start);
        assert!(
            tokens
                .find(&hash(0), start + Duration::from_secs(9))
                .is_some()
        );
        assert!(
            tokens
                .find(&hash(0), start + Duration::from_secs(10))
                .is_none()
        );
        assert!(tokens.find(&hash(1), start).is_none());
        for number in 1..5_000 {
            tokens.insert(hash(number), publisher(100), start);
            assert!(tokens.lock().len() <= REMEMBERED_MAX);
        }
        assert!(tokens.find(&hash(4_999), start).is_some());
        assert_eq!(format!("{tokens:?}"), "RememberedTokens(***)");
    }
}
