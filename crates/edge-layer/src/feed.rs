//! The key feed: fills the key table from NATS and knows how current it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::jetstream::Context;
use bytes::Bytes;
use domain::SecretHash;
use prost::Message as _;
use proto::{events as pb, nats};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    bucket::{FollowError, Update, follow},
    key_table::{KeyEntry, KeyTable},
    link::Link,
    verdict::Feed,
};

/// Most entries of a snapshot that wait to be merged.
const MERGE_ENTRIES: usize = 50_000;

/// How current the key table is.
#[derive(Debug)]
pub(crate) struct FeedState {
    began: Instant,
    lost_after: Duration,
    /// Milliseconds after `began` at which the table was last known to be current, plus one; 0 before the first
    /// snapshot.
    current_at: AtomicU64,
    version: AtomicU64,
}

impl FeedState {
    /// Nothing heard yet; a table that was not current for `lost_after` is of no use.
    #[must_use]
    pub(crate) fn new(lost_after: Duration) -> Self {
        Self { began: Instant::now(), lost_after, current_at: AtomicU64::new(0), version: AtomicU64::new(0) }
    }

    /// What the edge may rely on now.
    #[must_use]
    pub(crate) fn feed(&self) -> Feed {
        match self.age() {
            None => Feed::NotReady,
            Some(age) if age >= self.lost_after => Feed::Lost,
            Some(_) => Feed::Live,
        }
    }

    /// Time since the table was last known to be current; `None` before the first snapshot.
    #[must_use]
    pub(crate) fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    /// The highest feed version in the table.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    fn is_current_at(&self, at: Instant) {
        let millis = u64::try_from((at - self.began).as_millis()).unwrap_or(u64::MAX - 1);
        self.current_at.fetch_max(millis + 1, Relaxed);
    }
}

/// Fills `table` and keeps `state`, on one connection after the other.
pub(crate) async fn run(link: Link, table: Arc<KeyTable>, state: Arc<FeedState>, stop: CancellationToken) {
    let work = |jetstream| fill(jetstream, table.clone(), state.clone());
    link.on_each_connection("follow the key feed", &stop, work).await;
}

async fn fill(jetstream: Context, table: Arc<KeyTable>, state: Arc<FeedState>) -> Result<(), FollowError> {
    // Merged in large pieces until all of it is in: a merge copies a part of the table.
    let mut snapshot = Some(Vec::new());
    let mut newest = 0;
    follow(&jetstream, nats::KEYS_BY_HASH_BUCKET, ">", |update| match update {
        Update::Entry(key, value) => {
            let Some((hash, entry, version)) = read(key, &value) else { return };
            newest = newest.max(version);
            if let Some(entries) = &mut snapshot {
                entries.push((hash, entry));
                if entries.len() >= MERGE_ENTRIES {
                    table.merge(entries.drain(..));
                }
            } else {
                table.merge([(hash, entry)]);
                state.version.fetch_max(newest, Relaxed);
            }
        }
        Update::Current(at) => {
            table.merge(snapshot.take().into_iter().flatten());
            state.version.fetch_max(newest, Relaxed);
            if state.age().is_none() {
                tracing::info!(feed.version = newest, "the first snapshot of the keys is in");
            }
            state.is_current_at(at);
        }
    })
    .await
}

fn read(key: &str, value: &Bytes) -> Option<(SecretHash, KeyEntry, u64)> {
    let hash = SecretHash::from_hex(key);
    let entry = pb::KeyFeedEntry::decode(value.as_ref()).map_err(|_| "the encoding");
    match (hash, entry.and_then(|entry| Ok((KeyEntry::try_from(&entry)?, entry.feed_version)))) {
        (Some(hash), Ok((entry, version))) => Some((hash, entry, version)),
        (None, _) => {
            tracing::warn!("the key feed has an entry whose name is no hash");
            None
        }
        (_, Err(field)) => {
            tracing::warn!(field, "the key feed has an entry that cannot be read; the key stays as it was");
            None
        }
    }
}
