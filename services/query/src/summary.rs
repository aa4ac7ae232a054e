//! Totals by outcome.

use domain::{TimeRange, WorkspaceId};
use proto::{status::invalid, usage as pb};
use tonic::Status;

use crate::{
    call::Call, condition::Condition, counts::Counts, error::StoreError, filter::Filter, plan::Plan, sql,
    store::SummaryRow,
};

/// Answers `GetSummary`.
pub(crate) async fn summary(call: Call, request: pb::GetSummaryRequest) -> Result<pb::Summary, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let before = if request.with_previous { Some(previous(&range)?) } else { None };
    let horizon = call.horizon().await?;
    let calls_from_ms = horizon.calls_from_ms(workspace_id, call.now);
    let plan = Plan::new(&range, condition.detail(), &[], calls_from_ms);
    let counts = count(&call, workspace_id, &condition, &plan).await?;
    let previous_counts = match before {
        Some(before) => {
            let plan = Plan::new(&before, condition.detail(), &[], calls_from_ms);
            Some(count(&call, workspace_id, &condition, &plan).await?.into())
        }
        None => None,
    };
    let freshness = Some(call.freshness(&horizon, workspace_id, &range, &plan));
    Ok(pb::Summary { counts: Some(counts.into()), freshness, previous_counts })
}

/// Counts of all calls of a plan.
pub(crate) async fn count(
    call: &Call,
    workspace_id: WorkspaceId,
    condition: &Condition,
    plan: &Plan,
) -> Result<Counts, StoreError> {
    let rows = call.rows::<SummaryRow>(workspace_id, sql::summary(workspace_id, condition, plan)).await?;
    Ok(rows.first().map_or_else(Counts::default, SummaryRow::counts))
}

/// The range of the same length right before.
pub(crate) fn previous(range: &TimeRange) -> Result<TimeRange, Status> {
    let from = range.from().checked_sub(range.duration()).filter(|from| from.year() > 0);
    from.and_then(|from| TimeRange::new(from, range.from()).ok())
        .ok_or_else(|| invalid("with_previous", "needs a range that another one can come before"))
}
