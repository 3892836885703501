//! Which workspaces have series of their own: the few busiest, so that the number of series does not
//! grow with the number of workspaces. Everybody else is counted together.
//!
//! Every series only rises. One that is displaced ends, and what it counted is not counted again
//! under another name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::WorkspaceSlug;

/// How often the order is computed again.
const RANK_EVERY: Duration = Duration::from_secs(10);
/// A newcomer displaces the least busy one only if it is so many times busier: the set stays put
/// where several are about as busy.
const CLEARLY: f64 = 2.0;

/// What a room counts. Its task adds, the collection of metrics reads.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    events: AtomicU64,
    deliveries: AtomicU64,
}

impl Traffic {
    /// So many events, and the sockets they went to.
    pub(crate) fn add(&self, events: u64, deliveries: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.deliveries.fetch_add(deliveries, Ordering::Relaxed);
    }

    fn read(&self) -> TrafficCounts {
        TrafficCounts {
            events: self.events.load(Ordering::Relaxed),
            deliveries: self.deliveries.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TrafficCounts {
    pub(super) events: u64,
    pub(super) deliveries: u64,
}

impl TrafficCounts {
    fn since(self, earlier: Self) -> Self {
        Self {
            events: self.events.saturating_sub(earlier.events),
            deliveries: self.deliveries.saturating_sub(earlier.deliveries),
        }
    }

    fn add(&mut self, more: Self) {
        self.events += more.events;
        self.deliveries += more.deliveries;
    }
}

/// All rooms' counts, and which of them are shown.
#[derive(Debug)]
pub(super) struct TopK {
    most: usize,
    state: Mutex<TopKState>,
}

#[derive(Debug, Default)]
struct TopKState {
    rooms: HashMap<WorkspaceSlug, RoomTraffic>,
    /// What rooms counted that are no more.
    ended: TrafficCounts,
    /// What has been counted under a name of its own, also one that is no longer shown.
    named: TrafficCounts,
    ranked: Option<Instant>,
}

#[derive(Debug)]
struct RoomTraffic {
    traffic: Arc<Traffic>,
    /// What was read last.
    read: TrafficCounts,
    /// What was read when the order was last looked at.
    ranked: u64,
    /// Recent events: halved each time that the order is computed.
    score: f64,
    /// Counted under its own name, if it is shown.
    shown: Option<TrafficCounts>,
}

impl TopK {
    /// Shows `most` workspaces.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
        }
    }

    /// A room opened.
    pub(super) fn open(&self, workspace: &WorkspaceSlug) -> Arc<Traffic> {
        let traffic = Arc::new(Traffic::default());
        let mut state = self.lock();
        // Where there may be others already, the next look finds a free name.
        let shown = (state.rooms.len() < self.most).then(TrafficCounts::default);
        let room = RoomTraffic {
            traffic: Arc::clone(&traffic),
            read: TrafficCounts::default(),
            ranked: 0,
            score: 0.0,
            shown,
        };
        if let Some(before) = state.rooms.insert(workspace.clone(), room) {
            state.end(&before);
        }
        traffic
    }

    /// The room ended. A later room of the same workspace is left alone.
    pub(super) fn close(&self, workspace: &WorkspaceSlug, traffic: &Arc<Traffic>) {
        let mut state = self.lock();
        let is_this = |room: &RoomTraffic| Arc::ptr_eq(&room.traffic, traffic);
        if state.rooms.get(workspace).is_some_and(is_this)
            && let Some(room) = state.rooms.remove(workspace)
        {
            state.end(&room);
        }
    }

    /// What each shown workspace has counted, and all others together.
    pub(super) fn collect(
        &self,
        now: Instant,
    ) -> (Vec<(WorkspaceSlug, TrafficCounts)>, TrafficCounts) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut all = state.ended;
        for room in state.rooms.values_mut() {
            let counts = room.traffic.read();
            all.add(counts);
            if let Some(shown) = &mut room.shown {
                let more = counts.since(room.read);
                shown.add(more);
                state.named.add(more);
            }
            room.read = counts;
        }
        if state
            .ranked
            .is_none_or(|at| now.duration_since(at) >= RANK_EVERY)
        {
            state.ranked = Some(now);
            state.rank(self.most);
        }
        let shown = state
            .rooms
            .iter()
            .filter_map(|(workspace, room)| Some((workspace.clone(), room.shown?)));
        (shown.collect(), all.since(state.named))
    }

