//! One event, read from its bytes without a copy. What is written as edges write it takes the fast way; anything else
//! is left to prost and the conversion of the contract, which also say what is wrong with it. Pure.

use std::net::Ipv6Addr;

use domain::{
    Denial, Id, KeyId, Origin, RequestEvent, RequestId, SecretId, WorkspaceId, event::PATH_BYTES_MAX,
};
use prost::Message as _;
use proto::{event::EventError, events as pb, timestamp};
use time::OffsetDateTime;

use crate::wire::{self, too_large};

/// A [`RequestEvent`] that borrows its texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// Which of its secrets.
    pub secret_id: SecretId,
    /// Minted by the edge.
    pub request_id: RequestId,
    /// The client's own id.
    pub client_request_id: &'a str,
    /// Start of the request in nanoseconds since 1970; years that do not fit are cut to those that do.
    pub occurred_at_ns: i64,
    /// HTTP method.
    pub method: &'a str,
    /// Template.
    pub route: &'a str,
    /// Raw path.
    pub path: &'a str,
    /// The id that the path names.
    pub resource_id: &'a str,
    /// HTTP status.
    pub status_code: u16,
    /// Who answered.
    pub origin: Origin,
    /// Why the edge refused.
    pub denial: Option<Denial>,
    /// The limit that refused.
    pub limit_name: &'a str,
    /// Window of the limit.
    pub limit_window_s: u32,
    /// What it admits yet.
    pub limit_remaining: u64,
    /// In microseconds.
    pub latency_us: u32,
    /// Body bytes received.
    pub request_bytes: u64,
    /// Body bytes sent.
    pub response_bytes: u64,
    /// The client's address.
    pub client_ip: Ipv6Addr,
    /// The client's `User-Agent`.
    pub user_agent: &'a str,
    /// Region of the edge.
    pub region: &'a str,
    /// Trace id, zeros if there was none.
    pub trace_id: [u8; 16],
    /// The edge's span of the call, zeros unless the call is sampled.
    pub span_id: [u8; 8],
    /// The edge stopped before the answer ended.
    pub interrupted: bool,
    /// The bytes of the fields that this version does not know, for one that does.
    pub unknown_fields: &'a [u8],
}

impl<'a> From<&'a RequestEvent> for Event<'a> {
    fn from(event: &'a RequestEvent) -> Self {
        Self {
            workspace_id: event.workspace_id,
            key_id: event.key_id,
            secret_id: event.secret_id,
            request_id: event.request_id,
            client_request_id: &event.client_request_id,
            occurred_at_ns: nanos(event.occurred_at),
            method: &event.method,
            route: &event.route,
            path: &event.path,
            resource_id: &event.resource_id,
            status_code: event.status_code,
            origin: event.origin,
            denial: event.denial,
            limit_name: &event.limit_name,
            limit_window_s: event.limit_window_s,
            limit_remaining: event.limit_remaining,
            latency_us: event.latency_us,
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            client_ip: event.client_ip,
            user_agent: &event.user_agent,
            region: &event.region,
            trace_id: event.trace_id,
            span_id: event.span_id,
            interrupted: event.interrupted,
            unknown_fields: &[],
        }
    }
}

