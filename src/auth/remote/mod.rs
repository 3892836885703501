//! Keys that are fetched from an address: by one task for each address, which alone fetches. So at most one fetch of it
//! is under way, however many tokens want one.
//!
//! A fetch that fails changes nothing: the keys that are known stay in force, until they are too old. A key that an answer
//! lacks stays in force until a second answer lacks it ([`super::withdrawal`]).

pub(super) mod address;
#[cfg(test)]
mod answer_tests;
pub(super) mod cache;
mod fetch;
mod freshness;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

pub(super) use self::address::AddressError;
use self::address::KeyAddress;
use self::fetch::{FetchError, FetchResult, FetchedKeys, KeyClient};
use self::freshness::{Freshness, REQUEST_INTERVAL};
use super::AuthError;
use super::credential::KeyId;
use super::jwks::{KeySet, Remark};
use super::jws::{Jws, WRONG_ALGORITHM};
use super::key::VerifyingKey;
use super::withdrawal::MissingKeys;

/// How long a token of an unknown key waits: for a fetch that began just before it came, or until the next one may begin,
/// and for that one.
const WAIT: Duration = REQUEST_INTERVAL.saturating_add(fetch::TIMEOUT);

/// The keys of one issuer, by an address.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    address: Arc<AddressKeys>,
    /// The only algorithms that they are used for, if not all.
    algorithms: Option<Vec<Algorithm>>,
    /// `auth.jwks_max_stale`; `None`: no limit.
    max_stale: Option<Duration>,
}

/// The keys of one address, which issuers and reloads share. Its task ends with it.
#[derive(Debug)]
pub(super) struct AddressKeys {
    fetched: Arc<Fetched>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

/// What was fetched. The lock order is `state`, then `keys`; `keys` is locked for the copy of an `Arc` only.
#[derive(Debug)]
struct Fetched {
    address: KeyAddress,
    /// `None` until the first good fetch.
    keys: RwLock<Option<Arc<KeySet>>>,
    state: Mutex<FetchState>,
    /// A fetch is due earlier than before.
    wake: Notify,
    /// Of each end of a fetch.
    ends: watch::Sender<()>,
    /// How fetches ended, in the order of [`FetchResult::ALL`].
    results: [AtomicU64; FetchResult::ALL.len()],
    withdrawn: AtomicU64,
}

#[derive(Debug)]
struct FetchState {
    freshness: Freshness,
    missing: MissingKeys,
    /// A key was withdrawn since the last [`RemoteKeys::look`].
    has_withdrawn: bool,
    /// Why the last fetch failed.
    error: Option<String>,
}

/// What is known about the keys of an address, for metrics and lists.
#[derive(Debug, Clone)]
pub(crate) struct KeysStatus {
    pub(crate) keys: usize,
    /// Since they were fetched.
    pub(crate) age: Option<Duration>,
    /// How many fetches had each result.
    pub(crate) fetches: Vec<(&'static str, u64)>,
    pub(crate) withdrawn: u64,
}

impl RemoteKeys {
    /// The keys of a key set's address. Nothing is fetched before [`RemoteKeys::start`].
    ///
    /// # Errors
    /// [`AddressError`].
    pub(super) fn of_jwks(url: &str) -> Result<Self, AddressError> {
        KeyAddress::jwks(url).map(Self::new)
    }

    /// The keys of an OpenID provider, as [`RemoteKeys::of_jwks`].
    ///
    /// # Errors
    /// [`AddressError`] of the issuer.
    pub(super) fn of_issuer(issuer: &str) -> Result<Self, AddressError> {
        KeyAddress::discovery(issuer).map(Self::new)
    }

    fn new(address: KeyAddress) -> Self {
        Self {
            address: Arc::new(AddressKeys {
                fetched: Arc::new(Fetched::new(address, Instant::now())),
                task: OnceLock::new(),
            }),
            algorithms: None,
            max_stale: None,
        }
    }

    /// The same keys, for these algorithms only, and no older than that.
    pub(super) fn restricted(
        self,
        algorithms: Option<Vec<Algorithm>>,
        max_stale: Duration,
    ) -> Self {
        Self {
            algorithms,
            max_stale: (!max_stale.is_zero()).then_some(max_stale),
            ..self
        }
    }

    /// Uses the keys that `other` has, if both have the same address.
    pub(super) fn share(&mut self, other: &Self) {
        if self.address.fetched.address == other.address.fetched.address {
            self.address = Arc::clone(&other.address);
        }
    }

