//! Whatever arrives how often and in which order, an event is one row.

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::StreamExt as _;
use parts::eventually;
use prost::Message as _;
use proto::{events as pb, nats};

use crate::support::{Chance, Edge, Stage, example};

#[tokio::test]
async fn duplicates_and_reordering_change_no_count() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edges = ["edge_a", "edge_b", "edge_c"].map(|id| Edge::new(id, jetstream.clone()));
    let mut chance = Chance::new(7);
    for _ in 0..10 {
        let mut messages = Vec::new();
        for (at, edge) in edges.iter_mut().enumerate() {
            for _ in 0..20 {
                let message = edge.spool(1 + chance.below(30));
                (0..=chance.below(3)).for_each(|_| messages.push((at, message.clone())));
            }
        }
        while !messages.is_empty() {
            let (at, message) = messages.swap_remove(chance.below(messages.len() as u64) as usize);
            // Refused while the stream is full; then it is sent again below.
            edges[at].publish(&message).await;
        }
    }
    stage.settle(&mut edges).await;
    // Once more, long after.
    let again = Edge::new("edge_a", jetstream);
    eventually("there is room", async || again.publish(&example::batch("edge_a", 1, 500)).await).await;
    eventually("the repetition is read", async || {
        stage.metric("keymeter_ingest_events_total{fate=\"duplicate\",shard=\"1\"").await >= 500
    })
    .await;
    stage.assert_exact(&edges).await;
}

#[tokio::test]
async fn lost_sequences_are_committed_and_keys_announced() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let message =
        pb::RequestEventBatch { lost: vec![pb::SeqRange { first_seq: 11, last_seq: 40 }], ..edge.spool(10) };
    assert!(edge.publish(&message).await);
    let expected = vec![pb::SeqRange { first_seq: 1, last_seq: 40 }];
    eventually("the commit", async || edge.commit().await.is_ok_and(|commit| commit.committed == expected))
        .await;
    assert_eq!(stage.rows().await, Ok(10));

    let config = pull::Config { deliver_policy: DeliverPolicy::All, ..pull::Config::default() };
    let consumer = jetstream.create_consumer_on_stream(config, nats::KEY_ACTIVITY_STREAM).await.unwrap();
    let announced = consumer.messages().await.unwrap().next().await.unwrap().unwrap();
    let keys = pb::KeyActivityBatch::decode(announced.payload.clone()).unwrap().keys;
    let admitted = || message.events.iter().filter(|event| event.denial() == pb::Denial::Unspecified);
    assert_eq!((keys.len(), admitted().count()), (7, 7), "each a key of its own; three were refused");
    for key in keys {
        let of_key =
            |event: &&pb::RequestEvent| event.key_id == key.key_id && event.workspace_id == key.workspace_id;
        let event = admitted().find(of_key).unwrap();
        let secret =
            pb::SecretActivity { secret_id: event.secret_id.clone(), last_used_at: event.occurred_at };
        let client: [u8; 16] = event.client_ip.as_slice().try_into().unwrap();
        let expected = pb::KeyActivity {
            workspace_id: event.workspace_id.clone(),
            key_id: event.key_id.clone(),
            last_used_at: event.occurred_at,
            secrets: vec![secret],
            client_prints: vec![domain::print::client_print(client.into()).to_vec()],
        };
        assert_eq!(key, expected);
    }
}

#[tokio::test]
async fn a_full_stream_is_emptied_of_what_is_committed() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edges = [Edge::new("edge_a", jetstream.clone())];
    // Four times what the stream holds: refused messages stay in the spool and are sent again.
    for _ in 0..60 {
        let message = edges[0].spool(1_000);
        edges[0].publish(&message).await;
    }
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
    eventually("the stream is purged", async || {
        let mut stream = jetstream.get_stream(nats::request_events_stream(example::SHARD)).await.unwrap();
        stream.info().await.unwrap().state.bytes < 3 << 20
    })
    .await;
}
