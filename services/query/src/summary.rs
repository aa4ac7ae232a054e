//! Totals by outcome.

use proto::usage as pb;
use tonic::Status;

use crate::{call::Call, filter::Filter, freshness::freshness, sql};

/// Answers `GetSummary`.
pub(crate) async fn summary(call: Call, request: pb::GetSummaryRequest) -> Result<pb::Summary, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let filter = Filter::parse(request.filter)?;
    let freshness = freshness(&call, workspace_id, &filter.range).await?;
    let counts = call.store.summary(sql::summary(workspace_id, &filter), call.deadline).await?;
    Ok(pb::Summary { counts: Some(counts.into()), freshness: Some(freshness) })
}
