//! Keys by address, without time that passes: what stays in force, what is fetched again, and what an answer may be.

use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::address::{DiscoveryError, jwks_uri};
use super::*;
use crate::auth::jwks::parse;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn fixture(name: &str) -> Vec<u8> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers");
    fs::read(folder.join(name)).unwrap()
}

/// The first key for signatures that a provider has.
fn key_of(provider: &str) -> Value {
    let set: Value = serde_json::from_slice(&fixture(&format!("{provider}.json"))).unwrap();
    let keys = set["keys"].as_array().unwrap();
    keys.iter().find(|key| key["use"] == "sig").unwrap().clone()
}

/// A token that a provider's first key signed.
fn token(provider: &str, key_id: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::RS256);
    header.kid = key_id.map(str::to_owned);
    let key = EncodingKey::from_rsa_pem(&fixture(&format!("{provider}.private.pem"))).unwrap();
    jsonwebtoken::encode(&header, &json!({"sub": "ada"}), &key).unwrap()
}

/// As its provider makes it.
fn own_token(provider: &str) -> String {
    token(provider, key_of(provider)["kid"].as_str())
}

fn remote() -> RemoteKeys {
    let keys = RemoteKeys::of_jwks("https://id.example.com/jwks.json").unwrap();
    keys.restricted(None, DAY)
}

impl RemoteKeys {
    /// A fetch that takes no time, with the keys of these providers as its answer; none: it fails.
    fn fetch(&self, providers: &[&str], now: Instant) {
        let fetched = &self.address.fetched;
        fetched.state().freshness.begin(now);
        let keys: Vec<Value> = providers.iter().map(|name| key_of(name)).collect();
        let result = match keys.as_slice() {
            [] => Err(FetchError::Timeout),
            keys => {
                let set = json!({"keys": keys}).to_string();
                let (keys, remarks) = parse(set.as_bytes()).unwrap();
                Ok(FetchedKeys {
                    keys,
                    remarks,
                    fresh_for: seconds(600),
                })
            }
        };
        fetched.ended(result, now, 0);
    }

    fn judge(&self, token: &str, now: Instant) -> Result<(), AuthError> {
        self.verify(&Jws::parse(token).unwrap(), now).map(|_| ())
    }

    fn due(&self) -> Instant {
        self.address.fetched.state().freshness.due()
    }
}

#[test]
fn while_the_provider_is_away_keys_stay_in_force_until_they_are_too_old() {
    let start = Instant::now();
    let keys = remote();
    let good = own_token("clerk");
    assert_eq!(keys.judge(&good, start), Err(AuthError::UnknownKey));
    keys.fetch(&["clerk"], start);
    let mut now = start;
    while now < start + DAY {
        now = keys.due();
        keys.fetch(&[], now);
        assert_eq!(keys.judge(&good, now), Ok(()));
        let foreign = keys.judge(&own_token("auth0"), now);
        assert_eq!(foreign, Err(AuthError::UnknownKey));
        now += seconds(1800);
    }
    let late = start + DAY + seconds(1);
    assert_eq!(keys.judge(&good, late), Err(AuthError::UnknownKey));
    // It closes no socket, and there may be no limit.
    let key = keys.keys().unwrap().ids().next().unwrap();
    assert!(keys.trusts(key));
    let for_ever = keys.restricted(None, Duration::ZERO);
    assert_eq!(for_ever.judge(&good, late), Ok(()));
    for_ever.fetch(&["clerk"], late);
    assert_eq!(for_ever.restricted(None, DAY).judge(&good, late), Ok(()));
}

#[test]
fn a_key_is_withdrawn_by_two_answers_and_not_by_one() {
    let start = Instant::now();
    let keys = remote();
    let good = own_token("clerk");
    let at = |count| start + seconds(count);
    keys.fetch(&["clerk"], start);
    let key = keys.keys().unwrap().ids().next().unwrap();
    // The keys of another tenant, once.
    keys.fetch(&["auth0"], at(10));
    assert_eq!(keys.judge(&good, at(10)), Ok(()));
    keys.fetch(&["clerk"], at(40));
    assert!(!keys.look());
    assert_eq!(
        keys.judge(&own_token("auth0"), at(40)),
        Ok(()),
        "missing as well"
    );
    // Twice, and a failure between them.
    keys.fetch(&["auth0"], at(50));
    assert_eq!(keys.due(), at(80));
    keys.fetch(&[], at(60));
    keys.fetch(&["auth0"], at(80));
    assert!(!keys.trusts(key));
    assert!(keys.look());
    assert!(!keys.look(), "once");
    assert_eq!(keys.judge(&good, at(81)), Err(AuthError::UnknownKey));
    assert_eq!(keys.status(at(81)).withdrawn, 1);
    // It is back.
    keys.fetch(&["auth0", "clerk"], at(90));
    assert!(keys.trusts(key));
}

