//! Every answer agrees with every other and with a count in plain Rust, over random events, filters and ranges, also
//! where calls have expired and only their days are left.

use std::collections::{BTreeMap, BTreeSet};

use domain::{KeyId, RequestId, WorkspaceId};
use proptest::{strategy::Strategy, strategy::ValueTree as _, test_runner::TestRunner};
use proto::{resource, usage as pb};
use tonic::Status;

use crate::{
    events::{self, Event},
    pairs::{DataSet, QUARTER_MS, data_set, filters},
    stack::{Stack, filter, some_days_ago, total},
};

const DATA_SETS: usize = 14;
const FILTERS_PER_DATA_SET: usize = 150;

/// How a question is asked beside its filter.
#[derive(Debug, Clone, Copy)]
struct Shape {
    limit: i32,
    granularity: i32,
    dimension: i32,
    second: i32,
    page_size: i32,
    zone: usize,
}

const ZONES: [&str; 4] = ["", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"];

#[tokio::test]
async fn every_answer_agrees_to_the_last_event() {
    let stack = Stack::start().await;
    let calls_from_ms = events::archive(&stack.clickhouse).await;
    stack.horizon_is(calls_from_ms).await;
    let mut runner = TestRunner::deterministic();
    for number in 0..DATA_SETS {
        // From half an hour to three weeks, so that every granularity is chosen; every third around the border of what
        // has expired.
        let span_ms = 1_800_000 * [1, 5, 20, 100, 300, 700, 1_000][number % 7];
        let end_ms = if number % 3 == 2 { calls_from_ms + span_ms / 2 } else { some_days_ago() };
        let data = data_set(&mut runner, end_ms / QUARTER_MS * QUARTER_MS, span_ms, calls_from_ms);
        events::insert(&stack.clickhouse, data.workspace_id, &data.events).await;
        events::archive_calls(&stack.clickhouse, data.workspace_id, &data.archived()).await;
        // Two at a time, which is also how callers ask.
        for _ in 0..FILTERS_PER_DATA_SET / 2 {
            let mut question = || (draw(&mut runner, &filters(&data)), shape(&mut runner));
            let (one, other) = (question(), question());
            tokio::join!(agree(&stack, &data, &one.0, one.1), agree(&stack, &data, &other.0, other.1));
        }
    }
}

fn shape(runner: &mut TestRunner) -> Shape {
    let (limit, granularity, dimension, second, page_size, zone) =
        draw(runner, &(1..4i32, 0..5i32, 1..12i32, 0..12i32, 90..300i32, 0..ZONES.len()));
    Shape { limit, granularity, dimension, second, page_size, zone }
}

async fn agree(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter, shape: Shape) {
    let all = data.counted(filter, pb::Dimension::Outcome);
    let expected = count(all.iter().copied());
    let summary = stack.summary(data.workspace_id, filter.clone()).await.unwrap();
    assert_eq!(summary.counts, Some(expected), "{filter:?}");
    breakdown_agrees(stack, data, filter, shape).await;
    series_agrees(stack, data, filter, shape, &all).await;
    log_agrees(stack, data, filter, shape).await;
    match shape.dimension % 4 {
        0 => latency_agrees(stack, data, filter).await,
        1 => callers_agree(stack, data, filter).await,
        2 => keys_agree(stack, data, filter, shape).await,
        _ => export_agrees(stack, data, filter).await,
    }
}

async fn breakdown_agrees(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter, shape: Shape) {
    let first = pb::Dimension::try_from(shape.dimension).unwrap();
    let second = pb::Dimension::try_from(shape.second).unwrap();
    let second = if second == first { pb::Dimension::Unspecified } else { second };
    let found = stack.pairs(data.workspace_id, filter.clone(), (first, second), shape.limit).await.unwrap();
    if second == pb::Dimension::Unspecified {
        let live = data.live(filter);
        for row in &found.rows {
            let of_row = live.iter().filter(|event| value(event, first) == row.value);
            let latencies = of_row.map(|event| event.latency_us).collect();
            assert_percentile(95, row.p95_us, latencies, 1.0 / 32.0);
        }
    }
    let events = data.counted(filter, first).into_iter().filter(|e| data.is_counted(e, filter, second));
    assert_rows(found, events, (first, second), shape.limit, filter);
}

/// The `limit` most called values, and the others together.
fn assert_rows<'e>(
    found: pb::Breakdown,
    events: impl Iterator<Item = &'e Event>,
    by: (pb::Dimension, pb::Dimension),
    limit: i32,
    filter: &pb::UsageFilter,
) {
    let mut values: BTreeMap<(String, String), Vec<&Event>> = BTreeMap::new();
    for event in events {
        values.entry((value(event, by.0), value(event, by.1))).or_default().push(event);
    }
    let mut rows: Vec<_> = values.into_iter().map(|(v, events)| (v, count(events.into_iter()))).collect();
    rows.sort_by(|(v, counts), (w, others)| (others.total_count, v).cmp(&(counts.total_count, w)));
    let others = rows.split_off(rows.len().min(usize::try_from(limit).unwrap()));
    let rows_found = found.rows.into_iter().map(|row| ((row.value, row.second_value), row.counts.unwrap()));
    assert_eq!(rows_found.collect::<Vec<_>>(), rows, "{by:?} {filter:?}");
    assert_eq!(found.other, Some(sum(others.iter().map(|(_, counts)| counts))), "{by:?} {filter:?}");
    assert_eq!(found.other_value_count, others.len() as u64, "{by:?} {filter:?}");
}

