//! The letters that wait, fair by workspace. Pure.
//!
//! Workspaces take turns, whatever each of them has waiting. What is over the limit goes from the end of
//! the longest line ("longest queue drop"), so that a flood costs those who make it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::event::WorkspaceSlug;

/// Letters in turn, bounded by what they cost in all.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lines: HashMap<WorkspaceSlug, WorkspaceQueue<T>>,
    /// The workspaces with a line, who is next first.
    turns: VecDeque<WorkspaceSlug>,
    /// The same by what their lines cost.
    by_cost: BTreeSet<(usize, WorkspaceSlug)>,
    cost: usize,
    limit: usize,
}

/// What waits for one workspace; never empty.
#[derive(Debug)]
struct WorkspaceQueue<T> {
    letters: VecDeque<(usize, T)>,
    cost: usize,
}

impl<T> FairQueue<T> {
    /// Nothing waits; what will costs at most `limit` in all.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            lines: HashMap::new(),
            turns: VecDeque::new(),
            by_cost: BTreeSet::new(),
            cost: 0,
            limit,
        }
    }

    /// What the letters of `workspace` cost that wait.
    pub(super) fn cost_of(&self, workspace: &WorkspaceSlug) -> usize {
        self.lines.get(workspace).map_or(0, |line| line.cost)
    }

    /// Adds a letter to its workspace's line, and gives out those that must go for it: the last of the
    /// longest line each time, which may be itself.
    pub(super) fn push(
        &mut self,
        workspace: &WorkspaceSlug,
        cost: usize,
        letter: T,
    ) -> Vec<(WorkspaceSlug, T)> {
        if !self.lines.contains_key(workspace) {
            self.turns.push_back(workspace.clone());
        }
        let line = self
            .lines
            .entry(workspace.clone())
            .or_insert_with(|| WorkspaceQueue {
                letters: VecDeque::new(),
                cost: 0,
            });
        line.letters.push_back((cost, letter));
        let before = line.cost;
        line.cost += cost;
        let now = line.cost;
        self.cost += cost;
        self.recount(workspace, before, now);
        let mut gone = Vec::new();
        while self.cost > self.limit {
            let Some((_, longest)) = self.by_cost.last().cloned() else {
                break;
            };
            let last = self.take(&longest, VecDeque::pop_back);
            gone.extend(last.map(|letter| (longest, letter)));
        }
        gone
    }

    /// Whose turn it is, and the letter that waits there the longest.
    pub(super) fn peek(&self) -> Option<(&WorkspaceSlug, &T)> {
        let workspace = self.turns.front()?;
        let (_, letter) = self.lines.get(workspace)?.letters.front()?;
        Some((workspace, letter))
    }

    /// Takes what [`FairQueue::peek`] shows; then it is the next one's turn.
    pub(super) fn pop(&mut self) -> Option<(WorkspaceSlug, T)> {
        let workspace = self.turns.front()?.clone();
        self.turns.rotate_left(1);
        let letter = self.take(&workspace, VecDeque::pop_front)?;
        Some((workspace, letter))
    }

    /// Takes one letter out of a line, which ends with its last.
    fn take(
        &mut self,
        workspace: &WorkspaceSlug,
        which: impl FnOnce(&mut VecDeque<(usize, T)>) -> Option<(usize, T)>,
    ) -> Option<T> {
        let line = self.lines.get_mut(workspace)?;
        let (cost, letter) = which(&mut line.letters)?;
        let before = line.cost;
        line.cost -= cost;
        let (now, is_over) = (line.cost, line.letters.is_empty());
        self.cost -= cost;
        self.recount(workspace, before, now);
        if is_over {
            self.lines.remove(workspace);
            // It stands at one of the ends, but where it lost its only letter to another's.
            if let Some(index) = self.turns.iter().rposition(|turn| turn == workspace) {
                self.turns.remove(index);
            }
        }
        Some(letter)
    }

    fn recount(&mut self, workspace: &WorkspaceSlug, before: usize, now: usize) {
        self.by_cost.remove(&(before, workspace.clone()));
        if now > 0 {
            self.by_cost.insert((now, workspace.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(name: impl std::fmt::Display) -> WorkspaceSlug {
        WorkspaceSlug::parse(&format!("w{name}")).unwrap()
    }

    fn drained<T>(queue: &mut FairQueue<T>) -> Vec<(String, T)> {
        std::iter::from_fn(|| queue.pop())
            .map(|(workspace, letter)| (workspace.to_string(), letter))
            .collect()
    }

    #[test]
    fn workspaces_take_turns_whatever_each_has_waiting() {
        let mut queue = FairQueue::new(1000);
        for number in 0..5 {
            assert!(queue.push(&slug("a"), 1, number).is_empty());
        }
        for workspace in ["b", "c"] {
            assert!(queue.push(&slug(workspace), 1, 10).is_empty());
            assert!(queue.push(&slug(workspace), 1, 11).is_empty());
        }
        let order: Vec<(String, i32)> = drained(&mut queue);
        let order: Vec<(&str, i32)> = order.iter().map(|(w, n)| (w.as_str(), *n)).collect();
        assert_eq!(
            order,
            [
                ("wa", 0),
                ("wb", 10),
                ("wc", 10),
                ("wa", 1),
                ("wb", 11),
                ("wc", 11),
                ("wa", 2),
                ("wa", 3),
                ("wa", 4),
            ]
        );
    }

    #[test]
    fn over_the_limit_the_newest_of_the_longest_line_goes() {
        let mut queue = FairQueue::new(10);
        for number in 0..10 {
            assert!(queue.push(&slug("flood"), 1, number).is_empty());
        }
        // The flood's own newcomer goes itself.
        assert_eq!(queue.push(&slug("flood"), 1, 10), [(slug("flood"), 10)]);
        // Another's costs the flood, newest first.
        assert_eq!(
            queue.push(&slug("calm"), 3, 0),
            [(slug("flood"), 9), (slug("flood"), 8), (slug("flood"), 7)]
        );
        assert_eq!((queue.cost_of(&slug("flood")), queue.cost), (7, 10));
        // Larger than all there is room for: it is the longest line itself.
        assert_eq!(queue.push(&slug("large"), 11, 0), [(slug("large"), 0)]);
        assert_eq!(drained(&mut queue).len(), 8);
        assert_eq!(
            (queue.cost, queue.by_cost.len(), queue.turns.len()),
            (0, 0, 0)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        /// Against a list of all letters: nothing is lost or made, no line is out of order, the limit holds,
        /// nobody loses a letter while another's line is longer, and between two letters of one workspace
        /// each other one that waits has its turn.
        #[test]
        fn any_use_of_it_is_fair(steps in proptest::collection::vec((0..6u8, 1..9usize), 1..200)) {
            const LIMIT: usize = 30;
            let mut queue = FairQueue::new(LIMIT);
            let mut model: Vec<(WorkspaceSlug, usize, usize)> = Vec::new();
            let cost_of = |model: &[(WorkspaceSlug, usize, usize)], whose: &WorkspaceSlug| -> usize {
                model.iter().filter(|(w, _, _)| w == whose).map(|(_, cost, _)| cost).sum()
            };
            for (number, (who, cost)) in steps.into_iter().enumerate() {
                if who == 5 {
                    let waiting: std::collections::HashSet<_> =
                        model.iter().map(|(w, _, _)| w.clone()).collect();
                    let turn: Vec<_> = (0..waiting.len()).filter_map(|_| queue.pop()).collect();
                    let took: std::collections::HashSet<_> =
                        turn.iter().map(|(w, _)| w.clone()).collect();
                    prop_assert_eq!(&took, &waiting);
                    for (workspace, letter) in turn {
                        let first = model.iter().position(|(w, _, _)| *w == workspace).unwrap();
                        prop_assert_eq!(model.remove(first).2, letter);
                    }
                    continue;
                }
                model.push((slug(who), cost, number));
                for (workspace, letter) in queue.push(&slug(who), cost, number) {
                    let longest = model.iter().map(|(w, _, _)| cost_of(&model, w)).max().unwrap();
                    prop_assert_eq!(cost_of(&model, &workspace), longest);
                    let last = model.iter().rposition(|(w, _, _)| *w == workspace).unwrap();
                    prop_assert_eq!(model.remove(last).2, letter);
                }
                let cost: usize = model.iter().map(|(_, cost, _)| cost).sum();
                prop_assert!(cost <= LIMIT && cost == queue.cost);
                prop_assert_eq!(queue.peek().is_none(), model.is_empty());
            }
        }
    }
}
