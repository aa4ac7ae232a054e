//! Where the parts of a range are read from. Whole quarter hours come from the projection, which holds counts
//! instead of rows; what is left at both ends, and whatever only rows can tell, comes from the rows. Pure.

use domain::TimeRange;
use time::OffsetDateTime;

use crate::filter::Filter;

/// Length of the projection's buckets, in milliseconds.
const QUARTER_MS: i64 = 15 * 60 * 1000;

/// What a segment is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The events themselves.
    Rows,
    /// The projection `by_quarter_hour`.
    Quarters,
}

/// A part of a range, half-open, in milliseconds since 1970; that is as fine as events have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// Disjoint segments that cover the filter's range exactly; never none. `finest_ms` is the length of the
/// shortest bar that the answer tells apart; 0 if it tells apart what only rows can tell.
pub(crate) fn segments(filter: &Filter, finest_ms: i64) -> Vec<Segment> {
    let whole = rows(&filter.range);
    let first_quarter = ceil(whole.from_ms, QUARTER_MS);
    let end_of_quarters = whole.to_ms.div_euclid(QUARTER_MS) * QUARTER_MS;
    if needs_rows(filter) || finest_ms < QUARTER_MS || first_quarter >= end_of_quarters {
        return vec![whole];
    }
    let segments = [
        Segment { to_ms: first_quarter, ..whole },
        Segment { source: Source::Quarters, from_ms: first_quarter, to_ms: end_of_quarters },
        Segment { from_ms: end_of_quarters, ..whole },
    ];
    segments.into_iter().filter(|segment| segment.from_ms < segment.to_ms).collect()
}

/// The whole range from rows.
pub(crate) fn rows(range: &TimeRange) -> Segment {
    Segment { source: Source::Rows, from_ms: ceil_ms(range.from()), to_ms: ceil_ms(range.to()) }
}

/// The projection lacks what a filter may ask about.
const fn needs_rows(filter: &Filter) -> bool {
    filter.resource_ids.is_some() || filter.secret_ids.is_some() || filter.denials.is_some()
}

/// Events have whole milliseconds, so "at or after" a finer time is "at or after" the next of them.
fn ceil_ms(at: OffsetDateTime) -> i64 {
    let millis = -(-at.unix_timestamp_nanos()).div_euclid(1_000_000);
    i64::try_from(millis).expect("the years 1 to 9999 fit")
}

const fn ceil(value: i64, step: i64) -> i64 {
    -(-value).div_euclid(step) * step
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    pub(crate) fn filter(from: OffsetDateTime, to: OffsetDateTime) -> Filter {
        Filter {
            range: TimeRange::new(from, to).unwrap(),
            key_ids: None,
            outcomes: None,
            methods: None,
            routes: None,
            status_codes: None,
            resource_ids: None,
            secret_ids: None,
            denials: None,
        }
    }

    #[rstest]
    #[case::aligned(datetime!(2026-11-01 00:00 UTC), datetime!(2026-11-02 00:00 UTC), "Q")]
    #[case::ends(datetime!(2026-11-01 00:00:00.001 UTC), datetime!(2026-11-02 00:00:00.001 UTC), "RQR")]
    #[case::head(datetime!(2026-11-01 00:14:59.999 UTC), datetime!(2026-11-01 00:30 UTC), "RQ")]
    #[case::tail(datetime!(2026-11-01 00:15 UTC), datetime!(2026-11-01 00:44 UTC), "QR")]
    #[case::inside_one(datetime!(2026-11-01 00:01 UTC), datetime!(2026-11-01 00:14 UTC), "R")]
    #[case::across_one_border(datetime!(2026-11-01 00:01 UTC), datetime!(2026-11-01 00:29 UTC), "R")]
    #[case::finer_than_ms(datetime!(2026-11-01 00:00:00.0001 UTC), datetime!(2026-11-01 00:00:00.0002 UTC), "R")]
    #[case::almost_aligned(datetime!(2026-10-31 23:59:59.9999 UTC), datetime!(2026-11-01 00:15 UTC), "Q")]
    #[case::before_1970(datetime!(1969-12-31 23:50 UTC), datetime!(1970-01-01 00:20 UTC), "RQR")]
    fn whole_quarters_come_from_the_projection(
        #[case] from: OffsetDateTime,
        #[case] to: OffsetDateTime,
        #[case] sources: &str,
    ) {
        let found = segments(&filter(from, to), QUARTER_MS);
        let letter = |segment: &Segment| if segment.source == Source::Rows { 'R' } else { 'Q' };
        assert_eq!(found.iter().map(letter).collect::<String>(), sources, "{found:?}");
    }

    #[test]
    fn rows_are_read_where_the_projection_can_not_tell() {
        let (from, to) = (datetime!(2026-11-01 00:00 UTC), datetime!(2026-11-02 00:00 UTC));
        let by_resource = Filter { resource_ids: Some(vec![]), ..filter(from, to) };
        let by_secret = Filter { secret_ids: Some(vec![]), ..filter(from, to) };
        let by_denial = Filter { denials: Some(vec![]), ..filter(from, to) };
        for filter in [&by_resource, &by_secret, &by_denial] {
            assert_eq!(segments(filter, QUARTER_MS), [rows(&filter.range)]);
        }
        assert_eq!(segments(&filter(from, to), 0), [rows(&by_resource.range)]);
        assert_eq!(segments(&filter(from, to), 60_000), [rows(&by_resource.range)]);
    }

    proptest! {
        #[test]
        fn segments_cover_the_range_once(from in -10_000_000_000i64..10_000_000_000, length in 1i64..10_000_000_000) {
            let nanos = |micros: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let filter = filter(nanos(from), nanos(from + length));
            let found = segments(&filter, QUARTER_MS);
            let whole = rows(&filter.range);
            prop_assert_eq!(found[0].from_ms, whole.from_ms);
            prop_assert_eq!(found[found.len() - 1].to_ms, whole.to_ms);
            prop_assert!(found.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms));
            prop_assert!(found.iter().filter(|s| s.source == Source::Quarters)
                .all(|s| s.from_ms % QUARTER_MS == 0 && s.to_ms % QUARTER_MS == 0));
        }
    }
}
