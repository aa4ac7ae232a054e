//! What only shows at ClickHouse itself: which index a statement uses, and that limits and cancelled calls end it.

use clap::Parser as _;
use clickhouse::Row;
use domain::{KeyId, RequestId, TimeRange, WorkspaceId};
use serde::Deserialize;

use super::*;
use crate::{
    condition::{Condition, Detail, Test},
    plan::{DAY_MS, Plan, Span},
    sql::{Dimension, Direction, Since},
};

/// Never ends by itself, on one core.
const ENDLESS: &str = "select sum(sipHash64(number)) as tables from system.numbers settings max_threads = 1";

#[derive(Row, Deserialize)]
struct ExplainRow {
    explain: String,
}

fn statement(text: &str) -> Statement {
    Statement { name: "test", text: text.to_owned(), params: vec![] }
}

fn store(clickhouse: &parts::ClickHouse, flags: &[&str]) -> Store {
    let url = clickhouse.url();
    Store::new(&Config::parse_from(
        ["query", "--clickhouse-url", &url, "--query-rows-max", "0"].iter().chain(flags),
    ))
    .unwrap()
}

impl Store {
    async fn some<T: Answer>(&self, statement: Statement, deadline: Instant) -> Result<Vec<T>, StoreError> {
        self.rows(WorkspaceId::generate(), statement, deadline, &Cost::default()).await
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn explain(store: &Store, statement: Statement) -> String {
    let statement = Statement { text: format!("explain indexes = 1\n{}", statement.text), ..statement };
    let rows = store.some::<ExplainRow>(statement, soon()).await.unwrap();
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
    clickhouse.create_tables().await;
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
    let range = TimeRange::new(now - time::Duration::days(30), now).unwrap();
    let route = || Condition::Is(Test::Routes(vec!["/".into()]));
    let answers = Condition::All(vec![
        Condition::Is(Test::Keys(vec![key_id])),
        Condition::Is(Test::Outcomes(vec![domain::Outcome::Completed])),
        Condition::Not(Box::new(Condition::Is(Test::Methods(vec!["PUT".into()])))),
        Condition::Is(Test::StatusClasses(vec![2])),
        Condition::Is(Test::Origins(vec![domain::Origin::Edge])),
        Condition::Is(Test::Denials(vec![String::new()])),
    ]);
    let starts_s: Vec<i64> = (0..32).map(|day| (now.unix_timestamp() / 86_400 - 30 + day) * 86_400).collect();
    for condition in [&answers, &Condition::ALWAYS] {
        let plan = Plan::new(&range, Detail::Answers, &[], i64::MIN);
        for statement in [
            sql::summary(workspace_id, condition, &plan),
            sql::breakdown(workspace_id, condition, &plan, (Dimension::Method, None), 10),
            sql::breakdown(workspace_id, condition, &plan, (Dimension::Key, Some(Dimension::StatusCode)), 10),
            sql::breakdown(workspace_id, condition, &plan, (Dimension::Origin, Some(Dimension::Denial)), 10),
            sql::series(workspace_id, condition, &plan, &starts_s),
            sql::overview(workspace_id, condition, &plan, &starts_s),
            sql::key_usage(workspace_id, condition, &plan, &starts_s, 10),
        ] {
            let explained = explain(&store, statement.clone()).await;
            let count = |what: &str| explained.matches(what).count();
            assert_eq!(count("(totals_by_quarter_hour)"), 1, "{}\n{explained}", statement.text);
            assert_eq!(count("(keymeter.request_events)"), 1, "{}\n{explained}", statement.text);
        }
        let quarters = sql::quarters(workspace_id, condition, Span::of(&range), Direction::Falling, 10);
        assert!(explain(&store, quarters).await.contains("(totals_by_quarter_hour)"));
        let plan = Plan::new(&range, Detail::Routes, &[], i64::MIN);
        let borders: Vec<i64> = starts_s.iter().map(|start_s| (start_s - 19_800) * 1000).collect();
        let other_days = Plan::of_bars(&range, Detail::Routes, &borders, i64::MIN);
        let routes = Condition::All(vec![condition.clone(), route()]);
        for statement in [
            sql::breakdown(workspace_id, condition, &plan, (Dimension::Route, Some(Dimension::Method)), 10),
            sql::summary(workspace_id, &routes, &plan),
            sql::series(workspace_id, &routes, &plan, &starts_s),
            sql::series(workspace_id, &routes, &other_days, &starts_s),
            sql::overview(workspace_id, &routes, &other_days, &starts_s),
        ] {
            let explained = explain(&store, statement.clone()).await;
            assert_eq!(explained.matches("(totals_by_day)").count(), 1, "{}\n{explained}", statement.text);
        }
    }

    let span = Span::of(&range);
    let page = |condition: &Condition| {
        sql::page(workspace_id, (condition, &sql::Fields::All), span, None, Direction::Falling, 51)
    };
    let of_one_key = explain(&store, page(&answers)).await;
    let first = of_one_key.split_once("Prewhere filter column:").unwrap().1.lines().next().unwrap();
    assert!(first.contains("denial") && !first.contains("key_id"), "keys come last: {of_one_key}");
    assert!(of_one_key.contains("Read type: InReverseOrder"), "{of_one_key}");
    let of_all_keys = explain(&store, page(&Condition::ALWAYS)).await;
    assert!(of_all_keys.contains("Read type: Default"), "{of_all_keys}");
    for (test, index) in [
        (Test::ResourceIds(vec!["7".into()]), "resource_id_bloom"),
        (Test::RequestIds(vec![RequestId::generate()]), "request_id_bloom"),
        (Test::SecretIds(vec![domain::SecretId::generate()]), "secret_id_set"),
        (Test::ClientIps(vec![std::net::Ipv6Addr::LOCALHOST]), "client_ip_bloom"),
        (Test::LatencyFrom(1), "latency_us_range"),
    ] {
        let explained = explain(&store, page(&Condition::Is(test))).await;
        assert!(explained.contains(index), "{index}: {explained}");
    }
    let one = explain(&store, sql::call(workspace_id, RequestId::generate(), span)).await;
    assert!(one.contains("request_id_bloom"), "{one}");
    let since = Since { start_ms: DAY_MS, shards: vec![(1, 2 * DAY_MS)] };
    let news = explain(&store, sql::tail(workspace_id, &answers, span, &since, 10)).await;
    assert!(news.contains("ingested_at_range"), "{news}");
}

#[tokio::test]
async fn a_dropped_call_ends_its_query() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &[]);
    let running =
        tokio::spawn(async move { store.some::<ProbeRow>(statement(ENDLESS), soon()).await.is_ok() });
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
    let late = store.some::<ProbeRow>(statement(ENDLESS), brief).await.unwrap_err();
    assert_eq!(late, StoreError::TimedOut);
    none_runs(&clickhouse).await;
    let limited = ENDLESS.replace("settings", "settings max_execution_time = 0.2,");
    let late = store.some::<ProbeRow>(statement(&limited), soon()).await.unwrap_err();
    assert_eq!(late, StoreError::TimedOut, "also if ClickHouse's own clock is first");
    let many =
        Store { client: store.client.clone().with_setting("max_rows_to_read", "1000"), ..store.clone() };
    let refused = many.some::<ProbeRow>(statement(ENDLESS), soon()).await.unwrap_err();
    assert_eq!(refused, StoreError::TooManyRows);
    let large = "select length(groupArray(number)) as tables from numbers(100000000)";
    let refused = store.some::<ProbeRow>(statement(large), soon()).await.unwrap_err();
    assert_eq!(refused, StoreError::OutOfMemory);
}

