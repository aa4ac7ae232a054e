//! The feed without NATS: an edge follows keys over gRPC, receipts stay true, and what it kept on the disk lets it start
//! when nobody else is there.

use parts::eventually;
use proto::keys::{
    AckFeedRequest, DeleteKeyRequest, DeleteKeyResponse, Receipt, ReceiptState, RotateKeyRequest,
    WatchKeysRequest, keys_service_client::KeysServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::{
    edge::{ADMITTED, Edge, REFUSED},
    harness::{ROLE, Running, bearer, field, reason, serve},
};

/// What a call is answered with while the feed is lost, or there is none yet.
const NO_FEED: u16 = 503;

async fn delete(run: &Running, keys: &mut KeysServiceClient<Channel>, name: &str) -> Receipt {
    let receipt_timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    let request = DeleteKeyRequest { name: name.into(), receipt_timeout, ..Default::default() };
    let deleted: DeleteKeyResponse = keys.delete_key(run.ask(request)).await.unwrap().into_inner();
    deleted.receipt.unwrap()
}

fn counts(receipt: &Receipt) -> (ReceiptState, i32, i32) {
    (receipt.state(), receipt.edges_refusing, receipt.edges)
}

/// Gives the key another secret; the one that it had stops working at once.
async fn rotate(run: &Running, name: &str) -> String {
    let overlap = Some(prost_types::Duration { seconds: 0, nanos: 0 });
    let request = RotateKeyRequest { name: name.into(), overlap, ..Default::default() };
    run.keys().rotate_key(run.ask(request)).await.unwrap().into_inner().secret
}

async fn is_fed_by(edge: &Edge, source: &str) {
    eventually(source, async || edge.state().await.contains(source)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_an_edge_follows_keys_and_receipts_are_true() {
    let mut run = Running::start().await;
    let before = run.make("before").await;
    let edge = Edge::watch(&run, &run.service.url, &[]).await;
    edge.answers(&before.secret, ADMITTED).await;
    is_fed_by(&edge, "from NATS").await;
    run.nats.kill().await;
    is_fed_by(&edge, "from the keys service").await;

    for round in 0..5 {
        let made = run.make(&format!("in the dark {round}")).await;
        edge.answers(&made.secret, ADMITTED).await;
        let name = made.key.unwrap().name;
        let rotated = rotate(&run, &name).await;
        edge.answers(&rotated, ADMITTED).await;
        assert_eq!(edge.call(&made.secret).await, REFUSED, "it goes with the secret that took its place");
        let receipt = delete(&run, &mut run.keys(), &name).await;
        // What the receipt says is so at that moment.
        assert_eq!(edge.call(&rotated).await, REFUSED);
        assert_eq!(counts(&receipt), (ReceiptState::Complete, 1, 1));
    }
    let name = before.key.unwrap().name;
    assert_eq!(counts(&delete(&run, &mut run.keys(), &name).await), (ReceiptState::Complete, 1, 1));

    run.nats.restart().await;
    is_fed_by(&edge, "from NATS").await;
    assert_eq!(edge.call(&before.secret).await, REFUSED);
    let made = run.make("NATS is back").await;
    run.fed(&made.secret, |_| true).await;
    edge.answers(&made.secret, ADMITTED).await;
    let name = made.key.unwrap().name;
    let receipt = delete(&run, &mut run.keys(), &name).await;
    assert_eq!(edge.call(&made.secret).await, REFUSED);
    assert_eq!(counts(&receipt), (ReceiptState::Complete, 1, 1));
    assert_eq!(edge.call(&before.secret).await, REFUSED, "no version goes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_nats_is_no_less_away() {
    let mut run = Running::start().await;
    let made = run.make("a").await;
    let edge = Edge::watch(&run, &run.service.url, &[]).await;
    edge.answers(&made.secret, ADMITTED).await;
    // Connections stay open and nothing answers.
    run.nats.pause();
    let receipt = delete(&run, &mut run.keys(), &made.key.unwrap().name).await;
    assert_eq!(edge.call(&made.secret).await, REFUSED);
    assert_eq!(counts(&receipt), (ReceiptState::Complete, 1, 1));
    run.nats.resume();
    is_fed_by(&edge, "from NATS").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_keys_service_gives_the_receipt_whoever_hears_the_edge() {
    let mut run = Running::start().await;
    let second = serve(&run.postgres.url_as(ROLE), &run.nats.url(), &run.folder).await;
    eventually("the second is ready", async || *second.health.ready().borrow()).await;
    run.make("first").await;
    let edge = Edge::watch(&run, &run.service.url, &[]).await;
    run.nats.kill().await;
    let mut keys = KeysServiceClient::new(second.channel.clone());
    for round in 0..3 {
        let made = run.make(&format!("a {round}")).await;
        edge.answers(&made.secret, ADMITTED).await;
        let receipt = delete(&run, &mut keys, &made.key.unwrap().name).await;
        assert_eq!(edge.call(&made.secret).await, REFUSED);
        assert_eq!(counts(&receipt), (ReceiptState::Complete, 1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_both_the_bound_holds_unless_the_operator_chose_otherwise() {
    let mut run = Running::start().await;
    let (good, gone) = (run.make("good").await, run.make("gone").await);
    let bound = ("KEYMETER_EDGE_FEED_LOST_AFTER_S", "4");
    let strict = Edge::watch(&run, &run.service.url, &[bound]).await;
    let lax =
        Edge::watch(&run, &run.service.url, &[bound, ("KEYMETER_EDGE_WHEN_FEED_LOST", "stale-ok")]).await;
    let receipt = delete(&run, &mut run.keys(), &gone.key.unwrap().name).await;
    assert_eq!(receipt.state(), ReceiptState::Complete);
    for edge in [&strict, &lax] {
        edge.answers(&good.secret, ADMITTED).await;
    }
    run.nats.kill().await;
    run.service.shutdown.cancel();
    strict.answers(&good.secret, NO_FEED).await;
    assert!(strict.problem(&good.secret).await.1.contains("feed_lost"));
    is_fed_by(&strict, "too old, calls are refused").await;
    is_fed_by(&lax, "too old and used all the same").await;
    assert!(lax.is_ready().await && !strict.is_ready().await);
    assert_eq!(lax.call(&good.secret).await, ADMITTED);
    for edge in [&strict, &lax] {
        assert_eq!(edge.call(&gone.secret).await, REFUSED, "deleted is for good");
    }
    run.nats.restart().await;
    strict.answers(&good.secret, ADMITTED).await;
    is_fed_by(&lax, "from NATS").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_names_an_edge_that_never_fails_closed() {
    let run = Running::start().await;
    let made = run.make("a").await;
    let mut edge = Edge::watch(&run, &run.service.url, &[("KEYMETER_EDGE_WHEN_FEED_LOST", "stale-ok")]).await;
    edge.answers(&made.secret, ADMITTED).await;
    edge.service.pause();
    let receipt = delete(&run, &mut run.keys(), &made.key.unwrap().name).await;
    assert_eq!(counts(&receipt), (ReceiptState::Partial, 0, 1));
    assert_eq!(receipt.silent_edges[0].fails_closed_time, None);
    edge.service.resume();
    edge.answers(&made.secret, REFUSED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_starts_alone_serves_from_its_disk() {
    let mut run = Running::start().await;
    let (good, gone) = (run.make("good").await, run.make("gone").await);
    let mut edge = Edge::watch(&run, &run.service.url, &[]).await;
    edge.answers(&good.secret, ADMITTED).await;
    let receipt = delete(&run, &mut run.keys(), &gone.key.unwrap().name).await;
    assert_eq!(receipt.state(), ReceiptState::Complete);
    run.nats.kill().await;
    edge.crash().await;
    assert_eq!((edge.call(&good.secret).await, edge.call(&gone.secret).await), (ADMITTED, REFUSED));

    // With the keys service it goes on from there.
    let later = run.make("later").await;
    edge.answers(&later.secret, ADMITTED).await;
    let receipt = delete(&run, &mut run.keys(), &later.key.unwrap().name).await;
    assert_eq!(counts(&receipt), (ReceiptState::Complete, 1, 1));
    run.service.shutdown.cancel();
    edge.crash().await;
    assert_eq!((edge.call(&good.secret).await, edge.call(&later.secret).await), (ADMITTED, REFUSED));

    // What is cut out is missed: the log ends before what this edge has told of.
    let log = std::fs::read(edge.kept("log")).unwrap();
    std::fs::write(edge.kept("log"), &log[..log.len() - 1]).unwrap();
    edge.crash().await;
    for secret in [&good.secret, &later.secret] {
        assert_eq!(edge.call(secret).await, NO_FEED, "it knows nothing for sure");
    }
    assert!(edge.service.log().contains("before version"), "and says why");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_was_set_back_is_refused_by_an_edge_that_has_seen_newer() {
    let mut run = Running::start().await;
    let (good, gone) = (run.make("good").await, run.make("gone").await);
    let mut edge = Edge::start(&run).await;
    edge.answers(&gone.secret, ADMITTED).await;
    run.fed(&gone.secret, |_| true).await;
    let older = run.nats.copy();
    let request = DeleteKeyRequest { name: gone.key.unwrap().name, ..Default::default() };
    run.keys().delete_key(run.ask(request)).await.unwrap();
    edge.answers(&gone.secret, REFUSED).await;
    // Nobody is left who could put the bucket right.
    run.service.shutdown.cancel();
    (&mut run.service.task).await.unwrap().unwrap();
    run.nats.stop().await;
    run.nats.put_back(&older);
    run.nats.restart().await;
    edge.crash().await;
    eventually("it says why it waits", async || {
        edge.service.log().contains("older than what this edge has seen")
    })
    .await;
    assert_eq!((edge.call(&gone.secret).await, edge.call(&good.secret).await), (NO_FEED, NO_FEED));
    let _second = serve(&run.postgres.url_as(ROLE), &run.nats.url(), &run.folder).await;
    edge.answers(&good.secret, ADMITTED).await;
    assert_eq!(edge.call(&gone.secret).await, REFUSED);
}

#[tokio::test]
async fn what_postgres_numbered_alone_is_numbered_again_where_nats_knows_more() {
    let mut run = Running::start().await;
    let first = run.make("first").await;
    let known = run.fed(&first.secret, |_| true).await.feed_version;
    eventually("the head covers it", async || run.store().outbox_rows().await.unwrap() == 0).await;
    run.nats.kill().await;
    // As after Postgres was restored from a copy.
    let _ = run
        .postgres
        .query("update feed_state set feed_version = 0, relayed_version = 0, bucket_sequence = 1");
    let (_, token) = run.command(&["edge-token"]).await;
    let asked = WatchKeysRequest { after_version: 0, watch: vec![1; 16] };
    let watching = run.keys().watch_keys(bearer(token.trim(), asked)).await.unwrap();
    let made = run.make("in the dark").await;
    eventually("it is numbered without NATS", async || {
        run.postgres.query("select count(*) from key_outbox where feed_version is not null") != "0\n"
    })
    .await;
    run.nats.restart().await;
    let entry = run.fed(&made.secret, |_| true).await;
    assert!(entry.feed_version > known, "{} is no place after {known}", entry.feed_version);
    drop(watching);
}

#[tokio::test]
async fn a_watch_is_for_edges_that_ask_well() {
    let run = Running::start().await;
    let (_, token) = run.command(&["edge-token"]).await;
    let edge = |message| bearer(token.trim(), message);
    let mut keys = run.keys();
    let asked = WatchKeysRequest { after_version: 0, watch: vec![1; 16] };
    let refused = keys.watch_keys(run.ask(asked.clone())).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "EDGES_ONLY"));
    let short = WatchKeysRequest { watch: vec![1; 15], ..asked.clone() };
    assert_eq!(field(&keys.watch_keys(edge(short)).await.unwrap_err()), "watch");
    let ahead = WatchKeysRequest { after_version: 1_000_000, ..asked.clone() };
    let mut ahead = keys.watch_keys(edge(ahead)).await.unwrap().into_inner();
    assert_eq!(reason(&ahead.message().await.unwrap_err()), "FEED_BEHIND");
    let ack = AckFeedRequest { edge_id: "edge_".into(), ..AckFeedRequest::default() };
    assert_eq!(field(&keys.ack_feed(bearer(token.trim(), ack)).await.unwrap_err()), "edge_id");
    // A service that ends lets go of its watches.
    let mut watching = keys.watch_keys(edge(asked)).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().is_some());
    run.service.shutdown.cancel();
    while watching.message().await.is_ok_and(|batch| batch.is_some()) {}
    run.service.task.await.unwrap().unwrap();
}
