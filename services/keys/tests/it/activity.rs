//! When keys were last used, from the usage stream.

use async_nats::jetstream::{self, stream};
use parts::eventually;
use prost::Message as _;
use prost_types::Timestamp;
use proto::{
    events::{KeyActivity, KeyActivityBatch},
    keys::GetKeyRequest,
    nats::{KEY_ACTIVITY_STREAM, KEY_ACTIVITY_SUBJECT},
    resource::parse_key_name,
};

use crate::harness::Running;

#[tokio::test]
async fn the_latest_use_is_shown_whatever_comes_in_between() {
    let run = Running::start().await;
    let made = run.make("a").await.key.unwrap();
    let (workspace_id, key_id) = parse_key_name(&made.name).unwrap();
    let context = jetstream::new(async_nats::connect(run.nats.url()).await.unwrap());
    let config = stream::Config {
        name: KEY_ACTIVITY_STREAM.into(),
        subjects: vec![KEY_ACTIVITY_SUBJECT.into()],
        ..stream::Config::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    let publish = async |payload: Vec<u8>| {
        context.publish(KEY_ACTIVITY_SUBJECT, payload.into()).await.unwrap().await.unwrap();
    };
    let used = |workspace_id: domain::WorkspaceId, key_id: domain::KeyId, seconds: i64| KeyActivity {
        workspace_id: workspace_id.as_bytes().to_vec(),
        key_id: key_id.as_bytes().to_vec(),
        last_used_at: Some(Timestamp { seconds, nanos: 0 }),
        ..KeyActivity::default()
    };
    let batch = |keys: Vec<KeyActivity>| KeyActivityBatch { keys }.encode_to_vec();
    let get = async || {
        let request = run.ask(GetKeyRequest { name: made.name.clone() });
        run.keys().get_key(request).await.unwrap().into_inner()
    };
    let shown = async |seconds: i64| {
        eventually("the last use is shown", async || {
            get().await.last_used_time.is_some_and(|time| time.seconds == seconds)
        })
        .await;
    };
    assert_eq!(get().await.last_used_time, None);
    publish(batch(vec![used(workspace_id, key_id, 1_000), used(workspace_id, key_id, 500)])).await;
    shown(1_000).await;
    publish(b"\xff\xff not a batch".to_vec()).await;
    publish(batch(vec![KeyActivity::default()])).await;
    publish(batch(vec![used(workspace_id, key_id, 900)])).await;
    publish(batch(vec![used(domain::WorkspaceId::generate(), key_id, 5_000)])).await;
    publish(batch(vec![used(workspace_id, domain::KeyId::generate(), 5_000)])).await;
    let consumer = eventually("all are done with", async || {
        let mut consumer = stream.get_consumer::<jetstream::consumer::pull::Config>("keys").await.ok()?;
        let info = consumer.info().await.ok()?.clone();
        (info.num_pending == 0 && info.num_ack_pending == 0).then_some(info)
    })
    .await;
    assert_eq!(consumer.ack_floor.stream_sequence, 6);
    assert_eq!(get().await.last_used_time.unwrap().seconds, 1_000, "neither earlier nor another's");
    publish(batch(vec![used(workspace_id, key_id, 2_000)])).await;
    shown(2_000).await;
    assert_eq!(get().await.etag, made.etag, "a use is no change");

    // A stream that was made anew is followed again.
    context.delete_stream(KEY_ACTIVITY_STREAM).await.unwrap();
    context.create_stream(stream.cached_info().config.clone()).await.unwrap();
    publish(batch(vec![used(workspace_id, key_id, 3_000)])).await;
    shown(3_000).await;
}
