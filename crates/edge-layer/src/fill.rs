//! Fills the key table: the snapshot's parts, then the bucket from there on. Takes only what keys signed, and calls
//! the table complete only when a head covers all that was read.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::jetstream::{Context, stream::Stream};
use bytes::Bytes;
use domain::SecretHash;
use proto::{
    events as pb,
    nats::{FEED_HEAD_KEY, FEED_HEAD_PURPOSE, KEYS_BY_HASH_BUCKET, feed_entry_purpose},
};
use tokio::time::Instant;

use crate::{
    bucket::{FollowError, Update, follow, stream, unavailable},
    feed::{FeedState, Source},
    feed_keys::FeedKeys,
    key_table::{KeyEntry, KeyTable},
    snapshot,
};

/// Most entries that wait to be merged: a merge copies a part of the table.
const MERGE_ENTRIES: usize = 50_000;
/// So many looks may find a head that covers all, and yet the wrong number of secrets, before all is read again.
const MISCOUNTS_MAX: u32 = 3;

/// So many looks in a row may find the bucket behind before that is told: under load the other source is a little ahead.
const LOOKS_BEHIND_MAX: u32 = 5;

/// What is filled, over all connections.
pub(crate) struct Target {
    pub(crate) keys: FeedKeys,
    pub(crate) table: Arc<KeyTable>,
    pub(crate) state: Arc<FeedState>,
    /// This edge has known that version before it started: nothing older is to be used.
    pub(crate) floor: u64,
    pub(crate) place: Place,
}

/// Up to where the bucket was read, to go on from there: its making, its fills, the sequence.
pub(crate) type Place = Mutex<Option<(i64, u64, u64)>>;

/// A head and its sequence in the bucket.
type Head = (pb::FeedHead, u64);

/// Fills on one connection until it fails.
pub(crate) async fn run(jetstream: Context, target: Arc<Target>) -> Result<(), FollowError> {
    let bucket = stream(&jetstream, KEYS_BY_HASH_BUCKET).await?;
    let created_us = i64::try_from(bucket.cached_info().created.unix_timestamp_nanos() / 1_000).unwrap_or(0);
    let head =
        read_head(&bucket, &target.keys).await?.filter(|(head, _)| head.bucket_created_us == created_us);
    let known = *target.place.lock().unwrap_or_else(PoisonError::into_inner);
    let last = bucket.cached_info().state.last_sequence;
    let goes_on = known.filter(|(created, fills, sequence)| {
        *created == created_us && *sequence <= last && head.is_some_and(|(head, _)| head.fills == *fills)
    });
    let after = goes_on.map_or(0, |(.., sequence)| sequence);
    let mut filling = Filling {
        target: &target,
        fresh: (!target.state.is_complete()).then(KeyTable::default),
        created_us,
        reached: head.map_or(0, |(head, _)| head.feed_version),
        head,
        oldest_part: None,
        newest: 0,
        waiting: Some(Vec::new()),
        miscounts: 0,
        looks_behind: 0,
    };
    let after = match (goes_on, head) {
        (None, Some((head, _))) => {
            let merge = |entries| filling.take(entries);
            let oldest_part = snapshot::read(&jetstream, &target.keys, &head, merge).await?;
            filling.oldest_part = oldest_part;
            oldest_part.unwrap_or(0)
        }
        _ => after,
    };
    follow(&jetstream, KEYS_BY_HASH_BUCKET, ">", after, |update| match update {
        Update::Entry(key, value, sequence) => {
            filling.heard(key, &value, sequence);
            Ok(())
        }
        Update::Current(at, sequence) => filling.current(at, sequence),
    })
    .await
}

async fn read_head(bucket: &Stream, keys: &FeedKeys) -> Result<Option<Head>, FollowError> {
    let subject = format!("$KV.{KEYS_BY_HASH_BUCKET}.{FEED_HEAD_KEY}");
    let value = match bucket.get_last_raw_message_by_subject(&subject).await {
        Ok(value) => value,
        Err(error) => {
            use async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound;
            return match error.kind() {
                NoMessageFound => Ok(None),
                _ => Err(unavailable(KEYS_BY_HASH_BUCKET, &error)),
            };
        }
    };
    Ok(keys.open(FEED_HEAD_PURPOSE, &value.payload).map(|head| (head, value.sequence)))
}

/// The filling from one bucket on one connection.
struct Filling<'a> {
    target: &'a Target,
    /// Until a source has been read as a whole, the bucket is read apart from what is served: another source may fill
    /// that meanwhile, and the head counts what the bucket has.
    fresh: Option<KeyTable>,
    created_us: i64,
    head: Option<Head>,
    /// The highest version that this bucket was seen to have.
    reached: u64,
    /// Up to where the oldest part goes that was used.
    oldest_part: Option<u64>,
    newest: u64,
    /// Collected until all of the bucket is in; `None` from then on.
    waiting: Option<Vec<(SecretHash, KeyEntry)>>,
    miscounts: u32,
    /// How many looks in a row found it older than what is known.
    looks_behind: u32,
}

