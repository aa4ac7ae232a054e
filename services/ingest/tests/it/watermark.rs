//! What `keymeter.watermarks` claims, held against what an edge has said and ClickHouse has.

use parts::eventually;
use time::{Duration, OffsetDateTime};

use crate::support::{Edge, Stage};

const NOBODY: &str = "[]\t[]";

async fn standing(stage: &Stage) -> String {
    let sql = "select toUnixTimestamp(complete_up_to), unaccounted.edge_id, \
        arrayMap(since -> toUnixTimestamp(since), unaccounted.since) from keymeter.watermarks final where shard = 1";
    stage.clickhouse.query(sql).await
}

async fn wait_for(stage: &Stage, at: OffsetDateTime, unaccounted: &str) {
    let expected = format!("{}\t{unaccounted}\n", at.unix_timestamp());
    eventually(&expected, async || standing(stage).await == expected).await;
}

#[tokio::test]
async fn complete_means_committed() {
    let mut stage = Stage::start().await;
    assert_eq!(standing(&stage).await, "0\t[]\t[]\n");
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let (early, late) = (now - Duration::seconds(30), now - Duration::seconds(10));

    let message = edge.spool(10);
    assert!(edge.publish(&message).await);
    edge.beat(early, 10).await.unwrap();
    wait_for(&stage, early, NOBODY).await;

    // The edge says that more was published than ingest has read: nothing further may be claimed.
    let missing = edge.spool(10);
    edge.beat(late, 20).await.unwrap();
    let after = Edge::new("edge_b", jetstream.clone());
    after.beat(late, 0).await.unwrap();
    stage.ingest.kill().await;
    stage.ingest.restart();
    stage.wait_ready().await;
    let takeovers =
        async || stage.metric("keymeter_ingest_takeovers_total{reason=\"start\",shard=\"1\"").await;
    eventually("it is at work again", async || takeovers().await == 1).await;
    // A heartbeat has been looked at when a later one of another edge can be told to have been.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(standing(&stage).await, format!("{}\t[]\t[]\n", early.unix_timestamp()));
    assert!(edge.publish(&missing).await);
    wait_for(&stage, late, NOBODY).await;
}

#[tokio::test]
async fn an_edge_that_is_long_silent_at_the_start_is_named() {
    let mut stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let (alive, silent) = (Edge::new("edge_a", jetstream.clone()), Edge::new("edge_b", jetstream));
    let early = now - Duration::seconds(300);
    alive.beat(early, 0).await.unwrap();
    silent.beat(early, 0).await.unwrap();
    wait_for(&stage, early, NOBODY).await;

    assert!(stage.ingest.sigterm().await.success());
    silent.beat_sent_at(now - Duration::seconds(200), now - Duration::seconds(200), 5).await.unwrap();
    alive.beat(now, 0).await.unwrap();
    stage.ingest.restart();
    wait_for(&stage, now, &format!("['edge_b']\t[{}]", early.unix_timestamp())).await;
}
