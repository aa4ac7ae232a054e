//! Percentiles of how long calls took. Counted from single calls: exact where the filter reads them one by one anyway,
//! else from log-spaced buckets, which take half the time.

use proto::usage as pb;
use tonic::Status;

use crate::{call::Call, condition::Detail, filter::Filter, plan::Plan, sql, store::LatencyRow};

/// Half the width of a bucket, as a part of its lower end: there are sixteen for each factor of two.
const ERROR_MAX: f64 = 1.0 / 32.0;

/// Answers `GetLatency`.
pub(crate) async fn latency(call: Call, request: pb::GetLatencyRequest) -> Result<pb::Latency, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let is_exact = condition.detail() == Detail::Calls;
    let horizon = call.horizon().await?;
    let plan = Plan::of_calls(&range, horizon.calls_from_ms(workspace_id, call.now));
    let statement = sql::latency(workspace_id, &condition, &plan, is_exact);
    let row = call.rows::<LatencyRow>(workspace_id, statement).await?.pop();
    let row = row.filter(|row| row.call_count > 0);
    let max_us = row.as_ref().map_or(0, |row| row.max_us);
    // The middle of the last bucket may be above every call in it.
    let percentile =
        |at: usize| row.as_ref().and_then(|row| row.percentiles_us.get(at)).map_or(0, |us| (*us).min(max_us));
    Ok(pb::Latency {
        call_count: row.as_ref().map_or(0, |row| row.call_count),
        p50_us: percentile(0),
        p90_us: percentile(1),
        p95_us: percentile(2),
        p99_us: percentile(3),
        max_us,
        error_max: if is_exact { 0.0 } else { ERROR_MAX },
        freshness: Some(call.freshness(&horizon, workspace_id, &range, &plan)),
    })
}
