//! Totals over time, one bar after the other, also where nothing was called.

use std::collections::HashMap;

use proto::usage as pb;
use tonic::Status;

use crate::{bars::Bars, call::Call, counts::Counts, filter::Filter, plan::Plan, sql, store::BarRow};

const BARS_MAX: usize = 2_000;

/// Answers `GetTimeSeries`.
pub(crate) async fn series(call: Call, request: pb::GetTimeSeriesRequest) -> Result<pb::TimeSeries, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let bars = Bars::new(&range, request.granularity, &request.time_zone, BARS_MAX)?;
    let horizon = call.horizon().await?;
    let calls_from_ms = horizon.calls_from_ms(workspace_id, call.now);
    let plan = Plan::of_bars(&range, condition.detail(), &bars.borders_ms(), calls_from_ms);
    let statement = sql::series(workspace_id, &condition, &plan, &bars.starts_s);
    let rows = call.rows::<BarRow>(workspace_id, statement).await?;
    let counts: HashMap<i64, Counts> = rows.iter().map(|bar| (bar.start_s, bar.counts())).collect();
    let point = |(start_time, start_s): (prost_types::Timestamp, &i64)| pb::TimeSeriesPoint {
        start_time: Some(start_time),
        counts: Some(counts.get(start_s).copied().unwrap_or_default().into()),
    };
    Ok(pb::TimeSeries {
        points: bars.start_times().zip(&bars.starts_s).map(point).collect(),
        granularity: bars.granularity.into(),
        freshness: Some(call.freshness(&horizon, workspace_id, &range, &plan)),
        time_zone: if request.time_zone.is_empty() { "UTC".to_owned() } else { request.time_zone },
    })
}
