//! The calls of a key in the last 24 hours as a few bars, and their error share. Pure geometry and texts.

use proto::usage::{Counts, KeyUsage};

use crate::format::{compact, count, percent};

/// Bars of a drawing, one an hour.
pub(crate) const BARS: usize = 24;
/// Height of the drawing, in its own units.
const HEIGHT: u64 = 24;

/// One hour. Numbers are units of the drawing, from its top.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// From the left.
    pub(crate) x: usize,
    /// Where it begins.
    pub(crate) y: u64,
    /// How high it is; at least 1.
    pub(crate) height: u64,
    /// How much of it, from its foot, is errors.
    pub(crate) errors: u64,
    /// Where these begin.
    pub(crate) errors_y: u64,
    /// Nobody called.
    pub(crate) is_idle: bool,
}

/// The last 24 hours of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spark {
    /// The oldest hour first.
    pub(crate) bars: Vec<Bar>,
    /// All of it in words.
    pub(crate) label: String,
    /// How many calls; `None` if there was none.
    pub(crate) calls: Option<String>,
    /// How many of 100 failed or were rate limited; `None` if none did.
    pub(crate) errors: Option<String>,
}

impl Spark {
    /// The drawing of a key's usage; a key without a call has none.
    #[must_use]
    pub(crate) fn new(usage: Option<&KeyUsage>) -> Self {
        let nothing = KeyUsage { bar_counts: vec![0; BARS], ..KeyUsage::default() };
        let usage = usage.unwrap_or(&nothing);
        let counts = usage.counts.unwrap_or_default();
        let errors = errors_of(&counts);
        let highest = usage.bar_counts.iter().copied().max().unwrap_or(0);
        let bars = usage.bar_counts.iter().enumerate().map(|(at, calls)| {
            Bar::new(at, *calls, usage.bar_error_counts.get(at).copied().unwrap_or(0), highest)
        });
        let share = percent(errors, counts.total_count);
        let label = match counts.total_count {
            0 => "No calls in the last 24 hours".to_owned(),
            1 => format!("1 call in the last 24 hours, {share} errors"),
            total => format!(
                "{} calls in the last 24 hours, {share} errors, at most {} an hour",
                count(total),
                count(highest)
            ),
        };
        Self {
            bars: bars.collect(),
            label,
            calls: (counts.total_count > 0).then(|| compact(counts.total_count)),
            errors: (errors > 0).then_some(share),
        }
    }
}

impl Bar {
    fn new(at: usize, calls: u64, errors: u64, highest: u64) -> Self {
        let height = scaled(calls, highest, HEIGHT).max(1);
        let errors = scaled(errors.min(calls), calls, height);
        Self { x: at * 4, y: HEIGHT - height, height, errors, errors_y: HEIGHT - errors, is_idle: calls == 0 }
    }
}

/// `part` of `whole` on a scale of `length`, rounded up: what is there can be seen.
fn scaled(part: u64, whole: u64, length: u64) -> u64 {
    let scaled = (u128::from(part) * u128::from(length)).div_ceil(u128::from(whole.max(1)));
    u64::try_from(scaled).unwrap_or(length)
}

fn errors_of(counts: &Counts) -> u64 {
    counts.failed_count.saturating_add(counts.rate_limited_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_high_as_its_hour_was_busy_and_red_as_far_as_calls_failed() {
        let counts =
            Counts { total_count: 1_301, completed_count: 1_270, failed_count: 30, rate_limited_count: 1 };
        let usage = KeyUsage {
            counts: Some(counts),
            bar_counts: vec![0, 1_200, 100, 1],
            bar_error_counts: vec![0, 30, 0, 1],
            ..KeyUsage::default()
        };
        let spark = Spark::new(Some(&usage));
        let shape: Vec<_> = spark.bars.iter().map(|bar| (bar.x, bar.height, bar.errors)).collect();
        assert_eq!(shape, [(0, 1, 0), (4, 24, 1), (8, 2, 0), (12, 1, 1)]);
        assert!(spark.bars[0].is_idle && !spark.bars[3].is_idle);
        assert_eq!(spark.label, "1,301 calls in the last 24 hours, 2.4% errors, at most 1,200 an hour");
        assert_eq!((spark.calls.as_deref(), spark.errors.as_deref()), (Some("1,301"), Some("2.4%")));
    }

    #[test]
    fn nothing_is_a_flat_line() {
        let spark = Spark::new(None);
        assert_eq!(spark.bars.len(), BARS);
        assert!(spark.bars.iter().all(|bar| bar.is_idle && bar.height == 1));
        assert_eq!((spark.label.as_str(), spark.calls), ("No calls in the last 24 hours", None));
    }

    #[test]
    fn no_number_is_too_large() {
        let usage =
            KeyUsage { bar_counts: vec![u64::MAX], bar_error_counts: vec![u64::MAX], ..KeyUsage::default() };
        assert_eq!(Spark::new(Some(&usage)).bars[0].errors, HEIGHT);
    }
}
