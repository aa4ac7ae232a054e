//! Who may write to a shard: what a takeover finds, what an owner that wakes up late may still do.

use std::time::{Duration, Instant};

use clap::Parser as _;
use ingest::{
    batch::{Buffer, Message},
    config::Config,
    inserts::Inserts,
    native::{Block, Common},
    record::Closed,
    rows::Rows,
    store::{Found, Store, StoreError},
};
use parts::{ClickHouse, Nats, Relay, eventually};
use prost::Message as _;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::support::{Edge, Stage, example, owns};

fn store(clickhouse: &ClickHouse) -> Store {
    Store::new(&Config::parse_from(["ingest", "--clickhouse-url", clickhouse.url().as_str()]))
        .expect("there is no identity")
}

/// A block as a worker would make it of messages with one event each.
fn block(sequences: impl Iterator<Item = u64>, common: Common) -> Block {
    Block::new(rows(sequences).into(), common)
}

fn rows(sequences: impl Iterator<Item = u64>) -> Rows {
    let mut buffer = Buffer::new(example::SHARD, Closed::default(), 1_000);
    for sequence in sequences {
        let payload = example::batch("edge_a", sequence, 1).encode_to_vec().into();
        let published_at = OffsetDateTime::now_utc();
        buffer.push(Message { sequence, published_at, sent_in: None, payload }, Instant::now());
    }
    buffer.drain(Instant::now()).0.rows
}

fn common(writer_epoch: u32, ingested_at_ms: i64) -> Common {
    Common { shard: example::SHARD, writer_epoch, ingested_at_ms }
}

#[tokio::test]
async fn clickhouse_refuses_a_writer_of_an_older_epoch() {
    let clickhouse = ClickHouse::start().await;
    let store = store(&clickhouse);
    store.prepare().await.unwrap();
    store.prepare().await.unwrap();
    assert_eq!(store.fence(example::SHARD).await.unwrap(), 0);
    store.insert(block(1..=3, common(1, 1_000)), "ingest-1-1-1", None).await.unwrap();
    store.raise_fence(example::SHARD, 2).await.unwrap();
    store.raise_fence(example::SHARD + 1, 9).await.unwrap();
    assert_eq!(store.fence(example::SHARD).await.unwrap(), 2);
    store.end_older_inserts(example::SHARD, 2).await.unwrap();
    let late = store.insert(block(4..=6, common(1, 2_000)), "ingest-1-1-2", None).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    store.insert(block(7..=9, common(2, 3_000)), "ingest-1-2-1", None).await.unwrap();
    assert_eq!(clickhouse.query("select groupArray(edge_seq) from (select edge_seq from keymeter.request_events order by edge_seq)").await, "[1,2,3,7,8,9]\n");

    let found =
        |first, last, newest_ms| Found { edge_id: "edge_a".into(), boot_epoch: 1, first, last, newest_ms };
    let mut all = store.found_after(example::SHARD, 0).await.unwrap();
    all.sort_by_key(|run| run.first);
    assert_eq!(all, [found(1, 3, 1_000), found(7, 9, 3_000)]);
    assert_eq!(store.found_after(example::SHARD, 1_000).await.unwrap(), [found(7, 9, 3_000)]);
    assert_eq!(store.found_after(example::SHARD, 3_000).await.unwrap(), []);
    assert_eq!(store.found_after(example::SHARD + 1, 0).await.unwrap(), []);
}

#[tokio::test]
async fn shards_that_insert_together_share_a_part_and_no_fate_of_the_fence() {
    let clickhouse = ClickHouse::start().await;
    let store = store(&clickhouse);
    store.prepare().await.unwrap();
    let inserts = Inserts::start(store.clone());
    let insert = async |shard: u16, first: u64, epoch: u32| {
        let common = Common { shard, ..common(epoch, 1_000 + i64::try_from(first).unwrap()) };
        inserts.insert(rows(first..first + 3).into(), common, format!("ingest-{shard}-{epoch}-{first}")).await
    };
    let (one, other) = tokio::join!(insert(1, 1, 1), insert(2, 1, 1));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    let parts = "select count(), sum(rows) from system.parts where database = 'keymeter' and table = 'request_events'";
    assert_eq!(clickhouse.query(parts).await, "1\t6\n");
    // Only the shard that has a newer owner is told so; the other one does not know, and nothing was written.
    store.raise_fence(2, 2).await.unwrap();
    let (one, other) = tokio::join!(insert(1, 4, 1), insert(2, 4, 1));
    assert!(
        matches!((&one, &other), (Err(StoreError::Unknown(_)), Err(StoreError::Fenced))),
        "{one:?} {other:?}"
    );
    assert_eq!(clickhouse.query(parts).await, "1\t6\n");
    insert(1, 4, 1).await.unwrap();
    insert(2, 7, 2).await.unwrap();
    assert_eq!(clickhouse.query("select count() from keymeter.request_events").await, "12\n");
}

