//! Keeps ingest told of what was decided about workspaces, by a bucket for each kind: of what is new each second, of
//! everything whenever the connection is new, since a NATS that was away may have forgotten.

use std::time::Duration;

use async_nats::jetstream::{self, kv};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{erasure, retention, store::Store};

/// Between two looks at what is new.
const EVERY: Duration = Duration::from_secs(1);

/// Tells until `shutdown`.
pub async fn relay(
    store: Store,
    context: jetstream::Context,
    mut connected: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let relaying = async {
        let (mut all, mut said) = (true, false);
        loop {
            match tell(&store, &context, all).await {
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

/// A bucket of one value for each workspace, made where there is none.
pub(crate) async fn bucket(context: &jetstream::Context, name: &str) -> anyhow::Result<kv::Store> {
    if let Ok(bucket) = context.get_key_value(name).await {
        return Ok(bucket);
    }
    let config = kv::Config { bucket: name.to_owned(), history: 1, ..kv::Config::default() };
    Ok(context.create_key_value(config).await?)
}

async fn tell(store: &Store, context: &jetstream::Context, all: bool) -> anyhow::Result<()> {
    erasure::tell(store, context, all).await?;
    retention::tell(store, context, all).await
}
