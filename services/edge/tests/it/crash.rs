//! Ends of every kind: what a client saw answered is on record, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::{Service, SmallDisk, eventually};
use tokio::task::JoinSet;

use crate::world::{EdgeProcess, Identity, Key, World, echo, get, serve};

const CLIENTS: usize = 8;
/// Answers under way before something happens.
const ENOUGH: usize = 300;

/// Clients that call without pause; the ids of the answers that they saw.
struct Load {
    seen: Arc<Mutex<BTreeSet<String>>>,
    clients: JoinSet<()>,
}

impl Load {
    /// Calls until the edge is gone.
    fn start(edge: &EdgeProcess, key: &Key) -> Self {
        let (seen, mut clients) = (Arc::<Mutex<BTreeSet<String>>>::default(), JoinSet::new());
        for client in 0..CLIENTS {
            let (seen, key, url) = (seen.clone(), key.clone(), edge.url(&format!("/load/{client}")));
            let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
            clients.spawn(async move {
                while let Ok(response) = client.request(get(&url, &key)).await {
                    assert_eq!(response.status(), 200);
                    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
                    seen.lock().unwrap().insert(id);
                    if response.into_body().collect().await.is_err() {
                        return;
                    }
                }
            });
        }
        Self { seen, clients }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The ids, once all clients have noticed.
    async fn ended(mut self) -> BTreeSet<String> {
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        self.seen.lock().unwrap().clone()
    }
}

/// Every request id in the streams with the identities that name it.
async fn published(world: &World) -> BTreeMap<String, Vec<Identity>> {
    let mut ids = BTreeMap::<String, Vec<Identity>>::new();
    for (identity, event) in world.events().await {
        ids.entry(event.request_id.to_string()).or_default().push(identity);
    }
    ids
}

async fn assert_each_once(world: &World, seen: &BTreeSet<String>) {
    eventually("every answered call is published", async || {
        let published = published(world).await;
        seen.iter().all(|id| published.contains_key(id))
    })
    .await;
    for (id, identities) in published(world).await {
        assert_eq!(identities.len(), 1, "{id} was counted more than once: {identities:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_edge_loses_no_call_that_a_client_saw_answered() {
    let world = World::start().await;
    let key = world.key().await;
    let mut edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let mut seen = BTreeSet::new();
    for round in 1..=4 {
        let load = Load::start(&edge, &key);
        eventually("load", async || load.count() >= ENOUGH).await;
        if round == 2 {
            world.commit().await;
        }
        edge.service.kill().await;
        seen.extend(load.ended().await);
        edge.service.restart();
        edge.wait_ready().await;
    }
    assert_each_once(&world, &seen).await;
    let boots: BTreeSet<_> = world.events().await.into_keys().map(|(_, boot, ..)| boot).collect();
    assert!(boots.len() >= 4, "each start numbers anew: {boots:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_drains_and_publishes_all() {
    let world = World::start().await;
    let key = world.key().await;
    let mut edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let load = Load::start(&edge, &key);
    eventually("load", async || load.count() >= ENOUGH).await;
    assert!(edge.service.sigterm().await.success());
    let seen = load.ended().await;
    let published = published(&world).await;
    assert!(seen.iter().all(|id| published.contains_key(id)), "published before the process ended");
    let events = world.events().await;
    assert!(events.values().all(|event| !event.interrupted));
    assert_eq!(events.len(), published.len());
}

#[tokio::test]
async fn a_second_process_on_the_spool_is_refused() {
    let world = World::start().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let (addr, health) =
        (format!("127.0.0.1:{}", parts::free_port()), format!("127.0.0.1:{}", parts::free_port()));
    let environment = [
        ("KEYMETER_EDGE_ADDR", addr.as_str()),
        ("KEYMETER_EDGE_HEALTH_ADDR", &health),
        ("KEYMETER_EDGE_UPSTREAM_URL", "http://127.0.0.1:1"),
        ("KEYMETER_EDGE_NATS_URL", &world.nats.url()),
        ("KEYMETER_EDGE_SPOOL_DIR", edge.spool.path().to_str().unwrap()),
        ("KEYMETER_EDGE_FEED_KEYS_FILE", edge.feed_keys.path().to_str().unwrap()),
    ];
    let mut second = Service::spawn("edge", &environment).await;
    assert!(!second.wait().await.success());
    assert!(second.log().contains("another process uses the spool folder"), "{}", second.log());
}

#[tokio::test]
async fn an_unusable_setting_ends_the_start() {
    for (name, value, said) in [
        ("KEYMETER_EDGE_UPSTREAM", "http://127.0.0.1:1", "KEYMETER_EDGE_UPSTREAM"),
        ("KEYMETER_EDGE_SPOOL_BYTES_MAX", "1", "KEYMETER_EDGE_SPOOL_BYTES_MAX"),
        ("KEYMETER_EDGE_NATS_URL", "nats://[", "address of NATS"),
        ("KEYMETER_EDGE_SPOOL_DIR", "/proc/nowhere", "/proc/nowhere"),
        ("KEYMETER_EDGE_FEED_KEYS_FILE", "/proc/nowhere", "KEYMETER_EDGE_FEED_KEYS_FILE /proc/nowhere"),
        (
            "KEYMETER_EDGE_NATS_URL_FILE",
            "nats",
            "KEYMETER_EDGE_NATS_URL and KEYMETER_EDGE_NATS_URL_FILE are both",
        ),
    ] {
        let mut edge = EdgeProcess::spawn("nats://127.0.0.1:1", "http://127.0.0.1:1", &[(name, value)]).await;
        assert!(!edge.service.wait().await.success());
        assert!(edge.service.log().contains(said), "{}", edge.service.log());
    }
}

#[tokio::test]
async fn a_spool_in_memory_is_refused_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("memory");
    let disk = SmallDisk::mount(&memory, 16);
    let spool = memory.join("not yet").join("made");
    let start = async |ephemeral| {
        let settings = [
            ("KEYMETER_EDGE_SPOOL_DIR", spool.to_str().unwrap()),
            ("KEYMETER_EDGE_SPOOL_BYTES_MAX", "8388608"),
            ("KEYMETER_EDGE_SPOOL_EPHEMERAL", ephemeral),
        ];
        EdgeProcess::spawn("nats://127.0.0.1:1", "http://127.0.0.1:1", &settings).await
    };
    let mut refused = start("false").await;
    assert!(!refused.service.wait().await.success());
    let log = refused.service.log();
    assert!(log.contains("KEYMETER_EDGE_SPOOL_DIR") && log.contains("is on tmpfs"), "{log}");
    assert!(log.contains("KEYMETER_EDGE_SPOOL_EPHEMERAL=true") && !spool.exists(), "{log}");
    let mut taken = start("true").await;
    eventually("the spool is made", async || spool.join("lock").exists()).await;
    taken.service.kill().await;
    drop(disk);
}
