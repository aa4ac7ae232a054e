//! The relay: from the outbox in Postgres to the bucket that every edge follows. One keys service at a time
//! is the relay. A bucket that forgot, in part or whole, is filled again from Postgres.

use std::time::Duration;

use async_nats::jetstream;
use boot::Need;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    store::{
        Store, StoreError,
        outbox::{Entry, OutboxListener, Relay},
    },
};

mod bucket;

use bucket::{Bucket, BucketError};

/// How many entries are read, written and noted together.
const CHUNK: usize = 256;
/// Between two looks where nothing wakes the relay.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Pauses after a failed round, doubling.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why a round was not done.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Relays until `shutdown`. `connected` changes with NATS's connection; `nats` is up while rounds succeed.
pub async fn run(
    store: Store,
    context: jetstream::Context,
    mut connected: watch::Receiver<bool>,
    nats: Need,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let relaying = async {
        let mut retry = RETRY_MIN;
        let mut said = String::new();
        loop {
            let Err(error) = relay(&store, &context, &mut connected, &nats, &metrics, &mut || {
                if !said.is_empty() {
                    tracing::info!("the key feed goes on");
                    said.clear();
                }
                retry = RETRY_MIN;
            })
            .await;
            if matches!(error, FeedError::Bucket(BucketError::Moved)) {
                tracing::warn!("the key feed's bucket changed under its writer: looking again");
            } else {
                let reason = error.to_string();
                if matches!(error, FeedError::Bucket(_)) {
                    nats.down(reason.clone());
                }
                if reason != said {
                    tracing::warn!(reason, "the key feed waits");
                    said = reason;
                }
            }
            tokio::time::sleep(retry).await;
            retry = RETRY_MAX.min(retry * 2);
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = relaying => {}
    }
}

/// Round after round, until one fails.
async fn relay(
    store: &Store,
    context: &jetstream::Context,
    connected: &mut watch::Receiver<bool>,
    nats: &Need,
    metrics: &Metrics,
    good: &mut impl FnMut(),
) -> Result<std::convert::Infallible, FeedError> {
    let mut listener = store.listen_to_outbox().await?;
    let mut relay = None;
    loop {
        if relay.is_none() {
            relay = store.relay().await?;
        }
        connected.borrow_and_update();
        let bucket = Bucket::open(context).await?;
        if let Some(relay) = &mut relay {
            round(relay, bucket, metrics).await?;
        }
        nats.up();
        good();
        wait(&mut listener, connected).await?;
    }
}

/// Everything that waits now.
async fn round(relay: &mut Relay, mut bucket: Bucket, metrics: &Metrics) -> Result<(), FeedError> {
    let was = relay.position().await?;
    let is = bucket.position();
    let intact = was.is_some_and(|was| was.created == is.created && was.sequence <= is.sequence);
    if !intact {
        fill_again(relay, &mut bucket).await?;
        if was.is_some() {
            tracing::warn!("the key feed's bucket had forgotten: filled it again from Postgres");
            metrics.refilled();
        }
        relay.relayed(0, bucket.position()).await?;
    }
    loop {
        relay.number(CHUNK).await?;
        let entries = relay.numbered(CHUNK).await?;
        let Some(last) = entries.last().map(|entry| entry.feed_version) else { return Ok(()) };
        bucket.write(&entries).await?;
        relay.relayed(last, bucket.position()).await?;
        metrics.relayed(entries.len(), last);
    }
}

/// What was ever relayed and the bucket lacks.
async fn fill_again(relay: &mut Relay, bucket: &mut Bucket) -> Result<(), FeedError> {
    let mut after = 0;
    loop {
        let entries: Vec<Entry> = relay.written(after, CHUNK).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.feed_version;
        bucket.write(&entries).await?;
    }
}

/// Until there is something to look at.
async fn wait(listener: &mut OutboxListener, connected: &mut watch::Receiver<bool>) -> Result<(), FeedError> {
    let woken = async {
        tokio::select! {
            changed = listener.changed() => changed,
            _ = connected.changed() => Ok(()),
        }
    };
    timeout(POLL_EVERY, woken).await.unwrap_or(Ok(())).map_err(Into::into)
}
