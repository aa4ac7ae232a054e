//! `RequestEvent` as bytes, without the message in between: the edge writes one for each call. What is written is
//! what prost writes of the same event, byte for byte.

use domain::{Denial, RequestEvent};

use crate::events as pb;

/// Appends the event to `out`.
pub fn encode(event: &RequestEvent, out: &mut Vec<u8>) {
    put_bytes(out, 1, event.workspace_id.as_bytes());
    put_bytes(out, 2, event.key_id.as_bytes());
    put_bytes(out, 3, event.secret_id.as_bytes());
    put_bytes(out, 4, event.request_id.as_bytes());
    put_bytes(out, 5, event.client_request_id.as_bytes());
    put_time(out, 6, event.occurred_at);
    put_bytes(out, 7, event.method.as_bytes());
    put_bytes(out, 8, event.route.as_bytes());
    put_bytes(out, 9, event.path.as_bytes());
    put_bytes(out, 10, event.resource_id.as_bytes());
    put_number(out, 11, event.status_code.into());
    put_enum(out, 12, pb::Origin::from(event.origin).into());
    put_enum(out, 13, denial(event.denial).into());
    put_bytes(out, 14, event.limit_name.as_bytes());
    put_ending(out, event.latency_us, event.request_bytes, event.response_bytes);
    put_bytes(out, 18, &event.client_ip.octets());
    put_bytes(out, 19, event.user_agent.as_bytes());
    put_bytes(out, 20, event.region.as_bytes());
    put_bytes(out, 21, if event.trace_id == [0; 16] { &[] } else { &event.trace_id });
    put_number(out, 22, event.interrupted.into());
    put_number(out, 23, event.limit_window_s.into());
    put_number(out, 24, event.limit_remaining);
}

/// What is known only when the call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Final status; 0 leaves the one that the event has.
    pub status_code: u16,
    /// In microseconds.
    pub latency_us: u32,
    /// Body bytes received.
    pub request_bytes: u64,
    /// Body bytes sent.
    pub response_bytes: u64,
    /// The edge stopped before the answer ended.
    pub interrupted: bool,
}

/// Ends an event whose ending was not known when it was encoded: of a field that comes twice the last value counts.
pub fn end(event: &mut Vec<u8>, ending: &Ending) {
    put_number(event, 11, ending.status_code.into());
    put_ending(event, ending.latency_us, ending.request_bytes, ending.response_bytes);
    put_number(event, 22, ending.interrupted.into());
}

/// `batch` with these encoded events behind those that it has.
#[must_use]
pub fn encode_batch(batch: &pb::RequestEventBatch, events: &[Vec<u8>]) -> Vec<u8> {
    let bytes: usize = events.iter().map(|event| event.len() + 8).sum();
    let mut out = Vec::with_capacity(prost::Message::encoded_len(batch) + bytes);
    prost::Message::encode(batch, &mut out).expect("a vector grows");
    for event in events {
        put_varint(&mut out, key(5, LENGTH_DELIMITED));
        put_varint(&mut out, event.len() as u64);
        out.extend_from_slice(event);
    }
    out
}

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

fn denial(denial: Option<Denial>) -> pb::Denial {
    denial.map_or(pb::Denial::Unspecified, pb::Denial::from)
}

fn put_ending(out: &mut Vec<u8>, latency_us: u32, request_bytes: u64, response_bytes: u64) {
    put_number(out, 15, latency_us.into());
    put_number(out, 16, request_bytes);
    put_number(out, 17, response_bytes);
}

/// A `google.protobuf.Timestamp`; the years of the domain are positive in it or not.
fn put_time(out: &mut Vec<u8>, field: u64, at: time::OffsetDateTime) {
    put_varint(out, key(field, LENGTH_DELIMITED));
    let length = out.len();
    out.push(0);
    put_number(out, 1, at.unix_timestamp().cast_unsigned());
    put_number(out, 2, at.nanosecond().into());
    // At most 1 + 10 and 1 + 5 bytes.
    out[length] = u8::try_from(out.len() - length - 1).unwrap_or(0);
}

fn put_enum(out: &mut Vec<u8>, field: u64, value: i32) {
    put_number(out, field, i64::from(value).cast_unsigned());
}

/// Nothing for zero, as proto3 has it.
fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, key(field, VARINT));
        put_varint(out, value);
    }
}

/// Nothing for none, as proto3 has it.
fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_varint(out, key(field, LENGTH_DELIMITED));
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

const fn key(field: u64, wire_type: u64) -> u64 {
    field << 3 | wire_type
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use domain::{Id, Origin};
    use proptest::prelude::*;
    use prost::Message as _;
    use time::OffsetDateTime;

    use super::*;

    fn event(text: &str, number: u64, flag: bool) -> RequestEvent {
        let denial = Denial::ALL.get(usize::try_from(number % 16).unwrap()).copied();
        RequestEvent {
            workspace_id: Id::generate(),
            key_id: Id::generate(),
            secret_id: Id::generate(),
            request_id: Id::generate(),
            client_request_id: text.to_owned(),
            occurred_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(number.cast_signed())).unwrap(),
            method: "GET".to_owned(),
            route: text.repeat(2),
            path: text.repeat(3),
            resource_id: text.to_owned(),
            status_code: if flag { 0 } else { 200 },
            origin: if flag { Origin::Edge } else { Origin::Upstream },
            denial,
            limit_name: text.to_owned(),
            limit_window_s: number as u32,
            limit_remaining: number,
            latency_us: number as u32,
            request_bytes: number,
            response_bytes: number / 3,
            client_ip: u128::from(number).into(),
            user_agent: text.to_owned(),
            region: text.to_owned(),
            trace_id: if flag { [7; 16] } else { [0; 16] },
            interrupted: flag,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_prost(text in ".{0,300}", number: u64, flag: bool) {
            let event = event(&text, number, flag);
            let mut bytes = Vec::new();
            encode(&event, &mut bytes);
            prop_assert_eq!(bytes, pb::RequestEvent::from(&event).encode_to_vec());
        }

        #[test]
        fn an_ending_is_the_last_word(number: u64, status_code: u16, interrupted: bool) {
            let event = event("/x", 0, false);
            let mut bytes = Vec::new();
            encode(&event, &mut bytes);
            let ending = Ending {
                status_code,
                latency_us: number as u32,
                request_bytes: number,
                response_bytes: number / 3,
                interrupted,
            };
            end(&mut bytes, &ending);
            let expected = pb::RequestEvent {
                status_code: if status_code == 0 { 200 } else { status_code.into() },
                latency_us: number as u32,
                request_bytes: number,
                response_bytes: number / 3,
                interrupted,
                ..pb::RequestEvent::from(&event)
            };
            prop_assert_eq!(pb::RequestEvent::decode(bytes.as_slice()).unwrap(), expected);
        }
    }

    #[test]
    fn a_batch_of_bytes_is_a_batch() {
        let events: Vec<_> = (0..3).map(|number| event("a", number, false)).collect();
        let bytes: Vec<Vec<u8>> =
            events.iter().map(|event| pb::RequestEvent::from(event).encode_to_vec()).collect();
        let head = pb::RequestEventBatch { edge_id: "edge_x".into(), first_seq: 4, ..Default::default() };
        let whole = pb::RequestEventBatch { events: events.iter().map(Into::into).collect(), ..head.clone() };
        assert_eq!(encode_batch(&head, &bytes), whole.encode_to_vec());
    }
}
