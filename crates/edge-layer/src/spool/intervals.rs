//! Closed intervals of sequences, kept ordered and not touching. Pure.

/// A set of sequences; small as long as they come in runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// Adds `first` to `last`, both included; a reversed pair adds nothing.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // Most come in order.
        if let Some(end) = self.0.last_mut()
            && end.1.checked_add(1) == Some(first)
        {
            end.1 = last;
            return;
        }
        let from = self.0.partition_point(|held| held.1.saturating_add(1) < first);
        let to = from + self.0[from..].partition_point(|held| held.0 <= last.saturating_add(1));
        let merged =
            self.0[from..to].iter().fold((first, last), |all, held| (all.0.min(held.0), all.1.max(held.1)));
        self.0.splice(from..to, [merged]);
    }

    /// Whether `seq` is in it.
    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.end_of(seq).is_some()
    }

    /// Whether everything of `other` is in it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|wanted| self.end_of(wanted.0).is_some_and(|end| end >= wanted.1))
    }

    /// The last sequence of the unbroken run from 1; 0 if 1 is not in it.
    pub(crate) fn prefix(&self) -> u64 {
        self.end_of(1).unwrap_or(0)
    }

    /// The smallest sequence in it.
    pub(crate) fn first(&self) -> Option<u64> {
        self.0.first().map(|held| held.0)
    }

    /// What of `other` is not in it.
    pub(crate) fn missing(&self, other: &Self) -> Self {
        let mut missing = Self::default();
        for &(first, last) in &other.0 {
            let mut next = first;
            let from = self.0.partition_point(|held| held.1 < first);
            for held in self.0[from..].iter().take_while(|held| held.0 <= last) {
                if held.0 > next {
                    missing.insert(next, held.0 - 1);
                }
                next = next.max(held.1.saturating_add(1));
            }
            missing.insert(next, last);
        }
        missing
    }

    /// The runs in order, `(first, last)`.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    fn end_of(&self, seq: u64) -> Option<u64> {
        let at = self.0.partition_point(|held| held.1 < seq);
        self.0.get(at).filter(|held| held.0 <= seq).map(|held| held.1)
    }
}

impl FromIterator<(u64, u64)> for Intervals {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(runs: I) -> Self {
        let mut all = Self::default();
        for (first, last) in runs {
            all.insert(first, last);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(intervals: &Intervals) -> BTreeSet<u64> {
        intervals.runs().flat_map(|(first, last)| first..=last).collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(a in prop::collection::vec((1u64..60, 0u64..8), 0..12), b in prop::collection::vec((1u64..60, 0u64..8), 0..12)) {
            let build = |runs: &[(u64, u64)]| runs.iter().map(|&(first, more)| (first, first + more)).collect::<Intervals>();
            let (a, b) = (build(&a), build(&b));
            let (in_a, in_b) = (set(&a), set(&b));
            for seq in 0..80 {
                prop_assert_eq!(a.contains(seq), in_a.contains(&seq));
            }
            prop_assert_eq!(a.covers(&b), in_b.is_subset(&in_a));
            prop_assert_eq!(set(&a.missing(&b)), &in_b - &in_a);
            prop_assert_eq!(a.prefix(), (1..).take_while(|seq| in_a.contains(seq)).count() as u64);
            prop_assert_eq!(a.first(), in_a.first().copied());
            let runs: Vec<_> = a.runs().collect();
            prop_assert!(runs.windows(2).all(|two| two[0].1 + 1 < two[1].0), "touching runs: {runs:?}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_safe() {
        let mut all = Intervals::default();
        all.insert(u64::MAX, u64::MAX);
        all.insert(5, 4);
        all.insert(0, 0);
        assert_eq!(all.runs().collect::<Vec<_>>(), [(0, 0), (u64::MAX, u64::MAX)]);
    }
}
