//! What the upper half of a usage page shows, from one read.

use std::{cmp::Reverse, collections::HashMap};

use proto::usage as pb;
use tonic::Status;

use crate::{
    bars::Bars, breakdown, call::Call, counts::Counts, filter::Filter, plan::Plan, series, sql,
    store::OverviewRow, summary,
};

/// Answers `GetOverview`.
pub(crate) async fn overview(call: Call, request: pb::GetOverviewRequest) -> Result<pb::Overview, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let bars = Bars::new(&range, request.granularity, &request.time_zone, series::BARS_MAX)?;
    let limit = breakdown::limit(request.limit)?;
    let before = if request.with_previous { Some(summary::previous(&range)?) } else { None };
    let horizon = call.horizon().await?;
    let calls_from_ms = horizon.calls_from_ms(workspace_id, call.now);
    let plan = Plan::of_bars(&range, condition.detail(), &bars.borders_ms(), calls_from_ms);
    let previous = async || match before {
        Some(before) => {
            let plan = Plan::new(&before, condition.detail(), &[], calls_from_ms);
            summary::count(&call, workspace_id, &condition, &plan).await.map(|counts| Some(counts.into()))
        }
        None => Ok(None),
    };
    let statement = sql::overview(workspace_id, &condition, &plan, &bars.starts_s);
    let (rows, previous_counts) =
        tokio::try_join!(call.rows::<OverviewRow>(workspace_id, statement), previous())?;
    let freshness = call.freshness(&horizon, workspace_id, &range, &plan);
    let (of_bars, methods, status_codes) = parts(rows);
    let counts = of_bars.values().copied().sum::<Counts>();
    Ok(pb::Overview {
        summary: Some(pb::Summary {
            counts: Some(counts.into()),
            freshness: Some(freshness.clone()),
            previous_counts,
        }),
        methods: Some(listed(methods, limit, freshness.clone())),
        status_codes: Some(listed(status_codes, limit, freshness.clone())),
        series: Some(series::answer(&bars, &of_bars, request.time_zone, freshness)),
    })
}

type Named = Vec<(String, Counts)>;

/// Counts by start of a bar, by method and by status.
fn parts(rows: Vec<OverviewRow>) -> (HashMap<i64, Counts>, Named, Named) {
    let (mut bars, mut methods, mut status_codes) = (HashMap::new(), Vec::new(), Vec::new());
    for row in rows {
        let counts = row.counts();
        match row.kind.as_str() {
            "bar" => drop(bars.insert(row.start_s, counts)),
            "method" => methods.push((row.name, counts)),
            _ => status_codes.push((row.name, counts)),
        }
    }
    (bars, methods, status_codes)
}

/// The `limit` most called ones, equal ones by name, and all others together.
fn listed(mut named: Named, limit: u32, freshness: pb::Freshness) -> pb::Breakdown {
    named.sort_unstable_by(|(name, counts), (other_name, other)| {
        (Reverse(counts.total), name).cmp(&(Reverse(other.total), other_name))
    });
    let others = named.split_off(named.len().min(limit as usize));
    let row = |(value, counts): (String, Counts)| pb::BreakdownRow {
        value,
        counts: Some(counts.into()),
        ..Default::default()
    };
    pb::Breakdown {
        rows: named.into_iter().map(row).collect(),
        other_value_count: others.len() as u64,
        other: Some(others.into_iter().map(|(_, counts)| counts).sum::<Counts>().into()),
        freshness: Some(freshness),
    }
}
