//! When keys were last used, from the usage stream.

use async_nats::jetstream::{self, stream};
use keys::store::activity::KeyUse;
use parts::eventually;
use prost::Message as _;
use prost_types::Timestamp;
use proto::{
    events::{KeyActivity, KeyActivityBatch},
    keys::GetKeyRequest,
    nats::{KEY_ACTIVITY_STREAM, KEY_ACTIVITY_SUBJECT},
    resource::{parse_key_name, parse_secret_name},
    timestamp::to_proto,
};
use time::{Duration, OffsetDateTime};

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

#[tokio::test]
async fn uses_of_secrets_and_addresses_are_kept_in_any_order() {
    let run = Running::start().await;
    let made = run.make("a").await.key.unwrap();
    let (workspace_id, key_id) = parse_key_name(&made.name).unwrap();
    let (_, (_, secret_id)) = parse_secret_name(&made.secrets[0].name).unwrap();
    let foreign = parse_secret_name(&run.make("b").await.key.unwrap().secrets[0].name).unwrap().1.1;
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let store = run.store();
    let used = |minutes_ago: i64, clients: std::ops::Range<u8>| {
        let at = now - Duration::minutes(minutes_ago);
        KeyUse {
            key_id,
            workspace_id,
            last_used_time: at,
            secrets: vec![(secret_id, at), (foreign, at)],
            client_prints: clients.map(|client| (vec![client; 8], at)).collect(),
        }
    };
    let get = async || {
        let request = run.ask(GetKeyRequest { name: made.name.clone() });
        run.keys().get_key(request).await.unwrap().into_inner()
    };
    let note = async |used: KeyUse| store.note_uses(&[used], now - Duration::days(30)).await.unwrap();
    let rows = || run.postgres.query("select client_print, last_used_time from key_addresses order by 1");
    // 84 addresses, of which the 64 newest stay, whatever came first and however often.
    let messages = [used(3, 0..30), used(2, 30..60), used(1, 60..84), used(9, 60..84)];
    let mut seen = Vec::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let _ = run.postgres.query("delete from key_addresses");
        for place in order.into_iter().chain(order) {
            note(messages[place].clone()).await;
        }
        seen.push(rows());
        let key = get().await;
        assert_eq!(key.address_count, 64);
        let newest = Some(to_proto(now - Duration::MINUTE));
        assert_eq!((key.last_used_time, key.secrets[0].last_used_time), (newest, newest));
        assert_eq!(key.etag, made.etag, "a use is no change");
    }
    assert!(seen.iter().all(|rows| *rows == seen[0]), "{seen:?}");
    let others = "select count(*) from secret_activity join secrets using (secret_id)
                  join keys using (key_id) where display_name = 'b'";
    assert_eq!(run.postgres.query(others), "0\n", "a secret of another key is left alone");

    note(used(31 * 24 * 60, 100..110)).await;
    assert_eq!(get().await.address_count, 64, "too old to count");
    let _ = run.postgres.query(
        "update key_addresses set last_used_time = last_used_time - interval '31 days'
         where client_print < '\\x3c'",
    );
    keys::sweep::sweep(&store, now).await.unwrap();
    assert_eq!(get().await.address_count, 24, "what is old is swept away");

    // Two at once, with the keys in another order, neither wait for each other nor lose anything.
    let all: Vec<KeyUse> = (0..20).map(|client| used(0, client..client + 1)).collect();
    let both = futures_util::future::join_all(all.into_iter().map(note)).await;
    assert_eq!((both.len(), get().await.address_count), (20, 44));
}
