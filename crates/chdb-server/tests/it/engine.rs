//! What the product's schema asks of the engine, seen through HTTP: fencing of stale writers, durable inserts,
//! projections that cannot drift.

use clickhouse::{Client, error::Error, native::builder::BlockBuilder};

use crate::support::Server;

async fn fenced_table(server: &Server) {
    for sql in [
        "create database k",
        "create table k.fences (shard UInt64, epoch UInt32) engine = ReplacingMergeTree(epoch) order by shard",
        "create dictionary k.fence (shard UInt64, epoch UInt32) primary key shard \
         source(clickhouse(query 'select shard, max(epoch) as epoch from k.fences where {condition} group by shard')) layout(direct())",
        "create table k.events (shard UInt16, writer_epoch UInt32, key UInt64, at DateTime64(3, 'UTC'), latency_us UInt32, \
         constraint fence check writer_epoch >= dictGet('k.fence', 'epoch', toUInt64(shard)), \
         projection by_quarter_hour (select key, toStartOfFifteenMinutes(at), count(), sum(latency_us), max(at) \
           group by key, toStartOfFifteenMinutes(at))) \
         engine = MergeTree partition by toYYYYMM(at) order by (key, at) \
         settings fsync_after_insert = 1, fsync_part_directory = 1",
    ] {
        server.query(sql).await;
    }
}

/// One native block by a writer of `epoch`.
async fn insert(client: &Client, epoch: u32, rows: u64) -> Result<(), Error> {
    let mut block = BlockBuilder::new();
    let numbers = || 0..rows;
    block.upsert_column::<u16>("shard").unwrap().add_all(numbers().map(|_| 2)).unwrap();
    block.upsert_column::<u32>("writer_epoch").unwrap().add_all(numbers().map(|_| epoch)).unwrap();
    block.upsert_column::<u64>("key").unwrap().add_all(numbers().map(|number| number % 10)).unwrap();
    block.upsert_column::<u32>("latency_us").unwrap().add_all(numbers().map(|_| 5)).unwrap();
    let mut insert = client.insert_native("events").with_setting("async_insert", "0");
    insert.write(&block.build().unwrap()).await?;
    insert.end().await
}

#[tokio::test]
async fn a_stale_writer_is_refused_by_the_table() {
    let server = Server::start().await;
    fenced_table(&server).await;
    let client = server.client().with_database("k");
    insert(&client, 0, 1_000).await.unwrap();
    server.query("insert into k.fences values (2, 7)").await;
    insert(&client, 7, 1_000).await.unwrap();
    insert(&client, 8, 1_000).await.unwrap();
    let error = insert(&client, 6, 1_000).await.unwrap_err().to_string();
    assert!(error.contains("Code: 469.") && error.contains("VIOLATED_CONSTRAINT"), "{error}");
    assert_eq!(
        server.query("select writer_epoch, count() from k.events group by all order by 1").await,
        "0\t1000\n7\t1000\n8\t1000\n"
    );
}

#[tokio::test]
async fn an_aggregate_projection_is_written_with_the_rows_and_answers() {
    let server = Server::start().await;
    fenced_table(&server).await;
    let client = server.client().with_database("k");
    for _ in 0..3 {
        insert(&client, 0, 10_000).await.unwrap();
    }
    let totals = "select key, count(), sum(latency_us) from k.events group by key order by key";
    let rows = server.query(&format!("{totals} settings optimize_use_projections = 0")).await;
    let projected = server.query(&format!("{totals} settings force_optimize_projection = 1")).await;
    assert_eq!(rows, projected);
    assert_eq!(rows.lines().next(), Some("0\t3000\t15000"));
}

#[tokio::test]
async fn a_table_keeps_its_fsync_settings() {
    let mut server = Server::start().await;
    fenced_table(&server).await;
    server.service.sigterm().await;
    server.service.restart();
    server.ready().await;
    let table = server.query("show create table k.events format TSVRaw").await;
    assert!(table.contains("fsync_after_insert = 1, fsync_part_directory = 1"), "{table}");
}
