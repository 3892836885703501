//! What can be measured, by name: one row each, and what others say of them follows from it.

use std::fmt;
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
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub groups: Vec<Group>,
    pub beside: Option<Beside>,
    /// Of the events; half of it before there is something beside.
    pub time: Duration,
    pub algorithm: Algorithm,
    pub connect: Connect,
    /// Events are published by HTTP, and that is measured.
    pub by_http: bool,
    /// These targets alone, where that is not all.
    pub only: Option<&'static [&'static str]>,
    /// With whom Herald is compared in the table of the docs; `None`: it is not there.
    table: Option<&'static [&'static str]>,
    pub hardship: Option<Hardship>,
}

/// What is done to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardship {
    /// Its way to NATS is cut for 3 s, with and without what is beside.
    Cut,
    /// It has a quarter of a core from when all sockets are open.
    Quarter,
}

/// Instead of scenarios' names: those of the table in the docs, each with the targets that it is compared with.
pub const TABLE: &str = "table";
const HERALD: &[&str] = &["herald"];
const FLOOR: &[&str] = &["herald", "floor"];

const fn per_second(rooms: u32, sockets: u32, events: f64) -> Group {
    Group {
        rooms,
        sockets,
        pace: Pace::PerSecond(events),
    }
}

const fn at_once(sockets: u32, events: u32) -> Group {
    Group {
        rooms: 1,
        sockets,
        pace: Pace::AtOnce(events),
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pace {
            Pace::PerSecond(events) => write!(f, "{events} events/s to ")?,
            Pace::AtOnce(events) => write!(f, "{events} events at once to ")?,
        }
        match (self.rooms, self.sockets) {
            (1, sockets) => write!(f, "a room of {sockets}"),
            (rooms, 1) => write!(f, "{rooms} rooms of one"),
            (rooms, sockets) => write!(f, "{rooms} rooms of {sockets}"),
        }
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, manner) = match self {
            Self::Rooms(group) => return write!(f, "{group}"),
            Self::Sockets(count, manner) => (count, manner),
        };
        write!(f, "{count} more in the room")?;
        match manner.reads {
            Reads::All => {}
            Reads::Slowly(bytes) => write!(f, " that read {} kB/s", bytes / 1000)?,
            Reads::Nothing => write!(f, " that read nothing")?,
        }
        if let Some(stay) = manner.lives {
            write!(f, " that stay for {} s and come back", stay.as_secs_f64())?;
        }
        match manner.back {
            Some(back) => write!(f, ", back {} s after their close", back.as_secs_f64()),
            None => Ok(()),
        }
    }
}

fn row(name: &str, groups: &[Group]) -> Scenario {
    let about: Vec<String> = groups.iter().map(Group::to_string).collect();
    Scenario {
        name: name.to_owned(),
        about: about.join(", "),
        groups: groups.to_vec(),
        beside: None,
        time: Duration::from_secs(4),
        algorithm: Algorithm::HS256,
        connect: Connect::Calmly,
        by_http: false,
        only: None,
        table: None,
        hardship: None,
    }
}

impl Scenario {
    fn beside(self, beside: Beside) -> Self {
        Self {
            about: format!("{}; beside: {beside}", self.about),
            beside: Some(beside),
            ..self
        }
    }

    fn with(self, hardship: Hardship) -> Self {
        let (end, about, only) = match hardship {
            Hardship::Cut => ("cut", "NATS is cut off for 3 s", Some(HERALD)),
            Hardship::Quarter => ("quarter", "on a quarter of a core", self.only),
        };
        Self {
            name: format!("{}-{end}", self.name),
            about: format!("{}; {about}", self.about),
            hardship: Some(hardship),
            only,
            ..self
        }
    }

    fn in_table(self, targets: &'static [&'static str]) -> Self {
        Self {
            table: Some(targets),
            ..self
        }
    }
}

/// 2,000 sockets that connect, in each way.
fn connects() -> Vec<Scenario> {
    let mut all = Vec::new();
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256] {
        for (end, how, connect) in [
            ("", "at once", Connect::AtOnce),
            ("-paced", "500/s", Connect::PerSecond(500.0)),
        ] {
            all.push(Scenario {
                about: format!("2000 connects, {how}, {algorithm:?}"),
                algorithm,
                connect,
                only: Some(HERALD),
                ..row(
                    &format!("connect-{algorithm:?}{end}"),
                    &[per_second(20, 100, 0.0)],
                )
            });
        }
    }
    all
}

