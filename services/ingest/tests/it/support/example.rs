//! Events that tests publish: different from each other in every column that can differ. Never random, so that a
//! failure repeats.

use std::net::Ipv6Addr;

use domain::{Denial, Id, KeyId, Origin, RequestEvent, SecretId, WorkspaceId};
use proto::events as pb;
use time::{Duration, OffsetDateTime};

/// The shard of all examples.
pub(crate) const SHARD: u16 = 1;

/// A message with `count` events from sequence `first_seq` on, of the edge's first boot.
pub(crate) fn batch(edge_id: &str, first_seq: u64, count: u64) -> pb::RequestEventBatch {
    let events = (first_seq..first_seq + count).map(|seq| pb::RequestEvent::from(&event(edge_id, seq)));
    pb::RequestEventBatch {
        edge_id: edge_id.to_owned(),
        boot_epoch: 1,
        shard: SHARD.into(),
        first_seq,
        events: events.collect(),
        lost: Vec::new(),
    }
}

/// The event that `edge_id` numbered `seq`, always the same but for its time, which is just now.
pub(crate) fn event(edge_id: &str, seq: u64) -> RequestEvent {
    let key = id_of(edge_id, seq % 5, 0x01);
    let (method, status_code) =
        [("GET", 200), ("POST", 201), ("DELETE", 404), ("GET", 429), ("PUT", 500)][(seq % 5) as usize];
    let now = OffsetDateTime::now_utc();
    RequestEvent {
        workspace_id: WorkspaceId::from_uuid(id_of("workspace", seq % 2, 0x02)),
        key_id: KeyId::from_uuid(key),
        secret_id: SecretId::from_uuid(id_of(edge_id, seq % 5, 0x03)),
        request_id: Id::from_uuid(id_of(edge_id, seq, 0x04)),
        client_request_id: format!("client-{seq}"),
        occurred_at: now.replace_millisecond(now.millisecond()).expect("a millisecond is one")
            - Duration::seconds(1),
        method: method.to_owned(),
        route: "/v1/orders/{id}".to_owned(),
        path: format!("/v1/orders/{seq}"),
        resource_id: seq.to_string(),
        status_code,
        origin: if seq.is_multiple_of(3) { Origin::Edge } else { Origin::Upstream },
        denial: seq.is_multiple_of(3).then_some(Denial::ALL[(seq % 9) as usize]),
        limit_name: if seq % 5 == 3 { "per minute".to_owned() } else { String::new() },
        limit_window_s: if seq % 5 == 3 { 60 } else { 0 },
        limit_remaining: if seq.is_multiple_of(7) { u64::MAX - seq } else { 0 },
        latency_us: 1_000 + seq as u32,
        request_bytes: seq,
        response_bytes: u64::from(u32::MAX) + seq,
        client_ip: Ipv6Addr::from(0xffff_0102_0304_u128 + u128::from(seq)),
        user_agent: format!("agent/{}", seq % 7),
        region: "eu-1".to_owned(),
        span_id: if seq % 4 == 1 { seq.to_be_bytes() } else { [0; 8] },
        trace_id: if seq.is_multiple_of(2) { [0; 16] } else { *id_of(edge_id, seq, 0x05).as_bytes() },
        interrupted: seq.is_multiple_of(11),
    }
}

/// A UUID that only these three make.
fn id_of(name: &str, number: u64, kind: u8) -> uuid::Uuid {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = [0; 16];
    bytes[..7].copy_from_slice(&hash.to_be_bytes()[..7]);
    bytes[7] = kind;
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    uuid::Uuid::from_bytes(bytes)
}