#[test]
fn only_a_token_whose_key_may_be_new_has_the_keys_fetched() {
    let start = Instant::now();
    let good = key_of("clerk")["kid"].clone();
    let good = good.as_str();
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &json!({}),
        &EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef"),
    );
    for (token, wanted) in [
        (own_token("clerk"), Ok(())),
        (token("clerk", None), Ok(())),
        (token("clerk", Some("new")), Err(AuthError::UnknownKey)),
        (own_token("auth0"), Err(AuthError::UnknownKey)),
        (token("auth0", None), Err(AuthError::UnknownKey)),
        (
            token("auth0", good),
            Err(AuthError::Invalid("its signature does not match the key")),
        ),
        (hmac.unwrap(), Err(WRONG_ALGORITHM)),
    ] {
        let keys = remote();
        keys.fetch(&["clerk"], start);
        let judged = keys.judge(&token, start);
        assert_eq!(
            judged.map_err(|error| error.to_string()),
            wanted.map_err(|error| error.to_string())
        );
        let is_requested = keys.due() < start + seconds(60);
        assert_eq!(is_requested, wanted == Err(AuthError::UnknownKey));
    }
    let keys = remote().restricted(Some(vec![Algorithm::ES256]), DAY);
    keys.fetch(&["clerk"], start);
    assert_eq!(keys.judge(&own_token("clerk"), start), Err(WRONG_ALGORITHM));
    // Nor may sockets stay that are open by such a token, since a reload.
    let key = keys.keys().unwrap().ids().next().unwrap();
    assert!(!keys.trusts(key));
    assert!(keys.restricted(None, DAY).trusts(key));
}

#[test]
fn an_address_is_fetched_once_for_all_who_name_it() {
    let start = Instant::now();
    let keys = remote();
    keys.fetch(&["clerk"], start);
    let mut same = remote();
    same.share(&keys);
    assert_eq!(same.judge(&own_token("clerk"), start), Ok(()));
    let mut other = RemoteKeys::of_jwks("https://id.example.com/other.json").unwrap();
    other.share(&keys);
    assert_eq!(
        other.judge(&own_token("clerk"), start),
        Err(AuthError::UnknownKey)
    );
}

/// Many tokens of a new key wait, and one fetch lets all of them pass.
#[tokio::test(start_paused = true)]
async fn tokens_of_a_new_key_wait_for_the_one_fetch() {
    let keys = Arc::new(remote());
    keys.fetch(&["clerk"], Instant::now());
    let wait = |token: String| {
        let keys = Arc::clone(&keys);
        tokio::spawn(async move {
            let jws = Jws::parse(&token).unwrap();
            keys.wait_for_key(&jws, Instant::now()).await
        })
    };
    let waiting: Vec<_> = (0..100).map(|_| wait(own_token("auth0"))).collect();
    let bad: Vec<_> = (0..100)
        .map(|_| wait(token("auth0", Some("none"))))
        .collect();
    while keys.address.fetched.ends.receiver_count() < 200 {
        tokio::task::yield_now().await;
    }
    assert!(keys.due() <= Instant::now() + REQUEST_INTERVAL);
    // One that fails is no answer.
    keys.fetch(&[], Instant::now());
    tokio::task::yield_now().await;
    assert!(waiting.iter().chain(&bad).all(|task| !task.is_finished()));
    keys.fetch(&["clerk", "auth0"], Instant::now());
    for task in waiting.into_iter().chain(bad) {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(keys.judge(&own_token("auth0"), Instant::now()), Ok(()));
    // Nobody answers.
    let waited = wait(token("auth0", Some("none"))).await.unwrap();
    assert!(
        waited.is_err_and(|pause| pause <= REQUEST_INTERVAL),
        "{waited:?}"
    );
}

#[test]
fn the_published_documents_of_providers_are_taken() {
    for (provider, keys) in [
        ("auth0", 2),
        ("keycloak", 1),
        ("cognito", 2),
        ("entra", 3),
        ("firebase", 2),
        ("clerk", 1),
    ] {
        let (set, _) = parse(&fixture(&format!("{provider}.json"))).unwrap();
        assert_eq!(set.len(), keys, "{provider}");
        let good = own_token(provider);
        assert!(
            set.verify(&Jws::parse(&good).unwrap()).is_ok(),
            "{provider}"
        );
        let document = fixture(&format!("{provider}.discovery.json"));
        let fields: Value = serde_json::from_slice(&document).unwrap();
        let issuer = fields["issuer"].as_str().unwrap();
        let uri = jwks_uri(&document, issuer).unwrap();
        assert_eq!(fields["jwks_uri"], uri.as_str());
        // The slash at the end of Auth0's issuer counts.
        let other = issuer
            .strip_suffix('/')
            .map_or_else(|| format!("{issuer}/"), str::to_owned);
        assert_eq!(
            jwks_uri(&document, &other),
            Err(DiscoveryError::OtherIssuer)
        );
    }
    let tenant = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0";
    let common = jwks_uri(&fixture("entra-common.discovery.json"), tenant);
    assert_eq!(common, Err(DiscoveryError::ManyTenants));
}
