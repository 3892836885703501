//! How much of the stream DEAD one workspace may use. Pure.
//!
//! NATS has no limit for the subjects of one workspace, so the gateways keep one. A workspace may use half of what is
//! free, times the part that is free: about a quarter of the stream while it is empty, and less the fuller it is. So
//! something stays free for the next one, however many take all they can: see [`share`]. A fixed part would be too
//! small for one alone, or used up by a few together.
//!
//! A letter over its share of bytes is cut short first; the event itself is in EVENTS. For whole letters only
//! half of the bytes are there, so that large ones leave room for the short ones of all.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::WorkspaceSlug;

/// How long an answer of the stream counts: a read for each workspace with bad events in that time.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The same where it would have a letter cut or dropped: others' may have aged out meanwhile, or this
/// gateway may have counted letters that another one stored.
const SURE_FOR: Duration = Duration::from_secs(5);

/// Nor does it count once this part of the stream was filled: other gateways fill it as well.
const REFRESH_PART: u64 = 64;

/// Every workspace may use at least the stream divided by this: 24 letters of 100,000.
const SHARE_MIN_PART: u64 = 4096;

/// Workspaces of which something is known, at most: some 150 bytes each.
const KNOWN_MAX: usize = 4096;

/// Letters and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) letters: u64,
    pub(super) bytes: u64,
}

/// What the stream said of itself and one workspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamUsage {
    /// The stream's limits; `None` where it has none.
    pub(super) max_letters: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    /// What it holds in all.
    pub(super) all: Amount,
    /// Letters of the workspace in it.
    pub(super) letters: u64,
}

/// What becomes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    /// It is to be cut short.
    Cut,
    /// Its workspace's share is used up.
    UsedUp,
}

/// What is known of the stream and of each workspace in it.
#[derive(Debug, Default)]
pub(super) struct Shares {
    max_letters: Option<u64>,
    max_bytes: Option<u64>,
    all: Amount,
    /// Of `all`, what came after the last read.
    since: Amount,
    of: HashMap<WorkspaceSlug, WorkspaceUsage>,
}

#[derive(Debug, Default)]
struct WorkspaceUsage {
    letters: u64,
    /// What this gateway sent since its start. The stream tells no bytes of a workspace: its letters are
    /// taken to be as large as these.
    sent: Amount,
    /// `None`: it has to be read again.
    read_at: Option<Instant>,
}

impl Shares {
    /// Decides on a letter of `whole` bytes, `cut` bytes if it is cut, and counts it as sent. `None`: the
    /// usage has to be read first.
    pub(super) fn judge(
        &mut self,
        workspace: &WorkspaceSlug,
        whole: u64,
        cut: u64,
        now: Instant,
    ) -> Option<Verdict> {
        let known = self.of.get_mut(workspace)?;
        let age = now.saturating_duration_since(known.read_at?);
        let refresh_after =
            |max: Option<u64>| max.map_or(u64::MAX, |max| (max / REFRESH_PART).max(1));
        if age > GOOD_FOR
            || self.since.letters >= refresh_after(self.max_letters)
            || self.since.bytes >= refresh_after(self.max_bytes)
        {
            return None;
        }
        let half = self.max_bytes.map(|max| max / 2);
        let (verdict, bytes) = if known.letters >= share(self.max_letters, self.all.letters) {
            (Verdict::UsedUp, 0)
        } else if known.bytes_with(whole) <= share(half, self.all.bytes) {
            (Verdict::Whole, whole)
        } else if known.letters == 0
            || known.bytes_with(cut) <= share(self.max_bytes, self.all.bytes)
        {
            // A small one is whole as it is.
            let is_small = cut >= whole;
            (
                if is_small {
                    Verdict::Whole
                } else {
                    Verdict::Cut
                },
                cut,
            )
        } else {
            (Verdict::UsedUp, 0)
        };
        if verdict != Verdict::Whole && age > SURE_FOR {
            return None;
        }
        if verdict != Verdict::UsedUp {
            known.letters += 1;
            for amount in [&mut known.sent, &mut self.all, &mut self.since] {
                amount.letters += 1;
                amount.bytes += bytes;
            }
        }
        Some(verdict)
    }

