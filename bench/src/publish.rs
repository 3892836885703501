//! Publishes events at the times of a plan, whatever comes of them: nobody is waited for, so that a server that is late
//! is asked no less. (Waiting would leave out the worst of what a user sees: coordinated omission.)

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use crate::Error;
use crate::http::{Connections, Endpoint};
use crate::marker::{Mark, Markers};

/// An interrupt is heard so soon.
const MOMENT: Duration = Duration::from_millis(100);

/// An event to publish, so long after the begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub after: Duration,
    pub mark: Mark,
}

/// How often a group of rooms gets an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second, all rooms together, one room after the other.
    PerSecond(f64),
    /// So many to each room, all at once.
    AtOnce(u32),
}

/// The events of one phase, each room's sequences in `next` going on.
pub fn plan(
    pace: Pace,
    rooms: std::ops::Range<u32>,
    time: Duration,
    next: &mut [u32],
) -> Vec<Planned> {
    let count = rooms.len().max(1);
    let events = match pace {
        // Rounded: a number of events, not a measure.
        Pace::PerSecond(rate) => (rate * time.as_secs_f64()).round() as usize,
        Pace::AtOnce(each) => each as usize * count,
    };
    let mut planned = Vec::with_capacity(events);
    for (index, room) in rooms.cycle().take(events).enumerate() {
        let after = match pace {
            Pace::PerSecond(rate) => Duration::from_secs_f64(index as f64 / rate),
            Pace::AtOnce(_) => Duration::ZERO,
        };
        let Some(next) = next.get_mut(room as usize) else {
            continue;
        };
        let sequence = *next;
        *next += 1;
        let mark = Mark { room, sequence };
        planned.push(Planned { after, mark });
    }
    planned
}

/// Who publishes, and what.
#[derive(Clone)]
pub struct Publisher {
    pub client: async_nats::Client,
    /// Instead of the client's connection.
    pub by_http: Option<Endpoint>,
    pub handle: Handle,
    pub markers: Arc<Markers>,
    /// The subject of each room.
    pub subjects: Arc<Vec<String>>,
    pub event_bytes: usize,
    pub stop: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// When each was due, since the epoch, in the order of the plan.
    pub due_us: Vec<u64>,
    pub count: usize,
    /// The most that the publisher was behind its plan.
    pub late: Duration,
    /// By HTTP: how long each answer took, from when its request was due.
    pub answers: Vec<Duration>,
}

impl Publisher {
    /// Publishes all of `plan` on a thread of its own.
    pub fn start(&self, plan: Vec<Planned>) -> JoinHandle<Result<Published, Error>> {
        let publisher = self.clone();
        std::thread::spawn(move || publisher.publish(&plan))
    }

    fn publish(&self, plan: &[Planned]) -> Result<Published, Error> {
        let endpoint = self.by_http.as_ref();
        let connections = endpoint.map(|it| Connections::open(it, &self.handle));
        let mut connections = connections.transpose()?;
        let start = Instant::now();
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut published = Published::default();
        let mut rest = plan;
        while let Some(next) = rest.first() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let now = start.elapsed();
            if let Some(wait) = next.after.checked_sub(now).filter(|wait| !wait.is_zero()) {
                // In parts, so that an interrupt is heard.
                std::thread::sleep(wait.min(MOMENT));
                continue;
            }
            published.late = published.late.max(now.saturating_sub(next.after));
            let due = rest
                .iter()
                .take_while(|planned| planned.after <= now)
                .count();
            let (due, later) = rest.split_at_checked(due).unwrap_or((rest, &[]));
            match &mut connections {
                Some(connections) => self.post(due, start, connections),
                None => self.wait(self.send(due))?,
            }
            let due_us = |planned: &Planned| (epoch + planned.after).as_micros();
            let times = due.iter().map(|planned| u64::try_from(due_us(planned)));
            published
                .due_us
                .extend(times.map(Result::unwrap_or_default));
            published.count += due.len();
            rest = later;
        }
        match connections {
            Some(connections) => published.answers = self.wait(connections.answers())?,
            None => self.wait(async { self.client.flush().await.map_err(failed) })?,
        }
        Ok(published)
    }

    /// Waits for `sending`, but after an interrupt a moment at most: a server that is gone takes nothing.
    fn wait<T: Default>(
        &self,
        sending: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.handle.block_on(async {
            let mut sending = pin!(sending);
            loop {
                match tokio::time::timeout(MOMENT, sending.as_mut()).await {
                    Ok(sent) => return sent,
                    Err(_) if self.stop.load(Ordering::Relaxed) => return Ok(T::default()),
                    Err(_) => {}
                }
            }
        })
    }

    async fn send(&self, due: &[Planned]) -> Result<(), Error> {
        for (_, subject, event) in self.events(due) {
            let sent = self.client.publish(subject.clone(), event.into()).await;
            sent.map_err(failed)?;
        }
        Ok(())
    }

    fn post(&self, due: &[Planned], start: Instant, connections: &mut Connections) {
        for (planned, subject, event) in self.events(due) {
            let workspace = subject.split('.').nth(1).unwrap_or_default();
            connections.send(workspace.to_owned(), event, start + planned.after);
        }
    }

    /// The events that are due, each with its subject.
    fn events<'a>(
        &'a self,
        due: &'a [Planned],
    ) -> impl Iterator<Item = (&'a Planned, &'a String, String)> {
        due.iter().filter_map(|planned| {
            let subject = self.subjects.get(planned.mark.room as usize)?;
            let event = self.markers.event(planned.mark, self.event_bytes);
            Some((planned, subject, event))
        })
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::of("cannot publish", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_even_in_time_and_over_rooms() {
        let mut next = vec![5, 0, 0];
        let paced = plan(
            Pace::PerSecond(4.0),
            1..3,
            Duration::from_secs(1),
            &mut next,
        );
        let found: Vec<_> = paced
            .iter()
            .map(|planned| {
                let Mark { room, sequence } = planned.mark;
                (planned.after.as_millis(), room, sequence)
            })
            .collect();
        assert_eq!(found, [(0, 1, 0), (250, 2, 0), (500, 1, 1), (750, 2, 1)]);
        let burst = plan(Pace::AtOnce(2), 0..2, Duration::ZERO, &mut next);
        let marks: Vec<_> = burst.iter().map(|planned| planned.mark).collect();
        let mark = |room, sequence| Mark { room, sequence };
        assert_eq!(marks, [mark(0, 5), mark(1, 2), mark(0, 6), mark(1, 3)]);
        assert_eq!(next, [7, 4, 2]);
    }
}
