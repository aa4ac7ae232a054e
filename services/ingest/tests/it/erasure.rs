//! What a workspace erases stays erased, whatever is sent again.

use async_nats::jetstream::kv;
use domain::WorkspaceId;
use parts::eventually;
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::{Duration, OffsetDateTime};

use crate::support::{Edge, Stage, example};

pub(crate) async fn erase(stage: &Stage, workspace_id: WorkspaceId, up_to: OffsetDateTime) {
    let jetstream = stage.jetstream().await;
    let bucket = nats::ERASURES_BUCKET.to_owned();
    let config = kv::Config { bucket, history: 1, ..kv::Config::default() };
    let erasure = pb::Erasure {
        workspace_id: workspace_id.as_bytes().to_vec(),
        up_to: Some(timestamp::to_proto(up_to)),
    };
    eventually("the erasure is told", async || {
        let bucket = jetstream.create_or_update_key_value(config.clone()).await.ok()?;
        bucket.put(workspace_id.to_string(), erasure.encode_to_vec().into()).await.ok()
    })
    .await;
}

pub(crate) async fn rows_of(stage: &Stage, workspace_id: WorkspaceId) -> String {
    let id = workspace_id.as_uuid();
    let sql = format!("select count() from keymeter.request_events where workspace_id = '{id}'");
    stage.clickhouse.query(&sql).await.trim().to_owned()
}

#[tokio::test]
async fn a_replay_of_everything_brings_nothing_back() {
    let mut stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edges = [Edge::new("edge_a", jetstream.clone())];
    let (gone, stays) = (example::event("edge_a", 1).workspace_id, example::event("edge_a", 2).workspace_id);
    let sent: Vec<_> = (0..4).map(|_| edges[0].spool(100)).collect();
    for message in &sent {
        assert!(edges[0].publish(message).await);
    }
    stage.settle(&mut edges).await;
    assert_eq!((rows_of(&stage, gone).await, rows_of(&stage, stays).await), ("200".into(), "200".into()));

    erase(&stage, gone, OffsetDateTime::now_utc() + Duration::DAY).await;
    eventually("the rows are deleted", async || rows_of(&stage, gone).await == "0").await;
    let projected = "select sum(calls) from (select method, count() as calls from keymeter.request_events \
        group by method) settings optimize_use_projections = 1, force_optimize_projection = 1";
    assert_eq!(stage.clickhouse.query(projected).await, "200\n", "nor does a total count them");

    // Late events are dropped, counted, and need not be kept by their edge.
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    let erased = async || stage.metric("keymeter_ingest_events_total{fate=\"erased\",shard=\"1\"").await;
    eventually("they are counted", async || erased().await == 5).await;
    assert_eq!((rows_of(&stage, gone).await, rows_of(&stage, stays).await), ("0".into(), "205".into()));

    // Ingest forgets its record, the stream starts anew, and the edge sends all of it again.
    stage.ingest.kill().await;
    jetstream.delete_key_value(nats::SHARDS_BUCKET).await.unwrap();
    jetstream.delete_stream(nats::request_events_stream(example::SHARD)).await.unwrap();
    (stage.ingest, stage.health) = Stage::spawn_ingest(&stage.nats, &stage.clickhouse).await;
    stage.wait_ready().await;
    for message in sent.iter().chain([&message]) {
        eventually("it is published", async || edges[0].publish(message).await).await;
    }
    let line = "keymeter_ingest_events_total{fate=\"erased\",shard=\"1\"";
    eventually("all of it is read", async || stage.metric(line).await == 205).await;
    assert_eq!((rows_of(&stage, gone).await, rows_of(&stage, stays).await), ("0".into(), "205".into()));
}

#[tokio::test]
async fn a_bucket_that_forgot_is_obeyed_once_it_is_told_again() {
    let mut stage = Stage::start().await;
    let (gone, stays) = (example::event("edge_a", 1).workspace_id, example::event("edge_a", 2).workspace_id);
    erase(&stage, gone, OffsetDateTime::now_utc() + Duration::DAY).await;
    stage.ingest.kill().await;
    stage.nats.stop().await;
    stage.nats.wipe();
    stage.nats.restart().await;
    (stage.ingest, stage.health) = Stage::spawn_ingest(&stage.nats, &stage.clickhouse).await;
    stage.wait_ready().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let message = edges[0].spool(20);
    eventually("it is published", async || edges[0].publish(&message).await).await;
    stage.wait_for_rows(20).await;
    erase(&stage, gone, OffsetDateTime::now_utc() + Duration::DAY).await;
    eventually("they are deleted", async || rows_of(&stage, gone).await == "0").await;
    assert_eq!(rows_of(&stage, stays).await, "10");
}

#[tokio::test]
async fn what_began_later_stays() {
    let stage = Stage::start().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let workspace_id = example::event("edge_a", 1).workspace_id;
    erase(&stage, workspace_id, OffsetDateTime::now_utc() - Duration::DAY).await;
    let mut message = edges[0].spool(4);
    message.events[0].occurred_at = Some(timestamp::to_proto(OffsetDateTime::now_utc() - Duration::days(2)));
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    assert_eq!(rows_of(&stage, workspace_id).await, "1", "of the two, one began before");
}
