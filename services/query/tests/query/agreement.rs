//! Every answer agrees with every other and with a count in plain Rust, over random events, filters and ranges.

use std::collections::BTreeMap;

use domain::{KeyId, SecretId, WorkspaceId};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use proto::{resource, usage as pb};

use crate::{
    events::{self, Event},
    stack::{Stack, filter, some_days_ago, timestamp, total},
};

const DATA_SETS: usize = 7;
const FILTERS_PER_DATA_SET: usize = 30;
const EVENTS: usize = 600;
const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "PATCH"];
const ROUTES: [&str; 6] = ["/", "/v1/orders", "/v1/orders/{id}", "/v1/été", "/v1/it's", "/v1/a\tb"];
const STATUS_CODES: [u16; 8] = [200, 201, 304, 400, 404, 429, 500, 503];
const RESOURCE_IDS: [&str; 4] = ["", "1", "2", "it's"];
const DENIALS: [&str; 3] = ["", "deleted", "ip_not_allowed"];
const CLIENT_IPS: [&str; 5] = ["127.0.0.1", "10.0.0.9", "2001:db8::1", "::", "::ffff:0:0:1"];
const QUARTER_MS: i64 = 900_000;

/// What the pairs of one data set are made of.
struct DataSet {
    workspace_id: WorkspaceId,
    keys: Vec<KeyId>,
    secrets: Vec<SecretId>,
    events: Vec<Event>,
    /// The time of the first event at the earliest, and the span of all, in milliseconds.
    base_ms: i64,
    span_ms: i64,
}

#[tokio::test]
async fn every_answer_agrees_to_the_last_event() {
    let stack = Stack::start().await;
    let mut runner = TestRunner::deterministic();
    for number in 0..DATA_SETS {
        // From half an hour to three weeks, so that every granularity is chosen.
        let span_ms = 1_800_000 * [1, 5, 20, 100, 300, 700, 1_000][number];
        let data = data_set(&mut runner, span_ms);
        events::insert(&stack.clickhouse, data.workspace_id, &data.events).await;
        // Two at a time, which is also how callers ask.
        for _ in 0..FILTERS_PER_DATA_SET / 2 {
            let mut question = || draw(&mut runner, &filters(&data));
            let (one, other) = (question(), question());
            let mut shape = || draw(&mut runner, &(1..4i32, 0..5i32, 1..8i32, 50..500i32));
            let (shape_of_one, shape_of_other) = (shape(), shape());
            tokio::join!(
                agree(&stack, &data, &one, shape_of_one),
                agree(&stack, &data, &other, shape_of_other)
            );
        }
    }
}

async fn agree(
    stack: &Stack,
    data: &DataSet,
    filter: &pb::UsageFilter,
    (limit, granularity, dimension, page_size): (i32, i32, i32, i32),
) {
    let id = data.workspace_id;
    let mut fitting: Vec<&Event> = data.events.iter().filter(|event| event.fits(filter)).collect();
    fitting.sort_by_key(|event| std::cmp::Reverse((event.at_ms, event.request_id)));
    let expected = count(fitting.iter().copied());

    let summary = stack.summary(id, filter.clone()).await.unwrap();
    assert_eq!(summary.counts, Some(expected), "{filter:?}");

    let dimension = pb::Dimension::try_from(dimension).unwrap();
    let breakdown = stack.breakdown(id, filter.clone(), dimension, limit).await.unwrap();
    let mut values: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in &fitting {
        values.entry(value(event, dimension)).or_default().push(event);
    }
    let mut rows: Vec<_> = values.into_iter().map(|(v, events)| (v, count(events.into_iter()))).collect();
    rows.sort_by_key(|(value, counts)| (std::cmp::Reverse(counts.total_count), value.clone()));
    let others = rows.split_off(rows.len().min(usize::try_from(limit).unwrap()));
    let found = breakdown.rows.into_iter().map(|row| (row.value, row.counts.unwrap()));
    assert_eq!(found.collect::<Vec<_>>(), rows, "{filter:?}");
    assert_eq!(breakdown.other, Some(sum(others.iter().map(|(_, counts)| counts))), "{filter:?}");
    assert_eq!(breakdown.other_value_count, others.len() as u64, "{filter:?}");

    let granularity = pb::Granularity::try_from(granularity).unwrap();
    match stack.series(id, filter.clone(), granularity).await {
        Ok(series) => assert_series(&series, &fitting, expected, filter),
        Err(status) => {
            assert_eq!(granularity, pb::Granularity::Minute, "{status}");
            assert!(data.span_ms / 60_000 >= 2_000, "{status}");
        }
    }

    let log = stack.log(id, filter, page_size).await;
    let names = log.into_iter().map(|request| request.name).collect::<Vec<_>>();
    let name = |event: &&Event| resource::request_name(id, event.request_id);
    assert_eq!(names, fitting.iter().map(name).collect::<Vec<_>>(), "{filter:?}");
}

