//! What the two pure machines of a room promise, under any interleaving of loss, delay, duplication and
//! reordering of what they hear and are answered.
//!
//! A run is a list of numbers, each one action in a small world around the machine: proptest makes it from
//! a seed, prints the shortest that fails, and keeps it in `proptest-regressions/` to be played again.

mod sessions;
mod stream;

use std::collections::VecDeque;

use proptest::prelude::*;

use self::sessions::SessionsModel;
use self::stream::StreamModel;

/// Draws from the numbers of a run; 0 for ever after the last.
struct Draw(VecDeque<u32>);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0
            .pop_front()
            .map_or(0, |number| number as usize % limit.max(1))
    }

    fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        (!from.is_empty()).then(|| {
            let index = self.below(from.len());
            from.remove(index)
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever happens to what the machines hear: each event stored is delivered once, in the order of
    /// its subject, and late only where it says so; and of a user's sessions the newest stands alone.
    #[test]
    fn any_interleaving_keeps_the_promises(numbers in proptest::collection::vec(any::<u32>(), 1..160)) {
        let mut draw = Draw(numbers.clone().into());
        let mut stream = StreamModel::new(&mut draw);
        while !draw.0.is_empty() {
            stream.advance(&mut draw);
        }
        stream.quiesce();
        stream.judge()?;
        let mut draw = Draw(numbers.into());
        let mut sessions = SessionsModel::new();
        while !draw.0.is_empty() {
            sessions.advance(&mut draw);
        }
        sessions.quiesce();
        sessions.judge()?;
    }
}
