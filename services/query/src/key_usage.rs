//! Totals, last use and bars of many keys at once, for lists of them.

use std::collections::HashMap;

use domain::KeyId;
use proto::{timestamp, usage as pb};
use tonic::Status;

use crate::{
    bars::Bars,
    call::Call,
    condition::Detail,
    filter::{Filter, row_limit},
    plan::Plan,
    sql,
    store::{KeyUsageRow, time_of_ms},
};

const BARS_MAX: usize = 400;
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// Answers `ListKeyUsage`.
pub(crate) async fn key_usage(
    call: Call,
    request: pb::ListKeyUsageRequest,
) -> Result<pb::ListKeyUsageResponse, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let bars = Bars::new(&range, request.granularity, &request.time_zone, BARS_MAX)?;
    let limit = row_limit("limit", request.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    // The totals by day do not know the time of the last call.
    let detail = match condition.detail() {
        Detail::Answers => Detail::Answers,
        Detail::Routes | Detail::Calls => Detail::Calls,
    };
    let horizon = call.horizon().await?;
    let calls_from_ms = horizon.calls_from_ms(workspace_id, call.now);
    let plan = Plan::new(&range, detail, &bars.borders_ms(), calls_from_ms);
    let statement = sql::key_usage(workspace_id, &condition, &plan, &bars.starts_s, limit);
    let rows = call.rows::<KeyUsageRow>(workspace_id, statement).await?;
    let key_count = rows.first().map_or(0, |row| row.key_count);
    Ok(pb::ListKeyUsageResponse {
        other_key_count: key_count - rows.len() as u64,
        keys: rows.into_iter().map(|row| to_wire(&row, &bars.starts_s)).collect(),
        start_times: bars.start_times().collect(),
        granularity: bars.granularity.into(),
        freshness: Some(call.freshness(&horizon, workspace_id, &range, &plan)),
    })
}

fn to_wire(row: &KeyUsageRow, starts_s: &[i64]) -> pb::KeyUsage {
    let bars = |counts: &[u64]| {
        let by_start: HashMap<i64, u64> =
            row.bar_starts_s.iter().copied().zip(counts.iter().copied()).collect();
        starts_s.iter().map(|start_s| by_start.get(start_s).copied().unwrap_or(0)).collect()
    };
    pb::KeyUsage {
        key_id: KeyId::from_uuid(row.key_id).to_string(),
        counts: Some(row.counts().into()),
        last_occurred_at: time_of_ms(row.last_occurred_at_ms).map(timestamp::to_proto),
        bar_counts: bars(&row.bar_counts),
        bar_error_counts: bars(&row.bar_error_counts),
    }
}
