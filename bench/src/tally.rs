//! What clients got, counted exactly: each event once, in order, and when.

use std::collections::BTreeMap;

use crate::marker::Mark;

/// Deliveries of consecutive events of a room that one socket read at once.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    pub first: Mark,
    pub count: u32,
    /// Since the epoch.
    pub at_us: u64,
}

/// What was counted, of measured sockets and of the others.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub delivered: u64,
    pub duplicate: u64,
    pub out_of_order: u64,
    /// Events of a room that the socket is not in.
    pub foreign: u64,
    pub opened: u64,
    /// How sockets ended, by code or word.
    pub closed: BTreeMap<String, u64>,
    /// Why upgrades came to nothing.
    pub refused: BTreeMap<String, u64>,
}

/// Where a found event is entered.
pub(crate) struct Taker<'a> {
    pub(crate) room: u32,
    pub(crate) seen: &'a mut Vec<u64>,
    pub(crate) newest: &'a mut Option<u32>,
    pub(crate) counts: &'a mut Counts,
    pub(crate) receipts: Option<&'a mut Vec<Receipt>>,
    pub(crate) now: u64,
}

impl Taker<'_> {
    /// Enters one.
    pub(crate) fn delivered(&mut self, mark: Mark) {
        if mark.room != self.room {
            self.counts.foreign += 1;
            return;
        }
        let (word, bit) = ((mark.sequence / 64) as usize, 1 << (mark.sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let Some(word) = self.seen.get_mut(word) else {
            return;
        };
        if *word & bit != 0 {
            self.counts.duplicate += 1;
            return;
        }
        *word |= bit;
        self.counts.delivered += 1;
        if self.newest.is_some_and(|newest| mark.sequence < newest) {
            self.counts.out_of_order += 1;
        } else {
            *self.newest = Some(mark.sequence);
        }
        let Some(receipts) = &mut self.receipts else {
            return;
        };
        if let Some(last) = receipts.last_mut()
            && last.at_us == self.now
            && last.first.room == mark.room
            && last.first.sequence + last.count == mark.sequence
        {
            last.count += 1;
            return;
        }
        receipts.push(Receipt {
            first: mark,
            count: 1,
            at_us: self.now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once_and_what_overtook_it_shows() {
        let mut counts = Counts::default();
        let (mut seen, mut newest, mut receipts) = (Vec::new(), None, Vec::new());
        for (room, sequence) in [(0, 0), (0, 1), (0, 1), (0, 70), (0, 69), (1, 2)] {
            let mut taker = Taker {
                room: 0,
                seen: &mut seen,
                newest: &mut newest,
                counts: &mut counts,
                receipts: Some(&mut receipts),
                now: 5,
            };
            taker.delivered(Mark { room, sequence });
        }
        assert_eq!((counts.delivered, counts.duplicate), (4, 1));
        assert_eq!((counts.out_of_order, counts.foreign), (1, 1));
        let lengths: Vec<_> = receipts.iter().map(|receipt| receipt.count).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
