//! What NATS denies while the gateway serves: a permission that was taken away, by a reload of the server's
//! configuration or on another server. No answer tells of it, and a subscription that the server took away
//! does not come back by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Event, ServerError};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::permissions::{self, Probe, violation};
use crate::config::{Names, NatsConfig};

/// Denied subjects that are remembered until they are looked at; of further ones only that there are some.
const DENIED_MAX: usize = 64;
/// The pause between two looks is a part of the time after which it matters: so many to it.
const LOOKS: u32 = 10;
/// The pause between two looks, at least and at most. A look is a connection of its own.
const PAUSE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

/// What is known of denials. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Denials(Arc<DenialState>);

#[derive(Debug)]
struct DenialState {
    names: Names,
    /// What the server reported and nobody has looked at. A lock, as the next one, held for a look.
    reported: Mutex<Reported>,
    some: Notify,
    current: Mutex<Option<CurrentDenials>>,
}

#[derive(Debug, Default)]
struct Reported {
    probes: BTreeSet<Probe>,
    /// One of them was a subscription, which is no more.
    is_deaf: bool,
}

/// What is denied.
#[derive(Debug)]
struct CurrentDenials {
    since: Instant,
    /// A sentence for each.
    denied: Vec<String>,
}

impl Denials {
    /// Nothing is denied yet.
    pub fn new(names: Names) -> Self {
        Self(Arc::new(DenialState {
            names,
            reported: Mutex::default(),
            some: Notify::default(),
            current: Mutex::default(),
        }))
    }

    /// Takes what happened to the connection, if it is a denial.
    pub(super) fn observe(&self, event: &Event, inbox_prefix: &str) {
        let Event::ServerError(ServerError::Other(text)) = event else {
            return;
        };
        let Some(probe) = violation(text) else {
            return;
        };
        let mut reported = lock(&self.0.reported);
        let is_inbox = match &probe {
            Probe::Subscribe(subject) => {
                reported.is_deaf = true;
                // Each look tries one of its own.
                subject.starts_with(inbox_prefix)
            }
            Probe::Publish(_) => false,
        };
        if !is_inbox && reported.probes.len() < DENIED_MAX {
            reported.probes.insert(probe);
        }
        drop(reported);
        self.0.some.notify_one();
    }

    /// What keeps sockets from being served and has been denied for longer than `time`.
    pub(super) fn trouble(&self, time: Duration) -> Option<String> {
        let current = lock(&self.0.current);
        let current = current.as_ref()?;
        let vital = current.denied.iter().find(|text| self.is_vital(text))?;
        (current.since.elapsed() >= time).then(|| vital.clone())
    }

    /// Whether sockets go short of something where this is denied.
    fn is_vital(&self, text: &str) -> bool {
        let is_of = |plain: &str| text.contains(&format!(" to {}", self.0.names.subject(plain)));
        !is_of("dead.") && !is_of("herald.sessions.")
    }

    /// How many things are denied.
    pub fn count(&self) -> usize {
        let current = lock(&self.0.current);
        current.as_ref().map_or(0, |current| current.denied.len())
    }

    /// Looks, for ever, whether what was denied still is; `client` is connected anew once it is not.
    pub async fn watch(
        self,
        config: NatsConfig,
        client: Client,
        unready_after: impl Fn() -> Duration + Send,
    ) {
        let [least, most] = PAUSE;
        loop {
            self.0.some.notified().await;
            let since = Instant::now();
            let mut doubted = Reported::default();
            loop {
                let Reported { probes, is_deaf } = std::mem::take(&mut *lock(&self.0.reported));
                doubted.is_deaf |= is_deaf;
                let room = DENIED_MAX.saturating_sub(doubted.probes.len());
                doubted.probes.extend(probes.into_iter().take(room));
                match denied(&config, &doubted.probes).await {
                    Ok(denied) if denied.is_empty() => break,
                    Ok(denied) => self.record(since, denied),
                    // NATS is away, of which others tell.
                    Err(error) => debug!(%error, "permissions not checked"),
                }
                tokio::time::sleep((unready_after() / LOOKS).clamp(least, most)).await;
            }
            if lock(&self.0.current).take().is_some() {
                info!("nats permissions are back");
            }
            if doubted.is_deaf
                && let Err(error) = client.force_reconnect().await
            {
                warn!(%error, "subscriptions not restored");
            }
        }
    }

    fn record(&self, since: Instant, denied: Vec<String>) {
        let mut current = lock(&self.0.current);
        let is_known = current.as_ref().is_some_and(|known| known.denied == denied);
        if !is_known {
            warn!(cause = denied.join("; "), "nats permission missing");
            *current = Some(CurrentDenials { since, denied });
        }
    }
}

/// What is denied of all that a gateway does, and of `doubted`.
async fn denied(
    config: &NatsConfig,
    doubted: &BTreeSet<Probe>,
) -> Result<Vec<String>, permissions::ProbeError> {
    let mut probes = permissions::of_serve(&config.names(), &[]);
    // The server tells of a pattern alone that is denied in part, or the other way round.
    let more = doubted.iter().filter(|probe| !probes.contains(probe));
    let more: Vec<Probe> = more.cloned().collect();
    probes.extend(more);
    let mut denied = permissions::denied(config, "herald", probes).await?;
    // It tells of some things twice.
    denied.sort_unstable();
    denied.dedup();
    Ok(denied)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds the lock can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(denials: &Denials, text: &str) {
        let event = Event::ServerError(ServerError::Other(text.to_owned()));
        denials.observe(&event, "_INBOX");
    }

    #[test]
    fn what_is_denied_is_remembered_within_bounds() {
        let denials = Denials::new(NatsConfig::default().names());
        hear(&denials, "Stale Connection");
        for number in 0..1000 {
            let text = format!("Permissions Violation for Publish to \"session.acme.{number}\"");
            hear(&denials, &text);
        }
        let reported = std::mem::take(&mut *lock(&denials.0.reported));
        assert!(!reported.is_deaf);
        assert_eq!(reported.probes.len(), DENIED_MAX);
        for text in [
            "Permissions Violation for Subscription to \"_INBOX.x.*\" (sid \"3\")",
            "Permissions Violation for Subscription to \"live.ws.acme.>\" (sid \"4\")",
        ] {
            hear(&denials, text);
        }
        let reported = std::mem::take(&mut *lock(&denials.0.reported));
        assert!(reported.is_deaf);
        let subject = "live.ws.acme.>".to_owned();
        assert_eq!(reported.probes, BTreeSet::from([Probe::Subscribe(subject)]));
    }

    #[test]
    fn what_no_socket_goes_short_of_leaves_the_gateway_ready() {
        let denials = Denials::new(NatsConfig::default().names());
        let sentence =
            |what: &str| format!("NATS does not allow this user to {what}: see nats.url");
        let trouble = |what: &[&str]| {
            denials.record(
                Instant::now(),
                what.iter().map(|what| sentence(what)).collect(),
            );
            denials.trouble(Duration::ZERO)
        };
        let dead = "publish to dead.acme.1";
        assert_eq!(trouble(&[dead]), None);
        assert_eq!(trouble(&["subscribe to herald.sessions.*.*"]), None);
        let live = "subscribe to live.ws.*.>";
        assert_eq!(trouble(&[dead, live]), Some(sentence(live)));
        assert_eq!(denials.count(), 2);
        assert_eq!(denials.trouble(Duration::from_secs(60)), None);
    }
}
