//! On three real servers, each in a network namespace of its own so that it can be cut off: what of them is old, who can
//! be believed, and whom to leave.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use async_nats::jetstream::{Context, ContextBuilder, kv, stream::Info};
use nats_cluster::{Servers, context, is_led, newest, spread, value};
use parts::{NatsCluster, eventually};

async fn connect(addresses: &str) -> Context {
    let servers = Servers::parse(addresses).unwrap();
    context(servers.connect(servers.options()).await.unwrap())
}

/// A bucket on so many servers, and its one value.
async fn bucket(jetstream: &Context, num_replicas: usize) -> kv::Store {
    let config = kv::Config { bucket: "b".into(), num_replicas, ..kv::Config::default() };
    let bucket =
        eventually("the bucket is made", async || jetstream.create_key_value(config.clone()).await.ok())
            .await;
    eventually("a value is put", async || bucket.put("k", "old".into()).await.ok()).await;
    bucket
}

/// Who leads, and once all three have everything.
async fn led_by(cluster: &NatsCluster, jetstream: &Context) -> usize {
    let leader = eventually("all servers have it", async || {
        let info = jetstream.get_stream("KV_b").await.ok()?.cached_info().cluster.clone()?;
        let is_whole = info.replicas.len() == 2 && info.replicas.iter().all(|peer| peer.current);
        info.leader.filter(|_| is_whole)
    });
    cluster.named(&leader.await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_tells_old_values_and_is_not_asked_for_them() {
    let cluster = NatsCluster::start_apart().await;
    let jetstream = connect(&cluster.url()).await;
    bucket(&jetstream, 3).await;
    let follower = (led_by(&cluster, &jetstream).await + 1) % cluster.servers();
    let client = async_nats::connect(cluster.url_of(follower)).await.unwrap();
    let cut_off = ContextBuilder::new().timeout(Duration::from_secs(1)).build(client);
    let others = others(&cluster, follower);
    let there = cut_off.get_key_value("b").await.unwrap();
    cluster.cut_off(follower);
    let elsewhere = connect(&others).await;
    let bucket = eventually("the others answer", async || elsewhere.get_key_value("b").await.ok()).await;
    let revision = eventually("a new value is put", async || bucket.put("k", "new".into()).await.ok()).await;

    // Some of them go to the servers that it does not reach.
    let old = async || there.get("k").await.is_ok_and(|value| value == Some("old".into()));
    eventually("a direct get is answered by whoever is asked", old).await;
    assert!(value(&there, "k").await.is_err(), "there is no leader to ask");
    let (read, at) = value(&bucket, "k").await.unwrap();
    assert_eq!((read.unwrap().payload, at), ("new".into(), revision));
    assert!(there.update("k", "late".into(), revision - 1).await.is_err());
    cluster.rejoin(follower);
    eventually("it hears of the new value", async || {
        there.get("k").await.is_ok_and(|it| it == Some("new".into()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_not_believed_and_left() {
    let cluster = NatsCluster::start_apart().await;
    let jetstream = connect(&cluster.url()).await;
    bucket(&jetstream, 3).await;
    let leader = led_by(&cluster, &jetstream).await;
    let stream = connect(&cluster.url_of(leader)).await.get_stream("KV_b").await.unwrap();
    let said = async || stream.get_info().await.ok();
    eventually("it is believed", async || said().await.is_some_and(|info: Info| is_led(&info))).await;

    // A client of this server that may go to another one.
    let servers = Servers::parse(&cluster.url()).unwrap();
    let client = eventually("a client of this server", async || {
        let client = servers.connect(servers.options()).await.ok()?;
        (client.server_info().server_name == cluster.name_of(leader)).then_some(client)
    })
    .await;
    let followed = context(client.clone());
    let leaving = tokio::spawn(async move { servers.leave_deaf(&followed).await });

    cluster.cut_off(leader);
    eventually("it says that it leads, and is not believed", async || {
        said().await.is_some_and(|info: Info| !is_led(&info))
    })
    .await;
    eventually("the client has left it", async || {
        client.server_info().server_name != cluster.name_of(leader)
            && client.connection_state() == async_nats::connection::State::Connected
    })
    .await;
    leaving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_a_server_goes_to_another() {
    let cluster = NatsCluster::start().await;
    let servers = Servers::parse(&cluster.url()).unwrap();
    let client = servers.connect(servers.options()).await.unwrap();
    for _ in 0..20 {
        let left = client.server_info().server_name;
        client.force_reconnect().await.unwrap();
        eventually("another server is on the other end", async || client.server_info().server_name != left)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_on_one_server_is_put_on_three_as_it_is() {
    let mut cluster = NatsCluster::start().await;
    let jetstream = connect(&cluster.url()).await;
    let bucket = bucket(&jetstream, 1).await;
    bucket.put("other", "x".into()).await.unwrap();
    bucket.delete("other").await.unwrap();
    let before = bucket.stream.cached_info().created;
    assert!(!spread(&jetstream, "KV_none", 3).await.unwrap(), "left to whoever makes it");
    assert!(eventually("it is spread", async || spread(&jetstream, "KV_b", 3).await.ok()).await);
    assert!(!spread(&jetstream, "KV_b", 3).await.unwrap(), "once is enough");

    let leader = led_by(&cluster, &jetstream).await;
    cluster.kill(leader).await;
    let jetstream = connect(&others(&cluster, leader)).await;
    let after = eventually("another leads", async || jetstream.get_stream("KV_b").await.ok()).await;
    assert_eq!((after.cached_info().created, after.cached_info().state.last_sequence), (before, 3));
    let bucket = jetstream.get_key_value("b").await.unwrap();
    let read = eventually("it answers", async || value(&bucket, "k").await.ok()).await;
    assert_eq!((read.0.unwrap().payload, read.1), ("old".into(), 1));
    assert_eq!(value(&bucket, "never").await.unwrap().1, 0);
    let (deleted, revision) = value(&bucket, "other").await.unwrap();
    assert!(deleted.is_none() && revision == 3, "a mark is no value");
    let last = newest(&bucket.stream, "$KV.b.>").await.unwrap().unwrap();
    assert_eq!(last.sequence, 3, "of all keys");
    tokio::time::timeout(Duration::from_secs(10), bucket.update("k", "new".into(), 1))
        .await
        .unwrap()
        .unwrap();
}

/// The addresses of all servers but one.
fn others(cluster: &NatsCluster, server: usize) -> String {
    let others = (0..cluster.servers()).filter(|other| *other != server).map(|other| cluster.url_of(other));
    others.collect::<Vec<_>>().join(",")
}
