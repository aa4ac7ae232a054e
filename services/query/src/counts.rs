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
