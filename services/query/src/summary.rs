//! Totals by outcome.

use domain::TimeRange;
use proto::{status::invalid, usage as pb};
use tonic::Status;

use crate::{call::Call, counts::Counts, filter::Filter, plan::Plan, sql, store::SummaryRow};

/// Answers `GetSummary`.
pub(crate) async fn summary(call: Call, request: pb::GetSummaryRequest) -> Result<pb::Summary, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let before = if request.with_previous { Some(previous(&range)?) } else { None };
    let horizon = call.horizon().await?;
    let calls_from_ms = horizon.calls_from_ms(workspace_id, call.now);
    let count = async |range: &TimeRange| {
        let plan = Plan::new(range, condition.detail(), &[], calls_from_ms);
        let rows = call.rows::<SummaryRow>(workspace_id, sql::summary(workspace_id, &condition, &plan)).await;
        rows.map(|rows| (rows.first().map_or_else(Counts::default, SummaryRow::counts), plan))
    };
    let (counts, plan) = count(&range).await?;
    let previous_counts = match before {
        Some(before) => Some(count(&before).await?.0.into()),
        None => None,
    };
    let freshness = Some(call.freshness(&horizon, workspace_id, &range, &plan));
    Ok(pb::Summary { counts: Some(counts.into()), freshness, previous_counts })
}

/// The range of the same length right before.
pub(crate) fn previous(range: &TimeRange) -> Result<TimeRange, Status> {
    let from = range.from().checked_sub(range.duration()).filter(|from| from.year() > 0);
    from.and_then(|from| TimeRange::new(from, range.from()).ok())
        .ok_or_else(|| invalid("with_previous", "needs a range that another one can come before"))
}
