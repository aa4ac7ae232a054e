//! Where the parts of a range are counted from. Whole quarter hours, or whole days where routes are asked for, come from
//! projections, which hold counts instead of rows; what is left at both ends, and whatever only single calls can tell,
//! comes from the rows; what is so old that its rows have expired, from the archive of days. Pure.

use domain::TimeRange;
use time::OffsetDateTime;

use crate::condition::Detail;

/// Lengths of the buckets, in milliseconds.
pub(crate) const QUARTER_MS: i64 = 15 * 60 * 1000;
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Most parts of days that are moved: each is a condition of the question.
const MOVED_MAX: usize = 100;

/// What calls are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The calls themselves.
    Rows,
    /// The projection `totals_by_quarter_hour`.
    Quarters,
    /// The projection `totals_by_day`.
    Days,
    /// The table of archived days.
    Archive,
}

/// Half-open, in milliseconds since 1970; that is as fine as events have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// Parts of a range that are counted from one source; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) spans: Vec<Span>,
}

/// How a range is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Disjoint; perhaps none.
    pub(crate) segments: Vec<Segment>,
    /// Parts of days, counted with the bar that has the noon of their day, but lie in another one. Rows tell their calls.
    pub(crate) moved: Vec<Span>,
    /// Calls before are only known by day, if the range has any such.
    pub(crate) calls_from_ms: Option<i64>,
    /// What the range has of them is left out.
    pub(crate) is_without_archive: bool,
}

impl Span {
    pub(crate) fn of(range: &TimeRange) -> Self {
        Self { from_ms: ceil_ms(range.from()), to_ms: ceil_ms(range.to()) }
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.from_ms >= self.to_ms
    }

    pub(crate) fn contains(self, ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&ms)
    }

    /// The part of it in buckets that are whole; perhaps empty.
    const fn whole(self, bucket_ms: i64) -> Self {
        Self { from_ms: ceil(self.from_ms, bucket_ms), to_ms: floor(self.to_ms, bucket_ms) }
    }

    /// The buckets that it touches.
    pub(crate) const fn touched_quarters(self) -> Self {
        Self { from_ms: floor(self.from_ms, QUARTER_MS), to_ms: ceil(self.to_ms, QUARTER_MS) }
    }

    /// The quarter hour that begins then.
    pub(crate) const fn quarter(start_ms: i64) -> Self {
        Self { from_ms: start_ms, to_ms: start_ms + QUARTER_MS }
    }

    pub(crate) fn cut(self, other: Self) -> Self {
        Self { from_ms: self.from_ms.max(other.from_ms), to_ms: self.to_ms.min(other.to_ms) }
    }
}

impl Plan {
    /// Counts `range` from what knows enough. An answer tells apart what lies on both sides of a time in `borders`, in
    /// milliseconds. Calls that began before `calls_from_ms`, the start of a day, may have expired.
    pub(crate) fn new(range: &TimeRange, detail: Detail, borders: &[i64], calls_from_ms: i64) -> Self {
        let range = Span::of(range);
        let has_expired = range.from_ms < calls_from_ms;
        let live = Span { from_ms: range.from_ms.max(calls_from_ms), ..range };
        let is_without_archive = has_expired && detail == Detail::Calls;
        let mut segments = counted(live, detail, borders);
        if has_expired && !is_without_archive {
            let archived = Span { to_ms: range.to_ms.min(calls_from_ms), ..range }.whole(DAY_MS);
            if !archived.is_empty() {
                segments.push(Segment { source: Source::Archive, spans: vec![archived] });
            }
        }
        Self {
            segments,
            moved: Vec::new(),
            calls_from_ms: has_expired.then_some(calls_from_ms),
            is_without_archive,
        }
    }

    /// Counts `range` by bars that begin at `borders`. Where days of a time zone cut the days of the source, those are
    /// counted whole, and what lies beyond the border is moved: half a day at most, where rows would be read for all.
    pub(crate) fn of_bars(range: &TimeRange, detail: Detail, borders: &[i64], calls_from_ms: i64) -> Self {
        let cut = Self::new(range, detail, borders, calls_from_ms);
        let whole = Self::new(range, detail, &[], calls_from_ms);
        let days = whole.segments.iter().find(|segment| segment.source == Source::Days);
        match days.and_then(|days| beyond_noon(days.spans[0], borders)) {
            Some(moved) if cut.segments != whole.segments => Self { moved, ..whole },
            _ => cut,
        }
    }

