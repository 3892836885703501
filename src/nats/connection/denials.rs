//! What NATS denies while the gateway serves. A reload of the server's configuration may take a permission away, and
//! another server may lack it. No answer reports that, and a subscription that the server removed stays removed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Event};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::permissions::{
    self, Probe, ProbeError, denied_by, explained, is_inbox, is_reply_subject,
};
use crate::config::{NatsConfig, names};

/// Denied subjects that are remembered until the next check. Of further ones only that there are some.
const DENIED_MAX: usize = 64;
/// So many checks fit into the time after which a denial makes the gateway unready.
const LOOKS: u32 = 10;
/// The pause between two checks, at least and at most. A check makes a connection of its own.
const PAUSE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

/// What is known of denials. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Denials(Arc<DenialState>);

#[derive(Debug)]
struct DenialState {
    config: NatsConfig,
    /// What the server reported since the last check. A lock for a moment, as the next one.
    reported: Mutex<Reported>,
    some: Notify,
    current: Mutex<Option<CurrentDenials>>,
}

#[derive(Debug, Default)]
struct Reported {
    probes: BTreeSet<Probe>,
    /// One of them was a subscription, which the server has removed.
    lost_subscription: bool,
}

/// What is denied.
#[derive(Debug)]
struct CurrentDenials {
    since: Instant,
    denied: BTreeSet<Probe>,
}

impl Denials {
    /// Nothing is denied yet.
    pub fn new(config: NatsConfig) -> Self {
        Self(Arc::new(DenialState {
            config,
            reported: Mutex::default(),
            some: Notify::default(),
            current: Mutex::default(),
        }))
    }

    /// Records what happened to the connection, if it is a denial. Whether it was of an answer: whoever sent the
    /// request named a subject that this user may not publish to. That is the sender's fault, and no socket's loss.
    pub(super) fn observe(&self, event: &Event) -> bool {
        let Some(probe) = denied_by(event) else {
            return false;
        };
        if let Probe::Publish(subject) = &probe
            && is_reply_subject(subject)
        {
            debug!(subject, "answer not sent, nats denies its subject");
            return true;
        }
        let mut reported = lock(&self.0.reported);
        let is_tried_anyway = match &probe {
            Probe::Subscribe(subject) => {
                reported.lost_subscription = true;
                // Each check tries an inbox of its own.
                is_inbox(subject, &self.0.config)
            }
            Probe::Publish(_) => false,
        };
        if !is_tried_anyway && reported.probes.len() < DENIED_MAX {
            reported.probes.insert(probe);
        }
        drop(reported);
        self.0.some.notify_one();
        false
    }

    /// What keeps sockets from being served and has been denied for longer than `time`.
    pub(in crate::nats) fn trouble(&self, time: Duration) -> Option<String> {
        let current = lock(&self.0.current);
        let current = current.as_ref()?;
        let vital = current.denied.iter().find(|probe| self.is_vital(probe))?;
        let is_long = current.since.elapsed() >= time;
        is_long.then(|| explained(vital, &self.0.config))
    }

    /// Whether sockets lack something where this is denied: all but dead letters, what gateways tell each other, what
    /// operators want of them, and revocations, of which those that were read stay in force.
    fn is_vital(&self, probe: &Probe) -> bool {
        let (Probe::Publish(subject) | Probe::Subscribe(subject)) = probe;
        let names = self.0.config.names();
        let is_under = |plain: &str| subject.starts_with(&names.subject(plain));
        let is_of_revoked =
            subject.rsplit_once('.').map(|(_, stream)| stream) == Some(names.revoked());
        !is_under("dead.")
            && !is_under("herald.")
            && !subject.starts_with("$SRV.")
            && !is_under(&names::live(names::ALL_REVOCATIONS))
            && !is_of_revoked
    }

    /// How many things are denied.
    pub fn count(&self) -> usize {
        let current = lock(&self.0.current);
        current.as_ref().map_or(0, |current| current.denied.len())
    }

    /// Checks, for ever, whether what was denied still is. Once it is not, `client` connects again, which restores the
    /// subscriptions.
    pub async fn watch(self, client: Client, unready_after: impl Fn() -> Duration + Send) {
        let [least, most] = PAUSE;
        loop {
            self.0.some.notified().await;
            let since = Instant::now();
            let mut doubted = Reported::default();
            loop {
                let Reported {
                    probes,
                    lost_subscription,
                } = std::mem::take(&mut *lock(&self.0.reported));
                doubted.lost_subscription |= lost_subscription;
                let room = DENIED_MAX.saturating_sub(doubted.probes.len());
                doubted.probes.extend(probes.into_iter().take(room));
                match self.check(&doubted.probes).await {
                    Ok(denied) if denied.is_empty() => break,
                    Ok(denied) => self.record(since, denied),
                    // NATS is away, which the connection reports.
                    Err(error) => debug!(%error, "permissions not checked"),
                }
                tokio::time::sleep((unready_after() / LOOKS).clamp(least, most)).await;
            }
            if lock(&self.0.current).take().is_some() {
                info!("nats permissions are back");
            }
            if doubted.lost_subscription
                && let Err(error) = client.force_reconnect().await
            {
                warn!(%error, "subscriptions not restored");
            }
        }
    }

