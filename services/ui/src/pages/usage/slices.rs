//! Where the slices of a donut lie on a circle whose path length is 100. Pure geometry, no markup.

use crate::format::hundredths;

/// Clear space between two slices, in hundredths of the circle.
const GAP: f64 = 0.6;

/// One slice; `start` and `length` are hundredths of the circle, clockwise from its first point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slice {
    start: f64,
    length: f64,
}

/// A slice for each value, in order. A circle of zeros has no visible slice.
#[must_use]
pub(crate) fn slices(values: &[u64]) -> Vec<Slice> {
    let total: u128 = values.iter().copied().map(u128::from).sum();
    let visible = values.iter().filter(|value| **value > 0).count();
    let gap = if visible > 1 { GAP } else { 0.0 };
    let mut before = 0u128;
    let mut slices = Vec::with_capacity(values.len());
    for value in values {
        let start = hundredths(before, total);
        before += u128::from(*value);
        let length = hundredths(before, total) - start;
        // A slice that is hardly wider than the gap keeps what it has, so that it stays visible.
        let shown = if length > 2.0 * gap { length - gap } else { length };
        slices.push(Slice { start, length: shown });
    }
    slices
}

impl Slice {
    /// For `stroke-dasharray`: the slice, then the rest of the circle.
    #[must_use]
    pub(crate) fn dashes(&self) -> String {
        format!("{:.3} {:.3}", self.length, 100.0 - self.length)
    }

    /// For `stroke-dashoffset`.
    #[must_use]
    pub(crate) fn offset(&self) -> String {
        format!("{:.3}", -self.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_value_is_a_whole_ring() {
        assert_eq!(slices(&[7])[0].dashes(), "100.000 0.000");
        assert_eq!(slices(&[0, 7])[1].dashes(), "100.000 0.000");
    }

    #[test]
    fn two_halves_leave_a_gap() {
        let halves = slices(&[5, 5]);
        assert_eq!((halves[0].dashes().as_str(), halves[1].offset().as_str()), ("49.400 50.600", "-50.000"));
    }

    #[test]
    fn nothing_is_no_slice() {
        assert!(slices(&[]).is_empty());
        assert_eq!(slices(&[0, 0])[1].dashes(), "0.000 100.000");
    }

    proptest! {
        #[test]
        fn slices_follow_each_other_around_the_circle(values in proptest::collection::vec(any::<u64>(), 1..20)) {
            let slices = slices(&values);
            for (slice, next) in slices.iter().zip(slices.iter().skip(1)) {
                prop_assert!(slice.length >= 0.0);
                prop_assert!(slice.start + slice.length <= next.start + 1e-9);
            }
            let last = slices[slices.len() - 1];
            prop_assert!(last.start + last.length <= 100.0 + 1e-9);
        }
    }
}
