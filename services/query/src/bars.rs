//! The bars of a series: minutes, quarter hours, hours and days by the clocks of a time zone. Pure.

use domain::TimeRange;
use jiff::{Timestamp, ToSpan as _, Zoned, civil, tz::TimeZone};
use proto::{status::invalid, usage as pb};
use time::Duration;
use tonic::Status;

/// Longest name of a time zone, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Bars that touch a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bars {
    pub(crate) granularity: pb::Granularity,
    /// Where each begins, in seconds since 1970, in order; the first at or before the range begins.
    pub(crate) starts_s: Vec<i64>,
}

impl Bars {
    /// At most `bars_max` bars for a range.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` on `granularity` or `time_zone`.
    pub(crate) fn new(
        range: &TimeRange,
        asked: i32,
        time_zone: &str,
        bars_max: usize,
    ) -> Result<Self, Status> {
        let granularity = granularity(asked, range)?;
        let time_zone = time_zone_of(time_zone)?;
        let time_zone = time_zone.as_ref();
        let end_s = range.to().unix_timestamp() + i64::from(range.to().nanosecond() > 0);
        let mut starts_s = Vec::new();
        let mut start = first(range.from().unix_timestamp(), granularity, time_zone);
        while let Some(start_s) = start.filter(|start_s| *start_s < end_s) {
            if starts_s.len() == bars_max {
                let why = format!("makes more than {bars_max} bars of this range; use a coarser one");
                return Err(invalid("granularity", why));
            }
            starts_s.push(start_s);
            start = next(start_s, granularity, time_zone);
        }
        // The last days of the year 9999 are beyond the clocks of time zones.
        if start.is_none() {
            return Err(invalid("time_zone", "has no clocks for this range; use UTC"));
        }
        Ok(Self { granularity, starts_s })
    }

    /// What an answer has to tell apart, in milliseconds.
    pub(crate) fn borders_ms(&self) -> Vec<i64> {
        self.starts_s.iter().map(|start_s| start_s * 1000).collect()
    }

