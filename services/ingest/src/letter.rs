//! A dead letter: bytes that became no row, why, and where they stood. It holds nothing of its event's neighbours,
//! and is a message that could be published again. Pure.

use std::net::Ipv6Addr;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use domain::{Id, KeyId, RequestId, SecretId, WorkspaceId};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    erasures::Erased,
    wire::{self, Field, Value},
};

/// A stored dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its place among all dead letters.
    pub number: u64,
    /// The shard that it came from.
    pub shard: u16,
    /// A sentence.
    pub reason: String,
    /// `<stream>@<incarnation>:<sequence>`, with `/<event>` behind it if it is one event of that message.
    pub position: String,
    /// When the broker took the message that it was in.
    pub published_at: OffsetDateTime,
    /// When it became a dead letter.
    pub stored_at: OffsetDateTime,
    /// A `RequestEventBatch` with the one event, or all of what was published if that could not be read as a whole.
    pub payload: Bytes,
}

const FIRST_SEQ: u64 = 4;
const EVENTS: u64 = 5;
const LOST: u64 = 6;
const WORKSPACE_ID: u64 = 1;
const OCCURRED_AT: u64 = 6;

/// The batch with only its event `index`, of which no byte is changed, under its own sequence `edge_seq`.
#[must_use]
pub fn alone(batch: &[u8], index: usize, edge_seq: u64) -> Bytes {
    let mut out = Vec::with_capacity(1_024);
    let mut events = 0;
    for field in wire::fields(batch) {
        let is_kept = match field.number {
            FIRST_SEQ | LOST => false,
            EVENTS => {
                events += 1;
                events == index + 1
            }
            _ => true,
        };
        if is_kept {
            out.extend_from_slice(field.raw);
        }
    }
    prost::encoding::uint64::encode(FIRST_SEQ as u32, &edge_seq, &mut out);
    out.into()
}

/// The workspace of the only event, and when its call began, as far as they can be read.
#[must_use]
pub fn subject_of(payload: &[u8]) -> (Option<WorkspaceId>, Option<OffsetDateTime>) {
    let event = wire::fields(payload).find_map(|field| match field {
        Field { number: EVENTS, value: Value::Bytes(event), .. } => Some(event),
        _ => None,
    });
    let (mut workspace_id, mut occurred_at) = (None, None);
    for field in event.map(wire::fields).into_iter().flatten() {
        match field {
            Field { number: WORKSPACE_ID, value: Value::Bytes(id), .. } => workspace_id = Id::from_slice(id),
            Field { number: OCCURRED_AT, value: Value::Bytes(at), .. } => occurred_at = time_of(at),
            _ => {}
        }
    }
    (workspace_id, occurred_at)
}

/// Whether bytes that were published then are to be gone: they name an erased workspace anywhere, and the call or the
/// message is older than the erasure. What cannot be read is searched, so that nothing hides in it.
#[must_use]
pub fn is_erased(payload: &[u8], published_at: OffsetDateTime, erased: &Erased) -> bool {
    let began = subject_of(payload).1.map_or(published_at, |at| at.min(published_at));
    erased.iter().any(|(workspace_id, up_to)| {
        began < up_to && payload.windows(16).any(|bytes| bytes == workspace_id.as_bytes())
    })
}

/// What can be read of a payload, by name, in the order in which it stands there.
#[must_use]
pub fn readable(payload: &[u8]) -> Vec<(String, String)> {
    let mut said = Vec::new();
    let mut events = 0;
    let mut fields = wire::fields(payload);
    for field in fields.by_ref() {
        match (field.number, field.value) {
            (EVENTS, Value::Bytes(event)) => {
                say_event(&mut said, event, events);
                events += 1;
            }
            (number, value) => {
                let name = match number {
                    1 => "edge_id",
                    2 => "boot_epoch",
                    3 => "shard",
                    FIRST_SEQ => "first_seq",
                    LOST => "lost",
                    _ => "",
                };
                let value = if number == 1 { text(value) } else { plain(value) };
                said.push((named(name, number), value));
            }
        }
    }
    say_rest(&mut said, "rest", fields.rest());
    said
}

fn say_event(said: &mut Vec<(String, String)>, event: &[u8], index: usize) {
    let mut fields = wire::fields(event);
    for Field { number, value, .. } in fields.by_ref() {
        let read = match (number, value) {
            (WORKSPACE_ID, Value::Bytes(id)) => WorkspaceId::from_slice(id).map(|id| id.to_string()),
            (2, Value::Bytes(id)) => KeyId::from_slice(id).map(|id| id.to_string()),
            (3, Value::Bytes(id)) => SecretId::from_slice(id).map(|id| id.to_string()),
            (4, Value::Bytes(id)) => RequestId::from_slice(id).map(|id| id.to_string()),
            (OCCURRED_AT, Value::Bytes(at)) => time_of(at).and_then(|at| at.format(&Rfc3339).ok()),
            (18, Value::Bytes(ip)) => {
                <[u8; 16]>::try_from(ip).ok().map(|ip| Ipv6Addr::from(ip).to_canonical().to_string())
            }
            (5 | 7..=10 | 14 | 19 | 20, Value::Bytes(_)) => Some(text(value)),
            _ => None,
        };
        let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let name = place.and_then(|place| NAMES.get(place)).copied().unwrap_or_default();
        said.push((format!("events[{index}].{}", named(name, number)), read.unwrap_or_else(|| plain(value))));
    }
    say_rest(said, &format!("events[{index}].rest"), fields.rest());
}

