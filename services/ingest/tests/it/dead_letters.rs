//! What cannot be read goes to the dead letters, whole, once, and harms nothing else.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        consumer::{DeliverPolicy, pull},
    },
};
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events as pb, nats};

use crate::{
    erasure::erase,
    support::{Edge, Stage, example},
};

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
    let alone = |index: usize| {
        let (first_seq, events) = (bad.first_seq + index as u64, vec![bad.events[index].clone()]);
        pb::RequestEventBatch { first_seq, events, ..bad.clone() }
    };
    let found: Vec<_> =
        bodies[..3].iter().map(|body| pb::RequestEventBatch::decode(body.as_slice()).unwrap()).collect();
    assert_eq!(found, [alone(2), alone(5), alone(8)]);
    assert_eq!(bodies[3..], unreadable);
    assert!(
        letters[0].1.starts_with("REQUEST_EVENTS_1@") && letters[0].1.ends_with(":2/2"),
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

/// A letter as an older ingest would have left it, that this one can read.
async fn store_readable(jetstream: &Context, batch: &pb::RequestEventBatch) {
    let mut headers = HeaderMap::new();
    headers.insert(nats::DEAD_LETTER_REASON, "field denial has the unknown value 9");
    headers.insert(nats::DEAD_LETTER_POSITION, "REQUEST_EVENTS_1@2026-11-22T15:00:00Z:2/2");
    headers.insert(nats::DEAD_LETTER_PUBLISHED_AT, "2026-11-22T15:00:00Z");
    let subject = nats::dead_letters_subject(example::SHARD);
    let payload = batch.encode_to_vec().into();
    let stored = jetstream.publish_with_headers(subject, headers, payload).await.expect("NATS runs");
    stored.await.expect("it is stored");
}

#[tokio::test]
async fn a_replayed_event_is_counted_once_under_its_own_number() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edges = [Edge::new("edge_a", jetstream.clone())];
    let good = edges[0].spool(20);
    let mut bad = good.clone();
    bad.events[2].denial = 99;
    bad.events[7].status_code = 99;
    assert!(edges[0].publish(&bad).await);
    stage.settle(&mut edges).await;
    assert_eq!(stage.rows().await, Ok(18));
    let noted = async || {
        let sql = "select first_seq, reason from keymeter.gaps final order by first_seq";
        stage.clickhouse.query(sql).await
    };
    assert_eq!(noted().await, "3\tdead_letter\n8\tdead_letter\n");
    let refused = stage.command(&["dead-letters", "replay"]).await;
    assert!(!refused.ok && refused.err.contains("--all"), "{refused:?}");

    let readable =
        pb::RequestEventBatch { first_seq: 3, events: vec![good.events[2].clone()], ..good.clone() };
    store_readable(&jetstream, &readable).await;
    let replayed = stage.command(&["dead-letters", "replay", "--all"]).await;
    assert!(replayed.ok, "{replayed:?}");
    let total = "1 counted, 0 had been counted before, 0 erased, 2 still unreadable\n";
    assert!(replayed.out.ends_with(total), "{replayed:?}");
    assert!(replayed.out.contains("unreadable: event 0 with sequence 8: field status_code"), "{replayed:?}");
    assert_eq!((stage.rows().await, noted().await), (Ok(19), "8\tdead_letter\n".to_owned()));
    assert_eq!(letters(&jetstream).await.len(), 2, "the counted one is gone");

    // The same again, named one by one, and twice at once: nothing is counted twice.
    store_readable(&jetstream, &readable).await;
    store_readable(&jetstream, &readable).await;
    let again = stage.command(&["dead-letters", "replay", "--reason", "unknown value 9", "--json"]).await;
    assert_eq!(again.out.matches("\"fate\":\"known\"").count(), 2, "{again:?}");
    // The edge sends it once more, as it was: it is closed, and no letter any more.
    assert!(edges[0].publish(&bad).await);
    let message = edges[0].spool(5);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    let counted = "select count(), uniqExact(edge_seq), countIf(edge_seq = 3) from keymeter.request_events";
    assert_eq!(stage.clickhouse.query(counted).await, "24\t24\t1\n");
    let audited = stage.command(&["audit"]).await;
    assert!(audited.ok, "{audited:?}");
}