    /// Which key signed the token. Where none that is known did, but another may have, the set is fetched again soon.
    ///
    /// # Errors
    /// As [`KeySet::verify`]; [`AuthError::UnknownKey`] where a key may be there that is not known.
    pub(super) fn verify(&self, jws: &Jws<'_>, now: Instant) -> Result<KeyId, AuthError> {
        if let Some(algorithms) = &self.algorithms
            && !algorithms.contains(&jws.algorithm)
        {
            return Err(WRONG_ALGORITHM);
        }
        let fetched = &self.address.fetched;
        let Some(keys) = fetched.keys().filter(|_| !self.is_too_old(now)) else {
            fetched.request();
            return Err(AuthError::UnknownKey);
        };
        keys.verify(jws).map_err(|error| {
            if keys.may_lack_key(jws) {
                fetched.request();
                AuthError::UnknownKey
            } else {
                error
            }
        })
    }

    /// Waits until a key that the token may be signed with is known, or is known not to be there.
    ///
    /// # Errors
    /// It is not known. With the time after which the token may be sent again.
    pub(super) async fn wait_for_key(&self, jws: &Jws<'_>, since: Instant) -> Result<(), Duration> {
        let fetched = &self.address.fetched;
        let mut ends = fetched.ends.subscribe();
        let known = async {
            loop {
                ends.mark_unchanged();
                let now = Instant::now();
                let keys = fetched.keys().filter(|_| !self.is_too_old(now));
                if keys.is_some_and(|keys| !keys.may_lack_key(jws))
                    || fetched.state().freshness.has_fetched_since(since)
                {
                    return;
                }
                fetched.request();
                if ends.changed().await.is_err() {
                    // The sender is `fetched`'s own.
                    return;
                }
            }
        };
        let waited = timeout(WAIT, known).await;
        waited.map_err(|_| fetched.state().freshness.pause(Instant::now()))
    }

    fn is_too_old(&self, now: Instant) -> bool {
        let Some(max_stale) = self.max_stale else {
            return false;
        };
        let age = self.address.fetched.state().freshness.age(now);
        age.is_none_or(|age| age > max_stale)
    }

    /// Whether sockets of this key may stay: it is not withdrawn, and has an algorithm that is allowed. Age alone closes
    /// no socket.
    pub(super) fn trusts(&self, key: KeyId) -> bool {
        let is_allowed = |known: &VerifyingKey| {
            let allowed = self.algorithms.as_deref();
            allowed.is_none_or(|allowed| allowed.iter().any(|one| known.takes(*one)))
        };
        self.keys().is_some_and(|keys| {
            let mut keys = keys.named().map(|(_, known)| known);
            keys.any(|known| known.id() == key && is_allowed(known))
        })
    }

    /// Whether a key was withdrawn since the last look.
    pub(super) fn look(&self) -> bool {
        std::mem::take(&mut self.address.fetched.state().has_withdrawn)
    }

    /// Begins to fetch, if nobody has. The task runs on the runtime of the caller.
    pub(super) fn start(&self) {
        self.address.task.get_or_init(|| {
            let fetched = Arc::clone(&self.address.fetched);
            AbortOnDropHandle::new(tokio::spawn(fetch_for_ever(fetched)))
        });
    }

    /// Fetches again soon, whatever is known.
    pub(super) fn refresh(&self) {
        self.address.fetched.request();
    }

    /// Waits for the end of a fetch, unless keys are known.
    ///
    /// # Errors
    /// There are none: the address, and why.
    pub(super) async fn first_fetch(&self) -> Result<(), String> {
        let fetched = &self.address.fetched;
        let mut ends = fetched.ends.subscribe();
        loop {
            ends.mark_unchanged();
            if fetched.keys().is_some() {
                return Ok(());
            }
            if let Some(error) = &fetched.state().error {
                return Err(format!("({}) {error}", fetched.address));
            }
            if ends.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The address, and why there are no keys yet, if there are none.
    pub(super) fn missing(&self) -> Option<String> {
        let fetched = &self.address.fetched;
        if fetched.keys().is_some() {
            return None;
        }
        let error = fetched.state().error.clone();
        let address = &fetched.address;
        Some(error.map_or_else(
            || format!("({address})"),
            |error| format!("({address}) {error}"),
        ))
    }

    /// The keys in force.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.address.fetched.keys()
    }

    pub(super) fn status(&self, now: Instant) -> KeysStatus {
        let fetched = &self.address.fetched;
        let counts = FetchResult::ALL.iter().zip(&fetched.results);
        KeysStatus {
            keys: fetched.keys().map_or(0, |keys| keys.len()),
            age: fetched.state().freshness.age(now),
            fetches: counts
                .map(|(result, count)| (result.as_str(), count.load(Ordering::Relaxed)))
                .collect(),
            withdrawn: fetched.withdrawn.load(Ordering::Relaxed),
        }
    }
}

/// What is fetched, for the output of `herald check`.
impl fmt::Display for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fetched.address.fmt(f)
    }
}

impl Fetched {
    fn new(address: KeyAddress, now: Instant) -> Self {
        Self {
            address,
            keys: RwLock::new(None),
            state: Mutex::new(FetchState {
                freshness: Freshness::new(now),
                missing: MissingKeys::default(),
                has_withdrawn: false,
                error: None,
            }),
            wake: Notify::new(),
            ends: watch::Sender::new(()),
            results: Default::default(),
            withdrawn: AtomicU64::new(0),
        }
    }

