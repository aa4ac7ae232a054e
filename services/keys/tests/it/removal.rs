//! The snapshot for edges that start, and tombstones that leave the feed: nothing that leaves ever comes back as it
//! was before.

use async_nats::jetstream;
use bytes::Bytes;
use domain::SecretHash;
use parts::eventually;
use proto::{
    events::KeyState,
    keys::DeleteKeyRequest,
    nats::{KEYS_SNAPSHOT_BUCKET, SNAPSHOT_PARTS, snapshot_part_of},
};

use crate::{
    edge::{ADMITTED, Edge, REFUSED},
    harness::{Running, serve},
};

/// Has a snapshot written, which a feed of this size would have none of.
async fn snapshot(run: &Running) -> jetstream::kv::Store {
    let _ = run.postgres.query("update feed_state set snapshot_sequence = 0");
    eventually("a snapshot", async || {
        let written = run.postgres.query("select snapshot_sequence > 0 from feed_state");
        written.trim() == "t"
    })
    .await;
    let context = jetstream::new(async_nats::connect(run.nats.url()).await.unwrap());
    context.get_key_value(KEYS_SNAPSHOT_BUCKET).await.unwrap()
}

async fn delete(run: &Running, name: String) {
    run.keys().delete_key(run.ask(DeleteKeyRequest { name, ..Default::default() })).await.unwrap();
}

#[tokio::test]
async fn an_edge_that_starts_from_a_snapshot_knows_what_came_after() {
    let run = Running::start().await;
    let (kept, gone) = (run.make("kept").await, run.make("gone").await);
    run.fed(&kept.secret, |_| true).await;
    run.fed(&gone.secret, |_| true).await;
    let parts = snapshot(&run).await;
    assert_eq!(parts.stream.get_info().await.unwrap().state.messages, u64::from(SNAPSHOT_PARTS));
    delete(&run, gone.key.unwrap().name).await;
    let later = run.make("later").await;
    run.fed(&gone.secret, |entry| entry.version == 2).await;
    run.fed(&later.secret, |_| true).await;
    let check = async || {
        let edge = Edge::start(&run).await;
        assert_eq!(edge.call(&kept.secret).await, ADMITTED);
        assert_eq!(edge.call(&later.secret).await, ADMITTED);
        assert_eq!(edge.call(&gone.secret).await, REFUSED);
    };
    check().await;
    // A part that somebody else wrote is as good as none.
    let part = snapshot_part_of(&SecretHash::of(&gone.secret)).to_string();
    parts.put(part, Bytes::from_static(b"x")).await.unwrap();
    check().await;
}

#[tokio::test]
async fn a_tombstone_leaves_after_its_time_and_never_comes_back_to_life() {
    let mut run = Running::start().await;
    let (good, gone) = (run.make("good").await, run.make("gone").await);
    run.fed(&good.secret, |_| true).await;
    run.fed(&gone.secret, |_| true).await;
    let hash = SecretHash::of(&gone.secret);
    let old_value = run.bucket().await.get(hash.to_string()).await.unwrap().unwrap();
    let parts = snapshot(&run).await;
    let part = snapshot_part_of(&hash).to_string();
    let old_part = parts.get(&part).await.unwrap().unwrap();
    delete(&run, gone.key.unwrap().name).await;
    run.fed(&gone.secret, |entry| entry.state() == KeyState::Deleted).await;
    let running = Edge::start(&run).await;

    let _ = run
        .postgres
        .query("update keys set delete_time = now() - interval '401 days' where delete_time is not null");
    // A service looks for them when it becomes the relay, and then each hour.
    run.service.shutdown.cancel();
    run.service = serve(&run.postgres.url(), &run.nats.url(), &run.folder).await;
    let bucket = run.bucket().await;
    eventually("the tombstone is gone", async || bucket.get(hash.to_string()).await.unwrap().is_none()).await;
    eventually("nothing waits to be removed", async || {
        run.postgres.query("select count(*) from feed_removals").trim() == "0"
    })
    .await;
    let fresh = Edge::start(&run).await;
    assert_eq!(fresh.call(&good.secret).await, ADMITTED);

    // What was once signed is played back.
    parts.put(&part, old_part).await.unwrap();
    let second = Edge::start(&run).await;
    bucket.put(hash.to_string(), old_value).await.unwrap();
    let third = Edge::spawn(&run).await;
    eventually("the tombstone is back and the last edge is ready", async || {
        for edge in [&running, &fresh, &second] {
            assert_eq!(edge.call(&gone.secret).await, REFUSED);
        }
        let answer = parts::request("GET", &third.addr, "/", &[("X-API-Key", &gone.secret)], "").await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status != ADMITTED));
        third.is_ready().await
    })
    .await;
    run.fed(&gone.secret, |entry| entry.state() == KeyState::Deleted).await;
    assert_eq!(third.call(&good.secret).await, ADMITTED);
}
