//! An empty ClickHouse gets back what the streams still hold, and nothing twice. The edges of the test are the oracle.

use std::process::{Command, Output};

use async_nats::jetstream::kv;
use parts::eventually;
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Edge, Stage, example};

const DROP: &str = "drop database keymeter sync";
const SEQUENCES: &str = "select edge_id, arraySort(groupArray(edge_seq)) from keymeter.request_events group by edge_id order by edge_id";

fn rebuild(stage: &Stage, from: &str) -> Output {
    rebuild_with(stage, from, &[])
}

fn rebuild_with(stage: &Stage, from: &str, more: &[&str]) -> Output {
    let (nats, clickhouse) = (stage.nats.url(), stage.clickhouse.url());
    let arguments =
        ["rebuild", "--from", from, "--shards", "2", "--nats-url", &nats, "--clickhouse-url", &clickhouse];
    Command::new(parts::binary("ingest")).args(arguments).args(more).output().expect("ingest can be started")
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// What there is to be: these sequences of each edge.
fn expected(edges: &[Edge], has: impl Fn(&str, u64) -> bool) -> String {
    let line = |edge: &Edge| {
        let sequences: Vec<_> =
            (1..=edge.last_seq()).filter(|seq| has(&edge.id, *seq)).map(|seq| seq.to_string()).collect();
        format!("{}\t[{}]\n", edge.id, sequences.join(","))
    };
    edges.iter().map(line).collect()
}

#[tokio::test]
async fn the_same_rows_come_back_and_ingest_goes_on() {
    let mut stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edges = [Edge::new("edge_a", jetstream.clone()), Edge::new("edge_b", jetstream.clone())];
    for _ in 0..5 {
        for edge in &mut edges {
            let message = edge.spool(100);
            assert!(edge.publish(&message).await);
            // Twice in the stream, once to be counted.
            assert!(edge.publish(&message).await);
        }
    }
    stage.settle(&mut edges).await;
    let gone = example::event("edge_a", 1).workspace_id;
    let erasure = pb::Erasure {
        workspace_id: gone.as_bytes().to_vec(),
        up_to: Some(timestamp::to_proto(OffsetDateTime::now_utc() + Duration::DAY)),
    };
    let bucket = nats::ERASURES_BUCKET.to_owned();
    let bucket =
        jetstream.create_or_update_key_value(kv::Config { bucket, ..kv::Config::default() }).await.unwrap();
    bucket.put(gone.to_string(), erasure.encode_to_vec().into()).await.unwrap();
    // Of two workspaces, odd sequences are in that one.
    let kept = |_: &str, seq: u64| seq.is_multiple_of(2);
    eventually("it is erased", async || stage.clickhouse.query(SEQUENCES).await == expected(&edges, kept))
        .await;
    let before = expected(&edges, kept);

    let refused = rebuild(&stage, "2000-01-01T00:00:00Z");
    assert!(!refused.status.success());
    assert!(said(&refused).contains("500 rows") && said(&refused).contains(DROP), "{}", said(&refused));
    assert_eq!(stage.clickhouse.query(SEQUENCES).await, before, "nothing was done");

    assert!(stage.ingest.sigterm().await.success());
    // One that was never taken: for ingest, not for the rebuild.
    let late = edges[0].spool(50);
    assert!(edges[0].publish(&late).await);
    stage.clickhouse.query(DROP).await;
    let rebuilt = rebuild(&stage, "2000-01-01T00:00:00Z");
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    assert!(said(&rebuilt).contains("wrote 500 rows from "), "{}", said(&rebuilt));
    assert_eq!(stage.clickhouse.query(SEQUENCES).await, before);

    stage.ingest.restart();
    stage.wait_ready().await;
    stage.settle(&mut edges).await;
    eventually("the rest is there", async || {
        stage.clickhouse.query(SEQUENCES).await == expected(&edges, kept)
    })
    .await;
}

#[tokio::test]
async fn what_a_restored_copy_lacks_is_added() {
    let mut stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edges = [Edge::new("edge_a", jetstream.clone()), Edge::new("edge_b", jetstream)];
    for _ in 0..3 {
        for edge in &mut edges {
            let message = edge.spool(100);
            assert!(edge.publish(&message).await);
        }
        stage.settle(&mut edges).await;
    }
    assert!(stage.ingest.sigterm().await.success());
    let whole = expected(&edges, |_, _| true);
    assert_eq!(stage.clickhouse.query(SEQUENCES).await, whole);
    // As if the copy had been made after 150 calls of each edge.
    let forget =
        "alter table keymeter.request_events delete where edge_seq > 150 settings mutations_sync = 2";
    stage.clickhouse.query(forget).await;
    for rows in [300, 0] {
        let added = rebuild_with(&stage, "2000-01-01T00:00:00Z", &["--add"]);
        assert!(added.status.success(), "{}", said(&added));
        assert!(said(&added).contains(&format!("wrote {rows} rows from ")), "{}", said(&added));
        assert_eq!(stage.clickhouse.query(SEQUENCES).await, whole);
    }
    stage.ingest.restart();
    stage.wait_ready().await;
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    assert_eq!(stage.clickhouse.query(SEQUENCES).await, expected(&edges, |_, _| true));
}

#[tokio::test]
async fn what_nats_took_before_the_time_is_left_out() {
    let mut stage = Stage::start().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    let from = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    assert!(stage.ingest.sigterm().await.success());
    stage.clickhouse.query(DROP).await;
    let rebuilt = rebuild(&stage, &from);
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    assert_eq!(stage.clickhouse.query(SEQUENCES).await, expected(&edges, |_, seq| seq > 10));
    // What was left out stays taken: it does not come back by itself.
    stage.ingest.restart();
    stage.wait_ready().await;
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    assert_eq!(stage.clickhouse.query(SEQUENCES).await, expected(&edges, |_, seq| seq > 10));
}

#[tokio::test]
async fn a_mistake_is_named() {
    let stage = Stage::start().await;
    let refused = rebuild(&stage, "yesterday");
    assert!(
        !refused.status.success() && said(&refused).contains("2026-11-22T00:00:00Z"),
        "{}",
        said(&refused)
    );
}