impl Filling<'_> {
    fn heard(&mut self, key: &str, value: &Bytes, sequence: u64) {
        if key == FEED_HEAD_KEY {
            let head: Option<pb::FeedHead> = self.target.keys.open(FEED_HEAD_PURPOSE, value);
            self.reached = self.reached.max(head.map_or(0, |head| head.feed_version));
            self.head = head.map(|head| (head, sequence));
            return;
        }
        let Some((hash, entry)) = read(&self.target.keys, key, value) else { return };
        self.newest = self.newest.max(entry.feed_version);
        self.reached = self.reached.max(entry.feed_version);
        match &mut self.waiting {
            Some(waiting) => {
                waiting.push((hash, entry));
                if waiting.len() >= MERGE_ENTRIES {
                    let waiting = std::mem::take(waiting);
                    self.take(waiting);
                }
            }
            None => {
                self.take(vec![(hash, entry)]);
                self.target.state.has_applied(self.newest);
            }
        }
    }

    /// All of the bucket is in, up to a sequence.
    fn current(&mut self, at: Instant, sequence: u64) -> Result<(), FollowError> {
        let Target { state, table, place, .. } = self.target;
        if let Some(waiting) = self.waiting.take() {
            self.take(waiting);
        }
        let is_usable = (self.fresh.is_none() || self.is_covered(sequence)?) && !self.is_behind();
        if !is_usable {
            if self.fresh.is_some() {
                self.waiting = Some(Vec::new());
            }
            return Ok(());
        }
        if let Some(fresh) = self.fresh.take() {
            table.absorb(&fresh);
            self.newest = self.reached;
            tracing::info!(feed.version = self.newest, secrets = table.len(), "the keys are complete");
        }
        if let Some((head, _)) = &self.head {
            let read = Some((self.created_us, head.fills, sequence));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = read;
        }
        state.is_current_at(at, Source::Nats);
        state.has_applied(self.newest);
        Ok(())
    }

    /// Whether this edge knows of something newer: the bucket was set back, or is not yet as far as the keys service.
    fn is_behind(&mut self) -> bool {
        let known = self.target.state.version().max(self.target.floor);
        if self.reached >= known {
            self.looks_behind = 0;
            return false;
        }
        self.looks_behind += 1;
        if self.looks_behind == LOOKS_BEHIND_MAX {
            tracing::warn!(
                feed.version = self.reached,
                known.version = known,
                "the key feed in NATS is older than what this edge has seen: waiting until keys has put that right; if \
                 both NATS and Postgres were set back, remove the folder `feed` in the spool and restart the edge"
            );
        }
        true
    }

    /// Puts entries into the table. One that was complete up to its version has had everything up to there: a secret
    /// that it does not know, from before, is one that has left the feed, and was replayed.
    fn take(&self, mut entries: Vec<(SecretHash, KeyEntry)>) {
        let Target { state, table, .. } = self.target;
        if let Some(fresh) = &self.fresh {
            return fresh.merge(entries);
        }
        let complete = state.version();
        entries.retain(|(hash, entry)| entry.feed_version > complete || table.get(hash).is_some());
        table.merge(entries);
    }

    /// Whether the head was written right after all that was read, and the table has every secret that it counts.
    fn is_covered(&mut self, sequence: u64) -> Result<bool, FollowError> {
        let Some((head, at)) = &self.head else { return Ok(false) };
        let is_last = *at == sequence && head.bucket_sequence + 1 == *at;
        if !is_last || head.bucket_created_us != self.created_us {
            return Ok(false);
        }
        let is_allowed = self.oldest_part.is_none_or(|oldest| oldest >= head.snapshot_floor);
        let secrets = self.fresh.as_ref().map_or(0, KeyTable::len);
        if is_allowed && secrets as u64 == head.secrets {
            return Ok(true);
        }
        self.miscounts += 1;
        if !is_allowed || self.miscounts >= MISCOUNTS_MAX {
            return Err(FollowError::Doubtful(KEYS_BY_HASH_BUCKET.into()));
        }
        Ok(false)
    }
}

/// A value of the bucket; `None` if it is not one of an entry that keys signed for its place.
pub(crate) fn read(keys: &FeedKeys, key: &str, value: &Bytes) -> Option<(SecretHash, KeyEntry)> {
    let Some(hash) = SecretHash::from_hex(key) else {
        tracing::warn!("the key feed has a value whose name is no hash");
        return None;
    };
    let Some(entry) = keys.open::<pb::KeyFeedEntry>(&feed_entry_purpose(key), value) else {
        tracing::warn!(
            "the key feed has a value that keys did not sign for its place; the key stays as it was"
        );
        return None;
    };
    match KeyEntry::try_from(&entry) {
        Ok(entry) => Some((hash, entry)),
        Err(field) => {
            tracing::warn!(field, "the key feed has an entry that cannot be read; the key stays as it was");
            None
        }
    }
}