    /// Single calls of `range`.
    pub(crate) fn of_calls(range: &TimeRange, calls_from_ms: i64) -> Self {
        Self::new(range, Detail::Calls, &[], calls_from_ms)
    }

    /// What of the range can be read call by call; perhaps empty.
    pub(crate) fn live(&self) -> Span {
        let rows = self.segments.iter().find(|segment| segment.source == Source::Rows);
        rows.and_then(|segment| segment.spans.first().copied()).unwrap_or(Span { from_ms: 0, to_ms: 0 })
    }
}

/// Of each day that a border cuts, the part that noon is not in. `None` if some day is cut twice or inside a quarter of an
/// hour, or there are too many.
fn beyond_noon(days: Span, borders: &[i64]) -> Option<Vec<Span>> {
    let cuts = borders.iter().filter(|border| days.contains(**border) && **border % DAY_MS != 0);
    let mut midnights: Vec<i64> = Vec::new();
    let mut moved = Vec::new();
    for &cut in cuts {
        let midnight = floor(cut, DAY_MS);
        if midnights.last() == Some(&midnight) || cut % QUARTER_MS != 0 || moved.len() == MOVED_MAX {
            return None;
        }
        midnights.push(midnight);
        moved.push(if cut - midnight <= DAY_MS / 2 {
            Span { from_ms: midnight, to_ms: cut }
        } else {
            Span { from_ms: cut, to_ms: midnight + DAY_MS }
        });
    }
    Some(moved)
}

fn counted(live: Span, detail: Detail, borders: &[i64]) -> Vec<Segment> {
    if live.is_empty() {
        return Vec::new();
    }
    let from_rows = vec![Segment { source: Source::Rows, spans: vec![live] }];
    let (source, bucket_ms) = match detail {
        Detail::Answers => (Source::Quarters, QUARTER_MS),
        Detail::Routes => (Source::Days, DAY_MS),
        Detail::Calls => return from_rows,
    };
    let buckets = live.whole(bucket_ms);
    if buckets.is_empty() || borders.iter().any(|border| border % bucket_ms != 0) {
        return from_rows;
    }
    let ends = [Span { to_ms: buckets.from_ms, ..live }, Span { from_ms: buckets.to_ms, ..live }].into_iter();
    let ends: Vec<_> = ends.filter(|end| !end.is_empty()).collect();
    let mut segments = vec![Segment { source, spans: vec![buckets] }];
    if !ends.is_empty() {
        segments.push(Segment { source: Source::Rows, spans: ends });
    }
    segments
}

/// Events have whole milliseconds, so "at or after" a finer time is "at or after" the next of them.
fn ceil_ms(at: OffsetDateTime) -> i64 {
    let millis = -(-at.unix_timestamp_nanos()).div_euclid(1_000_000);
    i64::try_from(millis).expect("the years 1 to 9999 fit")
}

const fn ceil(value: i64, step: i64) -> i64 {
    -(-value).div_euclid(step) * step
}

