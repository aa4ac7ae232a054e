//! Keeps ingest told of what was decided about workspaces, by a bucket for each kind: of what is new each second, of
//! everything whenever the connection is new, since a NATS that was away may have forgotten.

use std::time::Duration;

use async_nats::jetstream::kv;
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{erasure, nats::Streams, retention, store::Store};

/// Between two looks at what is new.
const EVERY: Duration = Duration::from_secs(1);

/// Tells until `shutdown`.
pub async fn relay(
    store: Store,
    streams: Streams,
    mut connected: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let relaying = async {
        let (mut all, mut said) = (true, false);
        loop {
            match tell(&store, &streams, all).await {
                Ok(()) => (all, said) = (false, false),
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "erasures and retentions wait to be told to the others");
                    }
                }
            }
            tokio::select! {
                _ = connected.changed() => all = true,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = relaying => {}
    }
}

/// Writes a value unless what is there will do. Of two keys services that write at once the later one has to look again, so
/// that it does not replace what is newer.
pub(crate) async fn put(
    bucket: &kv::Store,
    key: &str,
    value: Vec<u8>,
    will_do: impl FnOnce(&Bytes) -> bool,
) -> anyhow::Result<()> {
    let (there, revision) = nats_cluster::value(bucket, key).await?;
    if !there.is_some_and(|there| will_do(&there.payload)) {
        bucket.update(key, value.into(), revision).await?;
    }
    Ok(())
}

async fn tell(store: &Store, streams: &Streams, all: bool) -> anyhow::Result<()> {
    erasure::tell(store, streams, all).await?;
    retention::tell(store, streams, all).await
}
