//! Every kind of bad event that there is, among many good ones: exactly those are dead letters, each for its reason.

use proto::{events as pb, nats};

use crate::support::{Edge, Stage, example};

/// Good events of one message, but for those that carry a bad one.
const MESSAGE: u64 = 500;
const MESSAGES: u64 = 200;

/// What is bad, and a part of its reason.
type Kind = (Bad, &'static str);

enum Bad {
    /// One event of a message, changed.
    Event(fn(&mut pb::RequestEvent)),
    /// One event of a message, as bytes.
    Bytes(fn(Vec<u8>) -> Vec<u8>),
    /// A message, changed.
    Batch(fn(&mut pb::RequestEventBatch)),
    /// A message, as bytes.
    Message(fn(Vec<u8>) -> Vec<u8>),
}

/// A field of that number with a number in it.
fn with_number(mut event: Vec<u8>, field: u8, number: u64) -> Vec<u8> {
    if field < 16 {
        event.push(field << 3);
    } else {
        event.extend([(field << 3) | 0x80, field >> 4]);
    }
    prost::encoding::encode_varint(number, &mut event);
    event
}

fn replaced(mut event: Vec<u8>, text: &[u8], with: u8) -> Vec<u8> {
    let at = event.windows(text.len()).position(|window| window == text).expect("it has that text");
    event[at] = with;
    event
}

#[rustfmt::skip]
fn kinds() -> Vec<Kind> {
    use Bad::{Batch, Bytes, Event, Message};
    vec![
        (Event(|e| e.workspace_id.clear()), "field workspace_id is missing or out of bounds"),
        (Event(|e| e.workspace_id.truncate(15)), "field workspace_id is missing or out of bounds"),
        (Event(|e| e.workspace_id.push(0)), "field workspace_id is missing or out of bounds"),
        (Event(|e| e.workspace_id = vec![0; 16]), "field workspace_id is missing or out of bounds"),
        (Event(|e| e.key_id.clear()), "field key_id is missing or out of bounds"),
        (Event(|e| e.key_id.push(0)), "field key_id is missing or out of bounds"),
        (Event(|e| e.key_id = vec![0; 16]), "field key_id is missing or out of bounds"),
        (Event(|e| e.secret_id.truncate(3)), "field secret_id is missing or out of bounds"),
        (Event(|e| e.secret_id = vec![0; 16]), "field secret_id is missing or out of bounds"),
        (Event(|e| e.request_id.clear()), "field request_id is missing or out of bounds"),
        (Event(|e| e.request_id = vec![0; 16]), "field request_id is missing or out of bounds"),
        (Event(|e| e.client_request_id = "x".repeat(257)), "field client_request_id has 257 bytes"),
        (Event(|e| e.method = "X".repeat(33)), "field method has 33 bytes"),
        (Event(|e| e.route = "/".repeat(1_025)), "field route has 1025 bytes"),
        (Event(|e| e.path = "/".repeat(1_025)), "field path has 1025 bytes"),
        (Event(|e| e.resource_id = "x".repeat(257)), "field resource_id has 257 bytes"),
        (Event(|e| e.limit_name = "x".repeat(257)), "field limit_name has 257 bytes"),
        (Event(|e| e.user_agent = "x".repeat(257)), "field user_agent has 257 bytes"),
        (Event(|e| e.region = "x".repeat(65)), "field region has 65 bytes"),
        (Event(|e| e.status_code = 0), "field status_code is missing or out of bounds"),
        (Event(|e| e.status_code = 99), "field status_code is missing or out of bounds"),
        (Event(|e| e.status_code = 600), "field status_code is missing or out of bounds"),
        (Event(|e| e.origin = 0), "field origin is missing or out of bounds"),
        (Event(|e| e.origin = 77), "field origin has the unknown value 77"),
        (Event(|e| e.origin = -1), "field origin has the unknown value -1"),
        (Event(|e| e.denial = 99), "field denial has the unknown value 99"),
        (Event(|e| e.client_ip = vec![127, 0, 0, 1]), "field client_ip is missing or out of bounds"),
        (Event(|e| e.trace_id = vec![1]), "field trace_id is missing or out of bounds"),
        (Event(|e| e.span_id = vec![1]), "field span_id is missing or out of bounds"),
        (Event(|e| e.occurred_at = None), "field occurred_at is missing or out of bounds"),
        (Bytes(|_| Vec::new()), "field workspace_id is missing or out of bounds"),
        (Bytes(|mut b| { b.pop(); b }), "not a RequestEvent: "),
        (Bytes(|mut b| { b.truncate(b.len() / 2); b }), "not a RequestEvent: "),
        (Bytes(|_| b"garbled".to_vec()), "not a RequestEvent: "),
        (Bytes(|b| replaced(b, b"/v1/orders/", 0xff)), "not a RequestEvent: "),
        (Bytes(|b| with_number(b, 1, 5)), "not a RequestEvent: "),
        (Bytes(|mut b| { b.extend([0x0b]); b }), "not a RequestEvent: "),
        (Bytes(|mut b| { b.extend([0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]); b }), "not a RequestEvent: "),
        (Bytes(|b| with_number(b, 11, (1 << 32) + 200)), "field status_code is missing or out of bounds"),
        (Bytes(|b| with_number(b, 12, (1 << 32) + 1)), "field origin is missing or out of bounds"),
        (Bytes(|b| with_number(b, 15, 1 << 32)), "field latency_us is missing or out of bounds"),
        (Bytes(|b| with_number(b, 23, 1 << 40)), "field limit_window_s is missing or out of bounds"),
        (Message(|_| b"garbled".to_vec()), "not a RequestEventBatch: "),
        (Message(|mut b| { b.truncate(b.len() - 7); b }), "not a RequestEventBatch: "),
        (Message(|b| with_number(b, 3, (1 << 32) + 1)), "field shard is out of bounds"),
        (Batch(|b| b.shard = 0), "says shard 0, but was published to shard 1"),
        (Batch(|b| b.edge_id.clear()), "edge_id is no id of an edge"),
        (Batch(|b| b.edge_id = "a".repeat(65)), "edge_id is no id of an edge"),
        (Batch(|b| b.first_seq = 0), "first_seq is out of bounds"),
        (Batch(|b| b.events = vec![b.events[0].clone(); 1_001]), "has 1001 events, at most 1000 are allowed"),
        (Batch(|b| b.lost = vec![pb::SeqRange { first_seq: 9, last_seq: 1 }]), "lost has a range that ends before it starts"),
    ]
}

/// The message with its event `index` replaced by other bytes.
fn with_event(batch: &pb::RequestEventBatch, index: usize, event: &[u8]) -> Vec<u8> {
    let encoded: Vec<Vec<u8>> = batch.events.iter().map(prost::Message::encode_to_vec).collect();
    let head = pb::RequestEventBatch { events: Vec::new(), ..batch.clone() };
    let events: Vec<Vec<u8>> = encoded
        .into_iter()
        .enumerate()
        .map(|(i, bytes)| if i == index { event.to_vec() } else { bytes })
        .collect();
    proto::event_bytes::encode_batch(&head, &events)
}

#[tokio::test]
async fn kinds_of_bad_events_among_a_hundred_thousand() {
    let stage = Stage::start_roomy().await;
    let jetstream = stage.jetstream().await;
    let (mut edge, mut other) =
        (Edge::new("edge_a", jetstream.clone()), Edge::new("edge_b", jetstream.clone()));
    let subject = nats::request_events_subject(example::SHARD);
    let kinds = kinds();
    assert!(kinds.len() >= 50);
    let mut expected = Vec::new();
    let mut bad_events = 0;
    for number in 0..MESSAGES {
        let batch = edge.spool(MESSAGE);
        let mut message = prost::Message::encode_to_vec(&batch);
        if let Some((bad, reason)) = kinds.get(number as usize) {
            let index = (number as usize * 7) % MESSAGE as usize;
            let seq = batch.first_seq + index as u64;
            let changed = match bad {
                Bad::Event(change) => {
                    let mut event = batch.events[index].clone();
                    change(&mut event);
                    Ok(prost::Message::encode_to_vec(&event))
                }
                Bad::Bytes(change) => Ok(change(prost::Message::encode_to_vec(&batch.events[index]))),
                Bad::Batch(change) => {
                    let mut bad = other.spool(3);
                    change(&mut bad);
                    Err(prost::Message::encode_to_vec(&bad))
                }
                Bad::Message(change) => Err(change(prost::Message::encode_to_vec(&other.spool(3)))),
            };
            match changed {
                Ok(event) => {
                    message = with_event(&batch, index, &event);
                    bad_events += 1;
                    let alone = pb::RequestEventBatch { events: Vec::new(), first_seq: seq, ..batch.clone() };
                    let reason = format!("event {index} with sequence {seq}: {reason}");
                    expected.push((reason, Ok((alone, event))));
                }
                Err(whole) => {
                    jetstream.publish(subject.clone(), whole.clone().into()).await.unwrap().await.unwrap();
                    expected.push(((*reason).to_owned(), Err(whole)));
                }
            }
        }
        jetstream.publish(subject.clone(), message.into()).await.unwrap().await.unwrap();
    }
    let published = std::time::Instant::now();
    stage.wait_for_rows(MESSAGE * MESSAGES - bad_events).await;
    parts::eventually("all is committed", async || {
        edge.free().await;
        let committed = edge.commit().await.map(|commit| commit.committed).unwrap_or_default();
        committed == [pb::SeqRange { first_seq: 1, last_seq: MESSAGE * MESSAGES }]
    })
    .await;
    let (calls, lag_ms) = (MESSAGE * MESSAGES, published.elapsed().as_millis());
    println!(
        "{} of {calls} calls and messages were bad; all were settled {lag_ms} ms after the last came",
        kinds.len()
    );

    // Each once, for its reason, with its bytes and nothing of its neighbours.
    let listed = stage.command(&["dead-letters", "list", "--json", "--limit", "100"]).await.out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let letters = listed["letters"].as_array().unwrap();
    assert_eq!(letters.len(), kinds.len());
    for (letter, (reason, bytes)) in letters.iter().zip(&expected) {
        let found = letter["reason"].as_str().unwrap();
        assert!(found.starts_with(reason.as_str()), "{found}, not {reason}");
        let shown = stage
            .command(&["dead-letters", "show", "--json", letter["position"].as_str().unwrap()])
            .await
            .out;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match bytes {
            Ok((alone, event)) => {
                let found = unhex(shown["bytes"].as_str().unwrap());
                assert!(found.windows(event.len().max(1)).any(|window| window == event) || event.is_empty());
                assert!(found.len() < event.len() + 60, "{reason}: {} bytes", found.len());
                let seq =
                    shown["fields"].as_array().unwrap().iter().find(|field| field["name"] == "first_seq");
                assert_eq!(seq.unwrap()["value"], alone.first_seq.to_string());
            }
            Err(whole) => assert_eq!(shown["bytes"], hex(whole), "{reason}"),
        }
    }
    let counted = "select count(), uniqExact(edge_seq) from keymeter.request_events";
    let good = MESSAGE * MESSAGES - bad_events;
    assert_eq!(stage.clickhouse.query(counted).await, format!("{good}\t{good}\n"));
    let gaps = "select sum(last_seq - first_seq + 1) from keymeter.gaps final where reason = 'dead_letter'";
    assert_eq!(stage.clickhouse.query(gaps).await, format!("{bad_events}\n"));
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("it is hexadecimal"))
        .collect()
}

