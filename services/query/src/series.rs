//! Totals over time, one bar after the other, also where nothing was called.

use std::collections::HashMap;

use proto::usage as pb;
use tonic::Status;

use crate::{bars::Bars, call::Call, counts::Counts, filter::Filter, plan::Plan, sql, store::BarRow};

pub(crate) const BARS_MAX: usize = 2_000;

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
    let counts = rows.iter().map(|bar| (bar.start_s, bar.counts())).collect();
    let freshness = call.freshness(&horizon, workspace_id, &range, &plan);
    Ok(answer(&bars, &counts, request.time_zone, freshness))
}

/// A bar for each start, also where nothing was called.
pub(crate) fn answer(
    bars: &Bars,
    counts: &HashMap<i64, Counts>,
    time_zone: String,
    freshness: pb::Freshness,
) -> pb::TimeSeries {
    let point = |(start_time, start_s): (prost_types::Timestamp, &i64)| pb::TimeSeriesPoint {
        start_time: Some(start_time),
        counts: Some(counts.get(start_s).copied().unwrap_or_default().into()),
    };
    pb::TimeSeries {
        points: bars.start_times().zip(&bars.starts_s).map(point).collect(),
        granularity: bars.granularity.into(),
        freshness: Some(freshness),
        time_zone: if time_zone.is_empty() { "UTC".to_owned() } else { time_zone },
    }
}