    fn keys(&self) -> Option<Arc<KeySet>> {
        let keys = self.keys.read();
        keys.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self) -> MutexGuard<'_, FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) {
        if self.state().freshness.request() {
            self.wake.notify_one();
        }
    }

    /// A fetch has ended. A random `share` keeps many gateways apart.
    fn ended(&self, result: Result<FetchedKeys, FetchError>, now: Instant, share: u8) {
        let label = result
            .as_ref()
            .err()
            .map_or(FetchResult::Ok, FetchResult::from);
        let counts = FetchResult::ALL.iter().zip(&self.results);
        for (_, count) in counts.filter(|(result, _)| **result == label) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match result {
            Ok(answer) => self.succeeded(answer, now, share),
            Err(error) => self.failed(&error, now),
        }
        self.ends.send_replace(());
    }

    fn succeeded(&self, answer: FetchedKeys, now: Instant, share: u8) {
        let FetchedKeys {
            keys,
            remarks,
            fresh_for,
        } = answer;
        let before = self.keys();
        let mut state = self.state();
        state.error = None;
        let mut in_force = keys;
        let mut withdrawn = Vec::new();
        let mut has_changed = true;
        if let Some(before) = &before {
            withdrawn = state.missing.answered(before, &in_force, now);
            // Until they are withdrawn: the answer may be of one bad node.
            in_force = in_force.and(before, |key| state.missing.contains(key));
            has_changed = !before.ids().eq(in_force.ids());
        }
        let decides = state.missing.due();
        let fresh = state.freshness.succeeded(now, fresh_for, share, decides);
        let keys = in_force.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(in_force));
        state.has_withdrawn |= !withdrawn.is_empty();
        drop(state);
        let address = &self.address;
        if has_changed {
            info!(%address, keys, fresh_s = fresh.as_secs(), "key set fetched");
            for Remark {
                index,
                key_id,
                text,
                ..
            } in remarks
            {
                info!(%address, index, key_id, reason = text, "key of a key set needs care");
            }
        }
        for key in withdrawn {
            self.withdrawn.fetch_add(1, Ordering::Relaxed);
            let key_id = before.as_ref().and_then(|before| before.name(key));
            warn!(%address, key_id, "key withdrawn, its sockets end");
        }
    }

    fn failed(&self, error: &FetchError, now: Instant) {
        let mut state = self.state();
        state.freshness.failed(now);
        state.error = Some(error.to_string());
        let age = state.freshness.age(now);
        drop(state);
        let address = &self.address;
        match age {
            Some(age) => {
                let age_s = age.as_secs();
                warn!(%address, %error, age_s, "key set not fetched, old keys stay in force");
            }
            None => warn!(%address, %error, "key set not fetched, it is tried again"),
        }
    }
}

async fn fetch_for_ever(fetched: Arc<Fetched>) {
    let mut client = None;
    loop {
        loop {
            let due = fetched.state().freshness.due();
            tokio::select! {
                () = sleep_until(due.into()) => break,
                () = fetched.wake.notified() => {}
            }
        }
        fetched.state().freshness.begin(Instant::now());
        let result = match &client {
            Some(client) => KeyClient::fetch(client, &fetched.address).await,
            None => match new_client().await {
                Ok(new) => client.insert(new).fetch(&fetched.address).await,
                Err(error) => Err(error),
            },
        };
        let share = uuid::Uuid::new_v4().as_u128() as u8;
        fetched.ended(result, Instant::now(), share);
    }
}

async fn new_client() -> Result<KeyClient, FetchError> {
    let made = spawn_blocking(KeyClient::new).await;
    made.unwrap_or_else(|error| Err(FetchError::Unreachable(error.to_string())))
}
