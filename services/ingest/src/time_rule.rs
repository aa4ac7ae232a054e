//! Which time a call is counted under. Pure, and the same at every replay, since it asks no clock.

use time::{Duration, OffsetDateTime};

/// How far behind the broker's time an edge's may be.
pub const BEHIND_MAX: Duration = Duration::days(35);
/// How far ahead of it.
pub const AHEAD_MAX: Duration = Duration::minutes(5);

/// The time to count under, and whether it had to be the broker's because the edge's clock is off.
#[must_use]
pub fn bucketed(occurred_at: OffsetDateTime, broker: OffsetDateTime) -> (OffsetDateTime, bool) {
    let trusted = occurred_at >= broker - BEHIND_MAX && occurred_at <= broker + AHEAD_MAX;
    if trusted { (occurred_at, false) } else { (broker, true) }
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
        let broker = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        let expected = if skewed { broker } else { broker + offset };
        assert_eq!(bucketed(broker + offset, broker), (expected, skewed));
    }
}
