//! NATS away, NATS forgetful, nobody there yet, and what becomes of the spool.

use std::collections::BTreeSet;

use domain::Denial;
use futures_util::{StreamExt as _, stream};
use parts::eventually;
use proto::timestamp;
use time::OffsetDateTime;

use crate::world::{EdgeProcess, World, echo, get, json, send, serve, until_known};

#[tokio::test]
async fn nats_away_and_back_loses_nothing() {
    let mut world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    for number in 0..10 {
        assert_eq!(send(get(&edge.url(&format!("/before/{number}")), &key)).await.status(), 200);
    }
    world.events_of(10).await;
    world.nats.kill().await;
    for number in 0..10 {
        assert_eq!(
            send(get(&edge.url(&format!("/away/{number}")), &key)).await.status(),
            200,
            "no call needs NATS"
        );
    }
    world.nats.restart().await;
    assert_eq!(world.events_of(20).await.len(), 20);
}

#[tokio::test]
async fn what_nats_forgot_is_sent_again() {
    let mut world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    for number in 0..10 {
        assert_eq!(send(get(&edge.url(&format!("/x/{number}")), &key)).await.status(), 200);
    }
    let before: BTreeSet<_> = world.events().await.into_keys().collect();
    world.events_of(10).await;
    world.nats.kill().await;
    world.nats.wipe();
    world.nats.restart().await;
    world.make_streams().await;
    world.make_buckets().await;
    world.feed(&key, 1, proto::events::KeyState::Active, None).await;
    assert_eq!(world.events_of(10).await.len(), 10);
    let after: BTreeSet<_> = world.events().await.into_keys().collect();
    assert!(before.is_subset(&after), "under the same numbers");
}

#[tokio::test]
async fn an_edge_without_a_live_feed_refuses_and_comes_back() {
    let mut world = World::start().await;
    let key = world.key().await;
    let edge =
        EdgeProcess::start(&world, serve(echo()).await, &[("KEYMETER_EDGE_FEED_LOST_AFTER_S", "3")]).await;
    assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 200);
    // Frozen, not closed: only silence tells.
    world.nats.pause();
    let refused = eventually("the feed counts as lost", async || {
        let response = send(get(&edge.url("/x"), &key)).await;
        (response.status() == 503).then_some(response)
    })
    .await;
    assert_eq!(json(&refused)["denial"], "feed_lost");
    assert!(refused.headers().contains_key("retry-after"));
    eventually("it says so", async || {
        let ready = parts::get(&edge.health, "/readyz").await.unwrap();
        ready.status == 503 && ready.body.contains("too old")
    })
    .await;
    world.nats.resume();
    until_known(&edge, &key, "/y").await;
    eventually("the refusals are on record", async || {
        world
            .events()
            .await
            .values()
            .any(|event| event.denial == Some(Denial::FeedLost) && event.status_code == 503)
    })
    .await;
}

#[tokio::test]
async fn an_edge_may_start_before_all_others() {
    let world = World::bare().await;
    let mut edge =
        EdgeProcess::spawn(&world.nats.url(), &format!("http://{}", serve(echo()).await), &[]).await;
    eventually("it listens", async || parts::get(&edge.addr, "/.keymeter/healthz").await.is_ok()).await;
    world.make_buckets().await;
    let key = world.key().await;
    let ready = parts::get(&edge.addr, "/.keymeter/readyz").await.unwrap();
    assert!(ready.status == 200 || ready.body.contains("the first list of keys has not come"), "{ready:?}");
    edge.wait_ready().await;
    until_known(&edge, &key, "/early").await;
    // No stream takes the event yet.
    world.make_streams().await;
    assert!(world.events_of(1).await.iter().any(|event| event.path == "/early"));
}

#[tokio::test]
async fn before_the_first_snapshot_no_call_passes() {
    let edge = EdgeProcess::spawn("nats://127.0.0.1:1", "http://127.0.0.1:1", &[]).await;
    eventually("it listens", async || parts::get(&edge.addr, "/.keymeter/healthz").await.is_ok()).await;
    let secret = domain::Secret::generate(domain::Environment::Live);
    let request = http::Request::get(edge.url("/")).header("x-api-key", secret.reveal());
    let response = send(request.body(Default::default()).unwrap()).await;
    assert_eq!(response.status(), 503);
    assert_eq!(json(&response)["type"], "urn:keymeter:problem:keys_unavailable");
    assert_eq!(parts::get(&edge.health, "/readyz").await.unwrap().status, 503);
}

#[tokio::test]
async fn the_heartbeat_says_what_is_published_and_with_which_keys() {
    let world = World::start().await;
    let key = world.key().await;
    let mut edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 200);
    let ended = OffsetDateTime::now_utc();
    let place = world.feed(&key, 7, proto::events::KeyState::Active, None).await;
    let heartbeat = eventually("a heartbeat that covers the call", async || {
        let heartbeat = world.heartbeats().await.pop()?;
        let clear_until = timestamp::from_proto(heartbeat.clear_until.as_ref()?)?;
        (clear_until > ended && heartbeat.feed_version == place).then_some(heartbeat)
    })
    .await;
    let (identity, _) = world.events().await.into_iter().next().unwrap();
    let position = heartbeat.positions.iter().find(|position| position.shard == identity.2).unwrap();
    assert_eq!(heartbeat.feed_lost_after_ms, 30_000);
    assert_eq!((&heartbeat.edge_id, heartbeat.boot_epoch), (&identity.0, identity.1));
    assert_eq!((position.boot_epoch, position.published_seq), (identity.1, identity.3));
    // It owes nothing to ClickHouse only once that is said.
    assert!(edge.service.sigterm().await.success());
    assert_eq!(world.heartbeats().await.len(), 1);
    edge.service.restart();
    edge.wait_ready().await;
    world.commit().await;
    assert!(edge.service.sigterm().await.success());
    assert_eq!(world.heartbeats().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spool_is_freed_by_commits_alone() {
    const CALLS: usize = 3000;
    let world = World::start().await;
    let key = world.key().await;
    // Segments of 1 MiB.
    let edge =
        EdgeProcess::start(&world, serve(echo()).await, &[("KEYMETER_EDGE_SPOOL_BYTES_MAX", "8388608")])
            .await;
    let long = "x".repeat(1000);
    let calls = (0..CALLS).map(async |number| {
        assert_eq!(send(get(&edge.url(&format!("/{number}/{long}")), &key)).await.status(), 200);
    });
    stream::iter(calls).buffer_unordered(16).collect::<()>().await;
    assert_eq!(world.events_of(CALLS).await.len(), CALLS);
    let segments = || {
        std::fs::read_dir(edge.spool.path())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "seg")
            })
            .count()
    };
    assert!(segments() > 3, "published is not committed");
    world.commit().await;
    eventually("the segments go", async || segments() == 1).await;
}