    fn lock(&self) -> MutexGuard<'_, TopKState> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopKState {
    fn end(&mut self, room: &RoomTraffic) {
        let counts = room.traffic.read();
        self.ended.add(counts);
        if room.shown.is_some() {
            self.named.add(counts.since(room.read));
        }
    }

    /// Gives the names to the busiest.
    fn rank(&mut self, most: usize) {
        for room in self.rooms.values_mut() {
            #[expect(clippy::cast_precision_loss, reason = "a score, not a count")]
            let events = room.read.events.saturating_sub(room.ranked) as f64;
            room.score = room.score / 2.0 + events;
            room.ranked = room.read.events;
        }
        let mut others: Vec<&mut RoomTraffic> = Vec::new();
        let mut shown: Vec<&mut RoomTraffic> = Vec::new();
        for room in self.rooms.values_mut() {
            if room.shown.is_some() {
                shown.push(room);
            } else if room.score > 0.0 {
                others.push(room);
            }
        }
        others.sort_by(|one, two| two.score.total_cmp(&one.score));
        shown.sort_by(|one, two| one.score.total_cmp(&two.score));
        let free = most.saturating_sub(shown.len());
        let mut others = others.into_iter();
        for room in others.by_ref().take(free) {
            room.shown = Some(TrafficCounts::default());
        }
        for (other, least) in others.zip(shown) {
            if other.score <= least.score * CLEARLY {
                break;
            }
            least.shown = None;
            other.shown = Some(TrafficCounts::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn slug(text: &str) -> WorkspaceSlug {
        WorkspaceSlug::parse(text).unwrap()
    }

    fn shown(top_k: &TopK, now: Instant) -> (BTreeMap<String, u64>, u64) {
        let (shown, others) = top_k.collect(now);
        let named = shown
            .into_iter()
            .map(|(workspace, counts)| (workspace.to_string(), counts.events));
        (named.collect(), others.events)
    }

    fn add(traffic: &Traffic, events: usize) {
        (0..events).for_each(|_| traffic.add(1, 2));
    }

    #[test]
    fn the_sum_over_all_names_is_what_was_counted() {
        let top_k = TopK::new(2);
        let start = Instant::now();
        let rooms: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|name| top_k.open(&slug(name)))
            .collect();
        for (traffic, events) in rooms.iter().zip([2, 2, 3]) {
            add(traffic, events);
        }
        let (named, others) = shown(&top_k, start);
        assert_eq!(named.values().sum::<u64>() + others, 7);
        top_k.close(&slug("a"), &rooms[0]);
        let (named, others) = shown(&top_k, start);
        // What `a` counted under its name ended with it.
        assert_eq!((named, others), (BTreeMap::from([("b".to_owned(), 2)]), 3));
    }

    #[test]
    fn one_that_is_clearly_busier_displaces_the_least_busy() {
        let top_k = TopK::new(1);
        let start = Instant::now();
        let (first, second) = (top_k.open(&slug("a")), top_k.open(&slug("b")));
        add(&first, 10);
        add(&second, 15);
        assert_eq!(
            shown(&top_k, start).0,
            BTreeMap::from([("a".to_owned(), 10)])
        );
        add(&second, 30);
        let later = start + RANK_EVERY;
        let (named, others) = shown(&top_k, later);
        assert_eq!((named, others), (BTreeMap::from([("b".to_owned(), 0)]), 45));
        add(&first, 1);
        add(&second, 5);
        let (named, others) = shown(&top_k, later);
        assert_eq!((named, others), (BTreeMap::from([("b".to_owned(), 5)]), 46));
    }

    #[test]
    fn a_hundred_thousand_workspaces_leave_no_trace() {
        let top_k = TopK::new(20);
        let now = Instant::now();
        for number in 0..100_000 {
            let workspace = slug(&format!("w{number}"));
            let traffic = top_k.open(&workspace);
            traffic.add(1, 1);
            top_k.close(&workspace, &traffic);
        }
        let state = top_k.lock();
        assert!(state.rooms.is_empty());
        drop(state);
        let (named, others) = top_k.collect(now);
        assert!(named.is_empty());
        assert!(others.events <= 100_000);
    }

    #[test]
    fn no_workspace_is_shown_where_none_is_to_be() {
        let top_k = TopK::new(0);
        let traffic = top_k.open(&slug("a"));
        add(&traffic, 3);
        assert_eq!(shown(&top_k, Instant::now()), (BTreeMap::new(), 3));
    }
}