/// All rows.
pub fn all() -> Vec<Scenario> {
    let to_one = |sockets, events| [per_second(1, sockets, events)];
    let with_nchan = &["herald", "floor", "nchan"];
    let mut all = vec![
        row("paced-100x100", &to_one(100, 100.0)).in_table(with_nchan),
        row("paced-10", &to_one(10, 1000.0)).in_table(with_nchan),
        row("paced-5000", &to_one(5000, 10.0)).in_table(FLOOR),
        row("room-10000", &to_one(10_000, 2.0)).in_table(FLOOR),
        row("rooms-100x100", &[per_second(100, 100, 200.0)]).in_table(FLOOR),
        row("rooms-10000x1", &[per_second(10_000, 1, 2000.0)]).in_table(FLOOR),
        row("burst", &[at_once(100, 20_000)]).in_table(&["herald", "nats-ws", "centrifugo"]),
    ];
    for sockets in [5000, 10_000] {
        let burst = row(&format!("burst-{sockets}"), &[at_once(sockets, 1000)]).in_table(HERALD);
        all.extend([burst.clone(), burst.with(Hardship::Quarter)]);
    }
    let back = Some(Duration::from_millis(500));
    // A slow reader hears of its close when it has read what the kernel holds, or by a reset after 12 s.
    for (name, sockets, reads, back, seconds) in [
        ("slow-1", 1, Reads::Slowly(8000), None, 8),
        ("deaf-1", 1, Reads::Nothing, None, 8),
        ("slow-10", 10, Reads::Slowly(8000), back, 15),
        ("slow-100", 100, Reads::Slowly(8000), back, 15),
    ] {
        let manner = Manner {
            reads,
            back,
            lives: None,
        };
        let slow = Scenario {
            time: Duration::from_secs(seconds),
            ..row(name, &to_one(10, 150.0)).beside(Beside::Sockets(sockets, manner))
        };
        let slow = slow.in_table(HERALD);
        all.extend([slow.clone(), slow.with(Hardship::Cut)]);
    }
    let brief = Manner {
        lives: Some(Duration::from_secs(1)),
        ..Manner::STEADY
    };
    let (noise, room) = (per_second(1, 1, 50_000.0), per_second(1, 10_000, 5.0));
    all.extend([
        row("noisy", &to_one(10, 100.0))
            .beside(Beside::Rooms(noise))
            .in_table(HERALD),
        row("beside-room", &to_one(10, 100.0))
            .beside(Beside::Rooms(room))
            .in_table(HERALD),
        row("churn", &to_one(100, 100.0)).beside(Beside::Sockets(200, brief)),
        Scenario {
            only: Some(HERALD),
            ..row("tls", &to_one(100, 100.0))
        },
        row(
            "mixed",
            &[
                per_second(1, 1000, 5.0),
                per_second(20, 100, 100.0),
                per_second(1000, 1, 200.0),
            ],
        ),
    ]);
    all.extend(connects());
    all.push(Scenario {
        about: "5000 events/s by HTTP, over 64 connections, to 10 workspaces without sockets"
            .to_owned(),
        by_http: true,
        only: Some(HERALD),
        ..row("http-publish", &[per_second(10, 0, 5000.0)]).in_table(HERALD)
    });
    all
}

impl Scenario {
    /// The rows of this name: one, or those of the table.
    pub fn named(name: &str) -> Vec<Self> {
        let rows = all().into_iter();
        if name == TABLE {
            let only = |row: Self| {
                row.table.map(|table| Self {
                    only: Some(table),
                    ..row
                })
            };
            return rows.filter_map(only).collect();
        }
        rows.filter(|row| row.name == name).collect()
    }

    /// The one group, where events come one after the other and nothing is beside them: what a cost is told of.
    pub fn plain(&self) -> Option<(&Group, f64)> {
        match (&*self.groups, self.beside, self.hardship) {
            ([group], None, None) if self.name != "tls" && !self.is_connects() && !self.by_http => {
                match group.pace {
                    Pace::PerSecond(events) => Some((group, events)),
                    Pace::AtOnce(_) => None,
                }
            }
            _ => None,
        }
    }

    /// Whether it is about connects alone.
    pub fn is_connects(&self) -> bool {
        self.connect != Connect::Calmly
    }

    /// Sockets in all measured rooms.
    pub fn sockets(&self) -> u32 {
        let groups = self.groups.iter();
        groups.map(|group| group.rooms * group.sockets).sum()
    }

    /// Measured rooms.
    pub fn rooms(&self) -> u32 {
        self.groups.iter().map(|group| group.rooms).sum()
    }

    /// How many measured sockets a room has.
    pub fn sockets_of(&self, room: u32) -> u64 {
        let mut end = 0;
        let mut groups = self.groups.iter();
        let group = groups.find(|group| {
            end += group.rooms;
            room < end
        });
        group.map_or(0, |group| u64::from(group.sockets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_none_is_that_of_the_table() {
        let all = all();
        for scenario in &all {
            assert_eq!(
                Scenario::named(&scenario.name).len(),
                1,
                "{}",
                scenario.name
            );
            assert_ne!(scenario.name, TABLE);
        }
        assert!(Scenario::named("none").is_empty());
    }

    #[test]
    fn the_table_is_measured_with_those_it_is_compared_with() {
        let table = Scenario::named(TABLE);
        assert_eq!(table.len(), 22);
        let named = |name: &str| table.iter().find(|row| row.name == name).unwrap();
        for (name, only, about) in [
            (
                "paced-10",
                &["herald", "floor", "nchan"][..],
                "1000 events/s to a room of 10",
            ),
            (
                "deaf-1-cut",
                HERALD,
                "150 events/s to a room of 10; beside: 1 more in the room that read nothing; NATS is cut off for 3 s",
            ),
            (
                "burst-5000-quarter",
                HERALD,
                "1000 events at once to a room of 5000; on a quarter of a core",
            ),
        ] {
            let row = named(name);
            assert_eq!((row.only, row.about.as_str()), (Some(only), about));
        }
    }

    #[test]
    fn a_room_has_the_sockets_of_its_group() {
        let mixed = Scenario::named("mixed").pop().unwrap();
        let sockets = [0, 1, 20, 21, 1020, 1021].map(|room| mixed.sockets_of(room));
        assert_eq!(sockets, [1000, 100, 100, 1, 1, 0]);
    }
}
