//! What cannot be read goes to the dead letters, whole, once, and harms nothing else.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    consumer::{DeliverPolicy, pull},
};
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events as pb, nats};

use crate::support::{Edge, Stage, example};

/// Reason, position and bytes of each dead letter.
async fn letters(jetstream: &Context) -> Vec<(String, String, Vec<u8>)> {
    let config = pull::Config { deliver_policy: DeliverPolicy::All, ..pull::Config::default() };
    let consumer =
        jetstream.create_consumer_on_stream(config, nats::DEAD_LETTERS_STREAM).await.expect("it exists");
    let mut found = consumer
        .batch()
        .max_messages(100)
        .expires(Duration::from_secs(1))
        .messages()
        .await
        .expect("NATS runs");
    let mut letters = Vec::new();
    while let Some(Ok(letter)) = found.next().await {
        let headers = letter.headers.as_ref().expect("a dead letter has headers");
        let header = |name| headers.get(name).expect("and this one").to_string();
        let (reason, position) = (header(nats::DEAD_LETTER_REASON), header(nats::DEAD_LETTER_POSITION));
        letters.push((reason, position, letter.payload.to_vec()));
    }
    letters
}

#[tokio::test]
async fn exactly_the_bad_ones_are_dead_letters() {
    let mut stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let subject = nats::request_events_subject(example::SHARD);

    let good = edge.spool(20);
    assert!(edge.publish(&good).await);
    let mut bad = edge.spool(10);
    bad.events[2].key_id.truncate(3);
    bad.events[5].origin = 77;
    bad.events[8].path = "/".repeat(1_025);
    let elsewhere = pb::RequestEventBatch { shard: 0, ..example::batch("edge_b", 1, 5) };
    let whole = good.encode_to_vec();
    let unreadable = [b"garbled".to_vec(), whole[..whole.len() - 7].to_vec(), elsewhere.encode_to_vec()];
    assert!(edge.publish(&bad).await);
    for bytes in &unreadable {
        jetstream.publish(subject.clone(), bytes.clone().into()).await.unwrap().await.unwrap();
    }
    // Sent again, before and after a crash.
    assert!(edge.publish(&bad).await);
    stage.ingest.kill().await;
    stage.ingest.restart();
    assert!(edge.publish(&bad).await);
    let last = edge.spool(20);
    assert!(edge.publish(&last).await);

    parts::eventually("all is committed", async || edge.free().await == 0).await;
    assert_eq!(edge.commit().await.unwrap().committed, [pb::SeqRange { first_seq: 1, last_seq: 50 }]);
    stage.wait_for_rows(47).await;
    let letters = letters(&jetstream).await;
    let reasons: Vec<&str> = letters.iter().map(|(reason, ..)| reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "event 2 with sequence 23: field key_id is missing or out of bounds",
            "event 5 with sequence 26: field origin has the unknown value 77",
            "event 8 with sequence 29: field path has 1025 bytes, at most 1024 are allowed",
            "not a RequestEventBatch: failed to decode Protobuf message: invalid wire type value: 7",
            "not a RequestEventBatch: failed to decode Protobuf message: RequestEventBatch.events: buffer underflow",
            "says shard 0, but was published to shard 1",
        ]
    );
    let bodies: Vec<Vec<u8>> = letters.iter().map(|(.., body)| body.clone()).collect();
    let bad = bad.encode_to_vec();
    assert_eq!(bodies[..3], [bad.clone(), bad.clone(), bad]);
    assert_eq!(bodies[3..], unreadable);
    assert!(
        letters[0].1.starts_with("REQUEST_EVENTS_1@") && letters[0].1.ends_with(":2"),
        "{}",
        letters[0].1
    );
}

#[tokio::test]
async fn a_wrong_clock_is_no_reason() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let mut batch = edge.spool(4);
    for (event, seconds) in batch.events.iter_mut().zip([-36 * 86_400, -34 * 86_400, 299, 400]) {
        event.occurred_at.as_mut().unwrap().seconds += seconds;
    }
    assert!(edge.publish(&batch).await);
    stage.wait_for_rows(4).await;
    let sql = "select edge_seq, clock_skewed, intDiv(toUnixTimestamp(now()) - toUnixTimestamp(occurred_at) + 600, 86400) \
        from keymeter.request_events order by edge_seq";
    assert_eq!(stage.clickhouse.query(sql).await, "1\ttrue\t0\n2\tfalse\t34\n3\tfalse\t0\n4\ttrue\t0\n");
    assert_eq!(letters(&jetstream).await, []);
    assert_eq!(stage.metric("keymeter_ingest_clock_skewed_total{shard=\"1\"").await, 2);
}
