//! The views: ids as `domain` prints them, comments everywhere, totals from the projection, and each call once over rows and archive.

use domain::{KeyId, RequestId, SecretId, WorkspaceId};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

use super::{
    engine::{self, LARGE, SMALL},
    users::{self, Rights},
};

#[tokio::test]
async fn ids_are_printed_as_domain_prints_them() {
    let clickhouse = engine::prepared().await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::array::uniform16(0_u8..);
    let mut uuids = vec![uuid::Uuid::nil(), uuid::Uuid::max(), uuid::Uuid::now_v7()];
    uuids.extend((0..500).map(|_| {
        uuid::Uuid::from_bytes(bytes.new_tree(&mut runner).expect("bytes have no condition").current())
    }));
    let rows: Vec<_> = uuids
        .iter()
        .map(|id| format!("('{id}', '{id}', '{id}', '{id}', now64(3), 4294967295, 65535)"))
        .collect();
    let columns = "workspace_id, key_id, secret_id, request_id, occurred_at, writer_epoch, shard";
    clickhouse
        .query(&format!("insert into keymeter.request_events ({columns}) values {}", rows.join(", ")))
        .await;
    let found = clickhouse
        .query(
            "select workspace_id, key_id, secret_id, request_id from keymeter.requests order by request_id",
        )
        .await;
    uuids.sort_unstable();
    let expected = uuids.iter().map(|&id| {
        let (workspace, key) = (WorkspaceId::from_uuid(id), KeyId::from_uuid(id));
        format!("{workspace}\t{key}\t{}\t{}\n", SecretId::from_uuid(id), RequestId::from_uuid(id))
    });
    assert_eq!(found, expected.collect::<String>());
    let keys = "select count() from keymeter.requests as r, keymeter.requests_by_quarter_hour as q, keymeter.calls_by_day as d
        where r.key_id = q.key_id and q.key_id = d.key_id and r.key_uuid = q.key_uuid and q.key_uuid = d.key_uuid";
    assert_eq!(clickhouse.query(keys).await, "503\n");
}

#[tokio::test]
async fn what_is_stored_as_bytes_is_readable() {
    let clickhouse = engine::prepared().await;
    let insert = "insert into keymeter.request_events
        (request_id, occurred_at, client_ip, trace_id, latency_us, writer_epoch, shard) values
        ('00000000-0000-7000-8000-000000000001', now64(3), '::ffff:192.0.2.7', unhex('000102030405060708090a0b0c0d0eff'), 1500, 4294967295, 65535),
        ('00000000-0000-7000-8000-000000000002', now64(3), '2001:db8::ffff:1', '', 0, 4294967295, 65535)";
    clickhouse.query(insert).await;
    let read = "select client_ip, trace_id, latency_ms from keymeter.requests order by request_id";
    let expected = "192.0.2.7\t000102030405060708090a0b0c0d0eff\t1.5\n2001:db8::ffff:1\t\t0\n";
    assert_eq!(clickhouse.query(read).await, expected);
}

#[tokio::test]
async fn every_column_and_view_has_a_comment() {
    let clickhouse = engine::prepared().await;
    let read = "('request_events', 'daily_archive', 'archive_passes', 'watermarks', 'requests',
        'requests_by_quarter_hour', 'calls_by_day', 'daily_totals', 'complete_up_to')";
    let bare = format!(
        "select table, name from system.columns where database = 'keymeter' and table in {read} and comment = ''"
    );
    assert_eq!(clickhouse.query(&bare).await, "");
    let bare =
        "select name from system.tables where database = 'keymeter' and engine = 'View' and comment = ''";
    assert_eq!(clickhouse.query(bare).await, "");
}

#[tokio::test]
async fn quarters_of_an_hour_are_read_from_the_projection() {
    let mut clickhouse = engine::filled(&[SMALL, LARGE]).await;
    for rights in [Rights::Owner, Rights::PoliciesAlone, Rights::Analyst] {
        clickhouse.restart_with_users(&users::file(LARGE.workspace(), rights)).await;
        for sql in [
            "select sum(calls), sum(latency_us), max(last_occurred_at) from keymeter.requests_by_quarter_hour",
            "select outcome, sum(calls) from keymeter.requests_by_quarter_hour where denial = '' and origin = 'upstream' group by outcome",
            "select toDate(quarter_hour, 'Asia/Kathmandu') as day, sum(calls) from keymeter.requests_by_quarter_hour
             where quarter_hour >= toDateTime('2026-11-01 00:00:00', 'Asia/Kathmandu') group by day",
        ] {
            let plan = clickhouse.query(&format!("explain {sql}")).await;
            assert!(plan.contains("ReadFromMergeTree (totals_by_quarter_hour)"), "{rights:?} {sql}\n{plan}");
        }
    }
    let sums = "select sum(calls), sum(latency_us) from keymeter.requests_by_quarter_hour";
    assert_eq!(clickhouse.query(sums).await, format!("{}\t{}\n", 2 * LARGE.calls, 6 * LARGE.calls));
}

#[tokio::test]
async fn a_condition_on_a_view_reaches_the_primary_key() {
    let mut clickhouse = engine::filled(&[SMALL, LARGE]).await;
    clickhouse.restart_with_users(&users::file(LARGE.workspace(), Rights::Analyst)).await;
    let sql = format!(
        "explain indexes = 1 select count() from keymeter.requests where key_uuid = '{}' and occurred_at > '2026-11-20'
         settings optimize_use_projections = 0",
        LARGE.uuid
    );
    let plan = clickhouse.query(&sql).await;
    let (_, keys) = plan.split_once("PrimaryKey").expect("it has a primary key");
    for key in ["workspace_id", "key_id", "occurred_at"] {
        assert!(keys.contains(key), "{plan}");
    }
}

#[tokio::test]
async fn days_count_each_call_once_over_rows_and_archive() {
    let clickhouse = engine::filled(&[SMALL, LARGE]).await;
    let of = async |table: &str| {
        let sql = format!(
            "select sum({}) from {table}",
            if table.contains("request_events") { "1" } else { "calls" }
        );
        clickhouse.query(&sql).await.trim().parse::<u32>().expect("a number")
    };
    let all = 2 * (SMALL.calls + LARGE.calls);
    let archived = of("keymeter.daily_totals").await;
    assert!(archived > 0 && archived < all);
    assert_eq!(of("keymeter.calls_by_day").await, all);
    let gone = "alter table keymeter.request_events delete where occurred_at < toDateTime64('2026-11-21', 3, 'UTC') - toIntervalDay(36)
        settings mutations_sync = 1";
    clickhouse.query(gone).await;
    assert_eq!(of("keymeter.request_events").await, all - archived);
    assert_eq!(of("keymeter.calls_by_day").await, all, "the archive stands for them");
}
