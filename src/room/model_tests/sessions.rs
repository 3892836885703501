//! SESSIONS, the way from it to some gateways, and their claims machines.

use std::collections::BTreeSet;
use std::time::Instant;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::Draw;
use crate::auth::UserKey;
use crate::nats::{CheckedClaim, LastClaim, StoredClaim};
use crate::room::SessionId;
use crate::room::sessions::replacement::{ClaimAction, Claims};

/// A claim as SESSIONS has it.
type InStream = (SessionId, u64, DateTime<Utc>);

/// What is on its way to a gateway.
#[derive(Debug, Clone, Copy)]
enum News {
    Live(InStream),
    Acknowledged(SessionId, u64),
    Checked(SessionId, u64, Option<InStream>),
}

const GATEWAYS: usize = 3;

/// SESSIONS and the claims machines of some gateways, for one user.
pub(super) struct SessionsModel {
    claims: Vec<Claims>,
    news: Vec<Vec<News>>,
    /// Open sockets by gateway.
    open: Vec<BTreeSet<SessionId>>,
    /// Each join's gateway, in the order in which their claims were stored.
    joined: Vec<(SessionId, usize)>,
    last: Option<InStream>,
    sequence: u64,
    time: i64,
    now: Instant,
}

impl SessionsModel {
    pub(super) fn new() -> Self {
        Self {
            claims: (0..GATEWAYS).map(|_| Claims::default()).collect(),
            news: vec![Vec::new(); GATEWAYS],
            open: vec![BTreeSet::new(); GATEWAYS],
            joined: Vec::new(),
            last: None,
            sequence: 0,
            time: 0,
            now: Instant::now(),
        }
    }

    fn user() -> UserKey {
        UserKey::new(None, "u1")
    }

    pub(super) fn advance(&mut self, draw: &mut Draw) {
        let gateway = draw.below(GATEWAYS);
        match draw.below(12) {
            0..=1 => self.join(gateway),
            2..=7 => {
                if let Some(news) = draw.take(&mut self.news[gateway]) {
                    if draw.below(6) == 0 {
                        self.news[gateway].push(news);
                    }
                    self.deliver(gateway, news);
                }
            }
            8 => {
                // Only the live path loses; an acknowledgement is requested again.
                let index = draw.below(self.news[gateway].len());
                if let Some(News::Live(_)) = self.news[gateway].get(index) {
                    self.news[gateway].remove(index);
                }
            }
            9 => self.check(gateway),
            10 => {
                let open: Vec<SessionId> = self.open[gateway].iter().copied().collect();
                if draw.below(3) == 0
                    && let Some(session) = open.get(draw.below(open.len()))
                {
                    self.leave(gateway, *session);
                }
            }
            _ => {
                if draw.below(4) == 0 {
                    self.lose(draw);
                }
            }
        }
    }

    fn join(&mut self, gateway: usize) {
        let session = SessionId::from_u128(self.joined.len() as u128 + 1);
        self.claims[gateway].pending(Self::user(), session);
        self.open[gateway].insert(session);
        self.joined.push((session, gateway));
        self.store(gateway, session);
    }

    fn store(&mut self, gateway: usize, session: SessionId) {
        self.sequence += 1;
        self.time += 1;
        let claim = (
            session,
            self.sequence,
            DateTime::from_timestamp(self.time, 0).unwrap(),
        );
        self.last = Some(claim);
        for news in &mut self.news {
            news.push(News::Live(claim));
        }
        self.news[gateway].push(News::Acknowledged(session, self.sequence));
    }

    /// SESSIONS is created again, or restored from a backup in which the user's last claim is an older one.
    /// Each gateway has seen its claims in it before, live or by a check.
    fn lose(&mut self, draw: &mut Draw) {
        let backup = self.last.filter(|_| draw.below(2) == 0);
        self.quiesce();
        self.last = backup;
        self.sequence = backup.map_or(0, |(_, sequence, _)| sequence);
    }

    fn claim(&self, gateway: usize, (session, sequence, time): InStream) -> StoredClaim {
        StoredClaim {
            session: session.uuid(),
            sequence,
            time,
            own: self.joined.contains(&(session, gateway)),
        }
    }

    fn deliver(&mut self, gateway: usize, news: News) {
        let user = Self::user();
        let actions = match news {
            News::Live(claim) => {
                let claim = self.claim(gateway, claim);
                self.claims[gateway].heard(user, claim.into(), self.now)
            }
            News::Acknowledged(session, sequence) => {
                if !self.open[gateway].contains(&session) {
                    return;
                }
                self.claims[gateway].acknowledged(user, session, sequence, self.now)
            }
            News::Checked(session, sequence, last) => {
                let last = last.map_or(LastClaim::Nothing, |claim| {
                    LastClaim::Claim(self.claim(gateway, claim))
                });
                let found = CheckedClaim {
                    user,
                    session: session.uuid(),
                    sequence,
                    last,
                };
                self.claims[gateway].checked(&found, self.now)
            }
        };
        for action in actions {
            match action {
                ClaimAction::Replaced(session) => self.leave(gateway, session),
                ClaimAction::Check => self.check(gateway),
                ClaimAction::ClaimAgain { session, last } => {
                    if self.last.map_or(0, |(_, sequence, _)| sequence) == last {
                        self.store(gateway, session);
                    } else {
                        self.check(gateway);
                    }
                }
            }
        }
    }

    /// SESSIONS is read; what it has is on its way.
    fn check(&mut self, gateway: usize) {
        let sessions: Vec<_> = self.claims[gateway].acknowledged_sessions().collect();
        for (_, session, sequence) in sessions {
            self.news[gateway].push(News::Checked(session, sequence, self.last));
        }
    }

    fn leave(&mut self, gateway: usize, session: SessionId) {
        self.open[gateway].remove(&session);
        self.claims[gateway].left(Self::user(), session);
    }

    pub(super) fn quiesce(&mut self) {
        for _ in 0..8 {
            for gateway in 0..GATEWAYS {
                for news in std::mem::take(&mut self.news[gateway]) {
                    self.deliver(gateway, news);
                }
                self.check(gateway);
            }
        }
        for gateway in 0..GATEWAYS {
            for news in std::mem::take(&mut self.news[gateway]) {
                self.deliver(gateway, news);
            }
        }
    }

    /// The newest session that did not leave by itself stands, and it alone.
    pub(super) fn judge(&self) -> Result<(), TestCaseError> {
        let standing: Vec<SessionId> = self.open.iter().flatten().copied().collect();
        prop_assert!(standing.len() <= 1, "{:?}", standing);
        if let Some((newest, _)) = self.joined.last()
            && let Some(standing) = standing.first()
        {
            prop_assert_eq!(standing, newest);
        }
        Ok(())
    }
}