    fn record(&self, since: Instant, denied: BTreeSet<Probe>) {
        let mut current = lock(&self.0.current);
        if current.as_ref().is_none_or(|known| known.denied != denied) {
            let causes = denied.iter().map(|probe| explained(probe, &self.0.config));
            let cause = causes.collect::<Vec<_>>().join("; ");
            warn!(cause, "nats permission missing");
            *current = Some(CurrentDenials { since, denied });
        }
    }

    /// What is denied of all that a gateway does, and of `doubted`.
    async fn check(&self, doubted: &BTreeSet<Probe>) -> Result<BTreeSet<Probe>, ProbeError> {
        let config = &self.0.config;
        let mut probes = permissions::of_serve(&config.names(), &[]);
        // The server reports only a pattern that is denied in part, or the other way round.
        let more = doubted.iter().filter(|probe| !probes.contains(probe));
        let more: Vec<Probe> = more.cloned().collect();
        probes.extend(more);
        // The server reports some twice, and each check has another inbox.
        let missing = permissions::missing(config, "herald", probes).await?;
        let missing = missing.into_iter().map(|probe| match probe {
            Probe::Subscribe(subject) if is_inbox(&subject, config) => {
                Probe::Subscribe(format!("{}.>", config.inbox_prefix))
            }
            probe => probe,
        });
        Ok(missing.collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds the lock can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_nats::ServerError;

    use super::*;

    fn hear(denials: &Denials, text: &str) {
        let event = Event::ServerError(ServerError::Other(text.to_owned()));
        denials.observe(&event);
    }

    #[test]
    fn what_is_denied_is_remembered_within_bounds() {
        let denials = Denials::new(NatsConfig::default());
        hear(&denials, "Stale Connection");
        for number in 0..1000 {
            let text = format!("Permissions Violation for Publish to \"session.acme.{number}\"");
            hear(&denials, &text);
        }
        let reported = std::mem::take(&mut *lock(&denials.0.reported));
        assert!(!reported.lost_subscription);
        assert_eq!(reported.probes.len(), DENIED_MAX);
        for text in [
            "Permissions Violation for Subscription to \"_INBOX.x.*\" (sid \"3\")",
            "Permissions Violation for Subscription to \"live.ws.acme.>\" (sid \"4\")",
        ] {
            hear(&denials, text);
        }
        let reported = std::mem::take(&mut *lock(&denials.0.reported));
        assert!(reported.lost_subscription);
        let subject = "live.ws.acme.>".to_owned();
        assert_eq!(reported.probes, BTreeSet::from([Probe::Subscribe(subject)]));
    }

    /// Whoever forgets an inbox prefix must not make a gateway unready.
    #[test]
    fn regression_an_answer_that_is_denied_is_no_missing_permission() {
        let denials = Denials::new(NatsConfig::default());
        for subject in ["_INBOX.x.y", "_R_.x", "_GR_.c._INBOX.x"] {
            let text = format!("Permissions Violation for Publish to \"{subject}\"");
            let event = Event::ServerError(ServerError::Other(text));
            assert!(denials.observe(&event), "{subject}");
        }
        assert!(lock(&denials.0.reported).probes.is_empty());
    }

    #[test]
    fn what_no_socket_goes_short_of_leaves_the_gateway_ready() {
        let denials = Denials::new(NatsConfig::default());
        let trouble = |denied: &[&Probe]| {
            let denied = denied.iter().map(|probe| (*probe).clone()).collect();
            denials.record(Instant::now(), denied);
            denials.trouble(Duration::ZERO)
        };
        let dead = Probe::Publish("dead.acme.1".to_owned());
        let notices = Probe::Subscribe("herald.sessions.*.*".to_owned());
        assert_eq!(trouble(&[&dead]), None);
        assert_eq!(trouble(&[&notices]), None);
        for subject in [
            "herald.query.*",
            "herald.command.*",
            "herald.gateways",
            "$SRV.>",
        ] {
            let operator = Probe::Subscribe(subject.to_owned());
            assert_eq!(trouble(&[&operator]), None, "{subject}");
        }
        let live = Probe::Subscribe("live.ws.*.>".to_owned());
        let said = trouble(&[&dead, &live]).expect("a sentence");
        assert!(said.contains("subscribe to live.ws.*.>"), "{said}");
        assert_eq!(denials.count(), 2);
        assert_eq!(denials.trouble(Duration::from_secs(60)), None);
    }
}