async fn series_agrees(
    stack: &Stack,
    data: &DataSet,
    filter: &pb::UsageFilter,
    shape: Shape,
    all: &[&Event],
) {
    let granularity = pb::Granularity::try_from(shape.granularity).unwrap();
    let bars = (granularity, ZONES[shape.zone]);
    // Both answer the same.
    let asked = if shape.page_size % 2 == 0 {
        stack.series(data.workspace_id, filter.clone(), bars.0, bars.1).await
    } else {
        overview_agrees(stack, data, filter, shape, bars, all).await
    };
    let series = match asked {
        Ok(series) => series,
        Err(status) => {
            assert_eq!(granularity, pb::Granularity::Minute, "{status}");
            assert!(data.span_ms / 60_000 >= 2_000, "{status}");
            return;
        }
    };
    let starts: Vec<i64> =
        series.points.iter().map(|point| point.start_time.as_ref().unwrap().seconds * 1000).collect();
    assert!(starts.is_sorted() && starts[0] <= events::span_ms(filter).0.max(starts[0]), "{filter:?}");
    let mut bars = vec![Vec::new(); starts.len()];
    for event in all {
        let at = starts.partition_point(|start| *start <= data.time_counted(event));
        bars[at - 1].push(*event);
    }
    for ((start, point), bar) in starts.iter().zip(&series.points).zip(bars) {
        assert_eq!(
            point.counts,
            Some(count(bar.into_iter())),
            "{start} {granularity:?} {shape:?} {filter:?}"
        );
    }
}

/// The series of an overview, whose other parts agree.
async fn overview_agrees(
    stack: &Stack,
    data: &DataSet,
    filter: &pb::UsageFilter,
    shape: Shape,
    bars: (pb::Granularity, &str),
    all: &[&Event],
) -> Result<pb::TimeSeries, Status> {
    let found = stack.overview(data.workspace_id, filter.clone(), bars, shape.limit).await?;
    let summary = found.summary.unwrap();
    assert_eq!(summary.counts, Some(count(all.iter().copied())), "{filter:?}");
    assert!(summary.previous_counts.is_some());
    let named = [(pb::Dimension::Method, found.methods), (pb::Dimension::StatusCode, found.status_codes)];
    for (dimension, found) in named {
        let by = (dimension, pb::Dimension::Unspecified);
        assert_rows(found.unwrap(), all.iter().copied(), by, shape.limit, filter);
    }
    Ok(found.series.unwrap())
}

async fn log_agrees(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter, shape: Shape) {
    let mut live = data.live(filter);
    live.sort_by_key(|event| std::cmp::Reverse(event.place()));
    let name = |event: &&Event| resource::request_name(data.workspace_id, event.request_id);
    let names: Vec<_> = live.iter().map(name).collect();
    let log = stack.log(data.workspace_id, filter, shape.page_size).await;
    let found = log.into_iter().map(|request| request.name).collect::<Vec<_>>();
    assert_eq!(found, names, "{filter:?}");
}

