//! The key feed: every change reaches the bucket, in the order of commits, whatever NATS forgets.

mod replicas;

use domain::{Environment, KeyId, Secret, SecretHash, SecretId};
use keys::{
    caller::Caller,
    key::{Created, Key as Model, KeyEvent},
    lifecycle::NewKey,
};
use parts::eventually;
use proto::{
    events::{KeyFeedEntry, KeyState},
    keys::{DeleteKeyRequest, GetKeyRequest, Key, UpdateKeyRequest},
    resource::parse_workspace_name,
};
use time::OffsetDateTime;

use crate::harness::{ROLE, Running};

async fn rename(run: &Running, key: &Key, display_name: &str) -> Key {
    let key = Key { name: key.name.clone(), display_name: display_name.into(), ..Key::default() };
    let request = UpdateKeyRequest { key: Some(key), update_mask: None };
    run.keys().update_key(run.ask(request)).await.unwrap().into_inner()
}

async fn outbox_is_empty(run: &Running) {
    let store = run.store();
    eventually("the outbox is empty", async || store.outbox_rows().await.unwrap() == 0).await;
}

#[tokio::test]
async fn a_key_committed_late_is_relayed_late_and_not_skipped() {
    let run = Running::start().await;
    let store = run.store();
    let secret = Secret::generate(Environment::Live);
    let (key_id, secret_id) = (KeyId::generate(), SecretId::generate());
    let created = Created {
        start: secret.start().into(),
        secret_id: secret_id.to_string(),
        secret_hash: secret.hash().to_string(),
        ..NewKey::named("late", Environment::Live).created
    };
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let key = Model::created(workspace_id, key_id, &created, OffsetDateTime::now_utc());
    let caller = Caller { actor: "test".into(), address: None };
    let mut held = store.begin().await.unwrap();
    held.record(&key, &KeyEvent::Created(created), &caller).await.unwrap();
    held.add_secret(key_id, &key.secrets[0], None).await.unwrap();
    held.feed(key_id).await.unwrap();

    // Later rows are neither held up nor do they make the relay pass over the one that is still open.
    let mut newest = 0;
    for i in 0..5 {
        let made = run.make(&format!("key {i}")).await;
        let entry = run.fed(&made.secret, |_| true).await;
        assert!(entry.feed_version > newest);
        newest = entry.feed_version;
    }
    outbox_is_empty(&run).await;
    let bucket = run.bucket().await;
    assert!(bucket.get(secret.hash().to_string()).await.unwrap().is_none());
    held.commit().await.unwrap();
    let entry = run.fed(secret.reveal(), |_| true).await;
    assert_eq!(entry.feed_version, newest + 1, "in the order of commits");
}

#[tokio::test]
async fn a_nats_that_forgot_everything_is_filled_again() {
    let mut run = Running::start().await;
    let (live, gone) = (run.make("live").await, run.make("gone").await);
    let live_key = rename(&run, live.key.as_ref().unwrap(), "alive").await;
    let name = gone.key.unwrap().name;
    run.keys().delete_key(run.ask(DeleteKeyRequest { name, ..Default::default() })).await.unwrap();
    let before = [
        run.fed(&live.secret, |entry| entry.version == 2).await,
        run.fed(&gone.secret, |entry| entry.version == 2).await,
    ];
    outbox_is_empty(&run).await;
    run.nats.stop().await;
    run.nats.wipe();
    run.nats.restart().await;
    let after = [
        run.fed(&live.secret, |entry| entry.version == 2).await,
        run.fed(&gone.secret, |entry| entry.version == 2).await,
    ];
    assert_eq!(after, before);
    assert_eq!(after[1].state(), KeyState::Deleted);
    // And the feed goes on.
    rename(&run, &live_key, "still alive").await;
    let next = run.fed(&live.secret, |entry| entry.version == 3).await;
    assert!(next.feed_version > before.iter().map(|entry| entry.feed_version).max().unwrap());
}

#[tokio::test]
async fn a_nats_that_went_back_in_time_is_filled_again() {
    let run = Running::start().await;
    let (kept, lost) = (run.make("kept").await, run.make("lost").await);
    let known = run.fed(&kept.secret, |_| true).await;
    let entry = run.fed(&lost.secret, |_| true).await;
    outbox_is_empty(&run).await;
    // As after a restart on older data: an entry is not there, and the stream is behind what was written.
    let bucket = run.bucket().await;
    bucket.purge(SecretHash::of(&lost.secret).to_string()).await.unwrap();
    let _ = run.postgres.query("update feed_state set bucket_sequence = bucket_sequence + 100");
    assert_eq!(run.fed(&lost.secret, |_| true).await, entry);
    assert_eq!(run.fed(&kept.secret, |_| true).await, known);
}

