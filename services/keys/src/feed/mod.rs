//! The relay: from the outbox in Postgres to the bucket that every edge follows, signed. One keys service at a
//! time is the relay. A bucket that forgot, in part or whole, or that others wrote to, is mended from Postgres.

use std::time::Duration;

use boot::Need;
use time::OffsetDateTime;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    fields,
    lifecycle::Keys,
    metrics::Metrics,
    nats::Streams,
    signing::Signing,
    store::{
        Store, StoreError,
        outbox::{OutboxListener, Relay},
    },
};

mod announce;
mod bucket;
mod mend;
mod message;
mod removal;
mod snapshot;
pub mod watches;
mod writer;

use bucket::{Bucket, BucketError};
use removal::Removal;
use writer::Writer;

pub use removal::TOMBSTONES_LIVE;

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
    #[error(transparent)]
    Keys(#[from] Error),
}

/// What the relay works with.
pub struct Parts<'a> {
    /// Has the outbox.
    pub store: &'a Store,
    /// Deletes keys that the feed knows to be deleted.
    pub keys: &'a Keys,
    /// Signs what is written.
    pub signing: &'a Signing,
    /// NATS.
    pub streams: Streams,
    /// Up while rounds succeed.
    pub nats: Need,
    /// Counts.
    pub metrics: Metrics,
}

/// Relays until `shutdown`. `connected` changes with NATS's connection.
pub async fn run(parts: Parts<'_>, mut connected: watch::Receiver<bool>, shutdown: CancellationToken) {
    let nats = parts.nats.clone();
    let relaying = async {
        let mut retry = RETRY_MIN;
        let mut said = String::new();
        loop {
            let Err(error) = relay(&parts, &mut connected, &mut || {
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
    parts: &Parts<'_>,
    connected: &mut watch::Receiver<bool>,
    good: &mut impl FnMut(),
) -> Result<std::convert::Infallible, FeedError> {
    let mut listener = parts.store.listen_to_outbox().await?;
    let (is_relay, became_relay) = watch::channel(false);
    // An error means that the rounds have ended, and with them all of this.
    let became = async |mut relay: watch::Receiver<bool>| drop(relay.wait_for(|is_relay| *is_relay).await);
    let rounds = async {
        let mut relay = None;
        let mut removal = Removal::default();
        loop {
            if relay.is_none() {
                relay = parts.store.relay().await?;
            }
            connected.borrow_and_update();
            let bucket = Bucket::open(&parts.streams).await?;
            if let Some(relay) = &mut relay {
                round(parts, relay, bucket, &mut removal).await?;
                is_relay.send_replace(true);
            }
            parts.nats.up();
            good();
            wait(&mut listener, connected).await?;
        }
    };
    let snapshots = async {
        became(became_relay.clone()).await;
        snapshot::run(parts.store, &parts.streams, parts.signing).await
    };
    let announcements = Box::pin(async {
        became(became_relay.clone()).await;
        announce::run(parts.store, &parts.streams).await
    });
    tokio::select! {
        ended = rounds => ended,
        never = snapshots => match never {},
        never = announcements => match never {},
    }
}

/// Does `look` again and again; says once why it can not, as `waits` puts it.
async fn again(
    every: Duration,
    waits: &str,
    mut look: impl AsyncFnMut() -> Result<(), FeedError>,
) -> std::convert::Infallible {
    let mut said = String::new();
    loop {
        match look().await {
            Ok(()) => said.clear(),
            Err(error) => {
                let reason = error.to_string();
                if reason != said {
                    tracing::warn!(reason, "{waits}");
                    said = reason;
                }
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Everything that waits now.
async fn round(
    parts: &Parts<'_>,
    relay: &mut Relay,
    bucket: Bucket,
    removal: &mut Removal,
) -> Result<(), FeedError> {
    let state = relay.state().await?;
    let (signing, metrics) = (parts.signing, &parts.metrics);
    let (is_doubtful, deleted) = (false, Vec::new());
    let mut writer = Writer { relay, bucket, state, signing, metrics, is_doubtful, deleted };
    let mended = writer.mend().await?;
    writer.drain().await?;
    if mended {
        writer.write_head().await?;
    }
    for (workspace_id, key_id) in std::mem::take(&mut writer.deleted) {
        let now = fields::to_micros(OffsetDateTime::now_utc());
        parts.keys.delete_again(workspace_id, key_id, now).await?;
    }
    writer.remove(removal).await
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
