//! What only shows at ClickHouse itself: which index a statement uses, and that limits and cancelled calls end it.

use clap::Parser as _;
use domain::{KeyId, RequestId, TimeRange, WorkspaceId};

use super::*;
use crate::{filter::Filter, sql::Dimension};

#[path = "../../tests/query/schema.rs"]
mod schema;

/// Never ends by itself, on one core.
const ENDLESS: &str = "select sum(sipHash64(number)) as tables from system.numbers settings max_threads = 1";

#[derive(Row, Deserialize)]
struct ExplainRow {
    explain: String,
}

fn statement(text: &str) -> Statement {
    Statement { text: text.to_owned(), params: vec![] }
}

fn store(clickhouse: &parts::ClickHouse, flags: &[&str]) -> Store {
    let url = clickhouse.url();
    Store::new(&Config::parse_from(["query", "--clickhouse-url", &url].iter().chain(flags)))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn explain(store: &Store, statement: Statement) -> String {
    let statement = Statement { text: format!("explain indexes = 1\n{}", statement.text), ..statement };
    let rows = store.rows::<ExplainRow>(statement, soon()).await.unwrap();
    rows.into_iter().map(|row| row.explain + "\n").collect()
}

async fn none_runs(clickhouse: &parts::ClickHouse) {
    let left = "select count() from system.processes where query like '%sipHash64(number)%' \
                and query not like '%system.processes%'";
    parts::eventually("the query has ended", async || clickhouse.query(left).await == "0\n").await;
}

#[tokio::test]
async fn statements_use_what_was_made_for_them() {
    let clickhouse = parts::ClickHouse::start().await;
    schema::create(&clickhouse).await;
    let store = store(&clickhouse, &[]);
    let (workspace_id, key_id) = (WorkspaceId::generate(), KeyId::generate());
    // Two months, so two parts, each of several granules for the key.
    clickhouse
        .query(&format!(
            "insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, method, route, \
             status_code, outcome) select '{}', if(number % 2 = 0, toUUID('{}'), generateUUIDv4()), \
             generateUUIDv7(), now64(3) - toIntervalMillisecond(number * 30000), 'GET', '/', 200, 'completed' \
             from numbers(100000)",
            workspace_id.as_uuid(),
            key_id.as_uuid(),
        ))
        .await;
    let now = OffsetDateTime::now_utc();
    let filter = Filter {
        range: TimeRange::new(now - time::Duration::days(30), now).unwrap(),
        key_ids: Some(vec![key_id]),
        outcomes: Some(vec![domain::Outcome::Completed]),
        methods: Some(vec!["GET".into()]),
        routes: Some(vec!["/".into()]),
        status_codes: Some(vec![200]),
        resource_ids: None,
        secret_ids: None,
        denials: None,
    };
    let unfiltered = Filter {
        key_ids: None,
        outcomes: None,
        methods: None,
        routes: None,
        status_codes: None,
        ..filter.clone()
    };
    for filter in [&filter, &unfiltered] {
        for tally in [
            sql::summary(workspace_id, filter),
            sql::breakdown(workspace_id, filter, Dimension::Method, 10),
            sql::breakdown(workspace_id, filter, Dimension::StatusCode, 10),
            sql::breakdown(workspace_id, filter, Dimension::Route, 10),
            sql::breakdown(workspace_id, filter, Dimension::Outcome, 10),
            sql::series(workspace_id, filter, 900),
            sql::series(workspace_id, filter, 86_400),
        ] {
            let plan = explain(&store, tally.clone()).await;
            assert_eq!(plan.matches("(by_quarter_hour)").count(), 1, "{}\n{plan}", tally.text);
            assert_eq!(plan.matches("(keymeter.request_events)").count(), 2, "{}\n{plan}", tally.text);
        }
    }
    let by_minute = explain(&store, sql::series(workspace_id, &filter, 60)).await;
    assert!(!by_minute.contains("by_quarter_hour"), "{by_minute}");

    let of_one_key = explain(&store, sql::page(workspace_id, &filter, None, 51)).await;
    assert!(of_one_key.contains("Read type: InReverseOrder"), "{of_one_key}");
    let by_resource = Filter { resource_ids: Some(vec!["7".into()]), ..unfiltered };
    let by_resource = explain(&store, sql::page(workspace_id, &by_resource, None, 51)).await;
    assert!(by_resource.contains("resource_id_bloom"), "{by_resource}");
    let one = explain(&store, sql::call(workspace_id, RequestId::generate(), Some((0, 1)))).await;
    assert!(one.contains("request_id_bloom"), "{one}");
}

#[tokio::test]
async fn a_dropped_call_ends_its_query() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &[]);
    let running =
        tokio::spawn(async move { store.rows::<ProbeRow>(statement(ENDLESS), soon()).await.is_ok() });
    let named = "select count() from system.processes where query_id like 'keymeter-query-%'";
    parts::eventually("the query runs", async || clickhouse.query(named).await == "1\n").await;
    running.abort();
    none_runs(&clickhouse).await;
}

#[tokio::test]
async fn limits_end_a_query() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &["--query-bytes-max", "20000000"]);
    let brief = Instant::now() + Duration::from_millis(700);
    let late = store.rows::<ProbeRow>(statement(ENDLESS), brief).await.unwrap_err();
    assert_eq!(late, StoreError::TimedOut);
    none_runs(&clickhouse).await;
    let limited = ENDLESS.replace("settings", "settings max_execution_time = 0.2,");
    let late = store.rows::<ProbeRow>(statement(&limited), soon()).await.unwrap_err();
    assert_eq!(late, StoreError::TimedOut, "also if ClickHouse's own clock is first");
    let large = "select length(groupArray(number)) as tables from numbers(100000000)";
    let refused = store.rows::<ProbeRow>(statement(large), soon()).await.unwrap_err();
    assert_eq!(refused, StoreError::OutOfMemory);
}

#[tokio::test]
async fn nothing_can_be_written() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &[]);
    clickhouse.query("create table t (a UInt8) engine = MergeTree order by a").await;
    for write in ["insert into t values (1)", "drop table t", "create table u (a UInt8) engine = Memory"] {
        let refused = store.rows::<ProbeRow>(statement(write), soon()).await.unwrap_err();
        assert!(refused.to_string().contains("Code: 164"), "{write}: {refused}");
    }
    assert_eq!(clickhouse.query("select count() from t").await, "0\n");
}

#[tokio::test]
async fn a_crowd_waits_for_its_turn_and_then_is_told() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &["--queries-max", "1"]);
    let one = || statement("select toUInt64(1) as tables");
    let turn = store.turns.clone().acquire_owned().await.unwrap();
    let brief = Instant::now() + Duration::from_millis(50);
    assert_eq!(store.rows::<ProbeRow>(one(), brief).await.unwrap_err(), StoreError::Busy);
    let waiting = tokio::spawn({
        let (store, one) = (store.clone(), one());
        async move { store.rows::<ProbeRow>(one, soon()).await.map(|rows| rows.len()) }
    });
    drop(turn);
    assert_eq!(waiting.await.unwrap(), Ok(1));
}
