//! Receipts: which edges refuse a deleted key, by what real edges say.

use async_nats::jetstream::{self, kv};
use parts::eventually;
use proto::{
    keys::{DeleteKeyRequest, Receipt, ReceiptState, keys_service_client::KeysServiceClient},
    nats::EDGES_BUCKET,
};

use crate::{
    edge::{ADMITTED, Edge, REFUSED},
    harness::{Running, field, serve},
};

const EDGES: usize = 3;

/// What ingest makes.
async fn make_edges_bucket(run: &Running) -> kv::Store {
    let context = jetstream::new(async_nats::connect(run.nats.url()).await.unwrap());
    let config = kv::Config { bucket: EDGES_BUCKET.into(), history: 1, ..kv::Config::default() };
    context.create_key_value(config).await.unwrap()
}

/// Edges that the service has heard of.
async fn edges(run: &Running, count: usize) -> Vec<Edge> {
    let bucket = make_edges_bucket(run).await;
    let mut edges = Vec::new();
    for _ in 0..count {
        edges.push(Edge::start(run).await);
    }
    for edge in &edges {
        eventually("its heartbeat", async || bucket.get(edge.id()).await.unwrap().is_some()).await;
    }
    // The bucket is younger than the service, which looks for it again now and then.
    let probe = run.make("to hear of edges").await.key.unwrap().name;
    let heard = async || usize::try_from(delete(run, &probe, 0).await.edges) == Ok(count);
    eventually("the service has heard of them", heard).await;
    edges
}

fn asked(name: &str, seconds: i64) -> DeleteKeyRequest {
    let receipt_timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    DeleteKeyRequest { name: name.into(), receipt_timeout, ..Default::default() }
}

async fn delete(run: &Running, name: &str, seconds: i64) -> Receipt {
    run.keys().delete_key(run.ask(asked(name, seconds))).await.unwrap().into_inner().receipt.unwrap()
}

/// A key that every edge admits: its name and its secret.
async fn admitted(run: &Running, edges: &[&Edge]) -> (String, String) {
    let made = run.make("to be deleted").await;
    for edge in edges {
        edge.answers(&made.secret, ADMITTED).await;
    }
    (made.key.unwrap().name, made.secret)
}

fn counts(receipt: &Receipt) -> (ReceiptState, i32, i32) {
    (receipt.state(), receipt.edges_refusing, receipt.edges)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_counts_edges_and_names_the_silent_one() {
    let run = Running::start().await;
    let mut edges = edges(&run, EDGES).await;
    // Under load: somebody calls each edge all the time.
    let (_, busy) = admitted(&run, &edges.iter().collect::<Vec<_>>()).await;
    let callers: Vec<_> = edges
        .iter()
        .map(|edge| (edge.addr.clone(), busy.clone()))
        .map(|(addr, secret)| {
            tokio::spawn(async move {
                loop {
                    let _ = parts::request("GET", &addr, "/", &[("X-API-Key", &secret)], "").await;
                }
            })
        })
        .collect();
    for _ in 0..10 {
        let (name, secret) = admitted(&run, &edges.iter().collect::<Vec<_>>()).await;
        let receipt = delete(&run, &name, 10).await;
        // What the receipt says is so at that moment.
        for edge in &edges {
            assert_eq!(edge.call(&secret).await, REFUSED);
        }
        assert_eq!(counts(&receipt), (ReceiptState::Complete, 3, 3));
        assert!(receipt.silent_edges.is_empty() && receipt.elapsed.is_some());
    }
    callers.iter().for_each(tokio::task::JoinHandle::abort);

    edges[1].service.pause();
    let (name, secret) = admitted(&run, &[&edges[0], &edges[2]]).await;
    let receipt = delete(&run, &name, 10).await;
    assert_eq!(counts(&receipt), (ReceiptState::Partial, 2, 3));
    let silent = &receipt.silent_edges[0];
    assert_eq!(silent.edge_id, edges[1].id());
    let (seen, closed) = (silent.last_seen_time.unwrap(), silent.fails_closed_time.unwrap());
    assert_eq!(
        closed.seconds - seen.seconds,
        33,
        "30 s of the setting, a heartbeat, and a server of NATS that is not believed for long"
    );
    // Nobody waits for an edge that is known to be silent.
    assert_eq!(counts(&delete(&run, &name, 0).await), (ReceiptState::Partial, 2, 3));

    edges[1].service.resume();
    edges[1].answers(&secret, REFUSED).await;
    eventually("all three are counted again", async || {
        counts(&delete(&run, &name, 1).await) == (ReceiptState::Complete, 3, 3)
    })
    .await;
    let entries = run.postgres.query("select count(*) from audit_entries where action = 'receipt'");
    assert!(entries.trim().parse::<i32>().unwrap() >= 13, "{entries}");
}

#[tokio::test]
async fn a_service_that_is_not_the_relay_gives_receipts_too() {
    let run = Running::start().await;
    let edges = edges(&run, 1).await;
    let second = serve(&run.postgres.url(), &run.nats.url(), &run.folder).await;
    eventually("the second is ready", async || *second.health.ready().borrow()).await;
    let mut keys = KeysServiceClient::new(second.channel.clone());
    // Until it has read the list of edges.
    let complete = eventually("the second knows the edge", async || {
        let (name, secret) = admitted(&run, &[&edges[0]]).await;
        let deleted = keys.delete_key(run.ask(asked(&name, 10))).await.unwrap().into_inner();
        let receipt = deleted.receipt.unwrap();
        (receipt.edges == 1).then_some((receipt, secret))
    })
    .await;
    assert_eq!(counts(&complete.0), (ReceiptState::Complete, 1, 1));
    assert_eq!(edges[0].call(&complete.1).await, REFUSED);
}

#[tokio::test]
async fn who_does_not_ask_gets_none_and_nobody_waits_too_long() {
    let run = Running::start().await;
    let name = run.make("a").await.key.unwrap().name;
    for seconds in [-1, 11] {
        let refused = run.keys().delete_key(run.ask(asked(&name, seconds))).await.unwrap_err();
        assert_eq!(field(&refused), "receipt_timeout");
    }
    let unasked = DeleteKeyRequest { name: name.clone(), ..Default::default() };
    let receipt = run.keys().delete_key(run.ask(unasked)).await.unwrap().into_inner().receipt.unwrap();
    assert_eq!(counts(&receipt), (ReceiptState::NotAwaited, 0, 0));
    let entries = run.postgres.query("select count(*) from audit_entries where action = 'receipt'");
    assert_eq!(entries.trim(), "0");
}