#[tokio::test]
async fn letters_are_shown_and_dropped() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let mut bad = edge.spool(10);
    bad.events[2].key_id.truncate(3);
    bad.events[5].origin = 77;
    assert!(edge.publish(&bad).await);
    stage.wait_for_rows(8).await;

    let list = stage.command(&["dead-letters", "list", "--limit", "1", "--since", "1h"]).await;
    assert!(list.out.starts_with("  NUMBER  SHARD  STORED AT"), "{list:?}");
    assert!(list.out.ends_with("There are more: --after 1\n"), "{list:?}");
    let list = stage.command(&["dead-letters", "list", "--after", "1", "--shard", "1"]).await;
    assert!(list.out.contains("event 5 with sequence 6") && !list.out.contains("event 2"), "{list:?}");
    assert_eq!(stage.command(&["dead-letters", "list", "--shard", "0"]).await.out, "No dead letters.\n");
    let show = stage.command(&["dead-letters", "show", "2"]).await.out;
    for part in ["origin", "77", "events[0].path", "/v1/orders/6", "edge_a", "bytes  0a"] {
        assert!(show.contains(part), "{show}");
    }

    for (arguments, remedy) in [
        (&["show", "3"][..], "there is no dead letter 3; `ingest dead-letters list` prints"),
        (&["show", "third"], "expected a number such as 17, or a position"),
        (&["list", "--since", "yesterday"], "expected 90s, 15m, 24h, 7d, or a time"),
        (&["drop", "--all"], "nothing was dropped; --yes drops without asking"),
        (&["drop", "--all", "--shard", "1"], "cannot be used with"),
    ] {
        let refused = stage.command(&[&["dead-letters"], arguments].concat()).await;
        assert!(!refused.ok && refused.err.contains(remedy), "{refused:?}");
    }
    let dropped = stage.command(&["dead-letters", "drop", "--reason", "origin", "--yes"]).await;
    assert_eq!(dropped.out, "1 dropped\n");
    assert_eq!(letters(&jetstream).await.len(), 1);
}

#[tokio::test]
async fn letters_of_erased_workspaces_go() {
    let mut stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let gone = example::event("edge_a", 1).workspace_id;
    let mut bad = edge.spool(10);
    for event in &mut bad.events {
        event.origin = 77;
    }
    assert!(edge.publish(&bad).await);
    parts::eventually("all are dead letters", async || letters(&jetstream).await.len() == 10).await;
    erase(&stage, gone, time::OffsetDateTime::now_utc() + time::Duration::DAY).await;
    parts::eventually("half of them are gone", async || letters(&jetstream).await.len() == 5).await;
    let bytes = letters(&jetstream).await.into_iter().flat_map(|(.., body)| body).collect::<Vec<u8>>();
    assert!(!bytes.windows(16).any(|window| window == gone.as_bytes()));
    let gaps = async || {
        let sql =
            "select workspace_id, count() from keymeter.gaps final where reason = 'dead_letter' group by 1";
        stage.clickhouse.query(sql).await
    };
    let stays = example::event("edge_a", 2).workspace_id.as_uuid();
    parts::eventually("nor is it told whose they were", async || gaps().await == format!("{stays}\t5\n"))
        .await;

    // Later ones do not even get there; they are closed all the same.
    let mut bad = edge.spool(4);
    bad.events.iter_mut().for_each(|event| event.origin = 77);
    assert!(edge.publish(&bad).await);
    stage.settle(std::slice::from_mut(&mut edge)).await;
    assert_eq!(letters(&jetstream).await.len(), 7);
    assert!(stage.ingest.sigterm().await.success());
}
