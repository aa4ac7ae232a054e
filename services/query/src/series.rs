//! Totals over time, one bar after the other, also where nothing was called.

use std::collections::HashMap;

use domain::TimeRange;
use proto::{status::invalid, usage as pb};
use time::Duration;
use tonic::Status;

use crate::{call::Call, counts::Counts, filter::Filter, freshness::freshness, sql, store::BarRow};

const BARS_MAX: usize = 2_000;

/// Answers `GetTimeSeries`.
pub(crate) async fn series(call: Call, request: pb::GetTimeSeriesRequest) -> Result<pb::TimeSeries, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let filter = Filter::parse(request.filter)?;
    let granularity = granularity(request.granularity, &filter.range)?;
    let starts = starts(&filter.range, length_s(granularity))?;
    let freshness = freshness(&call, workspace_id, &filter.range).await?;
    let statement = sql::series(workspace_id, &filter, length_s(granularity));
    let bars = call.store.bars(statement, call.deadline).await?;
    let counts: HashMap<i64, Counts> = bars.iter().map(|bar| (bar.start_s, BarRow::counts(bar))).collect();
    let point = |start_s: i64| pb::TimeSeriesPoint {
        start_time: Some(prost_types::Timestamp { seconds: start_s, nanos: 0 }),
        counts: Some(counts.get(&start_s).copied().unwrap_or_default().into()),
    };
    Ok(pb::TimeSeries {
        points: starts.map(point).collect(),
        granularity: granularity.into(),
        freshness: Some(freshness),
    })
}

/// The asked granularity, or one that fits the range.
fn granularity(asked: i32, range: &TimeRange) -> Result<pb::Granularity, Status> {
    match pb::Granularity::try_from(asked) {
        Ok(pb::Granularity::Unspecified) => Ok(match range.duration() {
            length if length <= Duration::hours(6) => pb::Granularity::Minute,
            length if length <= Duration::days(2) => pb::Granularity::QuarterHour,
            length if length <= Duration::days(14) => pb::Granularity::Hour,
            _ => pb::Granularity::Day,
        }),
        Ok(granularity) => Ok(granularity),
        Err(_) => Err(invalid("granularity", "must be MINUTE, QUARTER_HOUR, HOUR, DAY or unset")),
    }
}

const fn length_s(granularity: pb::Granularity) -> i64 {
    match granularity {
        pb::Granularity::Minute => 60,
        pb::Granularity::QuarterHour => 900,
        pb::Granularity::Hour => 3_600,
        pb::Granularity::Day | pb::Granularity::Unspecified => 86_400,
    }
}

/// The starts of all bars that the range touches, in seconds since 1970.
fn starts(range: &TimeRange, length_s: i64) -> Result<impl Iterator<Item = i64>, Status> {
    let first = range.from().unix_timestamp().div_euclid(length_s) * length_s;
    let end = range.to().unix_timestamp() + i64::from(range.to().nanosecond() > 0);
    let starts = (0..).map(move |bar| first + bar * length_s).take_while(move |start| *start < end);
    let count = starts.clone().take(BARS_MAX + 1).count();
    if count > BARS_MAX {
        let why = format!("makes more than {BARS_MAX} bars of this range; use a coarser one");
        return Err(invalid("granularity", why));
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    fn range(length: Duration) -> TimeRange {
        let from = datetime!(2026-11-01 00:00 UTC);
        TimeRange::new(from, from + length).unwrap()
    }

    #[rstest]
    #[case(Duration::NANOSECOND, pb::Granularity::Minute)]
    #[case(Duration::hours(6), pb::Granularity::Minute)]
    #[case(Duration::hours(6) + Duration::NANOSECOND, pb::Granularity::QuarterHour)]
    #[case(Duration::days(2), pb::Granularity::QuarterHour)]
    #[case(Duration::days(2) + Duration::NANOSECOND, pb::Granularity::Hour)]
    #[case(Duration::days(14), pb::Granularity::Hour)]
    #[case(Duration::days(14) + Duration::NANOSECOND, pb::Granularity::Day)]
    #[case(Duration::days(400), pb::Granularity::Day)]
    fn the_range_chooses(#[case] length: Duration, #[case] expected: pb::Granularity) {
        assert_eq!(granularity(0, &range(length)).unwrap(), expected);
        assert!(starts(&range(length), length_s(expected)).is_ok());
    }

    #[test]
    fn an_unknown_granularity_is_named() {
        assert!(granularity(9, &range(Duration::HOUR)).unwrap_err().message().starts_with("granularity: "));
        assert_eq!(granularity(1, &range(Duration::DAY)).unwrap(), pb::Granularity::Minute);
    }

    #[test]
    fn bars_are_whole_and_bounded() {
        let of = |from, to, length_s| {
            starts(&TimeRange::new(from, to).unwrap(), length_s).map(Iterator::collect::<Vec<_>>)
        };
        let hour = datetime!(2026-11-01 01:00 UTC).unix_timestamp();
        let touching = of(datetime!(2026-11-01 01:59:59.9 UTC), datetime!(2026-11-01 03:00:00.1 UTC), 3_600);
        assert_eq!(touching.unwrap(), [hour, hour + 3_600, hour + 7_200]);
        let exact = of(datetime!(2026-11-01 01:00 UTC), datetime!(2026-11-01 02:00 UTC), 3_600);
        assert_eq!(exact.unwrap(), [hour]);
        let old = of(datetime!(1969-12-31 23:59:59.5 UTC), datetime!(1970-01-01 00:00:00.5 UTC), 60);
        assert_eq!(old.unwrap(), [-60, 0]);
        assert_eq!(starts(&range(Duration::minutes(2_000)), 60).unwrap().count(), 2_000);
        let refused =
            starts(&range(Duration::minutes(2_000) + Duration::NANOSECOND), 60).map(Iterator::count);
        assert!(refused.unwrap_err().message().starts_with("granularity: "));
    }
}
