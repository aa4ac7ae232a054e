//! A set of sequences as ordered, disjoint, not touching intervals. Pure.

use serde::{Deserialize, Serialize};

/// An interval of sequences, both ends included.
pub type Interval = (u64, u64);

/// Sequences, kept as few intervals as they make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intervals(Vec<Interval>);

impl FromIterator<Interval> for Intervals {
    fn from_iter<I: IntoIterator<Item = Interval>>(intervals: I) -> Self {
        let mut all = Self::default();
        intervals.into_iter().for_each(|interval| all.insert(interval));
        all
    }
}

impl Intervals {
    /// Adds every sequence of `[first, last]`.
    pub fn insert(&mut self, (first, last): Interval) {
        // What ends before `first - 1` stays on the left; what starts after `last + 1` stays on the right.
        let from = self.0.partition_point(|interval| interval.1.saturating_add(1) < first);
        let to = self.0.partition_point(|interval| interval.0 <= last.saturating_add(1));
        if from >= to {
            self.0.insert(from, (first, last));
            return;
        }
        let merged = (first.min(self.0[from].0), last.max(self.0[to - 1].1));
        self.0.drain(from + 1..to);
        self.0[from] = merged;
    }

    /// Whether `sequence` is in the set.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        self.holds((sequence, sequence))
    }

    /// Whether every sequence of the interval is in the set; true for an empty one such as `(1, 0)`.
    #[must_use]
    pub fn holds(&self, (first, last): Interval) -> bool {
        let at = self.0.partition_point(|interval| interval.1 < first);
        first > last || self.0.get(at).is_some_and(|interval| interval.0 <= first && last <= interval.1)
    }

    /// The sequences that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for (first, last) in self.iter() {
            let mut next = Some(first);
            let from = other.0.partition_point(|interval| interval.1 < first);
            for &(hole_first, hole_last) in other.0[from..].iter().take_while(|hole| hole.0 <= last) {
                if let Some(start) = next.filter(|start| *start < hole_first) {
                    left.push((start, hole_first - 1));
                }
                next = hole_last.checked_add(1);
            }
            left.extend(next.filter(|start| *start <= last).map(|start| (start, last)));
        }
        Self(left)
    }

    /// How many intervals it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no sequence in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `count` intervals.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self(self.0.iter().copied().take(count).collect())
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = Interval> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn of(intervals: &[Interval]) -> Intervals {
        let mut set = Intervals::default();
        intervals.iter().for_each(|interval| set.insert(*interval));
        set
    }

    #[rstest]
    #[case::apart(&[(1, 2), (4, 5)], &[(1, 2), (4, 5)])]
    #[case::touching(&[(1, 2), (3, 5)], &[(1, 5)])]
    #[case::before(&[(4, 5), (1, 3)], &[(1, 5)])]
    #[case::fills_the_gap(&[(1, 2), (4, 5), (3, 3)], &[(1, 5)])]
    #[case::swallows(&[(2, 2), (4, 4), (8, 8), (1, 5)], &[(1, 5), (8, 8)])]
    #[case::inside(&[(1, 9), (3, 4)], &[(1, 9)])]
    #[case::ends(&[(u64::MAX, u64::MAX), (0, 0)], &[(0, 0), (u64::MAX, u64::MAX)])]
    fn few_intervals(#[case] inserted: &[Interval], #[case] kept: &[Interval]) {
        assert_eq!(of(inserted).0, kept);
    }

    proptest! {
        #[test]
        fn what_is_left_agrees_with_plain_sets(one: Vec<(u8, u8)>, other: Vec<(u8, u8)>) {
            let set = |pairs: &[(u8, u8)]| {
                pairs.iter().map(|&(a, b)| (u64::from(a.min(b)), u64::from(a.max(b)))).collect::<Intervals>()
            };
            let plain = |set: &Intervals| set.iter().flat_map(|(a, b)| a..=b).collect::<BTreeSet<_>>();
            let (one, other) = (set(&one), set(&other));
            let left = one.without(&other);
            prop_assert!(left.0.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            prop_assert_eq!(plain(&left), &plain(&one) - &plain(&other));
        }

        #[test]
        fn agrees_with_a_plain_set(pairs: Vec<(u8, u8)>, probe: (u8, u8)) {
            let pairs: Vec<Interval> = pairs.iter().map(|&(a, b)| (a.min(b).into(), a.max(b).into())).collect();
            let (set, plain) = (of(&pairs), pairs.iter().flat_map(|&(a, b)| a..=b).collect::<BTreeSet<_>>());
            prop_assert!(set.0.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            prop_assert_eq!(&set.iter().flat_map(|(a, b)| a..=b).collect::<BTreeSet<_>>(), &plain);
            let probe = (u64::from(probe.0), u64::from(probe.1));
            prop_assert_eq!(set.holds(probe), (probe.0..=probe.1).all(|sequence| plain.contains(&sequence)));
        }
    }
}
