//! Edges as their publishers look from outside: they number encoded calls by shard and send them as messages.

use std::time::Instant;

use bytes::Bytes;
use domain::{RequestEvent, WorkspaceId};
use edge_layer::quota::{self, Quota};
use proto::{event_bytes, events as pb, nats};
use time::{Duration, OffsetDateTime};

use crate::traffic::Traffic;

/// As ingest has by default.
pub(crate) const SHARDS: u16 = 4;

/// What one edge has for one shard and not sent.
#[derive(Clone, Default)]
struct Gathered {
    sent: u64,
    events: Vec<Vec<u8>>,
}

/// One edge.
pub(crate) struct Edge {
    id: String,
    quota: Quota,
    gathered: Vec<Gathered>,
}

/// A call as an edge writes it.
pub(crate) fn encoded(call: &RequestEvent) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(320);
    event_bytes::begin(&call.into(), &mut bytes);
    event_bytes::answer(&mut bytes, call.status_code, call.origin, call.denial);
    event_bytes::end(&mut bytes, &call.into());
    bytes
}

impl Edge {
    pub(crate) fn new(number: u64) -> Self {
        let id = format!("edge_{number:026}");
        let quota = Quota::new(quota::CALLS_PER_S);
        Self { id, quota, gathered: vec![Gathered::default(); usize::from(SHARDS) + 1] }
    }

    /// Takes a call in; says its shard and how many of that shard wait now.
    pub(crate) fn take(&mut self, event: &RequestEvent) -> (u16, usize) {
        let shard = nats::shard_of(&event.key_id, SHARDS);
        (shard, self.take_encoded(shard, encoded(event)))
    }

    /// The same for a call of now that is encoded, of a workspace that has a quota.
    pub(crate) fn take_now(&mut self, workspace_id: &WorkspaceId, shard: u16, bytes: Vec<u8>) {
        let is_within = self.quota.admits(workspace_id, Instant::now());
        self.take_encoded(if is_within { shard } else { nats::bulk_shard(SHARDS) }, bytes);
    }

    fn take_encoded(&mut self, shard: u16, bytes: Vec<u8>) -> usize {
        let events = &mut self.gathered[usize::from(shard)].events;
        events.push(bytes);
        events.len()
    }

    /// The next message of a shard with at most so many calls; `None` if none waits.
    pub(crate) fn message(&mut self, shard: u16, events_max: usize) -> Option<Bytes> {
        let Gathered { sent, events } = &mut self.gathered[usize::from(shard)];
        if events.is_empty() {
            return None;
        }
        let head = pb::RequestEventBatch {
            edge_id: self.id.clone(),
            boot_epoch: 1,
            shard: shard.into(),
            first_seq: *sent + 1,
            ..pb::RequestEventBatch::default()
        };
        let rest = events.split_off(events.len().min(events_max));
        let events = std::mem::replace(events, rest);
        *sent += events.len() as u64;
        Some(event_bytes::encode_batch(&head, &events).into())
    }
}

/// How many edges there are.
pub(crate) const EDGES: usize = 3;
/// Calls in a message of a busy edge.
const MESSAGE_EVENTS: usize = 500;
/// The calls of a backlog happened in this time before now.
const SPAN: Duration = Duration::minutes(10);
const SEED: u64 = 5;

/// A backlog of so many calls in the order of time, as messages with their shard.
pub(crate) fn messages(calls: usize, are_traced: bool) -> Vec<(u16, Bytes)> {
    messages_of(calls, are_traced, |_, _| {})
}

/// The same, of which the edges have sampled one of so many.
pub(crate) fn sampled_messages(calls: usize, one_of: usize) -> Vec<(u16, Bytes)> {
    messages_of(calls, false, |number, call| {
        if number.is_multiple_of(one_of) {
            call.span_id = (number as u64 + 1).to_be_bytes();
            call.trace_id[8..].copy_from_slice(&call.span_id);
        }
    })
}

fn messages_of(
    calls: usize,
    are_traced: bool,
    change: impl Fn(usize, &mut RequestEvent),
) -> Vec<(u16, Bytes)> {
    let mut traffic = Traffic::new(SEED, are_traced);
    let mut edges: Vec<Edge> = (0..EDGES).map(|number| Edge::new(number as u64)).collect();
    let mut messages = Vec::with_capacity(calls / MESSAGE_EVENTS + EDGES * usize::from(SHARDS));
    let start = OffsetDateTime::now_utc() - SPAN;
    for number in 0..calls {
        let edge = &mut edges[number % EDGES];
        #[expect(clippy::cast_precision_loss, reason = "a share of the span")]
        let mut call = traffic.call(start + SPAN * (number as f64 / calls as f64));
        change(number, &mut call);
        let (shard, waiting) = edge.take(&call);
        if waiting == MESSAGE_EVENTS {
            messages.extend(edge.message(shard, MESSAGE_EVENTS).map(|message| (shard, message)));
        }
    }
    for edge in &mut edges {
        messages.extend((0..SHARDS).filter_map(|shard| Some((shard, edge.message(shard, MESSAGE_EVENTS)?))));
    }
    messages
}
