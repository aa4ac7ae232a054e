//! Numbers of calls on their way from the store to the wire.

use proto::usage as pb;

/// Numbers of calls; the last three add up to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) rate_limited: u64,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, each| Self {
            total: sum.total + each.total,
            completed: sum.completed + each.completed,
            failed: sum.failed + each.failed,
            rate_limited: sum.rate_limited + each.rate_limited,
        })
    }
}

impl From<Counts> for pb::Counts {
    fn from(counts: Counts) -> Self {
        Self {
            total_count: counts.total,
            completed_count: counts.completed,
            failed_count: counts.failed,
            rate_limited_count: counts.rate_limited,
        }
    }
}
