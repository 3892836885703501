//! What can be measured, by name. One row each.

use std::time::Duration;

use jsonwebtoken::Algorithm;

use crate::publish::Pace;
use crate::slot::{Manner, Reads};

/// Rooms of one size, and the events that they get.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub rooms: u32,
    /// In each room.
    pub sockets: u32,
    pub pace: Pace,
}

/// What is there in the second half of a scenario and not in the first: what the measured sockets are to notice little of.
#[derive(Debug, Clone, Copy)]
pub enum Beside {
    /// Other rooms.
    Rooms(Group),
    /// Sockets in the first room that behave in this way.
    Sockets(u32, Manner),
}

/// How the sockets connect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Connect {
    /// As fast as is prudent; not measured.
    Calmly,
    /// All at once.
    AtOnce,
    /// So many a second.
    PerSecond(f64),
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub groups: &'static [Group],
    pub beside: Option<Beside>,
    pub time: Duration,
    pub algorithm: Algorithm,
    pub connect: Connect,
    /// Only this target knows how.
    pub only: Option<&'static str>,
    pub hardship: Option<Hardship>,
}

/// What is done to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardship {
    /// Its way to NATS is cut for 3 s in each half.
    Cut,
    /// It has a quarter of a core.
    Quarter,
}

const fn per_second(rooms: u32, sockets: u32, events: f64) -> Group {
    Group {
        rooms,
        sockets,
        pace: Pace::PerSecond(events),
    }
}

const fn at_once(rooms: u32, sockets: u32, events: u32) -> Group {
    Group {
        rooms,
        sockets,
        pace: Pace::AtOnce(events),
    }
}

const fn row(name: &'static str, about: &'static str, groups: &'static [Group]) -> Scenario {
    Scenario {
        name,
        about,
        groups,
        beside: None,
        time: Duration::from_secs(10),
        algorithm: Algorithm::HS256,
        connect: Connect::Calmly,
        only: None,
        hardship: None,
    }
}

/// With ten healthy sockets and 150 events a second, and `beside` them others that are not.
const fn slow(
    name: &'static str,
    about: &'static str,
    sockets: u32,
    reads: Reads,
    back: Option<Duration>,
) -> Scenario {
    let manner = Manner {
        reads,
        back,
        lives: None,
    };
    Scenario {
        beside: Some(Beside::Sockets(sockets, manner)),
        time: Duration::from_secs(30),
        ..row(name, about, SLOW)
    }
}

const fn connects(
    name: &'static str,
    about: &'static str,
    algorithm: Algorithm,
    connect: Connect,
) -> Scenario {
    Scenario {
        algorithm,
        connect,
        only: Some("herald"),
        ..row(name, about, CONNECTS)
    }
}

const fn cut(row: Scenario) -> Scenario {
    Scenario {
        only: Some("herald"),
        hardship: Some(Hardship::Cut),
        ..row
    }
}

const fn quarter(row: Scenario) -> Scenario {
    Scenario {
        hardship: Some(Hardship::Quarter),
        ..row
    }
}

const SLOW: &[Group] = &[per_second(1, 10, 150.0)];
const CONNECTS: &[Group] = &[per_second(20, 100, 0.0)];
const RATE: Connect = Connect::PerSecond(500.0);
/// 8 kB a second.
const SLOWLY: Reads = Reads::Slowly(8000);
const BACK: Option<Duration> = Some(Duration::from_millis(500));

