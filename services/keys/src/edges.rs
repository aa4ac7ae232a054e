//! Every edge as keys hears of it: heartbeats in the bucket `edges`, what they say at once after each change, and what
//! they say over gRPC (`acks.rs`).
//! Takes their word for it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_nats::jetstream::{self, kv::Operation};
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{
    events::{EdgeHeartbeat, FeedAck},
    nats::{EDGES_BUCKET, FEED_ACKS_SUBJECT},
};
use time::OffsetDateTime;
use tokio::sync::watch;

/// Before the list is read again after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How long edges without a live feed go on if they do not say it.
const FEED_LOST_AFTER: Duration = Duration::from_secs(30);
/// So much later than its last heartbeat an edge may still have heard of the feed: the next one is due a second later, and a
/// server of NATS that was cut off from the others is believed for two more (`nats_cluster::is_led`).
const HEARD_AFTER: Duration = Duration::from_secs(3);

/// An edge without a sign of life for so long is silent.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at whether this process runs at all.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Without a look for so long it was held: by a signal, a paused machine, too much load.
const HELD_AFTER: Duration = Duration::from_secs(2);

/// Most edges that are known; more are not heard.
const EDGES_MAX: usize = 10_000;

/// What is known of one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The highest feed version that it verifies with; 0 while it has none and refuses all calls.
    pub feed_version: u64,
    /// Its last sign of life.
    pub seen: OffsetDateTime,
    /// After how long without a live feed it refuses all calls.
    pub feed_lost_after: Duration,
    /// It never does by itself.
    pub serves_stale: bool,
    boot_epoch: u32,
}

impl Edge {
    #[cfg(test)]
    pub(crate) fn example(feed_version: u64, seen: OffsetDateTime) -> Self {
        Self { feed_version, seen, feed_lost_after: FEED_LOST_AFTER, serves_stale: false, boot_epoch: 1 }
    }

    /// By when it refuses all calls, if it has heard nothing since its last sign of life; `None` if it never does.
    #[must_use]
    pub fn fails_closed(&self) -> Option<OffsetDateTime> {
        (!self.serves_stale).then(|| self.seen + self.feed_lost_after + HEARD_AFTER)
    }
}

/// All edges by their ids. Clones share them.
#[derive(Clone)]
pub struct Edges {
    known: Arc<watch::Sender<BTreeMap<String, Edge>>>,
    looked: Arc<Mutex<Option<(Instant, OffsetDateTime)>>>,
}

impl Default for Edges {
    fn default() -> Self {
        Self { known: Arc::new(watch::Sender::new(BTreeMap::new())), looked: Arc::default() }
    }
}

