//! What was acknowledged is there: under concurrency, after `kill -9`, after a stop under load.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use clickhouse::{Client, native::builder::BlockBuilder};

use crate::support::Server;

const DURABLE: &str = "create table t (task UInt64, number UInt64) engine = MergeTree order by (task, number) \
                       settings fsync_after_insert = 1, fsync_part_directory = 1";
const ROWS: u64 = 1_000;

/// Inserts [`ROWS`] rows of one block; true if they were acknowledged.
async fn insert(client: &Client, task: u64, batch: u64) -> bool {
    let mut block = BlockBuilder::new();
    let numbers = batch * ROWS..(batch + 1) * ROWS;
    block.upsert_column::<u64>("task").unwrap().add_all(numbers.clone().map(|_| task)).unwrap();
    block.upsert_column::<u64>("number").unwrap().add_all(numbers).unwrap();
    let mut insert = client.insert_native("t").with_setting("async_insert", "0");
    insert.write(&block.build().unwrap()).await.is_ok() && insert.end().await.is_ok()
}

async fn stored(client: &Client) -> BTreeSet<(u64, u64)> {
    let sql = "select task, intDiv(number, 1000) as batch from t group by task, batch having count() = 1000 and uniqExact(number) = 1000";
    client.query(sql).fetch_all::<(u64, u64)>().await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn eight_clients_at_once_lose_nothing() {
    let server = Server::start().await;
    let client = server.client();
    client.query(DURABLE).execute().await.unwrap();
    let work = async |task: u64| {
        for batch in 0..20 {
            assert!(insert(&client, task, batch).await);
            let count: u64 = client
                .query("select count() from t where task = {task:UInt64}")
                .param("task", task)
                .fetch_one()
                .await
                .unwrap();
            assert_eq!(count, (batch + 1) * ROWS);
        }
    };
    tokio::join!(work(0), work(1), work(2), work(3), work(4), work(5), work(6), work(7));
    assert_eq!(stored(&client).await.len(), 160);
    assert_eq!(client.query("select count() from t").fetch_one::<u64>().await.unwrap(), 160 * ROWS);
}

#[tokio::test]
async fn acknowledged_rows_survive_kill_9() {
    let mut server = Server::start().await;
    server.client().query(DURABLE).execute().await.unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..4 {
        let client = server.client();
        let writer = async {
            let mut batch = round * 1_000;
            while insert(&client, 0, batch).await {
                acknowledged.insert((0, batch));
                batch += 1;
            }
        };
        let killer = async {
            let written = async || client.query("select count() from t").fetch_one::<u64>().await.unwrap();
            let before = written().await;
            parts::eventually("some inserts", async || written().await >= before + 5 * ROWS).await;
            server.service.kill().await;
        };
        tokio::join!(writer, killer);
        server.service.restart();
        server.ready().await;
    }
    assert!(acknowledged.len() >= 4 * 4, "{}", acknowledged.len());
    let stored = stored(&server.client()).await;
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn a_stop_under_load_is_clean() {
    let mut server = Server::start().await;
    server.client().query(DURABLE).execute().await.unwrap();
    let acknowledged = Mutex::new(BTreeSet::new());
    let refused = AtomicBool::new(false);
    for round in 0..2 {
        let client = server.client();
        let work = async |task: u64| {
            let mut batch = round * 1_000;
            while insert(&client, task, batch).await {
                acknowledged.lock().unwrap().insert((task, batch));
                batch += 1;
            }
            refused.store(true, Ordering::Relaxed);
        };
        let stop = async {
            let enough = (round as usize + 1) * 12;
            parts::eventually("some inserts", async || acknowledged.lock().unwrap().len() >= enough).await;
            server.service.sigterm().await
        };
        let ((), (), (), status) = tokio::join!(work(0), work(1), work(2), stop);
        assert!(status.success(), "{status}\n{}", server.service.log());
        assert!(server.service.log().trim_end().ends_with("stopped"), "{}", server.service.log());
        server.service.restart();
        server.ready().await;
        let (stored, acknowledged) = (stored(&server.client()).await, acknowledged.lock().unwrap());
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}
