//! The whole stream read once more: by a record whose cursor went back to its start, and by a worker whose record is gone.

use async_nats::jetstream::kv;
use parts::{asked, eventually, say, seed};
use proto::nats;

use crate::{
    crowd::{Crowd, Load},
    support::{Stage, example},
};

/// Most events of a message.
const MESSAGE: u64 = 1_000;
/// Messages between two looks at what is committed, so that edges hold little.
const LOOK_EVERY: u64 = 200;
/// So much larger than all events that nothing of them is purged.
const EVENT_BYTES: u64 = 600;

/// Nobody sends but when told to.
const LOAD: Load = Load { events_max: MESSAGE, pause_max_ms: 0 };

#[tokio::test]
async fn the_whole_stream_is_read_again() {
    let events = asked("KEYMETER_CHAOS_REPLAY_EVENTS", 10_000);
    let mut stage = Stage::start_with(&(events * EVENT_BYTES).max(4 << 20).to_string()).await;
    let mut crowd = Crowd::on_one_shard(&stage, seed(), LOAD).await;
    for message in 0..events.div_ceil(MESSAGE) {
        crowd.send(MESSAGE.min(events - crowd.accepted()), |_| {}).await;
        if message % LOOK_EVERY == LOOK_EVERY - 1 {
            crowd.settle().await;
            say(&format!("{} of {events} events are rows", crowd.accepted()));
        }
    }
    crowd.assert_exact(&stage).await;

    stage.ingest.sigterm().await;
    let (records, key) = (records(&stage).await, example::SHARD.to_string());
    let record = records.get(&key).await.unwrap().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert!(record["cursor"]["sequence"].take().as_u64().unwrap() >= events.div_ceil(MESSAGE));
    record["cursor"]["sequence"] = 0.into();
    records.put(&key, record.to_string().into()).await.unwrap();
    read_again(&mut stage, events).await;
    assert_eq!(stage.metric("keymeter_ingest_rows_found_total{shard=\"1\"").await, 0, "the record knew all");
    crowd.assert_exact(&stage).await;
    say(&format!("{events} events replayed from the first on: each still one row"));

    stage.ingest.kill().await;
    records.purge(&key).await.unwrap();
    read_again(&mut stage, events).await;
    assert_eq!(stage.metric("keymeter_ingest_rows_found_total{shard=\"1\"").await, events);
    crowd.assert_exact(&stage).await;
    say(&format!("{events} events replayed without a record: each still one row"));
}

async fn records(stage: &Stage) -> kv::Store {
    stage.jetstream().await.get_key_value(nats::SHARDS_BUCKET).await.expect("ingest made it")
}

/// Waits until a new worker has seen all of the stream, and counted none of it.
async fn read_again(stage: &mut Stage, events: u64) {
    stage.ingest.restart();
    stage.wait_ready().await;
    let mut seen = 0;
    while seen < events {
        seen = eventually("more is read", async || {
            let now = stage.metric("keymeter_ingest_events_total{fate=\"duplicate\",shard=\"1\"").await;
            (now > seen).then_some(now)
        })
        .await;
    }
    assert_eq!(stage.metric("keymeter_ingest_events_total{fate=\"row\",shard=\"1\"").await, 0);
}
