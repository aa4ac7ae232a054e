//! Totals: by outcome, and by the values of a dimension.

use proto::usage::{
    Breakdown as Answer, Counts, Dimension, Freshness, GetBreakdownRequest, GetLatencyRequest,
    GetSummaryRequest, Latency, UsageFilter,
};
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    arguments::{Breakdown, Summary},
    clients::Clients,
    failure::{Failure, Service},
    json, keys,
    screen::Screen,
    table::Table,
    words::{count, latency, share, time},
};

/// Prints totals, latencies and the most called endpoints.
pub(crate) async fn summary(clients: &mut Clients, asked: &Summary, screen: &Screen) -> Result<(), Failure> {
    let range = asked.period.range(OffsetDateTime::now_utc());
    let filter = asked.which.filter(clients, range).await?;
    let parent = clients.workspace().await?;
    let question =
        GetSummaryRequest { parent: parent.clone(), filter: Some(filter.clone()), with_previous: true };
    let client = clients.usage.clone();
    let summary =
        clients.read(Service::Query, question, async |call| client.clone().get_summary(call).await).await?;
    let question = GetLatencyRequest { parent, filter: Some(filter.clone()) };
    let latency =
        clients.read(Service::Query, question, async |call| client.clone().get_latency(call).await).await?;
    let endpoints = match asked.top {
        0 => None,
        top => Some(get_breakdown(clients, filter, Dimension::Route, top).await?),
    };
    if screen.is_json {
        return screen.document(&json!({
            "summary": json::of("keymeter.usage.v1.Summary", &summary),
            "latency": json::of("keymeter.usage.v1.Latency", &latency),
            "top_endpoints": endpoints.as_ref().map(|top| json::of("keymeter.usage.v1.Breakdown", top)),
        }));
    }
    let (counts, before) = (summary.counts.unwrap_or_default(), summary.previous_counts.unwrap_or_default());
    let mut table = Table::new(&["", " CALLS", " SHARE", " BEFORE"]);
    for (name, now, before) in [
        ("total", counts.total_count, before.total_count),
        ("completed", counts.completed_count, before.completed_count),
        ("failed", counts.failed_count, before.failed_count),
        ("rate limited", counts.rate_limited_count, before.rate_limited_count),
    ] {
        table.row([name.to_owned(), count(now), share(now, counts.total_count), count(before)]);
    }
    screen.table(&table)?;
    if latency.call_count > 0 {
        screen.line(&told(&latency))?;
    }
    if let Some(endpoints) = endpoints.filter(|top| !top.rows.is_empty()) {
        screen.line("")?;
        screen.table(&rows(&endpoints, "ENDPOINT", None))?;
    }
    trust(summary.freshness.as_ref(), screen);
    Ok(())
}

/// Prints totals by a dimension.
pub(crate) async fn breakdown(
    clients: &mut Clients,
    asked: &Breakdown,
    screen: &Screen,
) -> Result<(), Failure> {
    let range = asked.period.range(OffsetDateTime::now_utc());
    let filter = asked.which.filter(clients, range).await?;
    let answer = get_breakdown(clients, filter, asked.by, asked.limit).await?;
    if screen.is_json {
        return screen.document(&json::of("keymeter.usage.v1.Breakdown", &answer));
    }
    let names =
        if asked.by == Dimension::Key { Some(keys::names(clients, &answer.rows).await) } else { None };
    screen.table(&rows(&answer, "VALUE", names.as_deref()))?;
    trust(answer.freshness.as_ref(), screen);
    Ok(())
}

async fn get_breakdown(
    clients: &mut Clients,
    filter: UsageFilter,
    dimension: Dimension,
    limit: u16,
) -> Result<Answer, Failure> {
    let question = GetBreakdownRequest {
        parent: clients.workspace().await?,
        filter: Some(filter),
        dimension: dimension.into(),
        limit: limit.into(),
        ..GetBreakdownRequest::default()
    };
    let client = clients.usage.clone();
    clients.read(Service::Query, question, async |call| client.clone().get_breakdown(call).await).await
}

fn rows(answer: &Answer, head: &'static str, names: Option<&[String]>) -> Table {
    let mut table =
        Table::new(&[head, if names.is_some() { "NAME" } else { "" }, " CALLS", " FAILED", " RATE LIMITED"]);
    let mut row = |value: String, name: String, counts: &Counts| {
        let numbers = [counts.total_count, counts.failed_count, counts.rate_limited_count].map(count);
        let [total, failed, limited] = numbers;
        table.row([value, name, total, failed, limited]);
    };
    for (at, each) in answer.rows.iter().enumerate() {
        let value = if each.value.is_empty() { "(none)".to_owned() } else { each.value.clone() };
        let name = names.and_then(|names| names.get(at)).cloned().unwrap_or_default();
        row(value, name, &each.counts.unwrap_or_default());
    }
    if answer.other_value_count > 0 {
        let value = format!("({} others)", count(answer.other_value_count));
        row(value, String::new(), &answer.other.unwrap_or_default());
    }
    table
}

fn told(latency_of: &Latency) -> String {
    let part = |name: &str, us: u32| format!("{name} {}", latency(us.into()));
    [
        part("p50", latency_of.p50_us),
        part("p95", latency_of.p95_us),
        part("p99", latency_of.p99_us),
        part("max", latency_of.max_us),
    ]
    .join("  ")
}

/// Up to when an answer is complete, and what is missing from it, for the reader of a table; JSON has it all.
pub(crate) fn trust(freshness: Option<&Freshness>, screen: &Screen) {
    let Some(freshness) = freshness else { return };
    match time(freshness.complete_up_to.as_ref()) {
        Some(at) => screen.note(&format!("Complete up to {}.", screen.moment(at))),
        None => screen.note("Not known to be complete: no edge has reported yet."),
    }
    for edge in &freshness.unaccounted_edges {
        let since = screen.time(edge.since.as_ref(), "some time");
        screen.note(&format!("{} is silent: its calls since {since} may be missing.", edge.edge_id));
    }
    for gap in &freshness.known_gaps {
        let calls = if gap.call_count == 0 {
            "Perhaps some calls".to_owned()
        } else {
            format!("{} calls", count(gap.call_count))
        };
        let (from, to) = (screen.time(gap.from.as_ref(), "?"), screen.time(gap.to.as_ref(), "?"));
        screen.note(&format!("{calls} of {} from {from} to {to} are known to be missing.", gap.edge_id));
    }
    if freshness.is_without_archive {
        let from = screen.time(freshness.calls_from.as_ref(), "?");
        screen.note(&format!("Calls before {from} are not in it: only totals are left of them."));
    }
}
