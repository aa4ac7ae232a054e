//! The rights that `deploy/clickhouse/services.sql` gives to ingest and to query are enough, and no more than that. The engine's user
//! has them one after the other; that such users can be made is only parsed.

use clap::Parser as _;
use ingest::{archive::Archive, config::Config, erasures::Erased, schema, store::Store, watermark::Standing};
use parts::ClickHouse;
use time::{Duration, OffsetDateTime};

use super::{engine::SMALL, users};

const SERVICES: &str = include_str!("../../../../../deploy/clickhouse/services.sql");
const SHARD: u16 = 1;

fn statements() -> Vec<String> {
    let bare: Vec<_> = SERVICES.lines().filter(|line| !line.starts_with("--")).collect();
    let one_line = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    schema::statements(&(bare.join("\n") + "\n")).map(one_line).collect()
}

#[tokio::test]
async fn the_engine_parses_every_statement() {
    let clickhouse = ClickHouse::start().await;
    for sql in statements() {
        let filled = sql
            .replace("{ingest_password_hash}", &"0".repeat(64))
            .replace("{query_password_hash}", &"0".repeat(64));
        clickhouse.query(&format!("explain ast {filled}")).await;
    }
}

#[tokio::test]
async fn ingest_can_do_its_work_and_query_can_only_read() {
    let mut clickhouse = ClickHouse::start().await;
    clickhouse.restart_with_users(&users::granted(&statements(), "keymeter_ingest")).await;
    let store = Store::new(&Config::parse_from(["ingest", "--clickhouse-url", &clickhouse.url()]))
        .expect("there is no identity");
    store.prepare().await.expect("it makes the schema");
    store.prepare().await.expect("it reads which schema there is");
    store.raise_fence(SHARD, 3).await.unwrap();
    assert_eq!(store.fence(SHARD).await.unwrap(), 3);
    let insert = format!(
        "insert into keymeter.request_events (workspace_id, occurred_at, ingested_at, shard, writer_epoch)
         select '{}', now64(3) - toIntervalDay(40), fromUnixTimestamp64Milli(1000, 'UTC'), {SHARD}, 3",
        SMALL.uuid
    );
    clickhouse.query(&insert).await;
    let mut archive = Archive::new(SHARD, 3, None);
    store.archive(archive.begin(1_000, OffsetDateTime::now_utc()).unwrap()).await.unwrap();
    assert!(store.expire().await.unwrap());
    store
        .set_standing(SHARD, &Standing { complete_up_to: None, unaccounted: Default::default() })
        .await
        .unwrap();
    assert!(store.standing(SHARD).await.unwrap().is_some());
    let mut erased = Erased::default();
    erased.insert(SMALL.workspace(), OffsetDateTime::now_utc() + Duration::DAY);
    assert_eq!(store.erase(SHARD, &erased).await.unwrap(), 1);
    for refused in [
        "drop database keymeter",
        "select * from file('/etc/passwd', LineAsString)",
        "create table default.t (a UInt8) engine = Memory",
    ] {
        assert!(clickhouse.try_query(refused).await.unwrap_err().contains("ACCESS_DENIED"), "{refused}");
    }

    clickhouse.restart_with_users(&users::granted(&statements(), "keymeter_query")).await;
    for table in [
        "request_events",
        "daily_archive",
        "archive_passes",
        "daily_totals",
        "watermarks",
        "gaps",
        "retentions",
    ] {
        clickhouse
            .query(&format!("select count() from keymeter.{table} settings max_execution_time = 7"))
            .await;
    }
    for refused in [
        &insert,
        "select * from keymeter.writer_fence",
        "select * from keymeter.audit_baselines",
        "alter table keymeter.request_events delete where 1",
        "truncate table keymeter.gaps",
        "create table keymeter.t (a UInt8) engine = Memory",
    ] {
        assert!(clickhouse.try_query(refused).await.unwrap_err().contains("ACCESS_DENIED"), "{refused}");
    }
}