async fn latency_agrees(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter) {
    let mut latencies: Vec<u32> = data.live(filter).iter().map(|event| event.latency_us).collect();
    latencies.sort_unstable();
    let found = stack.latency(data.workspace_id, filter.clone()).await.unwrap();
    assert_eq!(found.call_count, latencies.len() as u64, "{filter:?}");
    assert_eq!(found.max_us, latencies.last().copied().unwrap_or(0), "{filter:?}");
    assert_eq!(found.error_max > 0.0, !events::needs_calls(filter), "{filter:?}");
    let percentiles = [(50, found.p50_us), (90, found.p90_us), (95, found.p95_us), (99, found.p99_us)];
    for (percent, found_us) in percentiles {
        assert_percentile(percent, found_us, latencies.clone(), found.error_max);
    }
}

fn assert_percentile(percent: usize, found_us: u32, mut latencies: Vec<u32>, error_max: f64) {
    latencies.sort_unstable();
    let Some(last) = latencies.len().checked_sub(1) else { return assert_eq!(found_us, 0) };
    // Neither definition of a percentile between two calls is wrong.
    let at = latencies.len() * percent / 100;
    let (low, high) = (latencies[at.saturating_sub(1)], latencies[at.min(last)]);
    let room = |us: u32| f64::from(us) * error_max + 1.0;
    let bounds = (f64::from(low) - room(low))..=(f64::from(high) + room(high));
    assert!(
        bounds.contains(&f64::from(found_us)),
        "p{percent} is {found_us}, not in {bounds:?} of {latencies:?}"
    );
}

async fn callers_agree(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter) {
    let live = data.live(filter);
    let found = stack.callers(data.workspace_id, filter.clone()).await.unwrap();
    let ips: BTreeSet<_> = live.iter().map(|event| event.client_ip).collect();
    let keys: BTreeSet<_> = live.iter().map(|event| event.key_id).collect();
    let expected = (ips.len() as u64, u64::from(!live.is_empty()), keys.len() as u64);
    assert_eq!((found.client_ip_count, found.user_agent_count, found.key_count), expected, "{filter:?}");
}

async fn keys_agree(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter, shape: Shape) {
    let found = match stack.key_usage(data.workspace_id, filter.clone(), shape.granularity, shape.limit).await
    {
        Ok(found) => found,
        Err(status) => return assert!(status.message().starts_with("granularity: "), "{status}"),
    };
    // Routes are not known together with the time of the last call.
    let detail = if events::needs_routes(filter) { pb::Dimension::Secret } else { pb::Dimension::Key };
    let mut keys: BTreeMap<KeyId, Vec<&Event>> = BTreeMap::new();
    for event in data.counted(filter, detail) {
        keys.entry(event.key_id).or_default().push(event);
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_key(|(key_id, events)| (std::cmp::Reverse(events.len()), *key_id));
    let others = keys.split_off(keys.len().min(usize::try_from(shape.limit).unwrap()));
    assert_eq!((found.keys.len(), found.other_key_count), (keys.len(), others.len() as u64), "{filter:?}");
    for (usage, (key_id, events)) in found.keys.iter().zip(keys) {
        assert_eq!(usage.key_id, key_id.to_string(), "{filter:?}");
        assert_eq!(usage.counts, Some(count(events.iter().copied())), "{filter:?}");
        let last = events.iter().map(|event| event.at_ms).max();
        assert_eq!(usage.last_occurred_at, last.map(crate::stack::timestamp), "{filter:?}");
        assert_eq!(usage.bar_counts.iter().sum::<u64>(), events.len() as u64, "{filter:?}");
        let errors = events.iter().filter(|event| event.status_code >= 400).count() as u64;
        assert_eq!(usage.bar_error_counts.iter().sum::<u64>(), errors, "{filter:?}");
        assert_eq!(usage.bar_counts.len(), found.start_times.len());
    }
}

async fn export_agrees(stack: &Stack, data: &DataSet, filter: &pb::UsageFilter) {
    let (bytes, row_count) = stack.export(data.workspace_id, filter.clone(), pb::ExportFormat::Ndjson).await;
    let mut found = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: serde_json::Value = serde_json::from_slice(line).unwrap();
        found.push(RequestId::from_uuid(row["request_id"].as_str().unwrap().parse().unwrap()));
    }
    found.sort_unstable();
    let mut expected: Vec<_> = data.live(filter).iter().map(|event| event.request_id).collect();
    expected.sort_unstable();
    assert_eq!((&found, row_count), (&expected, expected.len() as u64), "{filter:?}");
}

