//! How many different callers there were.

use proto::usage as pb;
use tonic::Status;

use crate::{call::Call, filter::Filter, plan::Plan, sql, store::CallersRow};

/// Answers `GetCallers`.
pub(crate) async fn callers(call: Call, request: pb::GetCallersRequest) -> Result<pb::Callers, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let horizon = call.horizon().await?;
    let plan = Plan::of_calls(&range, horizon.calls_from_ms(workspace_id, call.now));
    let statement = sql::callers(workspace_id, &condition, &plan);
    let row = call.rows::<CallersRow>(workspace_id, statement).await?.pop();
    let of = |count: fn(&CallersRow) -> u64| row.as_ref().map_or(0, count);
    Ok(pb::Callers {
        client_ip_count: of(|row| row.client_ip_count),
        user_agent_count: of(|row| row.user_agent_count),
        key_count: of(|row| row.key_count),
        freshness: Some(call.freshness(&horizon, workspace_id, &range, &plan)),
    })
}
