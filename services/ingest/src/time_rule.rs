//! Which time a call is counted under. Pure, and the same at every replay, since it asks no clock.

use time::Duration;

/// How far behind the broker's time an edge's may be.
pub const BEHIND_MAX: Duration = Duration::days(35);
/// How far ahead of it.
pub const AHEAD_MAX: Duration = Duration::minutes(5);

/// The time to count under, and whether it had to be the broker's because the edge's clock is off. Nanoseconds since
/// 1970.
#[must_use]
pub const fn bucketed(occurred_at_ns: i64, broker_ns: i64) -> (i64, bool) {
    let oldest_ns = broker_ns.saturating_sub(BEHIND_MAX.whole_nanoseconds() as i64);
    let newest_ns = broker_ns.saturating_add(AHEAD_MAX.whole_nanoseconds() as i64);
    let trusted = oldest_ns <= occurred_at_ns && occurred_at_ns <= newest_ns;
    if trusted { (occurred_at_ns, false) } else { (broker_ns, true) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::now(Duration::ZERO, false)]
    #[case::oldest(-BEHIND_MAX, false)]
    #[case::too_old(-BEHIND_MAX - Duration::MILLISECOND, true)]
    #[case::newest(AHEAD_MAX, false)]
    #[case::too_new(AHEAD_MAX + Duration::MILLISECOND, true)]
    fn rule(#[case] offset: Duration, #[case] skewed: bool) {
        let broker = 1_790_000_000_000_000_000;
        let occurred_at = broker + i64::try_from(offset.whole_nanoseconds()).unwrap();
        assert_eq!(bucketed(occurred_at, broker), (if skewed { broker } else { occurred_at }, skewed));
    }

    #[test]
    fn no_time_is_too_far() {
        for extreme in [i64::MIN, i64::MAX] {
            assert_eq!(bucketed(extreme, 0), (0, true));
            assert_eq!(bucketed(extreme, extreme), (extreme, false));
        }
    }
}
