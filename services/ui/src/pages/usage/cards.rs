//! The four numbers, each with its change against the period before and its course. Pure.

use domain::Outcome;
use proto::usage::{Counts, TimeSeries};

use crate::{
    filters::Filters,
    format::{Change, change, count, percent},
};

/// One of the four numbers.
pub(crate) struct Card {
    /// `Completed`
    pub(crate) title: &'static str,
    /// Names its colour.
    pub(crate) hue: &'static str,
    /// With thousands.
    pub(crate) value: String,
    /// Its share of all calls; empty for the total.
    pub(crate) share: String,
    /// Against the period before; `None` if that is not known.
    pub(crate) change: Option<Change>,
    /// Whether more of it is worse.
    pub(crate) is_bad: bool,
    /// Its course, as the path of a line in a box of 100 by 24; empty without one.
    pub(crate) line: String,
    /// The query string of only these calls; empty for the total.
    pub(crate) only: String,
}

impl Card {
    /// The four, in order.
    #[must_use]
    pub(crate) fn all(
        counts: &Counts,
        before: Option<&Counts>,
        series: Option<&TimeSeries>,
        filters: &Filters,
    ) -> [Self; 4] {
        let card = |title, hue, of: fn(&Counts) -> u64, outcome: Option<Outcome>| Self {
            title,
            hue,
            value: count(of(counts)),
            share: outcome.map_or_else(String::new, |_| percent(of(counts), counts.total_count)),
            change: before.map(|before| change(of(counts), of(before))),
            is_bad: matches!(outcome, Some(Outcome::Failed | Outcome::RateLimited)),
            line: series.map_or_else(String::new, |series| line(series, of)),
            only: outcome.map_or_else(String::new, |outcome| filters.query_of_outcome(outcome)),
        };
        [
            card("Total Requests", "total", |counts| counts.total_count, None),
            card("Completed", "completed", |counts| counts.completed_count, Some(Outcome::Completed)),
            card("Failed", "failed", |counts| counts.failed_count, Some(Outcome::Failed)),
            card("Rate Limited", "limited", |counts| counts.rate_limited_count, Some(Outcome::RateLimited)),
        ]
    }
}

/// A line through the bars of a series.
#[expect(clippy::cast_precision_loss, reason = "a drawing needs three digits")]
fn line(series: &TimeSeries, of: fn(&Counts) -> u64) -> String {
    let values: Vec<u64> = series.points.iter().map(|point| point.counts.as_ref().map_or(0, of)).collect();
    let most = values.iter().copied().max().unwrap_or(0);
    if values.len() < 2 || most == 0 {
        return String::new();
    }
    let step = 100.0 / (values.len() - 1) as f64;
    let points = values.iter().enumerate().map(|(at, value)| {
        let down = 23.0 - *value as f64 / most as f64 * 22.0;
        format!("{}{:.1} {down:.1}", if at == 0 { 'M' } else { 'L' }, at as f64 * step)
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use proto::usage::TimeSeriesPoint;

    use super::*;
    use crate::filters::Fields;

    fn counts(total_count: u64, failed_count: u64) -> Counts {
        Counts { total_count, completed_count: total_count - failed_count, failed_count, ..Counts::default() }
    }

    #[test]
    fn a_card_tells_its_change_and_its_course() {
        let filters = Filters::parse(&Fields::default(), None).unwrap();
        let point =
            |total, failed| TimeSeriesPoint { counts: Some(counts(total, failed)), ..Default::default() };
        let series =
            TimeSeries { points: vec![point(0, 0), point(5, 0), point(10, 0)], ..Default::default() };
        let before = counts(10, 0);
        let cards = Card::all(&counts(15, 3), Some(&before), Some(&series), &filters);
        let said: Vec<_> = cards.iter().map(|card| card.change.as_ref().unwrap().text.as_str()).collect();
        assert_eq!(said, ["+50%", "+20%", "new", "none"]);
        assert_eq!(cards[0].line, "M0.0 23.0L50.0 12.0L100.0 1.0");
        assert_eq!((cards[2].line.as_str(), cards[2].only.as_str()), ("", "outcome=failed"));
        assert_eq!((cards[0].only.as_str(), cards[3].share.as_str()), ("", "0%"));
        let alone = Card::all(&counts(0, 0), None, None, &filters);
        assert!(alone.iter().all(|card| card.change.is_none() && card.line.is_empty()));
        assert_eq!(alone[1].share, "–", "nothing of nothing is no share");
    }
}
