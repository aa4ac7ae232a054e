//! An edge as ingest sees it: publishes batches, forgets only what `edge_commits` covers, sends the rest again.

use std::collections::BTreeMap;

use async_nats::jetstream::{Context, kv};
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::OffsetDateTime;

use super::example;

/// One edge in its first boot, with all of its events on one shard.
pub(crate) struct Edge {
    pub(crate) id: String,
    shard: u16,
    jetstream: Context,
    /// Messages that are not committed, by their first sequence.
    spool: BTreeMap<u64, pb::RequestEventBatch>,
    next_seq: u64,
}

impl Edge {
    /// One whose events are on [`example::SHARD`].
    pub(crate) fn new(id: &str, jetstream: Context) -> Self {
        Self::on_shard(id, example::SHARD, jetstream)
    }

    /// One whose events are on this shard.
    pub(crate) fn on_shard(id: &str, shard: u16, jetstream: Context) -> Self {
        Self { id: id.to_owned(), shard, jetstream, spool: BTreeMap::new(), next_seq: 1 }
    }

    /// Puts `count` new events into the spool as one message and returns it.
    pub(crate) fn spool(&mut self, count: u64) -> pb::RequestEventBatch {
        self.spool_changed(count, |_| {})
    }

    /// The same, after a change to the message.
    pub(crate) fn spool_changed(
        &mut self,
        count: u64,
        change: impl FnOnce(&mut pb::RequestEventBatch),
    ) -> pb::RequestEventBatch {
        let mut batch = example::batch(&self.id, self.next_seq, count);
        batch.shard = self.shard.into();
        change(&mut batch);
        self.next_seq += count;
        self.spool.insert(batch.first_seq, batch.clone());
        batch
    }

    /// The last sequence that was given out.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Publishes once and waits for the acknowledgement; false if there was none.
    pub(crate) async fn publish(&self, batch: &pb::RequestEventBatch) -> bool {
        let subject = nats::request_events_subject(self.shard);
        match self.jetstream.publish(subject, batch.encode_to_vec().into()).await {
            Ok(acknowledged) => acknowledged.await.is_ok(),
            Err(_) => false,
        }
    }

    /// Publishes everything that is in the spool.
    pub(crate) async fn resend(&self) -> bool {
        let mut all = true;
        for batch in self.spool.values() {
            all &= self.publish(batch).await;
        }
        all
    }

    /// Forgets what ingest has said that ClickHouse has; how many messages are left. Any error is "not yet".
    pub(crate) async fn free(&mut self) -> usize {
        if let Ok(commit) = self.commit().await {
            self.spool.retain(|first, batch| {
                let last = first + batch.events.len() as u64 - 1;
                !commit.committed.iter().any(|range| range.first_seq <= *first && last <= range.last_seq)
            });
        }
        self.spool.len()
    }

    /// What ingest has said.
    pub(crate) async fn commit(&self) -> anyhow::Result<pb::EdgeCommit> {
        let bucket = self.bucket(nats::EDGE_COMMITS_BUCKET).await?;
        let value = bucket.get(nats::edge_commit_key(&self.id, 1, self.shard)).await?;
        Ok(pb::EdgeCommit::decode(value.unwrap_or_default())?)
    }

    /// Writes a heartbeat that says "published up to `published_seq`".
    pub(crate) async fn beat(&self, clear_until: OffsetDateTime, published_seq: u64) -> anyhow::Result<()> {
        self.beat_sent_at(OffsetDateTime::now_utc(), clear_until, published_seq).await
    }

    /// The same, written at another time by the edge's clock.
    pub(crate) async fn beat_sent_at(
        &self,
        sent_at: OffsetDateTime,
        clear_until: OffsetDateTime,
        published_seq: u64,
    ) -> anyhow::Result<()> {
        let heartbeat = pb::EdgeHeartbeat {
            edge_id: self.id.clone(),
            boot_epoch: 1,
            feed_version: 0,
            sent_at: Some(timestamp::to_proto(sent_at)),
            clear_until: Some(timestamp::to_proto(clear_until)),
            positions: vec![pb::PublishedPosition { boot_epoch: 1, shard: self.shard.into(), published_seq }],
            ..pb::EdgeHeartbeat::default()
        };
        self.bucket(nats::EDGES_BUCKET).await?.put(&self.id, heartbeat.encode_to_vec().into()).await?;
        Ok(())
    }

    async fn bucket(&self, name: &str) -> anyhow::Result<kv::Store> {
        Ok(self.jetstream.get_key_value(name).await?)
    }
}
