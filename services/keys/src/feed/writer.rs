//! Brings the bucket to where Postgres is: what waits in the outbox, and the head that covers it. Never replaces
//! an entry of its own by an older one.

use std::collections::HashSet;

use domain::{KeyId, KeyState, SecretHash, WorkspaceId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::{
    events::{FeedHead, KeyState as PbState},
    nats::FEED_HEAD_KEY,
};

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
    /// Whether the bucket may have more than Postgres knows of, as after Postgres was restored from a copy.
    pub(super) is_doubtful: bool,
    /// Keys that live in Postgres, while the bucket has tombstones of them that we signed.
    pub(super) deleted: Vec<(WorkspaceId, KeyId)>,
}

/// What the bucket has of a secret.
enum Known {
    /// Nothing, or less than Postgres.
    Less,
    /// The same, or more.
    Enough,
    /// That its key is deleted, which Postgres does not know.
    Deleted,
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

    /// Sends entries in their order, but for those that the bucket has in the same or a higher version, or as
    /// deleted: nothing brings a deleted key back.
    pub(super) async fn append(&mut self, entries: &[Entry]) -> Result<(), FeedError> {
        let (bucket, signing, is_doubtful) = (&self.bucket, self.signing, self.is_doubtful);
        let look = async |entry: &Entry| {
            // What the bucket never had need not be looked for.
            if entry.is_new && !is_doubtful { Ok(Known::Less) } else { known(bucket, entry, signing).await }
        };
        let known: Vec<Known> = stream::iter(entries).map(look).buffered(READS_AT_ONCE).try_collect().await?;
        for (entry, known) in entries.iter().zip(known) {
            match known {
                Known::Less => {
                    self.bucket.send(&entry.hash.to_string(), signed_entry(entry, signing)).await?;
                }
                Known::Enough => {}
                Known::Deleted => self.deleted.push((entry.workspace_id, entry.key_id)),
            }
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

async fn known(bucket: &Bucket, entry: &Entry, signing: &Signing) -> Result<Known, BucketError> {
    let value = bucket.value(&entry.hash.to_string()).await?;
    let known = value.and_then(|value| own_entry(&entry.hash, &value, signing));
    Ok(match known {
        Some(known) if known.state() == PbState::Deleted && entry.state != KeyState::Deleted => {
            Known::Deleted
        }
        Some(known) if !replaces(entry, &known) => Known::Enough,
        _ => Known::Less,
    })
}