    pub(crate) fn start_times(&self) -> impl Iterator<Item = prost_types::Timestamp> {
        self.starts_s.iter().map(|seconds| prost_types::Timestamp { seconds: *seconds, nanos: 0 })
    }
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

/// `None` is UTC, whose clocks never change.
fn time_zone_of(name: &str) -> Result<Option<TimeZone>, Status> {
    if name.is_empty() || name == "UTC" {
        return Ok(None);
    }
    let why = "must be a name of the tz database, such as Europe/Berlin";
    let found = if name.len() <= NAME_BYTES_MAX { TimeZone::get(name).ok() } else { None };
    found.map(Some).ok_or_else(|| invalid("time_zone", why))
}

/// Seconds of a bar where clocks do not change.
const fn length_s(granularity: pb::Granularity) -> i64 {
    match granularity {
        pb::Granularity::Minute => 60,
        pb::Granularity::QuarterHour => 900,
        pb::Granularity::Hour => 3_600,
        pb::Granularity::Day | pb::Granularity::Unspecified => 86_400,
    }
}

/// The start of the bar that a time lies in.
fn first(at_s: i64, granularity: pb::Granularity, time_zone: Option<&TimeZone>) -> Option<i64> {
    let Some(time_zone) = time_zone else { return Some(floor(at_s, 0, length_s(granularity))) };
    let at = Timestamp::from_second(at_s).ok()?;
    if granularity == pb::Granularity::Day {
        return day_start(&at.to_zoned(time_zone.clone()).date(), time_zone);
    }
    let start = floor(at_s, offset_s(at_s, time_zone), length_s(granularity));
    // Clocks may have changed since: then the bar began with the change.
    let change = time_zone.preceding(Timestamp::from_second(at_s + 1).ok()?).next();
    let change = change.map_or(i64::MIN, |change| change.timestamp().as_second());
    Some(if change > start && breaks_bars(change, length_s(granularity), time_zone) { change } else { start })
}

/// The start of the bar behind one that begins then.
fn next(start_s: i64, granularity: pb::Granularity, time_zone: Option<&TimeZone>) -> Option<i64> {
    let Some(time_zone) = time_zone else { return Some(start_s + length_s(granularity)) };
    let start = Timestamp::from_second(start_s).ok()?;
    if granularity == pb::Granularity::Day {
        let date = start.to_zoned(time_zone.clone()).date();
        return day_start(&date.checked_add(1.day()).ok()?, time_zone);
    }
    let length_s = length_s(granularity);
    let end = floor(start_s, offset_s(start_s, time_zone), length_s) + length_s;
    match time_zone.following(start).next().map(|change| change.timestamp().as_second()) {
        Some(change) if change < end && breaks_bars(change, length_s, time_zone) => Some(change),
        _ => Some(end),
    }
}

/// Whether clocks are at another place of a bar after a change.
fn breaks_bars(change_s: i64, length_s: i64, time_zone: &TimeZone) -> bool {
    (offset_s(change_s, time_zone) - offset_s(change_s - 1, time_zone)) % length_s != 0
}

fn offset_s(at_s: i64, time_zone: &TimeZone) -> i64 {
    Timestamp::from_second(at_s).map_or(0, |at| time_zone.to_offset(at).seconds().into())
}

const fn floor(at_s: i64, offset_s: i64, length_s: i64) -> i64 {
    (at_s + offset_s).div_euclid(length_s) * length_s - offset_s
}

/// Where a day begins: at midnight, or where the clocks jump over it.
fn day_start(date: &civil::Date, time_zone: &TimeZone) -> Option<i64> {
    let start: Zoned = date.to_zoned(time_zone.clone()).ok()?.start_of_day().ok()?;
    Some(start.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::{OffsetDateTime, macros::datetime};

    use super::*;

    const BARS_MAX: usize = 2_000;

    fn bars(from: OffsetDateTime, to: OffsetDateTime, granularity: pb::Granularity, zone: &str) -> Vec<i64> {
        let range = TimeRange::new(from, to).unwrap();
        Bars::new(&range, granularity.into(), zone, BARS_MAX).unwrap().starts_s
    }

    fn lengths(starts: &[i64]) -> Vec<i64> {
        starts.windows(2).map(|pair| (pair[1] - pair[0]) / 60).collect()
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
        let from = datetime!(2026-11-01 00:00 UTC);
        let bars = Bars::new(&TimeRange::new(from, from + length).unwrap(), 0, "", BARS_MAX).unwrap();
        assert_eq!(bars.granularity, expected);
    }

    #[test]
    fn bars_are_whole_and_touch_the_range() {
        let hour = datetime!(2026-11-01 01:00 UTC).unix_timestamp();
        let (from, to) = (datetime!(2026-11-01 01:59:59.9 UTC), datetime!(2026-11-01 03:00:00.1 UTC));
        assert_eq!(bars(from, to, pb::Granularity::Hour, ""), [hour, hour + 3_600, hour + 7_200]);
        let (from, to) = (datetime!(2026-11-01 01:00 UTC), datetime!(2026-11-01 02:00 UTC));
        assert_eq!(bars(from, to, pb::Granularity::Hour, "UTC"), [hour]);
        let (from, to) = (datetime!(1969-12-31 23:59:59.5 UTC), datetime!(1970-01-01 00:00:00.5 UTC));
        assert_eq!(bars(from, to, pb::Granularity::Minute, ""), [-60, 0]);
    }

    #[test]
    fn too_many_bars_or_an_unknown_zone_are_refused() {
        let from = datetime!(2026-11-01 00:00 UTC);
        let of = |minutes: i64, granularity, zone: &str| {
            let range = TimeRange::new(from, from + Duration::minutes(minutes)).unwrap();
            Bars::new(&range, granularity, zone, BARS_MAX)
        };
        assert_eq!(of(2_000, 1, "").unwrap().starts_s.len(), 2_000);
        for (refused, field) in [
            (of(2_001, 1, ""), "granularity: "),
            (of(60, 9, ""), "granularity: "),
            (of(60, 1, "Europe/Atlantis"), "time_zone: "),
            (of(60, 1, "../../etc/passwd"), "time_zone: "),
            (of(60, 1, "'"), "time_zone: "),
            (of(60, 1, &"A".repeat(1 << 20)), "time_zone: "),
        ] {
            assert!(refused.unwrap_err().message().starts_with(field), "{field}");
        }
    }

    #[test]
    fn days_are_the_readers_days() {
        // Clocks go forward on 29 March and back on 25 October 2026.
        let days = |from, to, zone| bars(from, to, pb::Granularity::Day, zone);
        let spring = days(datetime!(2026-03-28 12:00 UTC), datetime!(2026-03-31 12:00 UTC), "Europe/Berlin");
        assert_eq!(spring[0], datetime!(2026-03-27 23:00 UTC).unix_timestamp());
        assert_eq!(lengths(&spring), [1_440, 1_380, 1_440]);
        let autumn = days(datetime!(2026-10-24 12:00 UTC), datetime!(2026-10-27 12:00 UTC), "Europe/Berlin");
        assert_eq!(lengths(&autumn), [1_440, 1_500, 1_440]);
        let half = days(datetime!(2026-11-01 00:00 UTC), datetime!(2026-11-02 00:00 UTC), "Asia/Kolkata");
        let midnight = datetime!(2026-10-31 18:30 UTC).unix_timestamp();
        assert_eq!(half, [midnight, midnight + 86_400]);
        let nepal = days(datetime!(2026-11-01 00:00 UTC), datetime!(2026-11-01 01:00 UTC), "Asia/Kathmandu");
        assert_eq!(nepal, [datetime!(2026-10-31 18:15 UTC).unix_timestamp()]);
    }

    #[test]
    fn hours_follow_clocks_that_change_by_half_an_hour() {
        // On Lord Howe Island clocks go back by 30 minutes on 5 April 2026, 15:00 UTC on the 4th.
        let (from, to) = (datetime!(2026-04-04 13:00 UTC), datetime!(2026-04-04 17:30 UTC));
        let hours = bars(from, to, pb::Granularity::Hour, "Australia/Lord_Howe");
        assert_eq!(lengths(&hours), [60, 60, 30, 60]);
        for (index, start) in hours.iter().enumerate() {
            let later = OffsetDateTime::from_unix_timestamp(*start + 60).unwrap();
            let again = bars(later, later + Duration::SECOND, pb::Granularity::Hour, "Australia/Lord_Howe");
            assert_eq!(again, [*start], "bar {index} is the same wherever the range begins");
        }
    }
}
