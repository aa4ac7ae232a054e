//! Totals by the values of one dimension, and what is left over.

use domain::{KeyId, SecretId};
use proto::{status::invalid, usage as pb};
use tonic::Status;

use crate::{
    call::Call,
    counts::Counts,
    filter::{Filter, row_limit},
    plan::Plan,
    sql,
    sql::Dimension,
    store::{BreakdownRow, P95Row},
};

const LIMIT_DEFAULT: u32 = 10;
const LIMIT_MAX: u32 = 1_000;

/// Answers `GetBreakdown`.
pub(crate) async fn breakdown(call: Call, request: pb::GetBreakdownRequest) -> Result<pb::Breakdown, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let first = dimension("dimension", request.dimension)?;
    let second = match request.second_dimension {
        0 => None,
        second => Some(dimension("second_dimension", second)?),
    };
    if second == Some(first) {
        return Err(invalid("second_dimension", "must be another one than dimension"));
    }
    if second.is_some() && request.with_p95 {
        return Err(invalid("with_p95", "does not go together with second_dimension"));
    }
    let limit = limit(request.limit)?;
    let horizon = call.horizon().await?;
    let dimensions = [Some(first), second].into_iter().flatten().map(Dimension::detail);
    let detail = dimensions.fold(condition.detail(), Ord::max);
    let plan = Plan::new(&range, detail, &[], horizon.calls_from_ms(workspace_id, call.now));
    let statement = sql::breakdown(workspace_id, &condition, &plan, (first, second), limit);
    let rows = call.rows(workspace_id, statement).await?;
    let (listed, other): (Vec<_>, Vec<_>) = rows.into_iter().partition(BreakdownRow::is_listed);
    let other = other.first();
    let p95s = if request.with_p95 {
        let values = listed.iter().map(|row| row.name.clone()).collect();
        let calls = Plan::of_calls(&range, horizon.calls_from_ms(workspace_id, call.now));
        let statement = sql::p95_by(workspace_id, &condition, &calls, first, values);
        call.rows::<P95Row>(workspace_id, statement).await?
    } else {
        Vec::new()
    };
    let p95_us = |name: &str| p95s.iter().find(|row| row.value == name).map_or(0, |row| row.p95_us);
    Ok(pb::Breakdown {
        other: Some(other.map_or_else(Counts::default, BreakdownRow::counts).into()),
        other_value_count: other.map_or(0, |other| other.value_count),
        rows: listed
            .into_iter()
            .map(|row| pb::BreakdownRow {
                counts: Some(row.counts().into()),
                p95_us: p95_us(&row.name),
                value: shown(first, row.name),
                second_value: second.map_or_else(String::new, |second| shown(second, row.second_name)),
            })
            .collect(),
        freshness: Some(call.freshness(&horizon, workspace_id, &range, &plan)),
    })
}

fn dimension(field: &str, value: i32) -> Result<Dimension, Status> {
    match pb::Dimension::try_from(value) {
        Ok(pb::Dimension::Method) => Ok(Dimension::Method),
        Ok(pb::Dimension::StatusCode) => Ok(Dimension::StatusCode),
        Ok(pb::Dimension::Route) => Ok(Dimension::Route),
        Ok(pb::Dimension::Outcome) => Ok(Dimension::Outcome),
        Ok(pb::Dimension::Secret) => Ok(Dimension::Secret),
        Ok(pb::Dimension::Denial) => Ok(Dimension::Denial),
        Ok(pb::Dimension::ClientIp) => Ok(Dimension::ClientIp),
        Ok(pb::Dimension::Key) => Ok(Dimension::Key),
        Ok(pb::Dimension::Origin) => Ok(Dimension::Origin),
        Ok(pb::Dimension::StatusClass) => Ok(Dimension::StatusClass),
        Ok(pb::Dimension::Resource) => Ok(Dimension::Resource),
        Ok(pb::Dimension::UserAgent) => Ok(Dimension::UserAgent),
        Ok(pb::Dimension::Limit) => Ok(Dimension::Limit),
        Ok(pb::Dimension::Region) => Ok(Dimension::Region),
        Ok(pb::Dimension::Unspecified) | Err(_) => {
            let names = "METHOD, STATUS_CODE, STATUS_CLASS, ROUTE, OUTCOME, KEY, SECRET, ORIGIN, DENIAL, LIMIT, \
                         CLIENT_IP, USER_AGENT, RESOURCE or REGION";
            Err(invalid(field, format!("must be {names}")))
        }
    }
}

/// A value as it is written outside ClickHouse.
fn shown(dimension: Dimension, name: String) -> String {
    match (dimension, name.parse()) {
        (Dimension::Secret, Ok(uuid)) => SecretId::from_uuid(uuid).to_string(),
        (Dimension::Key, Ok(uuid)) => KeyId::from_uuid(uuid).to_string(),
        _ => name,
    }
}

pub(crate) fn limit(value: i32) -> Result<u32, Status> {
    row_limit("limit", value, LIMIT_DEFAULT, LIMIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limit = |value| limit(value).ok();
        assert_eq!([limit(0), limit(1), limit(1_000)], [Some(10), Some(1), Some(1_000)]);
        assert_eq!([limit(1_001), limit(i32::MAX)], [Some(1_000), Some(1_000)]);
        assert_eq!([limit(-1), limit(i32::MIN)], [None, None]);
        assert!(super::limit(-1).unwrap_err().message().starts_with("limit: "));
        for bad in [-1, 0, 15] {
            assert!(dimension("dimension", bad).unwrap_err().message().starts_with("dimension: "));
        }
    }
}
