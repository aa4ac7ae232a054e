//! Reads the snapshot: all keys in large signed parts. A part that is missing or cannot be used costs time, not
//! keys, since the bucket is then read from its start.

use async_nats::jetstream::{Context, kv::Store};
use domain::SecretHash;
use futures_util::{StreamExt as _, stream};
use proto::{
    events as pb,
    nats::{KEYS_SNAPSHOT_BUCKET, SNAPSHOT_PARTS, feed_snapshot_purpose, snapshot_part_of},
};

use crate::{
    bucket::{FollowError, unavailable},
    feed_keys::FeedKeys,
    key_table::KeyEntry,
};

/// How many parts are asked for at once; each has some 100 kB for a million keys.
const READS_AT_ONCE: usize = 16;

/// Hands the entries of every part to `merge`. Says up to which sequence of the bucket all parts go; `None` if not
/// all of them can be used.
///
/// # Errors
/// If NATS does not answer.
pub(crate) async fn read(
    jetstream: &Context,
    keys: &FeedKeys,
    head: &pb::FeedHead,
    mut merge: impl FnMut(Vec<(SecretHash, KeyEntry)>),
) -> Result<Option<u64>, FollowError> {
    let Ok(bucket) = jetstream.get_key_value(KEYS_SNAPSHOT_BUCKET).await else { return Ok(None) };
    let mut parts = stream::iter(0..SNAPSHOT_PARTS)
        .map(|part| read_part(&bucket, keys, head, part))
        .buffer_unordered(READS_AT_ONCE);
    let mut oldest = u64::MAX;
    while let Some(part) = parts.next().await {
        let Some((up_to, entries)) = part? else { return Ok(None) };
        oldest = oldest.min(up_to);
        merge(entries);
    }
    Ok(Some(oldest))
}

/// Up to which sequence a part goes, and its entries.
pub(crate) type Part = (u64, Vec<(SecretHash, KeyEntry)>);

async fn read_part(
    bucket: &Store,
    keys: &FeedKeys,
    head: &pb::FeedHead,
    part: u16,
) -> Result<Option<Part>, FollowError> {
    let name = part.to_string();
    let value = bucket.get(&name).await.map_err(|error| unavailable(KEYS_SNAPSHOT_BUCKET, &error))?;
    Ok(value.and_then(|value| self::part(keys, head, part, &value)))
}

/// What a part holds, and up to which sequence; `None` if it can not be used beside `head`.
pub(crate) fn part(keys: &FeedKeys, head: &pb::FeedHead, part: u16, value: &[u8]) -> Option<Part> {
    let snapshot: pb::FeedSnapshot = keys.open(&feed_snapshot_purpose(&part.to_string()), value)?;
    let is_usable = snapshot.bucket_created_us == head.bucket_created_us
        && snapshot.fills == head.fills
        && snapshot.bucket_sequence >= head.snapshot_floor;
    if !is_usable {
        return None;
    }
    let entries = snapshot.entries.iter().map(|hashed| {
        let hash = SecretHash::from_slice(&hashed.secret_hash)?;
        let entry = KeyEntry::try_from(hashed.entry.as_ref()?).ok()?;
        (snapshot_part_of(&hash) == part).then_some((hash, entry))
    });
    // One that cannot be read spoils its part: without it the key would be unknown.
    let entries = entries.collect::<Option<Vec<_>>>()?;
    Some((snapshot.bucket_sequence, entries))
}