fn value(event: &Event, dimension: pb::Dimension) -> String {
    match dimension {
        pb::Dimension::Unspecified => String::new(),
        pb::Dimension::Method => event.method.clone(),
        pb::Dimension::StatusCode => event.status_code.to_string(),
        pb::Dimension::Route => event.route.clone(),
        pb::Dimension::Secret => event.secret_id.to_string(),
        pb::Dimension::Denial => event.denial.clone(),
        pb::Dimension::ClientIp => event.client_ip.to_string(),
        pb::Dimension::Key => event.key_id.to_string(),
        pb::Dimension::Origin => event.origin.as_str().to_owned(),
        pb::Dimension::StatusClass => (event.status_code / 100).to_string(),
        pb::Dimension::Resource => event.resource_id.clone(),
        _ => event.outcome().as_str().to_owned(),
    }
}

fn count<'e>(events: impl Iterator<Item = &'e Event>) -> pb::Counts {
    let mut counts = pb::Counts::default();
    for event in events {
        counts.total_count += 1;
        match event.outcome() {
            domain::Outcome::Completed => counts.completed_count += 1,
            domain::Outcome::Failed => counts.failed_count += 1,
            domain::Outcome::RateLimited => counts.rate_limited_count += 1,
        }
    }
    counts
}

fn sum<'c>(all: impl Iterator<Item = &'c pb::Counts>) -> pb::Counts {
    all.fold(pb::Counts::default(), |sum, counts| pb::Counts {
        total_count: sum.total_count + counts.total_count,
        completed_count: sum.completed_count + counts.completed_count,
        failed_count: sum.failed_count + counts.failed_count,
        rate_limited_count: sum.rate_limited_count + counts.rate_limited_count,
    })
}

fn draw<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> S::Value {
    strategy.new_tree(runner).expect("the strategy rejects nothing").current()
}

#[tokio::test]
async fn equal_counts_are_listed_by_value_and_the_rest_is_exact() {
    let stack = Stack::start().await;
    let (workspace_id, key_id, at) = (WorkspaceId::generate(), KeyId::generate(), some_days_ago());
    let mut calls = Vec::new();
    for number in 0..1_005 {
        calls.push(Event { route: format!("/{number:04}"), ..Event::new(key_id, at) });
    }
    calls.push(Event { route: "/0700".into(), ..Event::new(key_id, at + QUARTER_MS) });
    // An empty value is a value, not the rest.
    calls.extend((0..3).map(|_| Event { route: String::new(), ..Event::new(key_id, at) }));
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    let range = filter(at - 1, at + 2 * QUARTER_MS);
    let breakdown = async |limit| {
        let found = stack.breakdown(workspace_id, range.clone(), pb::Dimension::Route, limit).await.unwrap();
        let values: Vec<String> = found.rows.iter().map(|row| row.value.clone()).collect();
        let all = found.rows.iter().map(|row| total(row.counts)).sum::<u64>() + total(found.other);
        assert_eq!(all, 1_009);
        (values, total(found.other), found.other_value_count)
    };
    let (values, other, other_values) = breakdown(0).await;
    assert_eq!(values[..4], ["", "/0700", "/0000", "/0001"]);
    assert_eq!((values.len(), other, other_values), (10, 996, 996));
    let (values, other, other_values) = breakdown(5_000).await;
    assert_eq!((values.len(), other, other_values), (1_000, 6, 6));
    let (values, other, other_values) = breakdown(1).await;
    assert_eq!((values, other, other_values), (vec![String::new()], 1_006, 1_005));
}