/// All rows.
pub const ALL: &[Scenario] = &[
    row(
        "paced-100x100",
        "100 events/s to 100 sockets",
        &[per_second(1, 100, 100.0)],
    ),
    row(
        "paced-10",
        "1,000 events/s to 10 sockets",
        &[per_second(1, 10, 1000.0)],
    ),
    row(
        "paced-5000",
        "10 events/s to 5,000 sockets",
        &[per_second(1, 5000, 10.0)],
    ),
    row(
        "room-10000",
        "2 events/s to one room of 10,000",
        &[per_second(1, 10_000, 2.0)],
    ),
    row(
        "rooms-100x100",
        "200 events/s over 100 rooms of 100",
        &[per_second(100, 100, 200.0)],
    ),
    row(
        "rooms-10000x1",
        "2,000 events/s over 10,000 rooms of one",
        &[per_second(10_000, 1, 2000.0)],
    ),
    row(
        "burst",
        "20,000 events at once to 100 sockets",
        &[at_once(1, 100, 20_000)],
    ),
    row(
        "burst-5000",
        "1,000 events at once to 5,000 sockets",
        &[at_once(1, 5000, 1000)],
    ),
    row(
        "burst-10000",
        "1,000 events at once to 10,000 sockets",
        &[at_once(1, 10_000, 1000)],
    ),
    slow(
        "slow-1",
        "10 sockets, beside one that reads 8 kB/s",
        1,
        SLOWLY,
        None,
    ),
    slow(
        "deaf-1",
        "10 sockets, beside one that reads nothing",
        1,
        Reads::Nothing,
        None,
    ),
    slow(
        "slow-10",
        "10 sockets, beside 10 slow ones that come back 0.5 s after their close",
        10,
        SLOWLY,
        BACK,
    ),
    slow(
        "slow-100",
        "10 sockets, beside 100 slow ones that come back 0.5 s after their close",
        100,
        SLOWLY,
        BACK,
    ),
    cut(slow(
        "slow-1-cut",
        "slow-1, with a cut of 3 s from NATS in each half",
        1,
        SLOWLY,
        None,
    )),
    cut(slow(
        "deaf-1-cut",
        "deaf-1, with such a cut",
        1,
        Reads::Nothing,
        None,
    )),
    cut(slow(
        "slow-10-cut",
        "slow-10, with such a cut",
        10,
        SLOWLY,
        BACK,
    )),
    cut(slow(
        "slow-100-cut",
        "slow-100, with such a cut",
        100,
        SLOWLY,
        BACK,
    )),
    quarter(row(
        "burst-5000-quarter",
        "burst-5000, the server on a quarter of a core",
        &[at_once(1, 5000, 1000)],
    )),
    quarter(row(
        "burst-10000-quarter",
        "burst-10000, the server on a quarter of a core",
        &[at_once(1, 10_000, 1000)],
    )),
    Scenario {
        beside: Some(Beside::Rooms(per_second(1, 1, 50_000.0))),
        ..row(
            "noisy",
            "100 events/s to 10 sockets, beside a workspace with 50,000 events/s",
            &[per_second(1, 10, 100.0)],
        )
    },
    Scenario {
        beside: Some(Beside::Rooms(per_second(1, 9_900, 5.0))),
        ..row(
            "beside-room",
            "100 events/s to 10 sockets, beside a room of 9,900 with 5 events/s",
            &[per_second(1, 10, 100.0)],
        )
    },
    Scenario {
        beside: Some(Beside::Sockets(
            200,
            Manner {
                reads: Reads::All,
                back: None,
                lives: Some(Duration::from_secs(1)),
            },
        )),
        ..row(
            "churn",
            "100 events/s to 100 sockets, beside 200 that stay for a second and come back",
            &[per_second(1, 100, 100.0)],
        )
    },
    Scenario {
        only: Some("herald"),
        ..row(
            "tls",
            "100 events/s to 100 sockets, over TLS",
            &[per_second(1, 100, 100.0)],
        )
    },
    row(
        "mixed",
        "one room of 1,000, 20 of 100 and 1,000 of one",
        &[
            per_second(1, 1000, 5.0),
            per_second(20, 100, 100.0),
            per_second(1000, 1, 200.0),
        ],
    ),
    connects(
        "connect-HS256",
        "2,000 connects at once, HS256",
        Algorithm::HS256,
        Connect::AtOnce,
    ),
    connects(
        "connect-RS256",
        "2,000 connects at once, RS256",
        Algorithm::RS256,
        Connect::AtOnce,
    ),
    connects(
        "connect-ES256",
        "2,000 connects at once, ES256",
        Algorithm::ES256,
        Connect::AtOnce,
    ),
    connects(
        "connect-HS256-paced",
        "2,000 connects, 500/s, HS256",
        Algorithm::HS256,
        RATE,
    ),
    connects(
        "connect-RS256-paced",
        "2,000 connects, 500/s, RS256",
        Algorithm::RS256,
        RATE,
    ),
    connects(
        "connect-ES256-paced",
        "2,000 connects, 500/s, ES256",
        Algorithm::ES256,
        RATE,
    ),
];

impl Scenario {
    /// The row of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Whether it is about connects alone.
    pub fn is_connects(&self) -> bool {
        self.connect != Connect::Calmly
    }

    /// Sockets in all measured rooms.
    pub fn sockets(&self) -> u32 {
        self.groups
            .iter()
            .map(|group| group.rooms * group.sockets)
            .sum()
    }

    /// Measured rooms.
    pub fn rooms(&self) -> u32 {
        self.groups.iter().map(|group| group.rooms).sum()
    }
}
