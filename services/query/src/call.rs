//! One gRPC call under way: who asks, until when an answer is of use, and what it has cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use access::Claims;
use domain::{TimeRange, WorkspaceId};
use proto::usage as pb;
use time::OffsetDateTime;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::{
    error::StoreError,
    horizon::Horizon,
    plan::Plan,
    sql::Statement,
    store::{Answer, Store},
};

/// Longest time for one call, whatever its caller allows.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(30);
/// Longest time for a stream.
pub(crate) const STREAM_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Taken off the caller's deadline, so that our answer, which says more, comes before the transport's own: a tenth, which
/// is so long at least and at most.
const ANSWER_MARGIN: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

/// What a use case works with.
pub(crate) struct Call {
    /// The checked access token.
    pub(crate) claims: Claims,
    /// Where the events are.
    pub(crate) store: Store,
    /// When to give up.
    pub(crate) deadline: Instant,
    /// When it came, by both clocks.
    pub(crate) now: OffsetDateTime,
    pub(crate) arrived: Instant,
    /// What was read so far.
    pub(crate) cost: Cost,
}

/// What ClickHouse has read.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Cost {
    pub(crate) fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn to_wire(&self) -> pb::ReadCost {
        pb::ReadCost {
            row_count: self.rows.load(Ordering::Relaxed),
            byte_count: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Call {
    /// By this machine's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        let since = self.arrived.elapsed().as_millis();
        self.now.unix_timestamp() * 1000 + i64::try_from(since).unwrap_or(0)
    }

    /// The rows of an answer, in the workspace's turn.
    pub(crate) async fn rows<T: Answer>(
        &self,
        workspace_id: WorkspaceId,
        statement: Statement,
    ) -> Result<Vec<T>, StoreError> {
        self.store.rows(workspace_id, statement, self.deadline, &self.cost).await
    }

    /// How complete the tables are. Asked for before anything else is read, so that no answer claims more than is in it.
    pub(crate) async fn horizon(&self) -> Result<Arc<Horizon>, StoreError> {
        self.store.horizon(self.deadline).await
    }

    /// What an answer about a range says of itself.
    pub(crate) fn freshness(
        &self,
        horizon: &Horizon,
        workspace_id: WorkspaceId,
        range: &TimeRange,
        plan: &Plan,
    ) -> pb::Freshness {
        pb::Freshness { read_cost: Some(self.cost.to_wire()), ..horizon.freshness(workspace_id, range, plan) }
    }
}
/// How long a call may take: its `grpc-timeout`, at `most` so long. A header that is none counts for nothing,
/// as in every gRPC server.
pub(crate) fn time_allowed(metadata: &MetadataMap, most: Duration) -> Duration {
    metadata.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?)).map_or(most, |timeout| {
        let [least, longest] = ANSWER_MARGIN;
        timeout.saturating_sub((timeout / 10).clamp(least, longest)).min(most)
    })
}

/// At most eight digits and a unit, as gRPC over HTTP/2 has it.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2S", Duration::from_millis(1900))]
    #[case("300m", Duration::from_millis(270))]
    #[case("50m", Duration::from_millis(40))]
    #[case("5m", Duration::ZERO)]
    #[case("100u", Duration::ZERO)]
    #[case("1H", CALL_MAX)]
    #[case("99999999H", CALL_MAX)]
    #[case("999999999S", CALL_MAX)]
    #[case("S", CALL_MAX)]
    #[case("", CALL_MAX)]
    #[case("+5S", CALL_MAX)]
    #[case("5s", CALL_MAX)]
    fn the_shorter_limit_holds(#[case] header: &str, #[case] allowed: Duration) {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        assert_eq!(time_allowed(&metadata, CALL_MAX), allowed);
        assert_eq!(time_allowed(&MetadataMap::new(), CALL_MAX), CALL_MAX);
    }
}