    /// Takes what the stream said of itself and `workspace`.
    pub(super) fn learn(&mut self, workspace: &WorkspaceSlug, usage: StreamUsage, now: Instant) {
        if self.of.len() >= KNOWN_MAX && !self.of.contains_key(workspace) {
            self.of.retain(|_, known| {
                known
                    .read_at
                    .is_some_and(|read_at| now.saturating_duration_since(read_at) <= GOOD_FOR)
            });
            if self.of.len() >= KNOWN_MAX {
                self.of.clear();
            }
        }
        self.max_letters = usage.max_letters;
        self.max_bytes = usage.max_bytes;
        self.all = usage.all;
        self.since = Amount::default();
        let known = self.of.entry(workspace.clone()).or_default();
        known.letters = usage.letters;
        known.read_at = Some(now);
    }

    /// Has the usage of every workspace read again: it may be another stream.
    pub(super) fn doubt(&mut self) {
        for known in self.of.values_mut() {
            known.read_at = None;
        }
    }
}

impl WorkspaceUsage {
    /// About how many bytes the workspace holds with one letter of `size` more.
    fn bytes_with(&self, size: u64) -> u64 {
        let sent = u128::from(self.sent.bytes + size);
        let bytes = u128::from(self.letters + 1) * sent / u128::from(self.sent.letters + 1);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// How much one workspace may hold of `max`, of which `used` are taken, by whomever: half of what is free,
/// times the part that is free. Of an empty stream one workspace alone comes to hold 27 %; four leave 39 %
/// free, sixteen 12 %, a hundred 2 %.
fn share(max: Option<u64>, used: u64) -> u64 {
    let Some(max) = max.filter(|max| *max > 0) else {
        return u64::MAX;
    };
    let free = u128::from(max.saturating_sub(used));
    let share = free * free / u128::from(max) / 2;
    let least = (max / SHARE_MIN_PART).max(1);
    u64::try_from(share).unwrap_or(u64::MAX).max(least)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(number: usize) -> WorkspaceSlug {
        WorkspaceSlug::parse(&format!("w{number}")).unwrap()
    }

    /// A stream, and a gateway that keeps the shares of it.
    struct World {
        max: Amount,
        all: Amount,
        of: HashMap<WorkspaceSlug, Amount>,
        shares: Shares,
        now: Instant,
        reads: usize,
    }

    /// What a letter that is cut has at most.
    const CUT: u64 = 1500;

    impl World {
        fn new(letters: u64, bytes: u64) -> Self {
            Self {
                max: Amount { letters, bytes },
                all: Amount::default(),
                of: HashMap::new(),
                shares: Shares::default(),
                now: Instant::now(),
                reads: 0,
            }
        }

        fn held(&self, number: usize) -> Amount {
            self.of.get(&slug(number)).copied().unwrap_or_default()
        }

        /// Sends one letter; `None` where the stream itself had no room.
        fn send(&mut self, number: usize, size: u64) -> Option<Verdict> {
            let workspace = slug(number);
            let cut = size.min(CUT);
            let verdict = loop {
                match self.shares.judge(&workspace, size, cut, self.now) {
                    Some(verdict) => break verdict,
                    None => {
                        self.reads += 1;
                        let usage = StreamUsage {
                            max_letters: Some(self.max.letters),
                            max_bytes: Some(self.max.bytes),
                            all: self.all,
                            letters: self.held(number).letters,
                        };
                        self.shares.learn(&workspace, usage, self.now);
                    }
                }
            };
            let stored = match verdict {
                Verdict::Whole => size,
                Verdict::Cut => cut,
                Verdict::UsedUp => return Some(verdict),
            };
            if self.all.letters >= self.max.letters || self.all.bytes + stored > self.max.bytes {
                return None;
            }
            for amount in [&mut self.all, self.of.entry(workspace).or_default()] {
                amount.letters += 1;
                amount.bytes += stored;
            }
            Some(verdict)
        }

        /// Sends until nothing more is taken; returns how many were kept.
        fn flood(&mut self, number: usize, size: u64) -> u64 {
            let before = self.held(number).letters;
            while matches!(self.send(number, size), Some(Verdict::Whole | Verdict::Cut)) {}
            self.held(number).letters - before
        }
    }

    #[test]
    fn one_workspace_alone_has_a_quarter_and_a_hundred_leave_something() {
        // The stream as the migration makes it.
        let mut world = World::new(100_000, 256 << 20);
        assert_eq!(world.flood(0, 300), 26_795);
        assert!(world.reads < 100, "{}", world.reads);
        for (workspaces, free) in [(2, 56_900), (4, 38_500), (16, 12_000), (100, 1900)] {
            for number in 0..workspaces {
                world.flood(number, 300);
            }
            let left = world.max.letters - world.all.letters;
            assert!(left > free, "{workspaces} leave {left}");
        }
        assert!(world.flood(1000, 300) >= 24);
    }

    #[test]
    fn large_letters_are_cut_before_they_are_refused() {
        let mut world = World::new(100_000, 256 << 20);
        let mut verdicts = HashMap::new();
        for _ in 0..3000 {
            let verdict = world.send(0, 127 * 1024).unwrap();
            *verdicts.entry(format!("{verdict:?}")).or_insert(0) += 1;
        }
        assert_eq!(verdicts["Whole"], 276);
        assert_eq!(verdicts["Cut"], 3000 - 276);
        assert!(world.held(0).bytes < 40 << 20);
        // Another's is whole.
        assert_eq!(world.send(1, 127 * 1024), Some(Verdict::Whole));
    }

    #[test]
    fn an_answer_counts_for_a_while() {
        let mut world = World::new(100_000, 256 << 20);
        world.send(0, 300);
        world.send(0, 300);
        assert_eq!(world.reads, 1);
        world.now += GOOD_FOR + Duration::from_millis(1);
        world.send(0, 300);
        assert_eq!(world.reads, 2);
        world.shares.doubt();
        world.send(0, 300);
        assert_eq!(world.reads, 3);
        // Nobody is refused for what was so a while ago.
        world.flood(0, 300);
        let reads = world.reads;
        assert_eq!(world.send(0, 300), Some(Verdict::UsedUp));
        assert_eq!(world.reads, reads);
        (world.all, world.of) = Default::default();
        world.now += SURE_FOR + Duration::from_millis(1);
        assert_eq!(world.send(0, 300), Some(Verdict::Whole));
    }

    #[test]
    fn a_stream_without_limits_takes_everything() {
        let mut shares = Shares::default();
        let usage = StreamUsage {
            max_letters: None,
            max_bytes: None,
            all: Amount::default(),
            letters: u64::MAX - 1000,
        };
        let now = Instant::now();
        shares.learn(&slug(0), usage, now);
        for _ in 0..1000 {
            let verdict = shares.judge(&slug(0), 1 << 20, 1500, now);
            assert_eq!(verdict, Some(Verdict::Whole));
        }
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut world = World::new(100_000, 256 << 20);
        for number in 0..2 * KNOWN_MAX {
            world.send(number, 300);
        }
        assert!(world.shares.of.len() <= KNOWN_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Up to sixty workspaces send what they like, the gateway starts anew in between: one that has sent
        /// nothing is kept, and large letters never take more than half of the bytes.
        #[test]
        fn whatever_others_send_a_newcomer_is_kept(
            steps in proptest::collection::vec((0..60usize, 0..4u8, 200..131_000u64), 1..300),
        ) {
            let mut world = World::new(4000, 16 << 20);
            for (number, what, size) in steps {
                match what {
                    0 => world.shares = Shares::default(),
                    1 => { world.flood(number, size); }
                    2 => { world.flood(number, size.min(1000)); }
                    _ => { world.send(number, size); }
                }
            }
            let all = world.all;
            prop_assert!(all.bytes < world.max.bytes / 4 * 3, "{:?}", all);
            prop_assert!(all.letters < world.max.letters, "{:?}", all);
            let kept = world.send(1000, 127 * 1024);
            prop_assert!(matches!(kept, Some(Verdict::Whole | Verdict::Cut)), "{:?} {:?}", kept, all);
        }
    }
}
