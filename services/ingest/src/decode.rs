//! From the bytes of a message to those of its events. Pure. An event that cannot be read does not harm its
//! neighbours, since each is read by itself: see `event`.

use bytes::Bytes;
use prost::Message as _;
use proto::events as pb;

use crate::{intervals::Interval, wire::too_large};

/// Most events of one message.
const EVENTS_MAX: usize = 1_000;
/// Longest edge id: it becomes part of a NATS subject.
const EDGE_ID_BYTES_MAX: usize = 64;

/// A message that could be read at least as a whole.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    /// The edge that numbered the events.
    pub edge_id: String,
    /// Its start that did.
    pub boot_epoch: u32,
    /// The first event's sequence.
    pub first_seq: u64,
    /// The bytes of each event.
    pub events: Vec<Bytes>,
    /// What the edge had to drop.
    pub lost: Vec<Interval>,
}

/// Numbers that a generated decoder would cut to 32 bits.
const U32: [(u64, &str); 2] = [(2, "boot_epoch"), (3, "shard")];

/// The wire's message of that name with its events still as bytes, so that each is read by itself.
#[derive(Clone, PartialEq, prost::Message)]
struct RequestEventBatch {
    #[prost(string, tag = "1")]
    edge_id: String,
    #[prost(uint32, tag = "2")]
    boot_epoch: u32,
    #[prost(uint32, tag = "3")]
    shard: u32,
    #[prost(uint64, tag = "4")]
    first_seq: u64,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    events: Vec<Bytes>,
    #[prost(message, repeated, tag = "6")]
    lost: Vec<pb::SeqRange>,
}

/// Reads a message of `shard`.
///
/// # Errors
/// Why it cannot be read as a whole, as a sentence for the dead letter.
pub fn decode(payload: Bytes, shard: u16) -> Result<Decoded, String> {
    if let Some(field) = too_large(&payload, &U32, &[]) {
        return Err(format!("field {field} is out of bounds"));
    }
    let batch =
        RequestEventBatch::decode(payload).map_err(|error| format!("not a RequestEventBatch: {error}"))?;
    if batch.shard != u32::from(shard) {
        return Err(format!("says shard {}, but was published to shard {shard}", batch.shard));
    }
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let edge_id = batch.edge_id;
    if edge_id.is_empty() || edge_id.len() > EDGE_ID_BYTES_MAX || !edge_id.bytes().all(known) {
        return Err("edge_id is no id of an edge".to_owned());
    }
    if batch.events.len() > EVENTS_MAX {
        return Err(format!("has {} events, at most {EVENTS_MAX} are allowed", batch.events.len()));
    }
    let count = batch.events.len() as u64;
    if batch.first_seq == 0 && count > 0 || batch.first_seq.checked_add(count).is_none() {
        return Err("first_seq is out of bounds".to_owned());
    }
    let lost: Vec<Interval> = batch.lost.iter().map(|range| (range.first_seq, range.last_seq)).collect();
    if lost.iter().any(|(first, last)| *first == 0 || first > last) {
        return Err("lost has a range that ends before it starts".to_owned());
    }
    let (boot_epoch, first_seq, events) = (batch.boot_epoch, batch.first_seq, batch.events);
    Ok(Decoded { edge_id, boot_epoch, first_seq, events, lost })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::{event, example};

    #[test]
    fn a_batch_is_read_whole() {
        let batch = example::batch("edge_a", 7, 3);
        let decoded = decode(batch.encode_to_vec().into(), example::SHARD).unwrap();
        assert_eq!((decoded.edge_id.as_str(), decoded.boot_epoch, decoded.first_seq), ("edge_a", 1, 7));
        let events: Vec<_> =
            decoded.events.into_iter().map(|event| pb::RequestEvent::decode(event).unwrap()).collect();
        assert_eq!(events, batch.events);
    }

    #[rstest]
    #[case::other_shard(|b: &mut pb::RequestEventBatch| b.shard += 1, "says shard")]
    #[case::no_edge(|b: &mut pb::RequestEventBatch| b.edge_id.clear(), "edge_id")]
    #[case::dotted_edge(|b: &mut pb::RequestEventBatch| b.edge_id = "a.b".into(), "edge_id")]
    #[case::no_sequence(|b: &mut pb::RequestEventBatch| b.first_seq = 0, "first_seq")]
    #[case::overflow(|b: &mut pb::RequestEventBatch| b.first_seq = u64::MAX, "first_seq")]
    #[case::reversed(|b: &mut pb::RequestEventBatch| b.lost = vec![pb::SeqRange { first_seq: 2, last_seq: 1 }], "lost")]
    #[case::too_many(|b: &mut pb::RequestEventBatch| b.events = vec![b.events[0].clone(); 1_001], "1001 events")]
    fn refuses_a_whole_message(#[case] change: fn(&mut pb::RequestEventBatch), #[case] reason: &str) {
        let mut batch = example::batch("edge_a", 1, 1);
        change(&mut batch);
        let found = decode(batch.encode_to_vec().into(), example::SHARD).unwrap_err();
        assert!(found.contains(reason), "{found}");
    }

    #[test]
    fn a_bad_event_spares_its_neighbours() {
        let mut batch = example::batch("edge_a", 1, 4);
        batch.events[1].key_id.clear();
        batch.events[2].method = "X".repeat(33);
        let mut bytes = batch.encode_to_vec();
        // The fourth event's path stops being UTF-8, which a generated decoder refuses with the whole message.
        let at = bytes.windows(6).rposition(|window| window == b"/v1/or").unwrap();
        bytes[at] = 0xff;
        let decoded = decode(bytes.into(), example::SHARD).unwrap();
        let found: Vec<_> =
            decoded.events.iter().map(|bytes| event::read(bytes, |event| event.status_code)).collect();
        assert!(found[0].is_ok() && found[1..].iter().all(Result::is_err), "{found:?}");
        assert!(found[3].as_ref().unwrap_err().contains("RequestEvent"));
    }

    proptest! {
        #[test]
        fn anything_may_be_published(bytes: Vec<u8>) {
            let _ = decode(bytes.into(), 0);
        }

        #[test]
        fn anything_may_be_flipped(at: proptest::sample::Index, to: u8) {
            let mut bytes = example::batch("edge_a", 1, 2).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(bytes.into(), example::SHARD);
        }
    }
}
