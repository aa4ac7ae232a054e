//! `RequestEvent` as bytes, without the message in between: the edge writes one for each call, in the order in which it
//! comes to know of it. Of a field that comes twice the last value counts.

use std::net::Ipv6Addr;

use domain::{Denial, KeyId, Origin, RequestEvent, RequestId, SecretId, WorkspaceId};
use time::OffsetDateTime;

use crate::events as pb;

/// What is known of a call when it begins.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "as in `RequestEvent`")]
pub struct Beginning<'a> {
    pub workspace_id: WorkspaceId,
    pub key_id: KeyId,
    pub secret_id: SecretId,
    pub request_id: RequestId,
    pub client_request_id: &'a str,
    pub occurred_at: OffsetDateTime,
    pub method: &'a str,
    pub route: &'a str,
    pub path: &'a str,
    pub resource_id: &'a str,
    pub limit_name: &'a str,
    pub limit_window_s: u32,
    pub limit_remaining: u64,
    pub client_ip: Ipv6Addr,
    pub user_agent: &'a str,
    pub region: &'a str,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl<'a> From<&'a RequestEvent> for Beginning<'a> {
    fn from(event: &'a RequestEvent) -> Self {
        Self {
            workspace_id: event.workspace_id,
            key_id: event.key_id,
            secret_id: event.secret_id,
            request_id: event.request_id,
            client_request_id: &event.client_request_id,
            occurred_at: event.occurred_at,
            method: &event.method,
            route: &event.route,
            path: &event.path,
            resource_id: &event.resource_id,
            limit_name: &event.limit_name,
            limit_window_s: event.limit_window_s,
            limit_remaining: event.limit_remaining,
            client_ip: event.client_ip,
            user_agent: &event.user_agent,
            region: &event.region,
            trace_id: event.trace_id,
            span_id: event.span_id,
        }
    }
}

/// Begins an event at the end of `out`.
pub fn begin(call: &Beginning<'_>, out: &mut Vec<u8>) {
    // First, so that `span` sees at once whether there is one.
    if call.span_id != [0; 8] {
        put_bytes(out, 25, &call.span_id);
        put_bytes(out, 21, &call.trace_id);
    }
    put_bytes(out, 1, call.workspace_id.as_bytes());
    put_bytes(out, 2, call.key_id.as_bytes());
    put_bytes(out, 3, call.secret_id.as_bytes());
    put_bytes(out, 4, call.request_id.as_bytes());
    put_bytes(out, 5, call.client_request_id.as_bytes());
    put_time(out, 6, call.occurred_at);
    put_bytes(out, 7, call.method.as_bytes());
    put_bytes(out, 8, call.route.as_bytes());
    put_bytes(out, 9, call.path.as_bytes());
    put_bytes(out, 10, call.resource_id.as_bytes());
    put_bytes(out, 14, call.limit_name.as_bytes());
    put_bytes(out, 18, &call.client_ip.octets());
    put_bytes(out, 19, call.user_agent.as_bytes());
    put_bytes(out, 20, call.region.as_bytes());
    if call.trace_id != [0; 16] && call.span_id == [0; 8] {
        put_bytes(out, 21, &call.trace_id);
    }
    put_number(out, 23, call.limit_window_s.into());
    put_number(out, 24, call.limit_remaining);
}

/// Trace and span of an event that [`begin`] began, if the call is sampled.
#[must_use]
pub fn span(event: &[u8]) -> Option<([u8; 16], [u8; 8])> {
    // Key 25 takes two bytes, as does 21; each is followed by a length of one byte.
    let (span_id, rest) = event.strip_prefix(&[0xca, 0x01, 8])?.split_first_chunk()?;
    let (trace_id, _) = rest.strip_prefix(&[0xaa, 0x01, 16])?.split_first_chunk()?;
    Some((*trace_id, *span_id))
}

/// What the API says the call was about, instead of what its path said.
pub fn about(out: &mut Vec<u8>, resource_id: &str) {
    // Also if it is empty, to take the place of another.
    put_varint(out, key(10, LENGTH_DELIMITED));
    put_varint(out, resource_id.len() as u64);
    out.extend_from_slice(resource_id.as_bytes());
}

/// What the call is answered with.
pub fn answer(out: &mut Vec<u8>, status_code: u16, origin: Origin, denied: Option<Denial>) {
    put_number(out, 11, status_code.into());
    put_enum(out, 12, pb::Origin::from(origin).into());
    put_enum(out, 13, denied.map_or(pb::Denial::Unspecified, pb::Denial::from).into());
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

impl From<&RequestEvent> for Ending {
    fn from(event: &RequestEvent) -> Self {
        let &RequestEvent { status_code, latency_us, request_bytes, response_bytes, interrupted, .. } = event;
        Self { status_code, latency_us, request_bytes, response_bytes, interrupted }
    }
}

/// How the call ended.
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

fn put_ending(out: &mut Vec<u8>, latency_us: u32, request_bytes: u64, response_bytes: u64) {
    put_number(out, 15, latency_us.into());
    put_number(out, 16, request_bytes);
    put_number(out, 17, response_bytes);
}

/// A `google.protobuf.Timestamp`; the years of the domain are positive in it or not.
fn put_time(out: &mut Vec<u8>, field: u64, at: OffsetDateTime) {
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
    use domain::Id;
    use proptest::prelude::*;
    use prost::Message as _;

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
            trace_id: if number.is_multiple_of(3) { [0; 16] } else { [7; 16] },
            span_id: if number % 3 == 1 { [8; 8] } else { [0; 8] },
            interrupted: flag,
        }
    }

    /// The event up to its answer.
    fn answered(event: &RequestEvent) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin(&event.into(), &mut bytes);
        answer(&mut bytes, event.status_code, event.origin, event.denial);
        bytes
    }

    fn decoded(bytes: &[u8]) -> pb::RequestEvent {
        pb::RequestEvent::decode(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_prost(text in ".{0,300}", number: u64, flag: bool) {
            let event = event(&text, number, flag);
            let mut bytes = answered(&event);
            end(&mut bytes, &Ending::from(&event));
            prop_assert_eq!(decoded(&bytes), pb::RequestEvent::from(&event));
            let expected = (event.span_id != [0; 8]).then_some((event.trace_id, event.span_id));
            prop_assert_eq!(span(&bytes), expected);
        }

        #[test]
        fn the_api_has_the_last_word_on_what_a_call_was_about(path in ".{0,40}", named in ".{0,40}") {
            let mut bytes = answered(&event(&path, 0, false));
            about(&mut bytes, &named);
            prop_assert_eq!(decoded(&bytes).resource_id, named);
        }

        #[test]
        fn an_ending_is_the_last_word(number: u64, status_code: u16, interrupted: bool) {
            let event = event("/x", 0, false);
            let mut bytes = answered(&event);
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
            prop_assert_eq!(decoded(&bytes), expected);
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