#[tokio::test]
async fn a_time_is_never_a_reason_and_what_is_new_is_kept() {
    let stage = Stage::start().await;
    let jetstream = stage.jetstream().await;
    let mut edge = Edge::new("edge_a", jetstream.clone());
    let mut batch = edge.spool(4);
    batch.events[0].occurred_at.as_mut().unwrap().nanos = -1;
    batch.events[1].occurred_at.as_mut().unwrap().seconds = i64::MAX;
    // Fields of a version to come: a number, and a text.
    let event = prost::Message::encode_to_vec(&batch.events[2]);
    let mut newer = with_number(event, 26, 7);
    newer.extend([0xda, 0x01, 2, b'h', b'i']);
    let subject = nats::request_events_subject(example::SHARD);
    jetstream.publish(subject, with_event(&batch, 2, &newer).into()).await.unwrap().await.unwrap();
    stage.wait_for_rows(4).await;
    let sql =
        "select edge_seq, clock_skewed, hex(unknown_fields) from keymeter.request_events order by edge_seq";
    let expected = "1\ttrue\t\n2\ttrue\t\n3\tfalse\tD00107DA01026869\n4\tfalse\t\n";
    assert_eq!(stage.clickhouse.query(sql).await, expected);
    let listed = stage.command(&["dead-letters", "list"]).await.out;
    assert_eq!(listed, "No dead letters.\n");
}
