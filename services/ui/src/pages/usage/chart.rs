//! Requests over time as stacked bars: where each lies, and what it says. Pure geometry and texts, no markup.

use proto::usage::{Counts, TimeSeries};
use time::{Duration, OffsetDateTime};

use crate::{
    filters::Filters,
    format::{Moment, Show, compact, count, rfc3339},
};

/// Times below the bars.
const TICKS: i32 = 4;

/// A series as bars in a box that is as wide as there are bars and 100 high.
pub(crate) struct Chart {
    /// Every bar, in order.
    pub(crate) bars: Vec<Bar>,
    /// The largest bar fits below it; short form.
    pub(crate) top: String,
    /// Half of it.
    pub(crate) half: String,
    /// Evenly spread over the width.
    pub(crate) ticks: Vec<Moment>,
    /// `hour`
    pub(crate) unit: &'static str,
    /// Whether anything was called.
    pub(crate) is_empty: bool,
}

/// One bar.
pub(crate) struct Bar {
    /// Its place from the left.
    pub(crate) left: usize,
    /// Begins.
    pub(crate) from: String,
    /// Ends.
    pub(crate) to: String,
    /// Begins, for people.
    pub(crate) start: Moment,
    /// The query string of its time.
    pub(crate) only: String,
    /// Colour, distance from the top, height.
    pub(crate) parts: Vec<(&'static str, String, String)>,
    /// With thousands: all, completed, failed, rate limited.
    pub(crate) numbers: [String; 4],
}

impl Chart {
    /// The chart of a series over `[from, to)`.
    #[must_use]
    pub(crate) fn new(series: &TimeSeries, filters: &Filters, now: OffsetDateTime) -> Self {
        let (from, to) = filters.range(now);
        let starts: Vec<_> = series
            .points
            .iter()
            .filter_map(|point| {
                let start = proto::timestamp::from_proto(point.start_time.as_ref()?)?;
                Some((start, point.counts.unwrap_or_default()))
            })
            .collect();
        let most = starts.iter().map(|(_, counts)| counts.total_count).max().unwrap_or(0);
        let top = round_up(most);
        let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([to]);
        let bars = starts.iter().zip(ends).enumerate().map(|(left, ((start, counts), end))| {
            // The first and the last bar hold only what lies in the period.
            let (start, end) = ((*start).max(from), end.min(to));
            Bar {
                left,
                from: rfc3339(start),
                to: rfc3339(end),
                start: Moment::new(start, Show::Full, now),
                only: filters.query_between(start, end),
                parts: parts(counts, top),
                numbers: [
                    counts.total_count,
                    counts.completed_count,
                    counts.failed_count,
                    counts.rate_limited_count,
                ]
                .map(count),
            }
        });
        let length = to - from;
        let show = if length > DAYS { Show::TickDay } else { Show::TickTime };
        let tick = |at: i32| Moment::new(from + length * at / TICKS, show, now);
        Self {
            bars: bars.collect(),
            top: compact(top),
            half: if top.is_multiple_of(2) { compact(top / 2) } else { String::new() },
            ticks: (0..=TICKS).map(tick).collect(),
            unit: match series.granularity() {
                proto::usage::Granularity::Minute => "minute",
                proto::usage::Granularity::QuarterHour => "15 minutes",
                proto::usage::Granularity::Hour => "hour",
                _ => "day",
            },
            is_empty: most == 0,
        }
    }
}

/// Above it ticks say days.
const DAYS: Duration = Duration::hours(36);

/// Rate limited on top of failed on top of completed.
#[expect(clippy::cast_precision_loss, reason = "a drawing needs three digits")]
fn parts(counts: &Counts, top: u64) -> Vec<(&'static str, String, String)> {
    let height = |calls: u64| calls as f64 / top.max(1) as f64 * 100.0;
    let mut below = 0.0;
    let stacked = [
        ("completed", counts.completed_count),
        ("failed", counts.failed_count),
        ("limited", counts.rate_limited_count),
    ];
    let mut parts = Vec::new();
    for (hue, calls) in stacked.into_iter().filter(|(_, calls)| *calls > 0) {
        let height = height(calls);
        below += height;
        parts.push((hue, format!("{:.2}", 100.0 - below), format!("{height:.2}")));
    }
    parts
}

/// The next of 1, 2, 4, 5, 6, 8, 10, 20 …; at least 1.
fn round_up(most: u64) -> u64 {
    let mut unit = 1u64;
    loop {
        for steps in [1, 2, 4, 5, 6, 8] {
            match unit.checked_mul(steps) {
                Some(top) if top >= most => return top,
                Some(_) => {}
                None => return u64::MAX,
            }
        }
        let Some(next) = unit.checked_mul(10) else { return u64::MAX };
        unit = next;
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        timestamp::to_proto,
        usage::{Granularity, TimeSeriesPoint},
    };
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;
    use crate::filters::Fields;

    #[rstest]
    #[case(0, 1)]
    #[case(1, 1)]
    #[case(3, 4)]
    #[case(41, 50)]
    #[case(99, 100)]
    #[case(u64::MAX, u64::MAX)]
    fn the_scale_ends_at_a_round_number(#[case] most: u64, #[case] top: u64) {
        assert_eq!(round_up(most), top);
    }

    #[test]
    fn bars_are_stacked_and_cut_to_the_period() {
        let now = datetime!(2026-11-22 12:30 UTC);
        let filters =
            Filters::parse(&Fields::read("from=2026-11-22T10:30&to=2026-11-22T12:30"), None).unwrap();
        let point = |hour: u8, completed_count, failed_count, rate_limited_count| TimeSeriesPoint {
            start_time: Some(to_proto(now.replace_hour(hour).unwrap().replace_minute(0).unwrap())),
            counts: Some(Counts {
                total_count: completed_count + failed_count + rate_limited_count,
                completed_count,
                failed_count,
                rate_limited_count,
            }),
        };
        let series = TimeSeries {
            points: vec![point(10, 5, 2, 1), point(11, 0, 0, 0), point(12, 1, 0, 0)],
            granularity: Granularity::Hour.into(),
            ..Default::default()
        };
        let chart = Chart::new(&series, &filters, now);
        let times: Vec<_> = chart.bars.iter().map(|bar| (&bar.from[11..16], &bar.to[11..16])).collect();
        assert_eq!(times, [("10:30", "11:00"), ("11:00", "12:00"), ("12:00", "12:30")]);
        let part = |hue, y: &str, height: &str| (hue, y.to_owned(), height.to_owned());
        let expected = [
            part("completed", "37.50", "62.50"),
            part("failed", "12.50", "25.00"),
            part("limited", "0.00", "12.50"),
        ];
        assert_eq!(chart.bars[0].parts, expected);
        assert!(chart.bars[1].parts.is_empty());
        assert_eq!(
            (chart.top.as_str(), chart.half.as_str(), chart.unit, chart.ticks.len()),
            ("8", "4", "hour", 5)
        );
        assert!(chart.bars[1].only.contains("from=2026-11-22T11%3A00%3A00.000Z"));
    }

    #[test]
    fn nothing_called_is_an_empty_chart() {
        let filters = Filters::parse(&Fields::default(), None).unwrap();
        let chart = Chart::new(&TimeSeries::default(), &filters, datetime!(2026-11-22 12:30 UTC));
        assert!(chart.is_empty && chart.bars.is_empty());
    }
}