const fn floor(value: i64, step: i64) -> i64 {
    value.div_euclid(step) * step
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    fn range(from: OffsetDateTime, to: OffsetDateTime) -> TimeRange {
        TimeRange::new(from, to).unwrap()
    }

    fn letters(plan: &Plan) -> String {
        let letter = |segment: &Segment| match segment.source {
            Source::Rows => 'R',
            Source::Quarters => 'Q',
            Source::Days => 'D',
            Source::Archive => 'A',
        };
        plan.segments.iter().flat_map(|s| std::iter::repeat_n(letter(s), s.spans.len())).collect()
    }

    #[rstest]
    #[case::aligned(datetime!(2026-11-01 00:00 UTC), datetime!(2026-11-02 00:00 UTC), "Q")]
    #[case::ends(datetime!(2026-11-01 00:00:00.001 UTC), datetime!(2026-11-02 00:00:00.001 UTC), "QRR")]
    #[case::head(datetime!(2026-11-01 00:14:59.999 UTC), datetime!(2026-11-01 00:30 UTC), "QR")]
    #[case::tail(datetime!(2026-11-01 00:15 UTC), datetime!(2026-11-01 00:44 UTC), "QR")]
    #[case::inside_one(datetime!(2026-11-01 00:01 UTC), datetime!(2026-11-01 00:14 UTC), "R")]
    #[case::across_one_border(datetime!(2026-11-01 00:01 UTC), datetime!(2026-11-01 00:29 UTC), "R")]
    #[case::finer_than_ms(datetime!(2026-11-01 00:00:00.0001 UTC), datetime!(2026-11-01 00:00:00.0002 UTC), "")]
    #[case::almost_aligned(datetime!(2026-10-31 23:59:59.9999 UTC), datetime!(2026-11-01 00:15 UTC), "Q")]
    #[case::before_1970(datetime!(1969-12-31 23:50 UTC), datetime!(1970-01-01 00:20 UTC), "QRR")]
    fn whole_quarters_come_from_the_projection(
        #[case] from: OffsetDateTime,
        #[case] to: OffsetDateTime,
        #[case] sources: &str,
    ) {
        let plan = Plan::new(&range(from, to), Detail::Answers, &[], i64::MIN);
        assert_eq!(letters(&plan), sources, "{plan:?}");
        assert_eq!((plan.calls_from_ms, plan.is_without_archive), (None, false));
    }

    #[test]
    fn what_is_asked_about_chooses_the_source() {
        let days = range(datetime!(2026-11-01 00:00 UTC), datetime!(2026-11-03 00:00 UTC));
        let sources = |detail, borders: &[i64]| letters(&Plan::new(&days, detail, borders, i64::MIN));
        assert_eq!(sources(Detail::Answers, &[]), "Q");
        assert_eq!(sources(Detail::Answers, &[QUARTER_MS, DAY_MS]), "Q");
        assert_eq!(sources(Detail::Answers, &[60_000]), "R");
        assert_eq!(sources(Detail::Routes, &[]), "D");
        assert_eq!(sources(Detail::Routes, &[DAY_MS]), "D");
        assert_eq!(sources(Detail::Routes, &[QUARTER_MS]), "R");
        assert_eq!(sources(Detail::Calls, &[]), "R");
    }

    #[test]
    fn what_has_expired_is_counted_by_whole_days() {
        let asked = range(datetime!(2026-10-30 12:00 UTC), datetime!(2026-11-03 06:00 UTC));
        let border = datetime!(2026-11-02 00:00 UTC).unix_timestamp() * 1000;
        let plan = |detail| Plan::new(&asked, detail, &[], border);
        let archived = plan(Detail::Answers).segments.pop().unwrap();
        assert_eq!(archived.source, Source::Archive);
        let day = |at: OffsetDateTime| at.unix_timestamp() * 1000;
        let whole = Span {
            from_ms: day(datetime!(2026-10-31 00:00 UTC)),
            to_ms: day(datetime!(2026-11-02 00:00 UTC)),
        };
        assert_eq!(archived.spans, [whole]);
        assert_eq!(letters(&plan(Detail::Routes)), "DRA");
        let calls = plan(Detail::Calls);
        assert_eq!((letters(&calls).as_str(), calls.is_without_archive), ("R", true));
        assert_eq!(calls.live().from_ms, border);
        // Nothing of it is left but totals.
        let old = range(datetime!(2026-10-30 12:00 UTC), datetime!(2026-10-31 12:00 UTC));
        assert_eq!(letters(&Plan::new(&old, Detail::Answers, &[], border)), "");
        assert!(Plan::of_calls(&old, border).live().is_empty());
    }

    #[test]
    fn days_of_a_time_zone_are_days_of_the_source_and_what_lies_beyond_noon() {
        let asked = range(datetime!(2026-11-01 05:00 UTC), datetime!(2026-11-05 18:30 UTC));
        let of_bars = |detail, hour: i64, count: i64| {
            let first = datetime!(2026-11-01 00:00 UTC).unix_timestamp() * 1000 + hour * 3_600_000;
            Plan::of_bars(
                &asked,
                detail,
                &(0..count).map(|day| first + day * DAY_MS).collect::<Vec<_>>(),
                i64::MIN,
            )
        };
        let hours = |plan: &Plan| {
            plan.moved
                .iter()
                .map(|s| (s.from_ms / 3_600_000 % 24, s.to_ms / 3_600_000 % 24))
                .collect::<Vec<_>>()
        };
        let (east, west, noon) =
            (of_bars(Detail::Routes, 18, 5), of_bars(Detail::Routes, 5, 5), of_bars(Detail::Routes, 12, 5));
        assert_eq!([letters(&east), letters(&west), letters(&noon)], ["DRR", "DRR", "DRR"]);
        assert_eq!([hours(&east), hours(&west), hours(&noon)], [[(18, 0); 3], [(0, 5); 3], [(0, 12); 3]]);
        let aligned = of_bars(Detail::Routes, 0, 5);
        assert_eq!((letters(&aligned).as_str(), aligned.moved.len()), ("DRR", 0));
        let answers = of_bars(Detail::Answers, 18, 5);
        assert_eq!((letters(&answers).as_str(), answers.moved.len()), ("Q", 0));
        let cut = |more: &[i64]| {
            let borders =
                east.moved.iter().flat_map(|s| more.iter().map(|more| s.from_ms + more)).collect::<Vec<_>>();
            letters(&Plan::of_bars(&asked, Detail::Routes, &borders, i64::MIN))
        };
        assert_eq!([cut(&[0]), cut(&[0, QUARTER_MS]), cut(&[1_000])], ["DRR", "R", "R"]);
        let years = range(datetime!(2026-01-01 00:00 UTC), datetime!(2027-01-01 00:00 UTC));
        let starts: Vec<_> =
            (0..365).map(|day| Span::of(&years).from_ms + day * DAY_MS - 3_600_000).collect();
        assert_eq!(letters(&Plan::of_bars(&years, Detail::Routes, &starts, i64::MIN)), "R");
    }

    proptest! {
        #[test]
        fn every_call_comes_to_its_bar(
            from in 0i64..10 * DAY_MS,
            length in 1i64..12 * DAY_MS,
            steps in prop::collection::vec(20i64..28, 1..30),
            offset in 0i64..24,
            calls in prop::collection::vec(0i64..22 * DAY_MS, 1..100),
        ) {
            let at = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
            let hour = 3_600_000;
            let mut starts = vec![(offset - 24) * hour];
            for step in steps {
                starts.push(starts[starts.len() - 1] + step * hour);
            }
            let bar = |ms: i64| starts.partition_point(|start| *start <= ms).max(1);
            let plan = Plan::of_bars(&range(at(from), at(from + length)), Detail::Routes, &starts, i64::MIN);
            let mut counted = vec![0; starts.len() + 1];
            let mut expected = counted.clone();
            for call in calls.into_iter().filter(|call| (from..from + length).contains(call)) {
                expected[bar(call)] += 1;
                let segment = plan.segments.iter().find(|s| s.spans.iter().any(|span| span.contains(call))).unwrap();
                let noon = floor(call, DAY_MS) + DAY_MS / 2;
                counted[bar(if segment.source == Source::Days { noon } else { call })] += 1;
                if plan.moved.iter().any(|span| span.contains(call)) {
                    counted[bar(call)] += 1;
                    counted[bar(noon)] -= 1;
                }
            }
            prop_assert_eq!(counted, expected);
        }

        #[test]
        fn segments_cover_the_range_once(
            from in -10_000_000_000i64..10_000_000_000,
            length in 1i64..10_000_000_000,
            days in any::<bool>(),
        ) {
            let nanos = |micros: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let asked = range(nanos(from), nanos(from + length));
            let (detail, bucket) = if days { (Detail::Routes, DAY_MS) } else { (Detail::Answers, QUARTER_MS) };
            let plan = Plan::new(&asked, detail, &[], i64::MIN);
            let mut spans: Vec<Span> = plan.segments.iter().flat_map(|s| s.spans.clone()).collect();
            spans.sort_by_key(|span| span.from_ms);
            let whole = Span::of(&asked);
            if whole.is_empty() {
                prop_assert!(spans.is_empty());
                return Ok(());
            }
            prop_assert_eq!(spans[0].from_ms, whole.from_ms);
            prop_assert_eq!(spans[spans.len() - 1].to_ms, whole.to_ms);
            prop_assert!(spans.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms));
            prop_assert!(plan.segments.iter().filter(|s| s.source != Source::Rows).flat_map(|s| &s.spans)
                .all(|s| s.from_ms % bucket == 0 && s.to_ms % bucket == 0));
        }
    }
}
