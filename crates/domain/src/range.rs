//! Half-open ranges of time, `[from, to)`.

use time::OffsetDateTime;

/// From `from` on, up to but without `to`; never empty, never reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    from: OffsetDateTime,
    to: OffsetDateTime,
}

/// Why two times make no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range must end after it starts")]
pub struct RangeError;

impl TimeRange {
    /// The range `[from, to)`.
    ///
    /// # Errors
    /// If `to` is not after `from`.
    pub fn new(from: OffsetDateTime, to: OffsetDateTime) -> Result<Self, RangeError> {
        if from < to { Ok(Self { from, to }) } else { Err(RangeError) }
    }

    /// The first moment inside.
    #[must_use]
    pub const fn from(&self) -> OffsetDateTime {
        self.from
    }

    /// The first moment after.
    #[must_use]
    pub const fn to(&self) -> OffsetDateTime {
        self.to
    }

    /// Its length; always positive.
    #[must_use]
    pub fn duration(&self) -> time::Duration {
        self.to - self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_empty_and_reversed() {
        let (early, late) = (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH + time::Duration::SECOND);
        assert_eq!(TimeRange::new(early, early), Err(RangeError));
        assert_eq!(TimeRange::new(late, early), Err(RangeError));
        assert_eq!(TimeRange::new(early, late).unwrap().duration(), time::Duration::SECOND);
    }
}
