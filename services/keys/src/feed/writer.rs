//! Brings the bucket to where Postgres is: what waits in the outbox, and the head that covers it. Never replaces
//! an entry of its own by an older one.

use std::collections::HashSet;

use domain::SecretHash;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::{events::FeedHead, nats::FEED_HEAD_KEY};

use super::{
    FeedError,
    bucket::{Bucket, BucketError},
    message::{own_entry, replaces, signed_entry, signed_head},
};
use crate::{
    metrics::Metrics,
    signing::Signing,
    store::outbox::{Entry, FeedState, Relay},
};

/// How many entries are read, written and noted together.
pub(super) const CHUNK: usize = 1_000;
/// How many entries are read at once before they are written.
const READS_AT_ONCE: usize = 64;

/// One round over an open bucket.
pub(super) struct Writer<'a> {
    pub(super) relay: &'a mut Relay,
    pub(super) bucket: Bucket,
    pub(super) state: FeedState,
    pub(super) signing: &'a Signing,
    pub(super) metrics: &'a Metrics,
}

impl Writer<'_> {
    /// Writes all that waits in the outbox, each piece with a head unless the bucket is being filled.
    pub(super) async fn drain(&mut self) -> Result<(), FeedError> {
        loop {
            self.relay.number(CHUNK).await?;
            let entries = self.relay.numbered(CHUNK).await?;
            let Some(last) = entries.last().map(|entry| entry.feed_version) else { return Ok(()) };
            self.append(&entries).await?;
            let new: HashSet<&SecretHash> =
                entries.iter().filter(|entry| entry.is_new).map(|entry| &entry.hash).collect();
            self.state.secrets += i64::try_from(new.len()).unwrap_or(i64::MAX);
            self.state.feed_version = self.state.feed_version.max(last);
            if !self.state.filling {
                self.append_head().await?;
            }
            self.bucket.settle().await?;
            self.relay.relayed(last, self.bucket.position()).await?;
            self.metrics.relayed(entries.len(), last);
        }
    }

    /// Sends entries in their order, but for those that the bucket has in the same or a higher version.
    pub(super) async fn append(&mut self, entries: &[Entry]) -> Result<(), FeedError> {
        let (bucket, signing) = (&self.bucket, self.signing);
        let is_needed = |entry| is_needed(bucket, entry, signing);
        let needed: Vec<bool> =
            stream::iter(entries).map(is_needed).buffered(READS_AT_ONCE).try_collect().await?;
        for (entry, _) in entries.iter().zip(needed).filter(|(_, is_needed)| *is_needed) {
            self.bucket.send(&entry.hash.to_string(), signed_entry(entry, signing)).await?;
        }
        Ok(())
    }

    /// Writes a head that covers all that is there, and notes it.
    pub(super) async fn write_head(&mut self) -> Result<(), FeedError> {
        self.append_head().await?;
        self.bucket.settle().await?;
        self.relay.relayed(0, self.bucket.position()).await?;
        Ok(())
    }

    async fn append_head(&mut self) -> Result<(), BucketError> {
        let head = self.head(self.bucket.position().sequence);
        self.bucket.send(FEED_HEAD_KEY, signed_head(&head, self.signing)).await
    }

    /// A head that says that it covers everything up to a sequence.
    pub(super) fn head(&self, bucket_sequence: i64) -> FeedHead {
        FeedHead {
            bucket_created_us: self.bucket.created_us(),
            bucket_sequence: bucket_sequence.unsigned_abs(),
            feed_version: self.state.feed_version.unsigned_abs(),
            secrets: self.state.secrets.unsigned_abs(),
            snapshot_floor: self.state.snapshot_floor.unsigned_abs(),
            fills: self.state.fills.unsigned_abs(),
        }
    }
}

/// Whether the bucket lacks an entry. What it never had need not be looked for.
async fn is_needed(bucket: &Bucket, entry: &Entry, signing: &Signing) -> Result<bool, BucketError> {
    if entry.is_new {
        return Ok(true);
    }
    let value = bucket.value(&entry.hash.to_string()).await?;
    let known = value.and_then(|value| own_entry(&entry.hash, &value, signing));
    Ok(known.is_none_or(|known| replaces(entry, &known)))
}