impl Edges {
    /// Changes with each sign of life.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Edge>> {
        self.known.subscribe()
    }

    /// Keeps the list, for ever.
    pub async fn follow(&self, context: &jetstream::Context) -> Infallible {
        tokio::select! {
            never = self.read(context) => never,
            never = self.keep_looking() => never,
        }
    }

    async fn keep_looking(&self) -> Infallible {
        loop {
            self.look();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Notices that this process was held. To be called before edges are judged by their silence, too: after a hold it is open
    /// what runs first.
    pub(crate) fn look(&self) {
        let now = (Instant::now(), OffsetDateTime::now_utc());
        let before = self.looked.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if let Some((at, from)) = before.filter(|(at, _)| now.0.duration_since(*at) > HELD_AFTER) {
            tracing::info!(held_ms = now.0.duration_since(at).as_millis(), "was held: edges are heard anew");
            self.held(from, now.1);
        }
    }

    /// What edges said while nobody read it is still to be read: those that were not silent before count from `to`.
    fn held(&self, from: OffsetDateTime, to: OffsetDateTime) {
        self.known.send_modify(|known| {
            for edge in known.values_mut().filter(|edge| from <= edge.seen + SILENT_AFTER) {
                edge.seen = edge.seen.max(to);
            }
        });
    }

    async fn read(&self, context: &jetstream::Context) -> Infallible {
        loop {
            let failed = tokio::select! {
                Err(error) = self.follow_acks(context) => error,
                Err(error) = self.follow_heartbeats(context) => error,
            };
            tracing::debug!(reason = format!("{failed:#}"), "the list of edges: reading again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_acks(&self, context: &jetstream::Context) -> anyhow::Result<Infallible> {
        let mut acks = context.client().subscribe(FEED_ACKS_SUBJECT).await?;
        loop {
            let message = acks.next().await.context("the subscription ended")?;
            if let Ok(ack) = FeedAck::decode(message.payload) {
                self.acked(ack, OffsetDateTime::now_utc());
            }
        }
    }

    async fn follow_heartbeats(&self, context: &jetstream::Context) -> anyhow::Result<Infallible> {
        let bucket = context.get_key_value(EDGES_BUCKET).await?;
        let mut changes = bucket.watch_with_history(">").await?;
        loop {
            let entry = changes.next().await.context("the watch ended")??;
            match (entry.operation, EdgeHeartbeat::decode(entry.value)) {
                (Operation::Put, Ok(beat)) => {
                    // NATS's clock, since this may be an old one; never ahead of ours.
                    self.beat(entry.key, &beat, entry.created.min(OffsetDateTime::now_utc()));
                }
                (Operation::Put, Err(_)) => {}
                (Operation::Delete | Operation::Purge, _) => {
                    self.known.send_modify(|known| _ = known.remove(&entry.key));
                }
            }
        }
    }

    fn acked(&self, ack: FeedAck, seen: OffsetDateTime) {
        self.known.send_modify(|known| {
            let new = Edge {
                feed_version: 0,
                seen,
                feed_lost_after: FEED_LOST_AFTER,
                serves_stale: false,
                boot_epoch: 0,
            };
            let edge = known.entry(ack.edge_id).or_insert(new);
            edge.feed_version = edge.feed_version.max(ack.feed_version);
            edge.seen = edge.seen.max(seen);
        });
    }

    /// What an edge said of itself; of an earlier start than the known one it counts no more.
    pub(crate) fn beat(&self, edge_id: String, beat: &EdgeHeartbeat, seen: OffsetDateTime) {
        self.known.send_modify(|known| {
            let before = known.get(&edge_id).copied();
            let is_late = before.is_some_and(|before| beat.boot_epoch < before.boot_epoch);
            if is_late || (before.is_none() && known.len() >= EDGES_MAX) {
                return;
            }
            // Within one start it only goes up: a heartbeat may arrive after a later ack.
            let same = before.filter(|before| [0, beat.boot_epoch].contains(&before.boot_epoch));
            let acked = same.map_or(0, |before| before.feed_version);
            let lost_after = match beat.feed_lost_after_ms {
                0 => FEED_LOST_AFTER,
                millis => Duration::from_millis(millis.into()),
            };
            let edge = Edge {
                feed_version: beat.feed_version.max(acked),
                seen: before.map_or(seen, |before| before.seen.max(seen)),
                feed_lost_after: lost_after,
                serves_stale: beat.serves_stale,
                boot_epoch: beat.boot_epoch,
            };
            known.insert(edge_id, edge);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_start_says_nothing_of_the_running_one() {
        let (edges, now) = (Edges::default(), OffsetDateTime::UNIX_EPOCH);
        let beat =
            |boot_epoch, feed_version| EdgeHeartbeat { boot_epoch, feed_version, ..Default::default() };
        let version = || edges.subscribe().borrow()["edge_a"].feed_version;
        edges.beat("edge_a".into(), &beat(1, 20), now);
        edges.beat("edge_a".into(), &beat(2, 15), now);
        assert_eq!(version(), 15, "it started on less");
        // NATS is back and says again what it heard before.
        edges.beat("edge_a".into(), &beat(1, 20), now);
        assert_eq!(version(), 15);
        edges.beat("edge_a".into(), &beat(2, 14), now);
        assert_eq!(version(), 15, "within one start it only goes up");
    }

    #[test]
    fn a_hold_is_no_silence_of_edges() {
        let (edges, now) = (Edges::default(), OffsetDateTime::UNIX_EPOCH);
        let second = |seconds| now + time::Duration::seconds(seconds);
        edges.beat("edge_a".into(), &EdgeHeartbeat::default(), second(5));
        edges.beat("edge_b".into(), &EdgeHeartbeat::default(), second(4));
        edges.held(second(10), second(60));
        let seen = |edge| edges.subscribe().borrow()[edge].seen;
        assert_eq!(
            (seen("edge_a"), seen("edge_b")),
            (second(60), second(4)),
            "who was silent before stays so"
        );
        edges.held(second(60), second(50));
        assert_eq!(seen("edge_a"), second(60), "a clock that went back takes nothing away");
    }

    #[test]
    fn an_edge_that_serves_on_never_fails_closed() {
        let edge = Edge::example(1, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(edge.fails_closed(), Some(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(33)));
        assert_eq!(Edge { serves_stale: true, ..edge }.fails_closed(), None);
    }
}
