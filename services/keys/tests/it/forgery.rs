//! Whoever can write to NATS revives no key: neither at an edge that runs nor at one that starts.

use domain::SecretHash;
use parts::eventually;
use prost::Message as _;
use proto::{
    events::{KeyFeedEntry, KeyState, SignedFeedMessage},
    keys::{DeleteKeyRequest, Key, UpdateKeyRequest},
    nats::{FEED_HEAD_KEY, FEED_HEAD_PURPOSE, KEYS_BY_HASH_BUCKET},
};

use crate::{
    edge::{ADMITTED, Edge, REFUSED},
    harness::Running,
};

/// A service with a key that works and one that was deleted; what the feed had of the latter before.
struct Scene {
    run: Running,
    good: String,
    good_name: String,
    gone: String,
    old_value: Vec<u8>,
    old_entry: KeyFeedEntry,
    tombstone: KeyFeedEntry,
}

impl Scene {
    async fn set() -> Self {
        let run = Running::start().await;
        let (good, gone) = (run.make("good").await, run.make("gone").await);
        run.fed(&good.secret, |_| true).await;
        let old_entry = run.fed(&gone.secret, |_| true).await;
        let hash = SecretHash::of(&gone.secret).to_string();
        let old_value = run.bucket().await.get(hash).await.unwrap().unwrap().to_vec();
        let name = gone.key.unwrap().name;
        run.keys().delete_key(run.ask(DeleteKeyRequest { name, ..Default::default() })).await.unwrap();
        let tombstone = run.fed(&gone.secret, |entry| entry.version == 2).await;
        let good_name = good.key.unwrap().name;
        Self { run, good: good.secret, good_name, gone: gone.secret, old_value, old_entry, tombstone }
    }

    /// The true entry is there again, at a later place.
    async fn mended(&self) {
        let later = |entry: &KeyFeedEntry| entry.feed_version > self.tombstone.feed_version;
        let entry = self.run.fed(&self.gone, later).await;
        assert_eq!(entry.state(), KeyState::Deleted);
    }

    /// An edge that ran meanwhile and one that starts now know what is true.
    async fn holds(&self, running: &Edge) {
        let fresh = Edge::start(&self.run).await;
        for edge in [running, &fresh] {
            assert_eq!(edge.call(&self.gone).await, REFUSED);
            assert_eq!(edge.call(&self.good).await, ADMITTED);
        }
    }

    /// Attacks and looks whether anything is revived, at any moment.
    async fn withstands(&self, attack: impl AsyncFnOnce()) {
        let running = Edge::start(&self.run).await;
        attack().await;
        // It may start on what it finds only once that is put right.
        let fresh = Edge::spawn(&self.run).await;
        eventually("the fresh edge is ready", async || {
            if let Ok(answer) =
                parts::request("GET", &fresh.addr, "/", &[("X-API-Key", &self.gone)], "").await
            {
                assert_ne!(answer.status, ADMITTED, "a fresh edge revived the key");
            }
            assert_eq!(running.call(&self.gone).await, REFUSED, "a running edge revived the key");
            fresh.is_ready().await
        })
        .await;
        self.mended().await;
        self.holds(&running).await;
    }
}

#[tokio::test]
async fn an_entry_that_the_service_did_not_sign_revives_nothing() {
    let scene = Scene::set().await;
    let forged = KeyFeedEntry { version: 9, feed_version: 99, ..scene.old_entry.clone() };
    let value = scene.run.sign_entry(&scene.gone, &forged).await;
    let signed = SignedFeedMessage::decode(value.as_slice()).unwrap();
    // Under the name of a true key, with a signature of nobody.
    let value = SignedFeedMessage { signature: vec![7; 64], ..signed }.encode_to_vec();
    scene.withstands(async || scene.run.plant(&scene.gone, value).await).await;
}

#[tokio::test]
async fn a_replayed_entry_revives_nothing() {
    let scene = Scene::set().await;
    scene.withstands(async || scene.run.plant(&scene.gone, scene.old_value.clone()).await).await;
}