fn say_rest(said: &mut Vec<(String, String)>, name: &str, rest: &[u8]) {
    if !rest.is_empty() {
        said.push((name.to_owned(), format!("{} (no field)", HEXLOWER.encode(rest))));
    }
}

fn named(name: &str, number: u64) -> String {
    if name.is_empty() { format!("field_{number}") } else { name.to_owned() }
}

fn plain(value: Value<'_>) -> String {
    match value {
        Value::Varint(number) | Value::Fixed64(number) => number.to_string(),
        Value::Fixed32(number) => number.to_string(),
        Value::Bytes(bytes) => HEXLOWER.encode(bytes),
    }
}

/// Text as it is, with what is no text or would not stay on its line escaped.
fn text(value: Value<'_>) -> String {
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.escape_debug().to_string(),
            Err(_) => format!("{} (no UTF-8)", bytes.escape_ascii()),
        },
        value => plain(value),
    }
}

fn time_of(at: &[u8]) -> Option<OffsetDateTime> {
    let at: prost_types::Timestamp = prost::Message::decode(at).ok()?;
    proto::timestamp::from_proto(&at)
}

/// The fields of `RequestEvent` from number 1 on.
const NAMES: [&str; 25] = [
    "workspace_id",
    "key_id",
    "secret_id",
    "request_id",
    "client_request_id",
    "occurred_at",
    "method",
    "route",
    "path",
    "resource_id",
    "status_code",
    "origin",
    "denial",
    "limit_name",
    "latency_us",
    "request_bytes",
    "response_bytes",
    "client_ip",
    "user_agent",
    "region",
    "trace_id",
    "interrupted",
    "limit_window_s",
    "limit_remaining",
    "span_id",
];

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::events as pb;

    use super::*;
    use crate::example;

    #[test]
    fn one_event_alone_keeps_its_bytes_and_its_number() {
        let mut batch = example::batch("edge_a", 7, 3);
        batch.lost = vec![pb::SeqRange { first_seq: 1, last_seq: 2 }];
        let alone = pb::RequestEventBatch::decode(alone(&batch.encode_to_vec(), 1, 8)).unwrap();
        let expected = pb::RequestEventBatch {
            first_seq: 8,
            events: vec![batch.events[1].clone()],
            lost: Vec::new(),
            ..batch
        };
        assert_eq!(alone, expected);
    }

    #[test]
    fn everything_that_is_there_has_a_name() {
        let mut batch = example::batch("edge_a", 21, 1);
        batch.events[0].interrupted = true;
        batch.events[0].denial = 2;
        batch.events[0].limit_name = "minute".into();
        batch.events[0].limit_window_s = 60;
        let mut bytes = batch.encode_to_vec();
        let said = readable(&bytes);
        let names: Vec<&str> = said.iter().filter_map(|(name, _)| name.strip_prefix("events[0].")).collect();
        assert_eq!(names, NAMES);
        let value = |name: &str| said.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!(value("edge_id"), "edge_a");
        assert_eq!(value("first_seq"), "21");
        assert!(value("events[0].key_id").starts_with("key_"));
        assert_eq!(value("events[0].path"), "/v1/orders/21");
        assert_eq!(value("events[0].client_ip"), "1.2.3.25");
        bytes.truncate(bytes.len() - 1);
        assert!(readable(&bytes).last().unwrap().1.ends_with("(no field)"));
    }

    #[test]
    fn an_erasure_covers_what_it_names_and_is_older() {
        let event = example::event("edge_a", 1);
        let bytes = example::batch("edge_a", 1, 1).encode_to_vec();
        let hour = time::Duration::HOUR;
        let published_at = event.occurred_at + hour;
        assert_eq!(subject_of(&bytes).0, Some(event.workspace_id));
        let check = |up_to, bytes: &[u8]| {
            let mut erased = Erased::default();
            erased.insert(event.workspace_id, up_to);
            is_erased(bytes, published_at, &erased)
        };
        assert!(!check(event.occurred_at - hour, &bytes), "the call began later");
        assert!(check(event.occurred_at + hour / 2, &bytes), "the call counts, not when it was published");
        let garbled = [b"garbled".as_slice(), event.workspace_id.as_bytes()].concat();
        assert!(check(published_at + hour, &garbled), "even if it cannot be read");
        assert!(!check(published_at + hour, b"of somebody else's, and long enough"));
    }
}