fn assert_series(series: &pb::TimeSeries, events: &[&Event], expected: pb::Counts, filter: &pb::UsageFilter) {
    let counts = series.points.iter().map(|point| point.counts.as_ref().unwrap());
    assert_eq!(sum(counts), expected, "{filter:?}");
    let length_s = match series.granularity() {
        pb::Granularity::Minute => 60,
        pb::Granularity::QuarterHour => 900,
        pb::Granularity::Hour => 3_600,
        _ => 86_400,
    };
    let starts: Vec<i64> =
        series.points.iter().map(|point| point.start_time.as_ref().unwrap().seconds).collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == length_s), "{filter:?}");
    assert!(starts[0] <= filter.from.as_ref().unwrap().seconds && starts[0] % length_s == 0);
    for (start, point) in starts.iter().zip(&series.points) {
        let inside =
            events.iter().filter(|event| event.at_ms.div_euclid(length_s * 1000) * length_s == *start);
        assert_eq!(point.counts, Some(count(inside.copied())), "{start} {filter:?}");
    }
}

fn value(event: &Event, dimension: pb::Dimension) -> String {
    match dimension {
        pb::Dimension::Method => event.method.clone(),
        pb::Dimension::StatusCode => event.status_code.to_string(),
        pb::Dimension::Route => event.route.clone(),
        pb::Dimension::Secret => event.secret_id.to_string(),
        pb::Dimension::Denial => event.denial.clone(),
        pb::Dimension::ClientIp => event.client_ip.to_string(),
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

/// Times within the span, most of them at or beside the border of a quarter hour, and many of them equal.
fn times(base_ms: i64, span_ms: i64) -> impl Strategy<Value = i64> + Clone {
    let quarter = 0..(span_ms / QUARTER_MS);
    prop_oneof![
        (0..span_ms).prop_map(move |at| base_ms + at),
        (quarter, -1..=1i64).prop_map(move |(quarter, beside)| base_ms + quarter * QUARTER_MS + beside),
    ]
}

fn data_set(runner: &mut TestRunner, span_ms: i64) -> DataSet {
    let base_ms = some_days_ago() - span_ms;
    let keys: Vec<KeyId> = (0..3).map(|_| KeyId::generate()).collect();
    let secrets: Vec<SecretId> = (0..4).map(|_| SecretId::generate()).collect();
    let event = (
        select(keys.clone()),
        times(base_ms, span_ms),
        select(&METHODS),
        select(&ROUTES),
        select(&STATUS_CODES),
        select(&RESOURCE_IDS),
        (select(secrets.clone()), select(&DENIALS), select(&CLIENT_IPS)),
    );
    let event = event.prop_map(|(key_id, at_ms, method, route, status_code, resource_id, rest)| Event {
        secret_id: rest.0,
        denial: rest.1.into(),
        client_ip: rest.2.parse().unwrap(),
        method: method.into(),
        route: route.into(),
        status_code,
        resource_id: resource_id.into(),
        ..Event::new(key_id, at_ms)
    });
    let events = draw(runner, &prop::collection::vec(event, EVENTS));
    DataSet { workspace_id: WorkspaceId::generate(), keys, secrets, events, base_ms, span_ms }
}

/// Filters that mostly find something: each condition is there one time in three.
fn filters(data: &DataSet) -> impl Strategy<Value = pb::UsageFilter> {
    let some = |values: Vec<String>| {
        let most = values.len();
        prop_oneof![2 => Just(vec![]), 1 => subsequence(values, 1..=most)]
    };
    let texts = |values: &[&str]| some(values.iter().map(|value| (*value).to_owned()).collect());
    let secrets: Vec<String> = data.secrets.iter().map(ToString::to_string).collect();
    let at = times(data.base_ms, data.span_ms);
    let codes = STATUS_CODES.iter().map(|code| u32::from(*code)).collect::<Vec<_>>();
    (
        (at.clone(), at, 0..1_000_000i32, 0..1_000_000i32),
        some(data.keys.iter().map(ToString::to_string).collect()),
        prop_oneof![2 => Just(vec![]), 1 => subsequence(vec![1, 2, 3], 1..=3)],
        texts(&["get", "POST", "Patch", "PUT"]),
        texts(&ROUTES),
        prop_oneof![2 => Just(vec![]), 1 => subsequence(codes, 1..=8)],
        prop_oneof![4 => Just(vec![]), 1 => subsequence(RESOURCE_IDS.map(str::to_owned).to_vec(), 1..=4)],
        prop_oneof![4 => Just(vec![]), 1 => subsequence(secrets, 1..=4)],
        prop_oneof![4 => Just(vec![]), 1 => subsequence(DENIALS.map(str::to_owned).to_vec(), 1..=3)],
    )
        .prop_map(
            |(at, key_ids, outcomes, methods, routes, status_codes, resource_ids, secret_ids, denials)| {
                let (a, b, fine_a, fine_b) = at;
                let mut wire = filter(a.min(b), a.max(b) + 1);
                // Finer than a millisecond: the border must still be exact.
                wire.from.as_mut().unwrap().nanos += fine_a * i32::from(fine_a % 2 == 0);
                wire.to = Some(timestamp(a.max(b) + 2));
                wire.to.as_mut().unwrap().nanos += fine_b * i32::from(fine_b % 2 == 0);
                pb::UsageFilter {
                    key_ids,
                    outcomes,
                    methods,
                    routes,
                    status_codes,
                    resource_ids,
                    secret_ids,
                    denials,
                    ..wire
                }
            },
        )
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
