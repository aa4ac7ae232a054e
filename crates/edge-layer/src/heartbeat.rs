//! Says each second that this edge lives, with which keys, and up to when its calls are published.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, kv::Store};
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    feed::FeedState,
    spool::{Clearance, Spool, record::StreamId},
};

const BEAT: Duration = Duration::from_secs(1);
/// How often the statement is brought forward; under load a beat is older than one of these by no more.
const STEP: Duration = Duration::from_millis(250);

/// Writes heartbeats until it fails.
pub(crate) async fn run(
    jetstream: jetstream::Context,
    spool: Arc<Spool>,
    feed: Arc<FeedState>,
) -> Result<(), async_nats::Error> {
    let bucket = jetstream.get_key_value(nats::EDGES_BUCKET).await?;
    let before = before(&bucket, &spool).await?;
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_beat: Option<tokio::time::Instant> = None;
    loop {
        let now = steps.tick().await;
        // What an earlier start said is true for ever; without any there is nothing to say yet.
        let Some(clearance) = spool.clearance().or_else(|| before.clone()) else { continue };
        if last_beat.is_none_or(|last| now - last >= BEAT) {
            last_beat = Some(now);
            beat(&bucket, &spool, &feed, &clearance).await?;
        }
    }
}

/// Leaves the list of edges: nothing of this one is outstanding.
pub(crate) async fn leave(jetstream: &jetstream::Context, spool: &Spool) -> Result<(), async_nats::Error> {
    let bucket = jetstream.get_key_value(nats::EDGES_BUCKET).await?;
    Ok(bucket.purge(spool.edge_id().to_string()).await?)
}

async fn beat(
    bucket: &Store,
    spool: &Spool,
    feed: &FeedState,
    clearance: &Clearance,
) -> Result<(), async_nats::Error> {
    let position = |&(stream, published_seq): &(StreamId, u64)| pb::PublishedPosition {
        boot_epoch: stream.boot_epoch,
        shard: stream.shard.into(),
        published_seq,
    };
    let heartbeat = pb::EdgeHeartbeat {
        edge_id: spool.edge_id().to_string(),
        boot_epoch: spool.boot_epoch(),
        feed_version: *feed.told().borrow(),
        sent_at: Some(timestamp::to_proto(OffsetDateTime::now_utc())),
        clear_until: Some(timestamp::to_proto(clearance.until)),
        positions: clearance.positions.iter().map(position).collect(),
        feed_lost_after_ms: u32::try_from(feed.lost_after().as_millis()).unwrap_or(u32::MAX),
        serves_stale: feed.serves_stale(),
    };
    bucket.put(&heartbeat.edge_id, heartbeat.encode_to_vec().into()).await?;
    Ok(())
}

/// What this edge said last, before this start.
async fn before(bucket: &Store, spool: &Spool) -> Result<Option<Clearance>, async_nats::Error> {
    let Some(value) = bucket.get(spool.edge_id().to_string()).await? else { return Ok(None) };
    let Ok(heartbeat) = pb::EdgeHeartbeat::decode(value) else { return Ok(None) };
    let Some(until) = heartbeat.clear_until.as_ref().and_then(timestamp::from_proto) else { return Ok(None) };
    let position = |position: &pb::PublishedPosition| {
        let shard = u16::try_from(position.shard).ok()?;
        Some((StreamId { boot_epoch: position.boot_epoch, shard }, position.published_seq))
    };
    Ok(Some(Clearance { until, positions: heartbeat.positions.iter().filter_map(position).collect() }))
}