#[tokio::test]
async fn another_key_s_entry_revives_nothing() {
    let scene = Scene::set().await;
    let bucket = scene.run.bucket().await;
    let hash = SecretHash::of(&scene.good).to_string();
    // Its version is above the tombstone's, so only the place of its signature speaks against it.
    for display_name in ["second", "third"] {
        let key = Key { name: scene.good_name.clone(), display_name: display_name.into(), ..Key::default() };
        let request = UpdateKeyRequest { key: Some(key), update_mask: None };
        scene.run.keys().update_key(scene.run.ask(request)).await.unwrap();
    }
    scene.run.fed(&scene.good, |entry| entry.version == 3).await;
    let others = bucket.get(hash).await.unwrap().unwrap().to_vec();
    scene.withstands(async || scene.run.plant(&scene.gone, others).await).await;
}

#[tokio::test]
async fn a_replayed_head_covers_nothing() {
    let scene = Scene::set().await;
    let bucket = scene.run.bucket().await;
    let head = bucket.get(FEED_HEAD_KEY).await.unwrap().unwrap();
    scene
        .withstands(async || {
            scene.run.plant(&scene.gone, scene.old_value.clone()).await;
            bucket.put(FEED_HEAD_KEY, head).await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_tombstone_that_is_taken_out_of_the_bucket_is_put_back() {
    let scene = Scene::set().await;
    let bucket = scene.run.bucket().await;
    let hash = SecretHash::of(&scene.gone).to_string();
    scene.withstands(async || bucket.delete(hash.clone()).await.unwrap()).await;
}

#[tokio::test]
async fn a_tombstone_that_is_taken_out_without_a_trace_is_put_back() {
    let scene = Scene::set().await;
    let running = Edge::start(&scene.run).await;
    let bucket = scene.run.bucket().await;
    let hash = SecretHash::of(&scene.gone).to_string();
    // No sequence tells of it: only the number of values does.
    let subject = format!("$KV.{KEYS_BY_HASH_BUCKET}.{hash}");
    bucket.stream.purge().filter(subject).await.unwrap();
    let entry = scene.run.fed(&scene.gone, |_| true).await;
    assert_eq!(entry.state(), KeyState::Deleted);
    scene.holds(&running).await;
}

#[tokio::test]
async fn an_older_bucket_is_brought_up_to_date() {
    let mut scene = Scene::set().await;
    let running = Edge::start(&scene.run).await;
    let made = scene.run.make("later").await;
    scene.run.fed(&made.secret, |_| true).await;
    let later = scene.run.make("deleted later").await;
    scene.run.fed(&later.secret, |_| true).await;
    let older = scene.run.nats.copy();
    let name = later.key.unwrap().name;
    scene
        .run
        .keys()
        .delete_key(scene.run.ask(DeleteKeyRequest { name, ..Default::default() }))
        .await
        .unwrap();
    running.answers(&later.secret, REFUSED).await;
    scene.run.nats.stop().await;
    scene.run.nats.put_back(&older);
    scene.run.nats.restart().await;
    let entry = scene.run.fed(&later.secret, |entry| entry.version == 2).await;
    assert_eq!(entry.state(), KeyState::Deleted);
    assert_eq!(running.call(&later.secret).await, REFUSED);
    let fresh = Edge::start(&scene.run).await;
    assert_eq!(fresh.call(&later.secret).await, REFUSED);
    assert_eq!(fresh.call(&made.secret).await, ADMITTED);
    scene.holds(&running).await;
}

#[tokio::test]
async fn values_that_nobody_has_are_taken_out() {
    let scene = Scene::set().await;
    let bucket = scene.run.bucket().await;
    let signing = scene.run.signing().await;
    let forged_head = signing.sign("keymeter feed entry head", b"");
    assert!(!signing.verifies(FEED_HEAD_PURPOSE, b"", &forged_head.kid, &forged_head.bytes));
    bucket.put("no-hash", "x".into()).await.unwrap();
    bucket.put(SecretHash::of("nobody's").to_string(), "x".into()).await.unwrap();
    eventually("they are gone", async || {
        bucket.stream.get_info().await.unwrap().state.messages == 3 // two keys and the head
    })
    .await;
    Edge::start(&scene.run).await;
}
