//! The snapshot: all entries in large signed parts, so that a starting edge need not read each alone. Written in
//! the background by the relay's process, never waited for.

use std::time::Duration;

use async_nats::jetstream::{self, kv};
use proto::nats::{KEYS_SNAPSHOT_BUCKET, SNAPSHOT_PARTS};

use super::{
    FeedError, again,
    bucket::{BucketError, failed},
    message::signed_part,
};
use crate::{
    nats::Streams,
    signing::Signing,
    store::{Store, outbox::FeedState},
};

/// Between two looks whether a new one is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A tail that is no longer than this is read entry by entry.
const TAIL_MIN: i64 = 20_000;
/// Above it a new snapshot is due when the tail is longer than this part of all secrets.
const TAIL_SHARE: i64 = 4;
/// The bits of a hash that name its part.
const PART_BITS: u8 = 10;
const _: () = assert!(1 << PART_BITS == SNAPSHOT_PARTS, "parts are named by whole bits");

/// Writes snapshots when they are due, for ever.
pub(super) async fn run(store: &Store, streams: &Streams, signing: &Signing) -> std::convert::Infallible {
    // The bucket's last sequence after our own pass: whatever else is there is not ours.
    let mut ours = None;
    let waits = "the snapshot of the key feed waits: edges take longer to start";
    again(LOOK_EVERY, waits, async || look(store, streams, signing, &mut ours).await).await
}

async fn look(
    store: &Store,
    streams: &Streams,
    signing: &Signing,
    ours: &mut Option<u64>,
) -> Result<(), FeedError> {
    let state = store.feed_state().await?;
    let is_foreign = state.snapshot_sequence.is_some() && *ours != Some(sequence(&streams.context).await?);
    if !is_due(&state) && !is_foreign {
        return Ok(());
    }
    let bucket = open(streams).await?;
    if let Some((created, up_to)) = pass(store, &bucket, signing, &state).await? {
        store.snapshot_written(created, up_to).await?;
        tracing::info!(secrets = state.secrets, bucket.sequence = up_to, "snapshot of the key feed written");
    }
    *ours = Some(sequence(&streams.context).await?);
    Ok(())
}

fn is_due(state: &FeedState) -> bool {
    let Some(position) = state.position.filter(|_| !state.filling) else { return false };
    let tail = position.sequence - state.snapshot_sequence.unwrap_or(0);
    tail > TAIL_MIN.max(state.secrets / TAIL_SHARE)
        || (state.removals > 0 && state.snapshot_sequence.is_some())
}

/// Writes all parts. Says of which bucket and up to where; `None` if the bucket changed under it.
async fn pass(
    store: &Store,
    bucket: &kv::Store,
    signing: &Signing,
    first: &FeedState,
) -> Result<Option<(time::OffsetDateTime, i64)>, FeedError> {
    let Some(began) = first.position else { return Ok(None) };
    for part in 0..SNAPSHOT_PARTS {
        // Before the entries: they may be newer than what the part says, never older.
        let state = store.feed_state().await?;
        let same = state.position.is_some_and(|position| position.created == began.created);
        if !same || state.filling || state.fills != first.fills {
            return Ok(None);
        }
        let entries = store.fed_entries(part, PART_BITS).await?;
        let key = part.to_string();
        let value = signed_part(&key, &state, &entries, signing);
        bucket.put(key, value.into()).await.map_err(failed("write the snapshot"))?;
    }
    Ok(Some((began.created, began.sequence)))
}

async fn open(streams: &Streams) -> Result<kv::Store, BucketError> {
    let what = "all of keys_by_hash in some parts, for edges that start";
    streams.bucket(KEYS_SNAPSHOT_BUCKET, what).await.map_err(failed("make the snapshot's bucket"))
}

/// How far the snapshot's bucket is written; 0 if there is none.
async fn sequence(context: &jetstream::Context) -> Result<u64, BucketError> {
    let store = context.get_key_value(KEYS_SNAPSHOT_BUCKET).await;
    Ok(store.map_or(0, |store| store.stream.cached_info().state.last_sequence))
}
