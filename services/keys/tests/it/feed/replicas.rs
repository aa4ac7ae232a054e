//! The key feed in a cluster of NATS: put from one server on three without being written anew.

use async_nats::jetstream::{self, Context};
use domain::SecretHash;
use parts::{NatsCluster, eventually};
use proto::nats::KEYS_BY_HASH_BUCKET;

use crate::harness::{ROLE, Running, serve_with};

async fn connect(cluster: &NatsCluster) -> Context {
    let addresses = cluster.url();
    let servers: Vec<_> = addresses.split(',').collect();
    jetstream::new(async_nats::connect(servers.as_slice()).await.unwrap())
}

/// Where the bucket has a secret.
async fn sequence_of(context: &Context, secret: &str) -> u64 {
    let hash = SecretHash::of(secret).to_string();
    eventually("the feed's entry", async || {
        let bucket = context.get_key_value(KEYS_BY_HASH_BUCKET).await.ok()?;
        Some(bucket.entry(hash.clone()).await.ok()??.revision)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_is_put_on_three_servers_as_it_is() {
    let mut run = Running::start().await;
    let cluster = NatsCluster::start().await;
    let context = connect(&cluster).await;
    let database_url = run.postgres.url_as(ROLE);
    run.service = serve_with(&database_url, &cluster.url(), &run.folder, &[]).await;
    eventually("the service is ready", async || *run.service.health.ready().borrow()).await;
    let first = run.make("First").await.secret;
    let place = sequence_of(&context, &first).await;
    let stream = async || context.get_stream(format!("KV_{KEYS_BY_HASH_BUCKET}")).await.ok();
    let before = eventually("the bucket", stream).await.cached_info().clone();
    assert_eq!(before.config.num_replicas, 1);

    run.service = serve_with(&database_url, &cluster.url(), &run.folder, &["--nats-replicas", "3"]).await;
    eventually("the service is ready", async || *run.service.health.ready().borrow()).await;
    let streams = ["KV_keys_by_hash", "KEY_EVENTS"];
    eventually("three servers have everything", async || {
        for stream in streams {
            let stream = context.get_stream(stream).await.ok()?;
            let info = stream.cached_info();
            let others = &info.cluster.as_ref()?.replicas;
            (info.config.num_replicas == 3 && others.len() == 2 && others.iter().all(|peer| peer.current))
                .then_some(())?;
        }
        Some(())
    })
    .await;
    let second = run.make("Second").await.secret;
    assert!(sequence_of(&context, &second).await > place);
    assert_eq!(sequence_of(&context, &first).await, place, "what is there is not written again");
    let after = eventually("the bucket", stream).await.cached_info().clone();
    assert_eq!(after.created, before.created);
}
