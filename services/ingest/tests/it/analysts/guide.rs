//! `docs/sql.md` against the engine: every query in it is run as an analyst, beside another workspace, on calls whose answers are
//! known; every column that it names is there, and no other.

use parts::ClickHouse;

use super::{
    engine::{self, LARGE, SMALL},
    users::{self, Rights},
};

const GUIDE: &str = include_str!("../../../../../docs/sql.md");

const CALLS: &str = include_str!("calls.sql");

/// What each query answers, by its heading.
const ANSWERS: &[(&str, &str)] = &[
    (
        "Top endpoints",
        "GET\t/v1/items\t5\t2\t0\t3\nGET\t/v1/orders/{id}\t4\t2\t2\t0\nPOST\t/v1/orders\t1\t1\t0\t0\n",
    ),
    (
        "Error rate by hour in a time zone",
        "2026-11-10 13:00:00\t3\t0.333\n2026-11-10 14:00:00\t1\t0\n2026-11-11 05:00:00\t1\t1\n\
         2026-11-11 13:00:00\t1\t0\n2026-11-11 17:00:00\t3\t0\n2026-11-11 18:00:00\t1\t0\n",
    ),
    ("p95 per route", "/v1/orders/{id}\t4\t900\n/v1/orders\t1\t100\n/v1/items\t2\t40\n"),
    (
        "Calls by key and day",
        "key_0000000001o0100000000000o4\t2026-11-10\t4\nkey_0000000001o0100000000000o8\t2026-11-11\t6\n",
    ),
    ("Keys that are no longer used", "key_0000000001o0100000000000oc\t2026-09-05\n"),
    (
        "Slowest calls",
        "req_0000000001o01000000000000k\t2026-11-10 23:30:00.000\tGET\t/v1/orders/1001\t500\t900\n\
         req_0000000001o01000000000000g\t2026-11-10 09:00:00.000\tPOST\t/v1/orders\t201\t100\n\
         req_0000000001o010000000000018\t2026-11-11 12:30:00.000\tGET\t/v1/items\t200\t40\n",
    ),
    (
        "One call by its id",
        "req_0000000001o010000000000018\tkey_0000000001o0100000000000o8\t2026-11-11 12:30:00.000\tGET\t/v1/items\t200\t\
         192.0.2.7\t000102030405060708090a0b0c0d0e0f\n",
    ),
    (
        "Calls of one resource",
        "2026-11-10 08:00:00.000\tGET\t/v1/orders/1001\t200\tcompleted\n\
         2026-11-10 08:10:00.000\tGET\t/v1/orders/1001\t200\tcompleted\n\
         2026-11-10 23:30:00.000\tGET\t/v1/orders/1001\t500\tfailed\n",
    ),
    ("Bursts that were held back", "key_0000000001o0100000000000o8\tper-minute\t2026-11-11 12:00:00\t3\n"),
    (
        "Bytes by month, from rows and archive",
        "2026-09-01\t7\t0\t700\n2026-10-01\t2\t0\t1100\n2026-11-01\t10\t50\t730\n",
    ),
    ("Is everything there yet?", "1\t['edge_b']\n"),
];

async fn analyst() -> ClickHouse {
    let mut clickhouse = engine::filled(&[LARGE]).await;
    for sql in ingest::schema::statements(CALLS) {
        clickhouse.query(sql).await;
    }
    clickhouse.restart_with_users(&users::file(SMALL.workspace(), Rights::Analyst)).await;
    clickhouse
}

/// Each query with the heading above it.
fn queries() -> Vec<(&'static str, &'static str)> {
    let mut queries = Vec::new();
    for section in GUIDE.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap_or_default();
        let blocks = section.split("```sql\n").skip(1);
        queries.extend(
            blocks.map(|block| (heading, block.split("```").next().expect("a block ends").trim_end())),
        );
    }
    queries
}

#[tokio::test]
async fn every_query_answers_what_it_should() {
    let clickhouse = analyst().await;
    let queries = queries();
    assert_eq!(queries.len(), GUIDE.matches("```sql").count(), "all of them stand under a heading");
    let headings: Vec<_> = queries.iter().map(|(heading, _)| *heading).collect();
    assert_eq!(headings, ANSWERS.iter().map(|(heading, _)| *heading).collect::<Vec<_>>());
    for ((heading, sql), (_, answer)) in queries.into_iter().zip(ANSWERS) {
        assert_eq!(clickhouse.query(sql).await, *answer, "{heading}");
    }
}

#[tokio::test]
async fn the_columns_are_those_that_there_are() {
    let clickhouse = analyst().await;
    let mut views = 0;
    for section in GUIDE.split("\n### keymeter.").skip(1) {
        let (view, text) = section.split_once('\n').expect("a heading ends");
        let text = text.split("\n## ").next().unwrap_or_default();
        let named: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let sql = format!(
            "select concat('| `', name, '` | `', type, '` | ', comment, ' |') from system.columns
             where database = 'keymeter' and table = '{view}' order by position format TSVRaw"
        );
        let there = clickhouse.query(&sql).await;
        assert_eq!(named, there.lines().collect::<Vec<_>>(), "{view}");
        let comment = format!(
            "select concat(comment, '.') from system.tables where database = 'keymeter' and name = '{view}'"
        );
        assert!(text.contains(clickhouse.query(&comment).await.trim_end()), "{view}");
        views += 1;
    }
    let all = "select count() from system.tables where database = 'keymeter'";
    assert_eq!(clickhouse.query(all).await, format!("{views}\n"), "the guide has all that an analyst sees");
}