#[tokio::test]
async fn an_entry_carries_what_limits_its_key() {
    let run = Running::start().await;
    let made = run.make("limited").await;
    run.fed(&made.secret, |_| true).await;
    let _ = run.postgres.query(
        "update keys set scopes = '{orders:*,users:read}', allowed_networks = '{192.0.2.0/24}',
           rate_limits = '[{\"name\": \"burst\", \"requests\": 10, \"window_s\": 1}]', disable_time = now();
         update secrets set retire_time = '2030-01-01 00:00:00+00';
         insert into key_outbox (secret_id) select secret_id from secrets;
         notify key_outbox",
    );
    let entry = run.fed(&made.secret, |entry| entry.state() == KeyState::Disabled).await;
    assert_eq!(entry.scopes, ["orders:*", "users:read"]);
    assert_eq!(entry.allowed_networks, ["192.0.2.0/24"]);
    let limit = &entry.rate_limits[0];
    assert_eq!((limit.name.as_str(), limit.requests, limit.window_s), ("burst", 10, 1));
    assert_eq!(entry.retire_time.unwrap().seconds, 1_893_456_000);
}

#[tokio::test]
async fn an_older_entry_replaces_no_newer_one() {
    let run = Running::start().await;
    let made = run.make("a").await;
    let entry = run.fed(&made.secret, |_| true).await;
    outbox_is_empty(&run).await;
    // As after Postgres was restored from a copy: the feed has what the keys service once signed, and newer.
    let newer = KeyFeedEntry { version: 3, ..entry };
    run.plant(&made.secret, run.sign_entry(&made.secret, &newer).await).await;
    let key = rename(&run, made.key.as_ref().unwrap(), "version 2").await;
    outbox_is_empty(&run).await;
    assert_eq!(run.fed(&made.secret, |_| true).await, newer);
    rename(&run, &key, "version 3").await;
    rename(&run, &key, "version 4").await;
    run.fed(&made.secret, |entry| entry.version == 4).await;
}

#[tokio::test]
async fn what_the_feed_knows_to_be_deleted_is_deleted() {
    let run = Running::start().await;
    let made = run.make("a").await;
    let entry = run.fed(&made.secret, |_| true).await;
    outbox_is_empty(&run).await;
    // As after Postgres was restored from a copy of before the deletion.
    let tombstone = KeyFeedEntry { version: 2, state: KeyState::Deleted.into(), ..entry };
    run.plant(&made.secret, run.sign_entry(&made.secret, &tombstone).await).await;
    let name = made.key.unwrap().name;
    eventually("the key is deleted", async || {
        let request = run.ask(GetKeyRequest { name: name.clone() });
        run.keys().get_key(request).await.unwrap().into_inner().delete_time.is_some()
    })
    .await;
    outbox_is_empty(&run).await;
    assert_eq!(run.fed(&made.secret, |_| true).await.state(), KeyState::Deleted);
    let actors = "select actor from key_events where version = 2";
    assert_eq!(run.postgres.query(actors), "restore\n");
}

#[tokio::test]
async fn of_two_services_one_relays_and_the_other_takes_over() {
    let run = Running::start().await;
    let second = crate::harness::serve(&run.postgres.url_as(ROLE), &run.nats.url(), &run.folder).await;
    eventually("the second is ready", async || *second.health.ready().borrow()).await;
    let made = run.make("a").await;
    run.fed(&made.secret, |_| true).await;
    run.service.shutdown.cancel();
    let mut keys = proto::keys::keys_service_client::KeysServiceClient::new(second.channel.clone());
    let key = Key { name: made.key.unwrap().name, display_name: "b".into(), ..Key::default() };
    let request = UpdateKeyRequest { key: Some(key), update_mask: None };
    keys.update_key(run.ask(request)).await.expect("a token of the first is good at the second");
    run.fed(&made.secret, |entry| entry.version == 2).await;
}

#[tokio::test]
async fn many_changes_at_once_all_arrive() {
    let run = Running::start().await;
    let made = futures_util::future::join_all((0..40).map(async |i: usize| {
        let made = run.make(&format!("key {i}")).await;
        let key = rename(&run, made.key.as_ref().unwrap(), "renamed").await;
        if i.is_multiple_of(2) {
            let request = DeleteKeyRequest { name: key.name, ..Default::default() };
            run.keys().delete_key(run.ask(request)).await.unwrap();
        }
        (i, made.secret)
    }))
    .await;
    let mut places = std::collections::HashSet::new();
    for (i, secret) in made {
        let version = if i.is_multiple_of(2) { 3 } else { 2 };
        let entry = run.fed(&secret, |entry| entry.version == version).await;
        assert_eq!(entry.state() == KeyState::Deleted, i.is_multiple_of(2));
        assert!(places.insert(entry.feed_version), "each has a place of its own");
    }
}