#[tokio::test]
async fn nothing_can_be_written() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &[]);
    clickhouse.query("create table t (a UInt8) engine = MergeTree order by a").await;
    for write in ["insert into t values (1)", "drop table t", "create table u (a UInt8) engine = Memory"] {
        let refused = store.some::<ProbeRow>(statement(write), soon()).await.unwrap_err();
        assert!(refused.to_string().contains("Code: 164"), "{write}: {refused}");
    }
    assert_eq!(clickhouse.query("select count() from t").await, "0\n");
}

#[tokio::test]
async fn a_crowd_waits_for_its_turn_and_then_is_told() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &["--queries-max", "1"]);
    let one = || statement("select toUInt64(1) as tables");
    let turn = store.turns.take(WorkspaceId::generate(), soon()).await.unwrap();
    let brief = Instant::now() + Duration::from_millis(50);
    assert_eq!(store.some::<ProbeRow>(one(), brief).await.unwrap_err(), StoreError::Busy);
    let waiting = tokio::spawn({
        let (store, one) = (store.clone(), one());
        async move { store.some::<ProbeRow>(one, soon()).await.map(|rows| rows.len()) }
    });
    drop(turn);
    assert_eq!(waiting.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn an_answer_tells_what_it_cost() {
    let clickhouse = parts::ClickHouse::start().await;
    let store = store(&clickhouse, &[]);
    clickhouse
        .query("create table t (a UInt64) engine = MergeTree order by a as select number from numbers(1000)")
        .await;
    let cost = Cost::default();
    let counted = statement("select sum(a) as tables from t");
    store.rows::<ProbeRow>(WorkspaceId::generate(), counted, soon(), &cost).await.unwrap();
    let read = cost.to_wire();
    assert_eq!((read.row_count, read.byte_count), (1_000, 8_000));
}
