//! The other gateways, as they report themselves on [`names::PRESENCE`](crate::config::names::PRESENCE). Whoever wants
//! an answer of all gateways learns from each whom else to expect: one that hangs does not answer, and is named by the
//! others. A forged report costs no more than a "did not answer".

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::seconds;
use super::wire::PeerReport;

/// How often a gateway reports itself.
pub(super) const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);
/// A gateway that was not heard for so long is no longer expected.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// One that was not heard for so long may have been replaced by another process of its name.
const SILENT: Duration = Duration::from_secs(25);
/// Others that are known, at most. The one that was heard the longest time ago goes.
const PEERS_MAX: usize = 1000;
/// The longest name, in bytes.
const NAME_MAX: usize = 128;
/// The largest report.
const BODY_MAX: usize = 1024;

/// What a gateway reports of itself. Whatever else comes there is ignored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Presence {
    pub(super) gateway: String,
    pub(super) process: String,
    pub(super) is: PresenceState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PresenceState {
    Here,
    Leaving,
}

impl Presence {
    /// Reads a report; `None` if it is none.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > BODY_MAX || !body.starts_with(b"{") {
            return None;
        }
        let presence: Self = serde_json::from_slice(body).ok()?;
        (1..=NAME_MAX)
            .contains(&presence.gateway.len())
            .then_some(presence)
    }
}

/// The other gateways that were heard.
#[derive(Debug)]
pub(super) struct Peers {
    /// This process.
    own: Uuid,
    /// By process. A lock for a moment.
    known: Mutex<BTreeMap<Uuid, Peer>>,
}

#[derive(Debug)]
struct Peer {
    gateway: String,
    heard: Instant,
}

impl Peers {
    /// None yet.
    pub(super) fn new(own: Uuid) -> Self {
        Self {
            own,
            known: Mutex::default(),
        }
    }

    /// A gateway has reported itself.
    pub(super) fn heard(&self, presence: Presence, now: Instant) {
        let Presence {
            gateway,
            process,
            is,
        } = presence;
        let Ok(process) = Uuid::try_parse(&process) else {
            return;
        };
        if process == self.own {
            return;
        }
        let mut known = self.known(now);
        if is == PresenceState::Leaving {
            known.remove(&process);
            return;
        }
        // It was started again, without a word of the process before.
        known.retain(|_, peer| peer.gateway != gateway || now - peer.heard < SILENT);
        let heard = now;
        known.insert(process, Peer { gateway, heard });
        if known.len() > PEERS_MAX
            && let Some((oldest, _)) = known.iter().min_by_key(|(_, peer)| peer.heard)
        {
            let oldest = *oldest;
            known.remove(&oldest);
        }
    }

    /// Whether another process that is there has this name.
    pub(super) fn has(&self, gateway: &str, now: Instant) -> bool {
        let known = self.known(now);
        let mut others = known.values();
        others.any(|peer| peer.gateway == gateway && now - peer.heard < SILENT)
    }

    pub(super) fn reports(&self, now: Instant) -> Vec<PeerReport> {
        let known = self.known(now);
        let reports = known.iter().map(|(process, peer)| PeerReport {
            gateway: peer.gateway.clone(),
            process: process.to_string(),
            heard_s: seconds(now - peer.heard),
        });
        reports.collect()
    }

    /// Those that are not forgotten.
    fn known(&self, now: Instant) -> MutexGuard<'_, BTreeMap<Uuid, Peer>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, peer| now - peer.heard < FORGOTTEN);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(gateway: &str, process: u128) -> Presence {
        Presence {
            gateway: gateway.to_owned(),
            process: Uuid::from_u128(process).to_string(),
            is: PresenceState::Here,
        }
    }

    fn names(peers: &Peers, now: Instant) -> Vec<(String, f64)> {
        let reports = peers.reports(now).into_iter();
        reports.map(|peer| (peer.gateway, peer.heard_s)).collect()
    }

    #[test]
    fn who_was_heard_is_expected_until_it_leaves_or_is_forgotten() {
        let peers = Peers::new(Uuid::from_u128(0));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        peers.heard(here("own", 0), start);
        peers.heard(here("a", 1), start);
        peers.heard(here("b", 2), after(2));
        let both = [("a".to_owned(), 5.0), ("b".to_owned(), 3.0)];
        assert_eq!(names(&peers, after(5)), both);
        let is = PresenceState::Leaving;
        peers.heard(Presence { is, ..here("a", 1) }, after(5));
        assert_eq!(names(&peers, after(3601)), [("b".to_owned(), 3599.0)]);
        assert_eq!(names(&peers, after(3602)), []);
    }

    #[test]
    fn two_that_are_there_have_one_name_and_a_new_process_replaces_a_silent_one() {
        let peers = Peers::new(Uuid::from_u128(0));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        peers.heard(here("a", 1), start);
        peers.heard(here("a", 2), after(10));
        assert_eq!(peers.reports(after(10)).len(), 2);
        assert!(peers.has("a", after(10)) && !peers.has("b", after(10)));
        // The first one was killed.
        peers.heard(here("a", 2), after(30));
        assert_eq!(names(&peers, after(30)), [("a".to_owned(), 0.0)]);
        assert!(!peers.has("a", after(60)));
    }

    #[test]
    fn however_many_are_forged_the_newest_are_known() {
        let peers = Peers::new(Uuid::from_u128(0));
        let start = Instant::now();
        for process in 1..=PEERS_MAX as u128 + 5 {
            let at = start + Duration::from_millis(u64::try_from(process).unwrap());
            peers.heard(here("a", process), at);
        }
        let reports = peers.reports(start + Duration::from_secs(2));
        assert_eq!(reports.len(), PEERS_MAX);
        let last = Uuid::from_u128(PEERS_MAX as u128 + 5).to_string();
        assert!(reports.iter().any(|peer| peer.process == last));
    }

    #[test]
    fn what_is_no_report_is_none() {
        let good = serde_json::to_string(&here("a", 1)).unwrap();
        assert_eq!(
            good,
            r#"{"gateway":"a","process":"00000000-0000-0000-0000-000000000001","is":"here"}"#
        );
        assert!(Presence::parse(good.as_bytes()).is_some());
        for bad in [
            "",
            r#"{"stream":"EVENTS","seq":1}"#,
            r#"["a","00000000-0000-0000-0000-000000000001","here"]"#,
            &good.replace("here", "gone"),
            &good.replace("\"a\"", "\"\""),
            &good.replace('a', &"a".repeat(129)),
            &format!("{good}{}", " ".repeat(BODY_MAX)),
        ] {
            assert!(Presence::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