#[tokio::test]
async fn a_takeover_ends_an_older_insert_of_several_shards() {
    let clickhouse = ClickHouse::start().await;
    let store = store(&clickhouse);
    let address = clickhouse.url().replace("http://", "");
    let running = async || {
        let listed = "select count() from system.processes where query_id like 'ingest-%'";
        clickhouse.query(listed).await == "1\n"
    };
    let endless = "select count() from system.numbers where not ignore(number)";
    let path = "/?query_id=ingest-1-4-7%2Bingest-21-3-8";
    let older = parts::request("POST", &address, path, &[], endless);
    let takeover = async {
        eventually("it runs", running).await;
        // Neither is older than that.
        store.end_older_inserts(1, 4).await.unwrap();
        store.end_older_inserts(2, 9).await.unwrap();
        assert!(running().await);
        store.end_older_inserts(21, 4).await.unwrap();
        assert!(!running().await);
    };
    let (ended, ()) = tokio::join!(older, takeover);
    assert_ne!(ended.unwrap().status, 200);
}

#[tokio::test]
async fn rows_that_no_record_tells_of_are_found() {
    let (nats, clickhouse) = (Nats::start().await, ClickHouse::start().await);
    let store = store(&clickhouse);
    store.prepare().await.unwrap();
    // What a crash leaves between the insert and the record, if only some partitions were written.
    let written = (1..=100).filter(|seq| seq % 3 != 0);
    store.insert(block(written, common(1, 1_000)), "ingest-1-1-1", None).await.unwrap();
    let (ingest, health) = Stage::spawn_ingest(&nats, &clickhouse).await;
    let mut stage = Stage { nats, clickhouse, ingest, health };
    stage.wait_ready().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let message = edges[0].spool(100);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
    assert_eq!(stage.metric("keymeter_ingest_rows_found_total{shard=\"1\"").await, 67);
    assert_eq!(stage.metric("keymeter_ingest_events_total{fate=\"row\",shard=\"1\"").await, 33);
}

#[tokio::test]
async fn an_owner_that_was_stopped_past_its_lease_doubles_nothing() {
    let mut stage = Stage::start().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    eventually("the first owns the shard", async || owns(&stage.health).await).await;
    let (mut second, second_health) = Stage::spawn_ingest(&stage.nats, &stage.clickhouse).await;
    second.wait_ready(&second_health).await;
    eventually("the second took it", async || owns(&second_health).await && !owns(&stage.health).await).await;
    for _ in 0..40 {
        let message = edges[0].spool(100);
        assert!(edges[0].publish(&message).await);
    }
    second.pause();
    for _ in 0..40 {
        let message = edges[0].spool(100);
        assert!(edges[0].publish(&message).await);
    }
    eventually("the first took it back", async || owns(&stage.health).await).await;
    second.resume();
    for _ in 0..40 {
        let message = edges[0].spool(100);
        assert!(edges[0].publish(&message).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("the second stands by", async || !owns(&second_health).await).await;
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
    assert!(stage.ingest.sigterm().await.success());
    eventually("the second takes over from one that let go", async || owns(&second_health).await).await;
}

#[tokio::test]
async fn who_alone_lacked_clickhouse_takes_the_shard_from_nobody() {
    let mut stage = Stage::start().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let (cut, is_cut) = watch::channel(false);
    let relay = Relay::start(&stage.clickhouse.url(), move |there, back| {
        let mut is_cut = is_cut.clone();
        async move {
            tokio::select! {
                biased;
                _ = is_cut.wait_for(|is_cut| *is_cut) => Ok(()),
                brought = there.bring() => brought,
                brought = back.bring() => brought,
            }
        }
    })
    .await;
    let url = format!("http://{}", relay.address());
    let (mut second, second_health) = Stage::spawn(&stage.nats.url(), &url, Stage::ROOMY).await;
    eventually("the second took it", async || owns(&second_health).await && !owns(&stage.health).await).await;
    cut.send_replace(true);
    let message = edges[0].spool(100);
    assert!(edges[0].publish(&message).await);
    eventually("the first took it back", async || owns(&stage.health).await).await;
    cut.send_replace(false);
    second.wait_ready(&second_health).await;
    assert!(!owns(&second_health).await, "the second stands by");
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
    assert!(owns(&stage.health).await, "the first keeps it");
    assert!(stage.ingest.sigterm().await.success());
    eventually("the second takes over from one that let go", async || owns(&second_health).await).await;
}