/// Nanoseconds since 1970, cut to the years 1677 to 2262.
#[must_use]
pub fn nanos(at: OffsetDateTime) -> i64 {
    let nanos = at.unix_timestamp_nanos();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// Reads an event and hands it to `take`.
///
/// # Errors
/// Why it is none, as a sentence for the dead letter.
pub fn read<T>(bytes: &[u8], take: impl FnOnce(&Event<'_>) -> T) -> Result<T, String> {
    match read_fast(bytes) {
        Some((event, false)) => Ok(take(&event)),
        Some((event, true)) => Ok(take(&Event { unknown_fields: &unknown_fields(bytes), ..event })),
        None => {
            let event = read_slow(bytes)?;
            Ok(take(&Event { unknown_fields: &unknown_fields(bytes), ..Event::from(&event) }))
        }
    }
}

/// By prost and the contract's conversion, which are stricter here: no number is cut.
fn read_slow(bytes: &[u8]) -> Result<RequestEvent, String> {
    let mut event =
        pb::RequestEvent::decode(bytes).map_err(|error| format!("not a RequestEvent: {error}"))?;
    if let Some(field) = too_large(bytes, &U32, &I32) {
        return Err(EventError::Field(field).to_string());
    }
    // A time that is none is no reason: 1970 is out of all bounds, so the broker's time counts.
    if event.occurred_at.as_ref().is_some_and(|at| timestamp::from_proto(at).is_none()) {
        event.occurred_at = Some(timestamp::to_proto(OffsetDateTime::UNIX_EPOCH));
    }
    RequestEvent::try_from(event).map_err(|error| error.to_string())
}

fn unknown_fields(bytes: &[u8]) -> Vec<u8> {
    let unknown = wire::fields(bytes).filter(|field| field.number > FIELD_MAX);
    unknown.flat_map(|field| field.raw).copied().collect()
}

/// The event but for its unknown fields, and whether it has any. `None` is no verdict: only what is accepted is certain.
fn read_fast(bytes: &[u8]) -> Option<(Event<'_>, bool)> {
    let [mut workspace_id, mut key_id, mut secret_id, mut request_id, mut client_ip] = [&[][..]; 5];
    let [mut trace_id, mut span_id] = [&[][..]; 2];
    let mut occurred_at_ns = None;
    let [mut client_request_id, mut method, mut route, mut path, mut resource_id] = [&[][..]; 5];
    let [mut limit_name, mut user_agent, mut region] = [&[][..]; 3];
    let [mut status_code, mut origin, mut denial, mut limit_window_s, mut latency_us] = [0; 5];
    let [mut request_bytes, mut response_bytes, mut interrupted, mut limit_remaining] = [0; 4];
    let mut has_unknown_fields = false;
    let mut wire = Wire(bytes);
    // Of a field that comes twice the last value counts, as prost has it.
    while !wire.0.is_empty() {
        match wire.varint()? {
            key if key == of(1, TEXT) => workspace_id = wire.text()?,
            key if key == of(2, TEXT) => key_id = wire.text()?,
            key if key == of(3, TEXT) => secret_id = wire.text()?,
            key if key == of(4, TEXT) => request_id = wire.text()?,
            key if key == of(5, TEXT) => client_request_id = wire.text()?,
            // Two of them would be merged.
            key if key == of(6, TEXT) && occurred_at_ns.is_none() => {
                occurred_at_ns = Some(time(wire.text()?)?);
            }
            key if key == of(7, TEXT) => method = wire.text()?,
            key if key == of(8, TEXT) => route = wire.text()?,
            key if key == of(9, TEXT) => path = wire.text()?,
            key if key == of(10, TEXT) => resource_id = wire.text()?,
            key if key == of(11, VARINT) => status_code = wire.varint()?,
            key if key == of(12, VARINT) => origin = wire.varint()?,
            key if key == of(13, VARINT) => denial = wire.varint()?,
            key if key == of(14, TEXT) => limit_name = wire.text()?,
            key if key == of(15, VARINT) => latency_us = wire.varint()?,
            key if key == of(16, VARINT) => request_bytes = wire.varint()?,
            key if key == of(17, VARINT) => response_bytes = wire.varint()?,
            key if key == of(18, TEXT) => client_ip = wire.text()?,
            key if key == of(19, TEXT) => user_agent = wire.text()?,
            key if key == of(20, TEXT) => region = wire.text()?,
            key if key == of(21, TEXT) => trace_id = wire.text()?,
            key if key == of(22, VARINT) => interrupted = wire.varint()?,
            key if key == of(23, VARINT) => limit_window_s = wire.varint()?,
            key if key == of(24, VARINT) => limit_remaining = wire.varint()?,
            key if key == of(25, TEXT) => span_id = wire.text()?,
            key if is_unknown(key) => {
                has_unknown_fields = true;
                wire.skip(key)?;
            }
            _ => return None,
        }
    }
    let event = Event {
        workspace_id: id(workspace_id)?,
        key_id: id(key_id)?,
        secret_id: id(secret_id)?,
        request_id: id(request_id)?,
        client_request_id: checked(client_request_id, 256)?,
        occurred_at_ns: occurred_at_ns?,
        method: checked(method, 32)?,
        route: checked(route, 1024)?,
        path: checked(path, PATH_BYTES_MAX)?,
        resource_id: checked(resource_id, 256)?,
        status_code: u16::try_from(status_code).ok().filter(|code| (100..600).contains(code))?,
        origin: known(origin, |value| Option::from(pb::Origin::try_from(value).ok()?))?,
        denial: known(denial, |value| Some(pb::Denial::try_from(value).ok()?.into()))?,
        limit_name: checked(limit_name, 256)?,
        limit_window_s: u32::try_from(limit_window_s).ok()?,
        limit_remaining,
        latency_us: u32::try_from(latency_us).ok()?,
        request_bytes,
        response_bytes,
        client_ip: <[u8; 16]>::try_from(client_ip).ok()?.into(),
        user_agent: checked(user_agent, 256)?,
        region: checked(region, 64)?,
        trace_id: if trace_id.is_empty() { [0; 16] } else { trace_id.try_into().ok()? },
        span_id: if span_id.is_empty() { [0; 8] } else { span_id.try_into().ok()? },
        interrupted: interrupted != 0,
        unknown_fields: &[],
    };
    Some((event, has_unknown_fields))
}

/// Numbers that prost would cut to 32 bits.
const U32: [(u64, &str); 3] = [(11, "status_code"), (15, "latency_us"), (23, "limit_window_s")];
const I32: [(u64, &str); 2] = [(12, "origin"), (13, "denial")];
/// The last field of the contract.
const FIELD_MAX: u64 = 25;
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
/// Bytes with their length before them.
const TEXT: u64 = 2;
const FIXED_32: u64 = 5;

/// Of an edge that is newer than this version.
const fn is_unknown(key: u64) -> bool {
    key >> 3 > FIELD_MAX && key <= 0xffff_ffff
}

const fn of(field: u64, wire_type: u64) -> u64 {
    field << 3 | wire_type
}

fn id<N>(bytes: &[u8]) -> Option<Id<N>> {
    Id::from_slice(bytes).filter(|id| !id.as_uuid().is_nil())
}

fn checked(text: &[u8], bytes_max: usize) -> Option<&str> {
    str::from_utf8(text).ok().filter(|text| text.len() <= bytes_max)
}

fn known<T>(value: u64, read: impl Fn(i32) -> Option<T>) -> Option<T> {
    read(i32::try_from(value).ok()?)
}

/// A `google.protobuf.Timestamp` of our time, in nanoseconds.
fn time(bytes: &[u8]) -> Option<i64> {
    let (mut seconds, mut nanos, mut wire) = (0, 0, Wire(bytes));
    while !wire.0.is_empty() {
        match wire.varint()? {
            key if key == of(1, VARINT) => seconds = wire.varint()?,
            key if key == of(2, VARINT) => nanos = wire.varint()?,
            _ => return None,
        }
    }
    let (seconds, nanos) = (i64::try_from(seconds).ok()?, i64::try_from(nanos).ok()?);
    if nanos >= 1_000_000_000 { None } else { seconds.checked_mul(1_000_000_000)?.checked_add(nanos) }
}

/// What is left of some bytes.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first < 0x80 { Some(first.into()) } else { self.long_varint(first) }
    }

    /// Up to 63 bits; those with more are rare enough to be left to prost.
    fn long_varint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..63).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Goes behind the value of a field.
    fn skip(&mut self, key: u64) -> Option<()> {
        let bytes = match key & 7 {
            VARINT => return self.varint().map(drop),
            TEXT => return self.text().map(drop),
            FIXED_64 => 8,
            FIXED_32 => 4,
            _ => return None,
        };
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    #[inline]
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::example;

    /// Whatever the fast way accepts, the slow one reads the same.
    fn check(bytes: &[u8]) {
        if let Some((fast, has_unknown_fields)) = read_fast(bytes) {
            assert_eq!(Ok(fast), read_slow(bytes).as_ref().map(Event::from), "{bytes:?}");
            assert_eq!(has_unknown_fields, !unknown_fields(bytes).is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn what_edges_write_takes_the_fast_way() {
        for seq in 1..40 {
            let event = example::event("edge_a", seq);
            let mut bytes = Vec::new();
            proto::event_bytes::begin(&(&event).into(), &mut bytes);
            proto::event_bytes::answer(&mut bytes, event.status_code, event.origin, event.denial);
            proto::event_bytes::end(&mut bytes, &(&event).into());
            let ending = proto::event_bytes::Ending {
                status_code: 500,
                latency_us: 17,
                request_bytes: 1 << 40,
                response_bytes: 9,
                interrupted: true,
            };
            // Of seven examples one has a number with more than 63 bits.
            let fast = read_fast(&bytes);
            assert!(fast == Some((Event::from(&event), false)) || seq.is_multiple_of(7) && fast.is_none());
            proto::event_bytes::end(&mut bytes, &ending);
            check(&bytes);
            assert_eq!(read(&bytes, |event| event.status_code), Ok(500));
        }
    }

    #[test]
    fn fields_of_a_newer_edge_change_nothing() {
        let event = example::event("edge_a", 1);
        let mut bytes = pb::RequestEvent::from(&event).encode_to_vec();
        let mut unknown = Vec::new();
        for field in [&[0xf2, 0x07, 1, b'x'][..], &[0xf0, 0x07, 1], &[0xf1, 0x07, 0, 0, 0, 0, 0, 0, 0, 0]] {
            bytes.extend(field);
            unknown.extend(field);
            assert_eq!(read_fast(&bytes), Some((Event::from(&event), true)));
            let expected = Event { unknown_fields: &unknown, ..Event::from(&event) };
            assert_eq!(read(&bytes, |read| *read == expected), Ok(true));
            // A value of 64 bits is left to prost.
            let mut slow = bytes.clone();
            let long: Vec<u8> = [0xf8, 0x07].into_iter().chain([0xff; 9]).chain([1]).collect();
            slow.extend(&long);
            assert!(read_fast(&slow).is_none());
            let unknown = [&unknown[..], &long].concat();
            let expected = Event { unknown_fields: &unknown, ..Event::from(&event) };
            assert_eq!(read(&slow, |read| *read == expected), Ok(true));
        }
    }

    #[test]
    fn a_year_that_does_not_fit_is_cut() {
        let mut event = pb::RequestEvent::from(&example::event("edge_a", 1));
        event.occurred_at.as_mut().unwrap().seconds = -100_000_000_000;
        assert_eq!(read(&event.encode_to_vec(), |event| event.occurred_at_ns), Ok(i64::MIN));
    }

    #[test]
    fn numbers_are_never_cut_and_ids_never_nil_on_either_way() {
        let event = pb::RequestEvent::from(&example::event("edge_a", 1));
        for (number, name) in U32.into_iter().chain(I32) {
            for rest in [&[][..], &[0xf0, 0x07, 1]] {
                let mut bytes = event.encode_to_vec();
                prost::encoding::uint64::encode(number as u32, &((1 << 32) + 200), &mut bytes);
                bytes.extend(rest);
                assert!(read_fast(&bytes).is_none(), "{name}");
                assert!(read(&bytes, |_| ()).is_err_and(|reason| reason.contains(name)), "{name}");
                // As with prost, the last one counts.
                bytes.extend(event.encode_to_vec());
                check(&bytes);
            }
        }
        let nil = pb::RequestEvent { secret_id: vec![0; 16], ..event };
        assert!(read_fast(&nil.encode_to_vec()).is_none());
        assert!(read(&nil.encode_to_vec(), |_| ()).is_err_and(|reason| reason.contains("secret_id")));
    }

    #[test]
    fn a_time_that_is_none_is_one_that_nobody_believes() {
        let mut event = pb::RequestEvent::from(&example::event("edge_a", 1));
        event.occurred_at.as_mut().unwrap().nanos = -1;
        assert_eq!(read(&event.encode_to_vec(), |event| event.occurred_at_ns), Ok(0));
    }

    proptest! {
        #[test]
        fn agrees_with_prost_on_any_event(seq in 1..10_000u64, text in ".{0,40}", seconds: i64, nanos: i32, number: u64, code: i32) {
            let mut event = pb::RequestEvent::from(&example::event("edge_a", seq));
            event.path = text.clone();
            event.user_agent = text;
            event.denial = code % 12;
            event.limit_remaining = number;
            event.occurred_at = Some(prost_types::Timestamp { seconds: seconds / (1 << (number % 40)), nanos: nanos / 2 });
            check(&event.encode_to_vec());
        }

        #[test]
        fn agrees_with_prost_on_changed_bytes(seq in 1..100u64, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index) {
            let mut bytes = pb::RequestEvent::from(&example::event("edge_a", seq)).encode_to_vec();
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            check(&bytes);
            check(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn agrees_with_prost_on_anything(bytes: Vec<u8>) {
            check(&bytes);
        }
    }
}
