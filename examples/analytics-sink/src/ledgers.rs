//! Which ledgers were counted, so that a redelivery is not counted twice. Kept as ranges: a stream of ledgers in order is one
//! range, however long, and every gap costs one more. Their number is bounded; what is given up then is said below.

use std::collections::BTreeMap;

/// A set of ledger numbers.
#[derive(Debug, Clone)]
pub struct Ledgers {
    /// First to last of each range; ranges neither touch nor overlap.
    ranges: BTreeMap<u32, u32>,
    max_ranges: usize,
}

/// What [`Ledgers::insert`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not there before.
    New,
    /// Already there, or in a gap so old that it was given up.
    Before,
}

// === impl Ledgers ===

impl Ledgers {
    /// An empty set of at most `max_ranges` ranges (at least 1), some 16 bytes each. When there would be more, the oldest gap
    /// is given up: its ledgers count as seen, so nothing is ever counted twice, and one that comes that late is missed.
    #[must_use]
    pub fn new(max_ranges: usize) -> Self {
        let max_ranges = max_ranges.max(1);
        Self {
            ranges: BTreeMap::new(),
            max_ranges,
        }
    }

    /// Adds a ledger.
    pub fn insert(&mut self, ledger: u32) -> Seen {
        let below = self.ranges.range(..=ledger).next_back();
        let below = below.map(|(first, last)| (*first, *last));
        if below.is_some_and(|(_, last)| ledger <= last) {
            return Seen::Before;
        }
        let first = match below {
            Some((first, last)) if last.checked_add(1) == Some(ledger) => first,
            _ => ledger,
        };
        let above = ledger.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(first, above.unwrap_or(ledger));
        if self.ranges.len() > self.max_ranges {
            self.close_oldest_gap();
        }
        Seen::New
    }

    /// Ledgers between the first and the last that never came.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let (Some(first), Some(last)) = (self.first(), self.last()) else {
            return 0;
        };
        let there: u64 = self
            .ranges
            .iter()
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum();
        u64::from(last - first) + 1 - there
    }

    /// The lowest ledger.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    /// The highest ledger.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    fn close_oldest_gap(&mut self) {
        if let Some((first, _)) = self.ranges.pop_first()
            && let Some((_, last)) = self.ranges.pop_first()
        {
            self.ranges.insert(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ledgers: &Ledgers) -> Vec<(u32, u32)> {
        ledgers.ranges.iter().map(|(first, last)| (*first, *last)).collect()
    }

    // Whatever the order, each ledger is new exactly once, and a stream without gaps takes no more memory as it goes on.
    #[test]
    fn each_ledger_is_new_once() {
        let mut ledgers = Ledgers::new(100);
        for ledger in [5, 3, 4, 9, 1, 2, u32::MAX, 0] {
            assert_eq!(ledgers.insert(ledger), Seen::New, "{ledger}");
            assert_eq!(ledgers.insert(ledger), Seen::Before, "{ledger}");
        }
        assert_eq!(ranges(&ledgers), [(0, 5), (9, 9), (u32::MAX, u32::MAX)]);
        for ledger in 0..=5 {
            assert_eq!(ledgers.insert(ledger), Seen::Before, "{ledger}");
        }
        assert_eq!((ledgers.first(), ledgers.last()), (Some(0), Some(u32::MAX)));
        assert_eq!(ledgers.missing(), u64::from(u32::MAX) + 1 - 8);
    }

    // However many gaps there are, memory is bounded and nothing is counted twice.
    #[test]
    fn the_oldest_gap_is_given_up() {
        let mut ledgers = Ledgers::new(2);
        for ledger in [10, 20, 30] {
            assert_eq!(ledgers.insert(ledger), Seen::New);
        }
        assert_eq!(ranges(&ledgers), [(10, 20), (30, 30)]);
        assert_eq!(ledgers.insert(15), Seen::Before);
        assert_eq!(ledgers.insert(25), Seen::New);
        assert_eq!(ledgers.insert(25), Seen::Before);
    }
}
